//! Whether the members of each consumer group share its partitions as they should: one reader at a time, nothing passed over,
//! committed offsets that never go back.

use std::collections::BTreeMap;

use super::Expectations;
use super::evidence::{Evidence, Place, Source};
use super::findings::{Anomaly, Findings};
use crate::history::{Answer, Assign, Commit, Moment, Op, Outcome, PolledPartition};

/// A member had a partition.
struct Turn {
    from: Option<u64>,
    /// The call that says so.
    call: usize,
}

/// An offset that certainly was committed, by whom it was, or by whom it was told.
#[derive(Clone, Copy)]
struct Reached {
    offset: u64,
    call: usize,
    /// Epoch of the commit's turn; `None` = somebody only asked.
    since: Option<u64>,
}

/// One partition of one group.
#[derive(Default)]
struct Shared {
    /// By epoch and consumer.
    turns: BTreeMap<(u64, u64), Turn>,
    reached: Vec<Reached>,
    /// Offsets that members were given; sorted once all are there.
    given: Vec<u64>,
}

type Key<'h> = (&'h str, Place<'h>);

/// Everything about groups, gathered in the order in which it was answered.
#[derive(Default)]
struct Groups<'h> {
    shared: BTreeMap<Key<'h>, Shared>,
    /// Group of each member.
    of: BTreeMap<u64, &'h str>,
    /// Epoch of the last turn of each member, and whether it is over.
    turns: BTreeMap<(u64, Place<'h>), (u64, bool)>,
}

pub(super) fn check(evidence: &Evidence<'_>, expectations: &Expectations, findings: &mut Findings) {
    let mut groups = Groups::default();
    for index in evidence.by_answer() {
        let call = evidence.call(index);
        match (&call.op, &call.outcome) {
            (Op::Assign(assign), Outcome::Ok(_)) => groups.assign(evidence, (index, assign), findings),
            (Op::Release(release), Outcome::Ok(_)) => {
                let key = (release.consumer, Place { topic: &release.topic, part: release.part });
                if let Some((_, is_over)) = groups.turns.get_mut(&key) {
                    *is_over = true;
                }
            }
            (Op::Poll(poll), Outcome::Ok(Answer::Poll(answer))) => {
                if let Some(group) = groups.of.get(&poll.consumer).copied() {
                    for part in answer.parts.iter().filter(|part| !part.recs.is_empty()) {
                        groups.poll(evidence, (index, group, poll.consumer, part), findings);
                    }
                }
            }
            (Op::Commit(commit), Outcome::Ok(_)) => groups.commit(evidence, (index, commit), findings),
            (Op::Committed(ask), Outcome::Ok(Answer::Committed(answer))) => {
                let key = (&*ask.group, Place { topic: &ask.topic, part: ask.part });
                let offset = answer.off.unwrap_or(0);
                groups.shared.entry(key).or_default().reached.push(Reached {
                    offset,
                    call: index,
                    since: None,
                });
            }
            _ => {}
        }
    }
    for (key, shared) in &mut groups.shared {
        shared.given.sort_unstable();
        shared.never_back(evidence, key, findings);
        shared.nothing_passed_over(evidence, expectations, key, findings);
    }
    groups.drained(evidence, expectations, findings);
}

