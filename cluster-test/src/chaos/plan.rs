//! What a run does, all of it from one seed: the faults of each round, its disks, its settings.
//!
//! Faults come from a deck with one card for each family, shuffled by the seed; a used-up deck is followed by another one. So
//! a run of enough rounds meets every family, and a round can be replayed alone: it knows its place in the deck.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::runtime::Random;

use super::fabric::{Ability, Disks, Shape};
use super::fault::{CutKind, Fault, Victim};

/// Time of one fault with the calm before it. Less, and clusters would not get over one before the next strikes.
const SLOT: Duration = Duration::from_secs(5);
/// Size of a disk that can be filled or cut. Unit: bytes. Sparse: only what is written takes memory.
const DISK_BYTES: u64 = 768 << 20;
const MIB: u64 = 1 << 20;

/// A family of faults: its name, and how one of it is drawn.
type Family = (&'static str, fn(&Draw<'_>) -> Fault);

/// Every family that there is. A new fault needs a row here, an arm in `nemesis`, and nothing else.
const FAMILIES: &[Family] = &[
    ("kill", |draw| Fault::Kill(draw.victim())),
    ("kill-all", |_| Fault::KillAll),
    ("pause", |draw| Fault::Pause(draw.victim())),
    ("isolate", |draw| Fault::Isolate { victim: draw.victim(), kind: draw.cut(), clients: false }),
    ("isolate-from-brokers", |draw| Fault::Isolate {
        victim: draw.victim(),
        kind: draw.cut(),
        clients: true,
    }),
    ("minority", |draw| Fault::Minority { victim: draw.victim(), kind: draw.cut() }),
    ("one-way-in", |draw| Fault::Unheard { victim: draw.victim(), kind: draw.cut() }),
    ("one-way-out", |draw| Fault::Mute { victim: draw.victim(), kind: draw.cut() }),
    ("bridge", |draw| Fault::Bridge { victim: draw.victim(), kind: draw.cut() }),
    ("slow-link", |draw| Fault::Slow { victim: draw.victim(), shape: draw.slow() }),
    ("loss", |draw| Fault::Slow { victim: draw.victim(), shape: draw.lossy() }),
    ("hold", |draw| Fault::Hold(draw.victim())),
    ("unplug", |draw| Fault::Unplug(draw.victim())),
    ("no-clients", |draw| Fault::NoClients { victim: draw.victim(), kind: draw.cut() }),
    ("sync-error", |draw| Fault::SyncError(draw.victim())),
    ("slow-sync", |draw| Fault::SlowSync(draw.victim(), draw.one_of(&[20, 100, 400]))),
    ("disk-full", |draw| Fault::DiskFull(draw.victim(), draw.one_of(&[0, 8 * MIB, 45 * MIB]))),
    ("clock-jump", |draw| Fault::ClockJump(draw.victim(), draw.one_of(&[-3_600, -60, 60, 3_600, 86_400]))),
    ("rolling-restart", |_| Fault::RollingRestart),
    ("power-cut", |draw| Fault::PowerCut(draw.victim())),
    ("power-cut-all", |_| Fault::PowerCutAll),
    ("bit-flip", |draw| Fault::BitFlip(draw.victim())),
    ("bit-flip-live", |draw| Fault::BitFlipLive(draw.victim())),
];

/// Faults that a cluster cannot survive, to see that the harness notices. Drawn only if they are asked for by name.
const PLANTED: &[Family] = &[("roll-back", |_| Fault::RollBack)];

/// Names of all families of faults, in no special order.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().chain(PLANTED).map(|(name, _)| *name)
}

/// A fault, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Time in which nothing new goes wrong.
    pub calm: Duration,
    /// What goes wrong then.
    pub fault: Fault,
    /// For how long.
    pub lasts: Duration,
}

