//! Goal: every partition that somebody reads has exactly one reader of its topic, evenly, and sticky moves the minimum.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(n))
}

fn topic(n: u128) -> TopicId {
    TopicId(Uuid::from_u128(1_000 + n))
}

fn at(of: u128, partition: u32) -> TopicIdPartition {
    TopicIdPartition { topic: topic(of), partition: PartitionIndex(partition) }
}

type Members = Vec<(MemberId, BTreeSet<TopicId>)>;
type Targets = BTreeMap<TopicIdPartition, MemberId>;

fn readers(count: u128, topics: &[u128]) -> Members {
    (1..=count).map(|n| (member(n), topics.iter().map(|t| topic(*t)).collect())).collect()
}

fn run(assignor: Assignor, members: &Members, topics: &[(u128, u32)], holders: &Targets) -> Targets {
    let topics = topics.iter().map(|(t, n)| (topic(*t), *n)).collect();
    assignor.assign(&Input { members, topics: &topics, holders })
}

fn of(targets: &Targets, n: u128) -> Vec<(u128, u32)> {
    let mine = targets.iter().filter(|(_, m)| **m == member(n));
    mine.map(|(at, _)| (at.topic.0.as_u128() - 1_000, at.partition.0)).collect()
}

#[test]
fn range_keeps_equal_numbers_of_topics_together() {
    let targets = run(Assignor::Range, &readers(2, &[1, 2]), &[(1, 5), (2, 5)], &Targets::new());
    assert_eq!(of(&targets, 1), [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    assert_eq!(of(&targets, 2), [(1, 3), (1, 4), (2, 3), (2, 4)]);
}

#[test]
fn round_robin_goes_around_the_readers() {
    let mut members = readers(2, &[1, 2]);
    members.push((member(3), BTreeSet::from([topic(2)])));
    let targets = run(Assignor::RoundRobin, &members, &[(1, 3), (2, 3)], &Targets::new());
    assert_eq!(of(&targets, 1), [(1, 0), (1, 2), (2, 2)]);
    assert_eq!(of(&targets, 2), [(1, 1), (2, 0)]);
    assert_eq!(of(&targets, 3), [(2, 1)]);
}

#[test]
fn sticky_spreads_every_topic_when_a_second_member_comes() {
    let alone = run(Assignor::Sticky, &readers(1, &[1, 2]), &[(1, 2), (2, 2)], &Targets::new());
    assert_eq!(alone.len(), 4);
    let both = run(Assignor::Sticky, &readers(2, &[1, 2]), &[(1, 2), (2, 2)], &alone);
    assert_eq!(of(&both, 1), [(1, 0), (2, 0)]);
    assert_eq!(of(&both, 2), [(1, 1), (2, 1)]);
}

#[test]
fn sticky_leaves_a_topic_with_its_only_reader_and_evens_the_rest() {
    let members =
        vec![(member(1), BTreeSet::from([topic(1), topic(2)])), (member(2), BTreeSet::from([topic(2)]))];
    let held = run(Assignor::Sticky, &members[..1].to_vec(), &[(1, 4), (2, 4)], &Targets::new());
    let targets = run(Assignor::Sticky, &members, &[(1, 4), (2, 4)], &held);
    assert_eq!(of(&targets, 1), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(of(&targets, 2).len(), 4);
}

#[test]
fn one_of_fifty_members_that_leaves_moves_only_what_it_had() {
    let fifty = readers(50, &[1]);
    let before = run(Assignor::Sticky, &fifty, &[(1, 500)], &Targets::new());
    let rest: Members = fifty.into_iter().filter(|(id, _)| *id != member(7)).collect();
    let after = run(Assignor::Sticky, &rest, &[(1, 500)], &before);
    let moved = before.iter().filter(|(at, id)| after.get(at) != Some(id)).count();
    assert_eq!((moved, after.len()), (10, 500));
}

#[test]
fn unknown_assignors_have_a_named_error() {
    for known in [Assignor::Sticky, Assignor::Range, Assignor::RoundRobin] {
        assert_eq!(known.name().parse::<Assignor>(), Ok(known));
    }
    for text in ["", "stickyy", "RANGE", &"x".repeat(100_000)] {
        let error = text.parse::<Assignor>().unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownAssignor);
        assert!(error.to_string().len() < 1_000);
    }
}

/// The fewest partitions that must leave their holder for an even end: the naive formula.
fn fewest_moves(held: &[usize], partitions: usize) -> usize {
    let (each, more) = (partitions / held.len(), partitions % held.len());
    let mut sorted = held.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.iter().enumerate().map(|(n, has)| has.saturating_sub(each + usize::from(n < more))).sum()
}

fn any_holders(members: u128, partitions: u32) -> impl Strategy<Value = Targets> {
    // Some partitions are free, some are with a member that is gone.
    proptest::collection::vec(0..=members + 1, partitions as usize).prop_map(move |holders| {
        let held = (0..).zip(holders).filter(|(_, holder)| *holder > 0);
        held.map(|(n, holder)| (at(1, n), member(holder))).collect()
    })
}

proptest! {
    #[test]
    fn sticky_ends_even_with_the_fewest_moves(
        (members, partitions, holders) in (1..9_u128, 0..40_u32)
            .prop_flat_map(|(m, p)| (Just(m), Just(p), any_holders(m, p)))
    ) {
        let targets = run(Assignor::Sticky, &readers(members, &[1]), &[(1, partitions)], &holders);
        prop_assert_eq!(targets.len(), partitions as usize);
        let count = |of: &Targets, n| of.values().filter(|id| **id == member(n)).count();
        let ends: Vec<usize> = (1..=members).map(|n| count(&targets, n)).collect();
        prop_assert!(ends.iter().max().unwrap() - ends.iter().min().unwrap() <= 1, "{:?}", ends);
        let begins: Vec<usize> = (1..=members).map(|n| count(&holders, n)).collect();
        let stays = |at: &TopicIdPartition, id: &MemberId| targets.get(at) == Some(id);
        let alive = |id: &MemberId| (1..=members).any(|n| member(n) == *id);
        let moved = holders.iter().filter(|(at, id)| alive(id) && !stays(at, id)).count();
        prop_assert_eq!(moved, fewest_moves(&begins, partitions as usize));
    }

    #[test]
    fn every_assignor_gives_each_partition_to_one_reader_of_its_topic(
        reads in proptest::collection::vec(proptest::collection::btree_set(0..4_u128, 0..4), 0..7),
        counts in proptest::collection::vec(0..9_u32, 4),
        assignor in prop::sample::select(vec![Assignor::Sticky, Assignor::Range, Assignor::RoundRobin]),
    ) {
        let members: Members = (1..).zip(&reads)
            .map(|(n, topics)| (member(n), topics.iter().map(|t| topic(*t)).collect())).collect();
        let topics: Vec<(u128, u32)> = (0..).zip(counts).collect();
        let targets = run(assignor, &members, &topics, &Targets::new());
        for (t, count) in topics {
            let has_reader = reads.iter().any(|topics| topics.contains(&t));
            for n in 0..count {
                let target = targets.get(&at(t, n));
                prop_assert_eq!(target.is_some(), has_reader);
                if let Some(target) = target {
                    let (_, topics) = members.iter().find(|(id, _)| id == target).unwrap();
                    prop_assert!(topics.contains(&topic(t)));
                }
            }
        }
    }
}
