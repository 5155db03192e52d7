//! Hears every broker from inside: feeds the invariants, and springs the traps that strike at chosen moments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::runtime::{Probe, ProbeEvent};
use disk::faulty::FaultyDisk;
use raft_store::WalEvent;

use super::moment::Moment;
use super::tails::Tails;
use super::trace::{SimClock, Trace};
use crate::invariant::{Invariants, Sighting};

/// What happens to the broker that a trap was waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    /// Its process dies.
    Kill,
    /// Its machine loses power.
    Power,
    /// It is cut off from the other brokers; clients reach it.
    Cut,
    /// It is cut off from the other brokers, and all clients with it.
    CutWithClients,
}

/// Waits for a moment.
#[derive(Debug, Clone)]
pub(super) struct Trap {
    pub(super) moment: Moment,
    /// Moments that pass before it strikes.
    pub(super) passes: u64,
    pub(super) strike: Strike,
}

/// A trap that was sprung.
#[derive(Debug, Clone)]
pub(super) struct Sprung {
    pub(super) broker: u32,
    pub(super) trap: Trap,
    /// What the broker was doing.
    pub(super) event: String,
}

/// Listener of all brokers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: SimClock,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    invariants: Invariants,
    broken: Option<String>,
    /// Brokers whose durable bytes were destroyed.
    rotten: BTreeSet<u32>,
    /// The file of the newest durable entry, by broker.
    wal_files: BTreeMap<u32, u64>,
    tails: Tails,
    traps: Vec<Trap>,
    sprung: Vec<Sprung>,
}

impl Watch {
    pub(super) fn new(clock: SimClock, trace: Trace) -> Self {
        Self(Arc::new(Inner { clock, trace, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The probe of one life of a broker.
    pub(super) fn probe(&self, broker: u32, life: u64, disk: FaultyDisk) -> Probe {
        let watch = self.clone();
        Probe::new(move |event| watch.hear(broker, life, &disk, event))
    }

    fn hear(&self, broker: u32, life: u64, disk: &FaultyDisk, event: &ProbeEvent) {
        let at = Duration::from_nanos(self.0.clock.now_ns());
        let mut state = self.state();
        let sound = !state.rotten.contains(&broker);
        let judged = state.invariants.see(&Sighting { broker, life, at, sound, event });
        if let (Err(what), None) = (judged, &state.broken) {
            state.broken = Some(what);
        }
        if let ProbeEvent::Wal(WalEvent::EntryDurable { file, .. }) = event {
            state.wal_files.insert(broker, *file);
        }
        if is_rare(event) {
            self.0.trace.note(format_args!("broker-{broker} {event:?}"));
        }
        let Some(sprung) = state.spring(broker, event) else { return };
        if matches!(sprung.trap.strike, Strike::Kill | Strike::Power) {
            // At this very moment: nothing that the broker writes from now on exists.
            disk.power_off();
        }
        state.sprung.push(sprung);
    }

    /// The first invariant that was broken, if any was.
    pub(super) fn broken(&self) -> Option<String> {
        self.state().broken.clone()
    }

    /// Sets a trap.
    pub(super) fn set(&self, trap: Trap) {
        self.state().traps.push(trap);
    }

    /// Traps that wait.
    pub(super) fn traps(&self) -> usize {
        self.state().traps.len()
    }

    /// Removes every trap.
    pub(super) fn disarm(&self) {
        self.state().traps.clear();
    }

    /// What was sprung since the last call.
    pub(super) fn take_sprung(&self) -> Vec<Sprung> {
        std::mem::take(&mut self.state().sprung)
    }

    /// Number of the write-ahead log's file with the newest durable entry of a broker.
    pub(super) fn wal_file(&self, broker: u32) -> Option<u64> {
        self.state().wal_files.get(&broker).copied()
    }

    /// Durable bytes of a broker were destroyed.
    pub(super) fn rotted(&self, broker: u32) {
        self.state().rotten.insert(broker);
    }

    /// A broker's disk was emptied; it is sound again.
    pub(super) fn wiped(&self, broker: u32) {
        let mut state = self.state();
        state.rotten.remove(&broker);
        state.invariants.wiped(broker);
    }
}

impl State {
    fn spring(&mut self, broker: u32, event: &ProbeEvent) -> Option<Sprung> {
        let of_log = self.tails.moment(event);
        let overwritten = of_log.filter(|moment| *moment == Moment::Shortened).map(|_| Moment::Overwritten);
        let moments = [Moment::of(event), of_log, overwritten];
        // One strike at a time: the next moment may be an echo of the first.
        if !self.sprung.is_empty() {
            return None;
        }
        let mut ripe = None;
        for (at, trap) in self.traps.iter_mut().enumerate() {
            if !moments.contains(&Some(trap.moment)) {
                continue;
            }
            match trap.passes.checked_sub(1) {
                Some(left) => trap.passes = left,
                None => ripe = ripe.or(Some(at)),
            }
        }
        let trap = self.traps.remove(ripe?);
        Some(Sprung { broker, trap, event: format!("{event:?}") })
    }
}

/// Worth a line in the trace.
fn is_rare(event: &ProbeEvent) -> bool {
    matches!(
        event,
        ProbeEvent::Leads { .. }
            | ProbeEvent::Opened { .. }
            | ProbeEvent::Unfit { .. }
            | ProbeEvent::Installing { .. }
            | ProbeEvent::Installed { .. }
            | ProbeEvent::TransferBegun { .. }
            | ProbeEvent::TransferDone { .. }
    )
}

#[cfg(test)]
mod tests {
    use raft_store::GroupReplica;

    use super::*;

    #[test]
    fn a_trap_lets_moments_pass_and_strikes_once() {
        let clock = SimClock::default();
        let watch = Watch::new(clock.clone(), Trace::new(clock, false));
        let disk = FaultyDisk::quiet();
        watch.set(Trap { moment: Moment::Elected, passes: 1, strike: Strike::Cut });
        let leads = |term| ProbeEvent::Leads { of: GroupReplica { group: 1, replica: 1 }, term };
        let probe = |term| watch.hear(1, 1, &disk, &leads(term));
        probe(1);
        assert!(watch.take_sprung().is_empty());
        probe(2);
        probe(3);
        assert_eq!(watch.take_sprung().iter().map(|sprung| sprung.broker).collect::<Vec<_>>(), [1]);
        assert_eq!(watch.traps(), 0);
    }

    #[test]
    fn the_first_broken_invariant_is_kept() {
        let clock = SimClock::default();
        let watch = Watch::new(clock.clone(), Trace::new(clock, false));
        let disk = FaultyDisk::quiet();
        for replica in [1, 2, 3] {
            let of = GroupReplica { group: 1, replica };
            watch.hear(1, 1, &disk, &ProbeEvent::Leads { of, term: 2 });
        }
        let broken = watch.broken().expect("two led in one term");
        assert!(broken.contains("election-safety: broker 1: replicas 1 and 2"), "{broken}");
    }
}