/// One round: a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundPlan {
    /// Its number, from 1.
    pub number: u32,
    /// Seed of everything that is drawn while it runs.
    pub seed: u64,
    /// Brokers.
    pub brokers: u32,
    /// What data directories stand on.
    pub disks: Disks,
    /// Config keys of all brokers.
    pub settings: BTreeMap<String, String>,
    /// Whether brokers run with clocks that can be set.
    pub clocks: bool,
    /// Partitions of the workload's topic.
    pub partitions: u32,
    /// Replicas of each.
    pub replicas: u32,
    /// Replicas that must be in sync for a write with `acks=all` to begin.
    pub min_in_sync: u32,
    /// Size of a record's value. Unit: bytes.
    pub value_bytes: u32,
    /// The faults, one after the other.
    pub steps: Vec<Step>,
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Brokers of each cluster.
    pub brokers: u32,
    /// Time of a round in which things go wrong.
    pub length: Duration,
    /// Families among which it draws; empty for all.
    pub only: Vec<String>,
}

impl Plan {
    /// Round `number`, which counts from 1.
    #[must_use]
    pub fn round(&self, number: u32) -> RoundPlan {
        let seed = mix(self.seed, u64::from(number));
        let random = Random::from_seed(seed);
        let draw = Draw { random: &random, partitions: 3 + 3 * u32::from(self.brokers > 3) };
        let steps = self.steps(number, &draw);
        let needs: Vec<Ability> = steps.iter().flat_map(|step| step.fault.needs()).collect();
        RoundPlan {
            number,
            seed,
            brokers: self.brokers,
            disks: disks(&needs, &draw),
            settings: settings(self.brokers, &draw),
            clocks: needs.contains(&Ability::Clock),
            partitions: draw.partitions,
            replicas: if self.brokers > 3 { draw.one_of(&[3, 5]) } else { 3 },
            min_in_sync: draw.one_of(&[1, 2]),
            value_bytes: draw.one_of(&[16, 64, 1_000, 8_000]),
            steps,
        }
    }

    fn steps(&self, number: u32, draw: &Draw<'_>) -> Vec<Step> {
        let count = self.length.as_secs().div_euclid(SLOT.as_secs()).max(1);
        let slot = self.length / u32::try_from(count).unwrap_or(1);
        let first = u64::from(number.saturating_sub(1)) * count;
        let step = |place| {
            let calm = slot * u32::try_from(draw.random.range(20..45)).unwrap_or(30) / 100;
            Step { calm, fault: (self.card(place).1)(draw), lasts: slot.saturating_sub(calm) }
        };
        (first..first + count).map(step).collect()
    }

    /// The card at a place of the endless row of decks.
    fn card(&self, place: u64) -> Family {
        let asked = |(name, _): &&Family| self.only.iter().any(|only| only == name);
        let mut deck: Vec<Family> = match self.only.is_empty() {
            true => FAMILIES.to_vec(),
            false => FAMILIES.iter().chain(PLANTED).filter(asked).copied().collect(),
        };
        let cards = deck.len().max(1) as u64;
        let random = Random::from_seed(mix(self.seed, u64::MAX - place / cards));
        for last in (1..deck.len()).rev() {
            deck.swap(last, usize::try_from(random.range(0..last as u64 + 1)).unwrap_or(0));
        }
        deck.get(usize::try_from(place % cards).unwrap_or(0)).copied().unwrap_or(FAMILIES[0])
    }
}

/// Disks that let the round's faults happen; where any will do, half of the rounds run on the machine's own.
fn disks(needs: &[Ability], draw: &Draw<'_>) -> Disks {
    let own = draw.one_of(&[true, false]);
    if needs.contains(&Ability::Power) || needs.contains(&Ability::BoundedDisk) || !own {
        return Disks::Image(DISK_BYTES);
    }
    Disks::Plain
}

