//! Where replicas go: a consistent-hash ring with virtual nodes and bounded load, aware of racks.
//!
//! Pure: the same candidates and the same topic give the same places on every broker. The ring keeps most places where
//! they are when brokers come and go; the bound keeps a small cluster even, where a ring alone would not be.

use std::collections::BTreeMap;

use wire::ids::{BrokerId, TopicId};

/// Points of one broker on the ring; with 64 the arcs of few brokers differ by a quarter or so, and the bound below
/// takes care of the rest.
const VIRTUAL_NODES: u64 = 64;

/// A broker may carry this share of the mean before others are preferred, in percent.
const LOAD_BOUND_PERCENT: u64 = 110;

/// A broker that can take replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub id: BrokerId,
    /// Its failure domain; empty = one of its own.
    pub rack: String,
    /// Replicas that it carries.
    pub replicas: u64,
    /// Partitions that it should lead.
    pub leaders: u64,
}

/// The brokers of one partition's replicas; the first is the preferred leader.
pub type Places = Vec<BrokerId>;

/// Places the partitions `from..to` of a topic. Returns one list a partition, each of `factor` different brokers.
///
/// `leaders_here` counts the preferred leaders of the topic's partitions that stand already.
///
/// # Panics
/// If there are fewer candidates than `factor`: the caller refuses that with a proper error.
pub fn place(
    topic: TopicId,
    range: std::ops::Range<u32>,
    factor: usize,
    candidates: &[Candidate],
    leaders_here: &BTreeMap<BrokerId, u64>,
) -> Vec<Places> {
    assert!(candidates.len() >= factor, "placement needs at least as many brokers as replicas");
    let ring = Ring::new(candidates);
    let mut load = Load::new(candidates, leaders_here);
    let adding = u64::from(range.end.saturating_sub(range.start)).saturating_mul(factor as u64);
    let bound = load.bound(adding);
    let mut all = Vec::with_capacity(range.len());
    for partition in range {
        let order = ring.walk(key(topic, partition));
        let chosen = choose(&order, factor, candidates, &load, bound);
        let places = load.take(chosen);
        all.push(places);
    }
    all
}

/// Takes the first brokers in ring order that keep racks apart and load bounded; racks win over load, and a place over
/// both.
fn choose(
    order: &[usize],
    factor: usize,
    candidates: &[Candidate],
    load: &Load,
    bound: u64,
) -> Vec<BrokerId> {
    let mut chosen: Vec<usize> = Vec::with_capacity(factor);
    for per_rack in 1..=factor {
        for bounded in [true, false] {
            for &at in order {
                if chosen.len() == factor {
                    break;
                }
                let Some(candidate) = candidates.get(at) else { continue };
                let same_rack =
                    chosen.iter().filter(|&&other| same_rack(candidates.get(other), candidate)).count();
                let fits = !bounded || load.replicas(candidate.id) < bound;
                if !chosen.contains(&at) && same_rack < per_rack && fits {
                    chosen.push(at);
                }
            }
        }
    }
    chosen.iter().filter_map(|&at| candidates.get(at)).map(|candidate| candidate.id).collect()
}

fn same_rack(a: Option<&Candidate>, b: &Candidate) -> bool {
    a.is_some_and(|a| !b.rack.is_empty() && a.rack == b.rack)
}

/// What each broker carries while places are given out.
struct Load {
    replicas: BTreeMap<BrokerId, u64>,
    leaders: BTreeMap<BrokerId, u64>,
    leaders_here: BTreeMap<BrokerId, u64>,
}

impl Load {
    fn new(candidates: &[Candidate], leaders_here: &BTreeMap<BrokerId, u64>) -> Self {
        Self {
            replicas: candidates.iter().map(|c| (c.id, c.replicas)).collect(),
            leaders: candidates.iter().map(|c| (c.id, c.leaders)).collect(),
            leaders_here: leaders_here.clone(),
        }
    }

    fn bound(&self, adding: u64) -> u64 {
        let total = self.replicas.values().sum::<u64>().saturating_add(adding);
        let brokers = (self.replicas.len() as u64).max(1);
        total.saturating_mul(LOAD_BOUND_PERCENT).div_ceil(brokers.saturating_mul(100))
    }

    fn replicas(&self, broker: BrokerId) -> u64 {
        self.replicas.get(&broker).copied().unwrap_or(0)
    }

    /// Books the places and moves the broker with the fewest preferred leaders, of this topic and then of all, to the
    /// front.
    fn take(&mut self, mut places: Places) -> Places {
        for broker in &places {
            *self.replicas.entry(*broker).or_default() += 1;
        }
        let count = |of: &BTreeMap<BrokerId, u64>, broker: &BrokerId| of.get(broker).copied().unwrap_or(0);
        let first = (0..places.len()).min_by_key(|&at| {
            let broker = places.get(at).copied().unwrap_or_default();
            (count(&self.leaders_here, &broker), count(&self.leaders, &broker), broker)
        });
        if let Some(at) = first {
            places.swap(0, at);
        }
        if let Some(leader) = places.first() {
            *self.leaders.entry(*leader).or_default() += 1;
            *self.leaders_here.entry(*leader).or_default() += 1;
        }
        places
    }
}

/// Points on a circle of 2^64, each a candidate's.
struct Ring {
    points: Vec<(u64, usize)>,
    brokers: usize,
}