impl<'h> Groups<'h> {
    fn assign(
        &mut self,
        evidence: &Evidence<'h>,
        (call, assign): (usize, &'h Assign),
        findings: &mut Findings,
    ) {
        let place = Place { topic: &assign.topic, part: assign.part };
        self.of.insert(assign.consumer, &assign.group);
        self.turns.insert((assign.consumer, place), (assign.since, false));
        let shared = self.shared.entry((&assign.group, place)).or_default();
        let (consumer, since) = (assign.consumer, assign.since);
        let same = shared.turns.range((since, 0)..=(since, u64::MAX));
        if let Some((_, other)) = same.into_iter().find(|((_, other), _)| *other != consumer) {
            findings.add(Anomaly::TwoOwners, &place, || {
                format!(
                    "group {:?}: two members have it since epoch {}: {} and {}",
                    assign.group,
                    assign.since,
                    evidence.tell(other.call),
                    evidence.tell(call)
                )
            });
        }
        shared.turns.insert((since, consumer), Turn { from: assign.from, call });
    }

    fn poll(
        &mut self,
        evidence: &Evidence<'h>,
        (call, group, consumer, part): (usize, &'h str, u64, &'h PolledPartition),
        findings: &mut Findings,
    ) {
        let place = Place { topic: &part.topic, part: part.part };
        let turn = self.turns.get(&(consumer, place)).copied();
        let shared = self.shared.entry((group, place)).or_default();
        shared.given.extend(part.recs.iter().map(|(offset, _)| *offset));
        let since = turn.filter(|(_, is_over)| !is_over).map(|(since, _)| since);
        if since.is_none() {
            findings.add(Anomaly::TwoOwners, &place, || {
                format!("group {group:?}: read by a member that does not have it: {}", evidence.tell(call))
            });
        }
        if let Some(since) = since
            && let Some(other) = shared.successor(evidence, consumer, since, evidence.call(call).invoked)
        {
            findings.add(Anomaly::TwoOwners, &place, || {
                format!(
                    "group {group:?}: {} brought records after another member had it: {}",
                    evidence.tell(call),
                    evidence.tell(other.call)
                )
            });
        }
    }

    fn commit(
        &mut self,
        evidence: &Evidence<'h>,
        (call, commit): (usize, &'h Commit),
        findings: &mut Findings,
    ) {
        for part in &commit.parts {
            let place = Place { topic: &part.topic, part: part.part };
            let since = self.turns.get(&(commit.consumer, place)).map(|(since, _)| *since);
            let shared = self.shared.entry((&commit.group, place)).or_default();
            shared.reached.push(Reached { offset: part.off, call, since: Some(since.unwrap_or(0)) });
            let invoked = evidence.call(call).invoked;
            let other = shared.successor(evidence, commit.consumer, since.unwrap_or(0), invoked);
            if let Some(other) = other {
                findings.add(Anomaly::StaleCommit, &place, || {
                    format!(
                        "group {:?}: offset {} was committed by {} after another member had it: {}",
                        commit.group,
                        part.off,
                        evidence.tell(call),
                        evidence.tell(other.call)
                    )
                });
            }
        }
    }

    /// What was acknowledged before a group was drained was given to one of its members.
    fn drained(&self, evidence: &Evidence<'h>, expectations: &Expectations, findings: &mut Findings) {
        for call in &evidence.history.calls {
            let (Op::Drain(drain), Outcome::Ok(_)) = (&call.op, &call.outcome) else { continue };
            for (place, partition) in &evidence.partitions {
                if !drain.topics.iter().any(|topic| **topic == *place.topic) {
                    continue;
                }
                let given = self.shared.get(&(&*drain.group, *place)).map(|shared| &shared.given);
                let start = if expectations.retention { partition.log_start } else { 0 };
                let acked = partition.sightings.iter().filter(|seen| seen.source == Source::Ack);
                let acked = acked.filter(|seen| seen.offset >= start);
                let missed = acked.filter(|seen| {
                    let is_before =
                        evidence.call(seen.call).completed.is_some_and(|at| at.before(call.invoked));
                    is_before && given.is_none_or(|given| given.binary_search(&seen.offset).is_err())
                });
                for seen in missed {
                    findings.add(Anomaly::Unprocessed, place, || {
                        format!(
                            "group {:?}: offset {} was given to no member, {}",
                            drain.group,
                            seen.offset,
                            evidence.tell_sighting(seen)
                        )
                    });
                }
            }
        }
    }
}

impl Shared {
    /// A later turn of another member that had begun before `at`.
    fn successor(&self, evidence: &Evidence<'_>, consumer: u64, since: u64, at: Moment) -> Option<&Turn> {
        let later = self.turns.range((since.saturating_add(1), 0)..);
        let mut later = later.filter(|((_, other), _)| *other != consumer).map(|(_, turn)| turn);
        later.find(|turn| evidence.call(turn.call).completed.is_some_and(|begun| begun.before(at)))
    }

    /// A turn begins at or behind what earlier turns committed, and no answer is less than one that came before its question.
    fn never_back(&self, evidence: &Evidence<'_>, (group, place): &Key<'_>, findings: &mut Findings) {
        let mut tell = |offset: u64, call: usize, before: &Reached| {
            findings.add(Anomaly::CommitRegress, place, || {
                format!(
                    "group {group:?}: it is at offset {offset} for {} and was at {} for {}",
                    evidence.tell(call),
                    before.offset,
                    evidence.tell(before.call)
                )
            });
        };
        let mut earlier: Vec<&Reached> =
            self.reached.iter().filter(|reached| reached.since.is_some()).collect();
        earlier.sort_by_key(|reached| reached.since);
        let mut earlier = earlier.into_iter().peekable();
        let mut highest: Option<&Reached> = None;
        for ((since, _), turn) in &self.turns {
            while let Some(before) = earlier.next_if(|reached| reached.since < Some(*since)) {
                if highest.is_none_or(|highest| highest.offset <= before.offset) {
                    highest = Some(before);
                }
            }
            if let Some(highest) = highest.filter(|highest| highest.offset > turn.from.unwrap_or(0)) {
                tell(turn.from.unwrap_or(0), turn.call, highest);
            }
        }
        let invoked = |reached: &&Reached| evidence.call(reached.call).invoked;
        let completed = |reached: &&Reached| evidence.call(reached.call).completed;
        let mut asked: Vec<&Reached> = self.reached.iter().collect();
        let mut told = asked.clone();
        asked.sort_by_key(invoked);
        told.sort_by_key(completed);
        let mut told = told.into_iter().peekable();
        let mut highest: Option<&Reached> = None;
        for now in asked {
            let is_before = |before: &&Reached| {
                completed(before).is_some_and(|completed| completed.before(invoked(&now)))
            };
            while let Some(before) = told.next_if(is_before) {
                if highest.is_none_or(|highest| highest.offset <= before.offset) {
                    highest = Some(before);
                }
            }
            if let Some(highest) = highest.filter(|highest| highest.offset > now.offset) {
                tell(now.offset, now.call, highest);
            }
        }
    }

    /// Below what is committed, every visible record was given to a member.
    fn nothing_passed_over(
        &self,
        evidence: &Evidence<'_>,
        expectations: &Expectations,
        (group, place): &Key<'_>,
        findings: &mut Findings,
    ) {
        let Some(partition) = evidence.partitions.get(place) else { return };
        let begun = self.turns.values().map(|turn| (turn.from.unwrap_or(0), turn.call));
        let committed = self.reached.iter().map(|reached| (reached.offset, reached.call));
        let Some((limit, call)) = begun.chain(committed).max_by_key(|(offset, _)| *offset) else { return };
        let start = if expectations.retention { partition.log_start } else { 0 };
        let visible = partition.visible.iter().filter(|offset| (start..limit).contains(*offset));
        for offset in visible.filter(|offset| self.given.binary_search(offset).is_err()) {
            findings.add(Anomaly::Unprocessed, place, || {
                format!(
                    "group {group:?}: offset {offset} was given to no member, though the group is at {limit} for {}",
                    evidence.tell(call)
                )
            });
        }
    }
}