/// Small sizes and short intervals, so that files roll and snapshots are taken within seconds.
fn settings(brokers: u32, draw: &Draw<'_>) -> BTreeMap<String, String> {
    let voters = if brokers > 3 { draw.one_of(&["3", "5"]) } else { "3" };
    [
        ("cluster.metadata_voters", voters),
        ("storage.wal_file_bytes", "32MiB"),
        ("storage.wal_pool_files", "2"),
        ("storage.segment_bytes", draw.one_of(&["64KiB", "1MiB", "64MiB"])),
        ("storage.flush_interval_ms", draw.one_of(&["50ms", "200ms", "1s"])),
        ("limits.tail_cache_bytes", "8MiB"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Draws the details of faults.
struct Draw<'a> {
    random: &'a Random,
    partitions: u32,
}

impl Draw<'_> {
    fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        let at = usize::try_from(self.random.range(0..choices.len() as u64)).unwrap_or(0);
        choices[at]
    }

    fn number(&self, least: u32, most: u32) -> u32 {
        let drawn = self.random.range(u64::from(least)..u64::from(most) + 1);
        u32::try_from(drawn).unwrap_or(least)
    }

    /// Leaders more often than others: there is more to lose.
    fn victim(&self) -> Victim {
        let part = self.number(0, self.partitions - 1);
        match self.number(0, 3) {
            0 => Victim::Follower(part),
            1 => Victim::MetadataLeader,
            _ => Victim::Leader(part),
        }
    }

    fn cut(&self) -> CutKind {
        self.one_of(&[CutKind::BlackHole, CutKind::BlackHole, CutKind::Reset])
    }

    fn slow(&self) -> Shape {
        let delay_ms = self.one_of(&[5, 20, 80, 250]);
        Shape { delay_ms, jitter_ms: self.number(0, delay_ms / 2), loss_permille: 0 }
    }

    fn lossy(&self) -> Shape {
        Shape {
            delay_ms: self.number(1, 10),
            jitter_ms: self.number(0, 8),
            loss_permille: self.one_of(&[10, 50, 200]),
        }
    }
}

/// A seed for one part of a run.
fn mix(seed: u64, part: u64) -> u64 {
    Random::from_seed(seed ^ part.rotate_left(32)).u64()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, only: &[&str]) -> Plan {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        Plan { seed, brokers: 3, length: Duration::from_secs(30), only }
    }

    fn kinds(plan: &Plan, rounds: u32) -> Vec<&'static str> {
        (1..=rounds).flat_map(|number| plan.round(number).steps).map(|step| step.fault.kind()).collect()
    }

    #[test]
    fn a_family_draws_faults_of_its_own_name() {
        let random = Random::from_seed(1);
        let draw = Draw { random: &random, partitions: 3 };
        for (name, family) in FAMILIES.iter().chain(PLANTED) {
            assert!((0..20).all(|_| family(&draw).kind() == *name), "{name}");
        }
    }

    #[test]
    fn one_run_meets_every_family_before_any_twice() {
        let all = FAMILIES.len();
        let met = kinds(&plan(7, &[]), 10);
        let first: BTreeSet<_> = met.iter().take(all).collect();
        assert_eq!(first.len(), all);
        assert_ne!(met[..all], met[all..2 * all]);
    }

    #[test]
    fn what_no_cluster_survives_is_drawn_by_name_only() {
        assert!(!kinds(&plan(7, &[]), 20).contains(&"roll-back"));
        assert_eq!(kinds(&plan(7, &["roll-back"]), 1), ["roll-back"; 6]);
        assert!(families().any(|name| name == "roll-back"));
    }

    #[test]
    fn a_round_is_the_same_whoever_asks_and_other_seeds_have_others() {
        assert_eq!(plan(7, &[]).round(4), plan(7, &[]).round(4));
        assert_ne!(plan(7, &[]).round(4), plan(8, &[]).round(4));
        assert_ne!(plan(7, &[]).round(4), plan(7, &[]).round(5));
    }

    #[test]
    fn a_round_lasts_as_long_as_was_asked_for() {
        for secs in [1, 5, 15, 30, 61] {
            let length = Duration::from_secs(secs);
            let round = Plan { length, ..plan(3, &[]) }.round(2);
            let sum: Duration = round.steps.iter().map(|step| step.calm + step.lasts).sum();
            assert!(sum <= length && sum + Duration::from_millis(10) > length, "{sum:?} of {length:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_drawn_and_its_disks_are_there() {
        let plan = plan(5, &["power-cut", "kill"]);
        assert!(kinds(&plan, 5).iter().all(|kind| ["power-cut", "kill"].contains(kind)));
        assert!((1..20).all(|number| plan.round(number).disks == Disks::Image(DISK_BYTES)));
    }
}