impl Ring {
    fn new(candidates: &[Candidate]) -> Self {
        let mut points = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let seed = mix(u64::from(candidate.id.0));
            points.extend((0..VIRTUAL_NODES).map(|node| (mix(seed ^ node), at)));
        }
        points.sort_unstable();
        Self { points, brokers: candidates.len() }
    }

    /// The candidates in the order in which their points follow a key.
    fn walk(&self, key: u64) -> Vec<usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let mut order = Vec::with_capacity(self.brokers);
        for (_, at) in self.points.iter().cycle().skip(start).take(self.points.len()) {
            if !order.contains(at) {
                order.push(*at);
                if order.len() == self.brokers {
                    break;
                }
            }
        }
        order
    }
}

fn key(topic: TopicId, partition: u32) -> u64 {
    let (high, low) = topic.0.as_u64_pair();
    mix(mix(high) ^ low ^ mix(u64::from(partition).wrapping_add(1)))
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): part of the replicated state machine, so ours and never changed.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn brokers(racks: &[&str]) -> Vec<Candidate> {
        let one = |(at, rack): (usize, &&str)| Candidate {
            id: BrokerId(u32::try_from(at).unwrap() + 1),
            rack: (*rack).to_owned(),
            replicas: 0,
            leaders: 0,
        };
        racks.iter().enumerate().map(one).collect()
    }

    fn topic(n: u128) -> TopicId {
        TopicId(Uuid::from_u128(n))
    }

    fn spread(places: &[Places]) -> (Vec<usize>, Vec<usize>) {
        let mut replicas: BTreeMap<BrokerId, usize> = BTreeMap::new();
        let mut leaders: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for partition in places {
            *leaders.entry(partition[0]).or_default() += 1;
            for broker in partition {
                *replicas.entry(*broker).or_default() += 1;
            }
        }
        (replicas.into_values().collect(), leaders.into_values().collect())
    }

    #[test]
    fn each_partition_has_different_brokers_and_load_is_within_the_bound() {
        for n in 1..=9_usize {
            for factor in 1..=n.min(5) {
                let places = place(topic(7), 0..60, factor, &brokers(&vec![""; n]), &BTreeMap::new());
                for partition in &places {
                    assert_eq!(partition.iter().collect::<BTreeSet<_>>().len(), factor);
                }
                let (replicas, leaders) = spread(&places);
                let bound = (60 * factor * 110).div_ceil(n * 100);
                assert_eq!(replicas.len(), n, "{n} brokers, rf {factor}: every broker takes part");
                assert!(
                    replicas.iter().all(|count| *count <= bound),
                    "{n} brokers, rf {factor}: {replicas:?}"
                );
                if factor == n {
                    let (low, high) = (leaders.iter().min().unwrap(), leaders.iter().max().unwrap());
                    assert!(high - low <= 1, "{n} brokers, rf {factor}: leaders {leaders:?}");
                }
            }
        }
    }

    #[test]
    fn replicas_of_a_partition_stand_in_different_racks_when_there_are_enough() {
        let candidates = brokers(&["a", "a", "a", "b", "b", "c"]);
        let rack: BTreeMap<_, _> = candidates.iter().map(|c| (c.id, c.rack.clone())).collect();
        for partition in place(topic(1), 0..50, 3, &candidates, &BTreeMap::new()) {
            let racks: BTreeSet<_> = partition.iter().map(|broker| &rack[broker]).collect();
            assert_eq!(racks.len(), 3, "{partition:?}");
        }
        for partition in place(topic(1), 0..50, 5, &candidates, &BTreeMap::new()) {
            let in_a = partition.iter().filter(|broker| rack[broker] == "a").count();
            assert!(in_a <= 2, "five replicas over three racks: {partition:?}");
        }
    }

    #[test]
    fn a_loaded_broker_gets_less_and_leaders_even_out_over_topics() {
        let mut candidates = brokers(&["", "", "", ""]);
        candidates[0].replicas = 1_000;
        let places = place(topic(3), 0..30, 2, &candidates, &BTreeMap::new());
        let on_first = places.iter().flatten().filter(|broker| broker.0 == 1).count();
        assert_eq!(on_first, 0, "broker 1 is far above the bound and three others have room");
    }

    #[test]
    fn most_places_stay_when_a_broker_is_added() {
        let before = place(topic(5), 0..200, 1, &brokers(&[""; 5]), &BTreeMap::new());
        let after = place(topic(5), 0..200, 1, &brokers(&[""; 6]), &BTreeMap::new());
        let kept = before.iter().zip(&after).filter(|(a, b)| a == b).count();
        assert!(kept >= 120, "{kept} of 200 kept");
    }

    #[test]
    fn places_are_the_same_for_ever() {
        // Golden: the ring is part of the replicated state machine.
        let places = place(topic(42), 0..4, 3, &brokers(&[""; 5]), &BTreeMap::new());
        let numbers: Vec<Vec<u32>> = places.iter().map(|p| p.iter().map(|b| b.0).collect()).collect();
        assert_eq!(numbers, GOLDEN);
    }

    const GOLDEN: [[u32; 3]; 4] = [[2, 5, 4], [1, 2, 4], [3, 4, 1], [5, 1, 2]];
}
