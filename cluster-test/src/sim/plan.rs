//! What a seed decides before the first tick: size and settings of the cluster, speed of its parts, which faults come.
//!
//! Each seed uses some kinds of faults and not the others (swarm testing): a seed with all of them all the time would
//! never get far enough to meet what needs a quiet moment.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::config::BrokerConfig;
use broker::runtime::Random;

use super::fault::FaultKind;
use super::load::Load;
use super::options::SimConfig;
use crate::invariant::LAG_MAX;

/// One seed's choices.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed itself.
    pub seed: u64,
    /// Brokers: 3 or 5.
    pub nodes: u32,
    /// Voters of the metadata group.
    pub metadata_voters: u32,
    /// Length of a tick: 1 ms for a quarter of the seeds, 5 ms for the rest.
    pub tick: Duration,
    /// Longest time of a disk job on a healthy device. Unit: ms.
    pub device_ms: u64,
    /// Sizes and intervals of the brokers.
    pub settings: Settings,
    /// What the clients do.
    pub load: Load,
    /// What happens to the cluster.
    pub faults: FaultPlan,
}

/// Settings of all brokers; far below what a user may set, so that files roll, snapshots and purges happen in seconds.
#[derive(Debug, Clone)]
pub struct Settings {
    wal_file_bytes: u64,
    wal_pool_files: u32,
    segment_bytes: u64,
    flush_interval_ms: u64,
    wal_outstanding_max: u64,
}

/// What happens to the cluster.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Kinds of faults with their weights; empty: none.
    pub kinds: BTreeMap<FaultKind, u64>,
    /// Mean time between two faults.
    pub mean_gap: Duration,
    /// The one broker whose durable bytes may be destroyed.
    pub victim: u32,
}

/// What is added to the weight of kinds of faults that were asked for.
const WITH_WEIGHT: u64 = 6;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Settings {
    fn draw(random: &Random) -> Self {
        Self {
            // Half of the smallest still holds the largest entry that a broker makes.
            wal_file_bytes: pick(random, &[2 * MIB + 256 * KIB, 4 * MIB, 8 * MIB]),
            wal_pool_files: pick(random, &[1, 2, 4]),
            segment_bytes: pick(random, &[64 * KIB, 256 * KIB, MIB]),
            flush_interval_ms: pick(random, &[50, 200, 1_000]),
            // The small one makes leaders purge what followers that are away still need: they get snapshots.
            wal_outstanding_max: pick(random, &[32 * MIB, 128 * MIB]),
        }
    }

    /// Puts them over a config.
    pub fn apply(&self, config: &mut BrokerConfig) {
        let storage = &mut config.storage;
        storage.wal_file_bytes = self.wal_file_bytes;
        storage.wal_pool_files = self.wal_pool_files;
        storage.segment_bytes = self.segment_bytes;
        storage.flush_interval_ms = self.flush_interval_ms;
        storage.wal_outstanding_max = self.wal_outstanding_max;
        storage.reject_free_bytes = 8 * MIB;
        config.limits.tail_cache_bytes = 4 * MIB;
        config.replica.lag_max_ms = u64::try_from(LAG_MAX.as_millis()).unwrap_or(u64::MAX);
        config.topics.default_partitions = 3;
        config.topics.default_rf = 3;
    }
}

impl FaultPlan {
    fn draw(random: &Random, nodes: u32, with: &[FaultKind]) -> Self {
        let mut kinds = BTreeMap::new();
        for kind in FaultKind::ALL {
            let (weight, is_drawn) = (random.range(1..6), random.range(0..100) < 40);
            let asked = with.contains(kind);
            if is_drawn || asked {
                // What was asked for comes often, or a short seed may not get to it.
                kinds.insert(*kind, weight + if asked { WITH_WEIGHT } else { 0 });
            }
        }
        Self {
            kinds,
            mean_gap: Duration::from_millis(pick(random, &[400, 1_000, 2_000, 4_000])),
            victim: u32::try_from(random.range(1..u64::from(nodes) + 1)).unwrap_or(1),
        }
    }
}

impl Plan {
    /// What `seed` decides under `config`.
    #[must_use]
    pub fn draw(seed: u64, config: &SimConfig) -> Self {
        let random = Random::from_seed(seed);
        let nodes = pick(&random, &config.nodes);
        let voters = if nodes >= 5 { pick(&random, &[3, 5]) } else { 3 };
        let mut faults = FaultPlan::draw(&random, nodes, &config.with);
        if !config.faults {
            faults.kinds.clear();
        }
        Self {
            seed,
            nodes,
            metadata_voters: voters,
            tick: Duration::from_millis(if random.range(0..4) == 0 { 1 } else { 5 }),
            device_ms: random.range(0..3),
            settings: Settings::draw(&random),
            load: Load::draw(&random),
            faults,
        }
    }

    /// A seed for one part of the world.
    #[must_use]
    pub fn derive(&self, part: u64, number: u64) -> u64 {
        Random::from_seed(self.seed ^ part.rotate_left(40) ^ number.rotate_left(20)).u64()
    }
}

/// One of `choices`, which are not none.
pub(super) fn pick<T: Copy>(random: &Random, choices: &[T]) -> T {
    let at = usize::try_from(random.range(0..choices.len() as u64)).unwrap_or(0);
    choices[at]
}
