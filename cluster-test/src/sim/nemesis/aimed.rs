//! Aimed faults: traps that strike a broker at a chosen moment of its work, whichever broker comes to it first.

use super::super::moment::Moment;
use super::super::plan::pick;
use super::super::station::Phase;
use super::super::watch::{Sprung, Strike, Trap};
use super::super::world::{Crash, World};
use super::network::both_ways;
use super::{Answer, Nemesis, Undo};
use crate::sim::FaultKind;

/// What may happen; power cuts twice as often as the others.
const STRIKES: &[Strike] = &[Strike::Kill, Strike::Power, Strike::Power, Strike::Cut, Strike::CutWithClients];

type Struck = Result<Answer, String>;

/// Traps that wait at one time: a moment that never comes must not keep the others out.
const TRAPS_MAX: usize = 6;
/// Moments of the rarer kinds that pass at most before a trap strikes; of the others some hundred come in a second.
const PASSES_MAX: u64 = 4;
const PASSES_OF_ENTRIES_MAX: u64 = 120;

impl Nemesis {
    /// Sets a trap for one of the moments of a kind.
    pub(super) fn aim(&mut self, world: &World, kind: FaultKind) -> Struck {
        if world.watch.traps() >= TRAPS_MAX {
            return Err("enough traps are set".to_owned());
        }
        let (moments, passes): (&[Moment], u64) = match kind {
            FaultKind::AtVote => (&[Moment::Voted, Moment::Voting, Moment::Elected], PASSES_MAX),
            FaultKind::AtWrite => {
                (&[Moment::Written, Moment::Committed, Moment::Applied], PASSES_OF_ENTRIES_MAX)
            }
            FaultKind::AtRelease => {
                (&[Moment::Checkpointed, Moment::Purged, Moment::Truncated, Moment::Overwritten], PASSES_MAX)
            }
            FaultKind::AtCreate => (&[Moment::Created], PASSES_MAX),
            FaultKind::AtInstall => (&[Moment::Installing, Moment::Installed], 1),
            _ => (&[Moment::HandingOver, Moment::HandedOver], 1),
        };
        let moment = pick(&self.random, moments);
        let strike = pick(&self.random, STRIKES);
        let passes = self.random.range(0..passes);
        world.watch.set(Trap { moment, passes, strike });
        Err(format!("waits for {moment:?} after {passes} more, then {strike:?}"))
    }

    /// Cuts a broker off with all clients, and sets a trap for the moment in which it takes back what it wrote alone:
    /// its log is then shorter than it was, because nobody writes to the others.
    pub(super) fn strand(&mut self, world: &World) -> Struck {
        self.free_network()?;
        if world.watch.traps() >= TRAPS_MAX {
            return Err("enough traps are set".to_owned());
        }
        let station = self.any(world)?;
        let strike = pick(&self.random, &[Strike::Kill, Strike::Power]);
        world.watch.set(Trap { moment: Moment::Shortened, passes: 0, strike });
        let mut side = vec![station.name.clone()];
        side.extend(world.clients.iter().cloned());
        let detail = self.cut(world, both_ways(&side, &Self::others(world, &station.name, false)));
        Ok(Answer::installed(&station.name, format!("alone with the clients {detail}, then {strike:?}")))
    }

    /// Finishes what traps have begun.
    pub(super) fn finish_strikes(&mut self, world: &mut World) {
        for Sprung { broker, trap, event } in world.watch.take_sprung() {
            let station = world.station(broker);
            let how = match trap.strike {
                Strike::Kill => Crash::Kill,
                Strike::Power => Crash::Power,
                Strike::Cut | Strike::CutWithClients => {
                    let answer = self.cut_off(world, &station.name, &trap, &event);
                    self.record(world, trap.moment.kind().name(), answer);
                    continue;
                }
            };
            if station.phase() == Phase::Down {
                continue;
            }
            world.crash(&station, how);
            let detail = self.later(world, 20..3_000, Undo::Start(broker));
            let answer = Answer::installed(&station.name, format!("{how:?} {detail} at {event}"));
            self.record(world, trap.moment.kind().name(), answer);
        }
    }

    /// Cuts a broker off from the others, so that it goes on alone for a while.
    fn cut_off(&mut self, world: &World, name: &str, trap: &Trap, event: &str) -> Answer {
        if let Err(why) = self.free_network() {
            return Answer::skipped(why);
        }
        let others = Self::others(world, name, false);
        let mut side = vec![name.to_owned()];
        if trap.strike == Strike::CutWithClients {
            side.extend(world.clients.iter().cloned());
        }
        let detail = self.cut(world, both_ways(&side, &others));
        Answer::installed(name, format!("cut off from brokers {detail} at {event}"))
    }
}
