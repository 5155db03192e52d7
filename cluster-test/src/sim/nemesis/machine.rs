//! Processes and machines: death, power, orderly stops, clocks.

use std::sync::Arc;

use super::super::station::{Phase, Station};
use super::super::world::{Crash, World};
use super::{Answer, Nemesis, Undo};

/// Jumps of a wall clock. Unit: ms.
const JUMPS_MS: [i64; 6] = [-3_600_000, -60_000, -1_000, 1_000, 60_000, 3_600_000];

type Struck = Result<Answer, String>;

impl Nemesis {
    pub(super) fn kill(&mut self, world: &mut World) -> Struck {
        let station = self.any(world)?;
        Ok(self.down(world, &station, Crash::Kill))
    }

    pub(super) fn power_one(&mut self, world: &mut World) -> Struck {
        let station = self.any(world)?;
        Ok(self.down(world, &station, Crash::Power))
    }

    fn down(&mut self, world: &mut World, station: &Station, how: Crash) -> Answer {
        world.crash(station, how);
        let detail = self.later(world, 50..5_000, Undo::Start(station.id));
        Answer::installed(&station.name, detail)
    }

    pub(super) fn kill_many(&mut self, world: &mut World) -> Struck {
        let majority = u64::from(world.plan.nodes / 2 + 1);
        let count = self.random.range(majority..u64::from(world.plan.nodes) + 1);
        let mut struck = Vec::new();
        for _ in 0..count {
            let Ok(station) = self.any(world) else { break };
            world.crash(&station, Crash::Kill);
            self.later(world, 50..3_000, Undo::Start(station.id));
            struck.push(station.name.clone());
        }
        if struck.is_empty() {
            Err("no broker runs".to_owned())
        } else {
            Ok(Answer::installed(struck.join(" "), ""))
        }
    }

    pub(super) fn power_all(&mut self, world: &mut World) -> Struck {
        for station in world.stations.clone() {
            if station.phase() != Phase::Down {
                world.crash(&station, Crash::Power);
            }
            if !self.starting.contains(&station.id) {
                self.later(world, 50..2_000, Undo::Start(station.id));
            }
        }
        Ok(Answer::installed("all", ""))
    }

    pub(super) fn power_mid_write(&mut self, world: &mut World) -> Struck {
        let station = self.any(world)?;
        let operations = self.random.range(1..40);
        station.set_broken();
        station.disk.power_off_at(operations);
        self.later(world, 20..500, Undo::PowerCycle(station.id));
        Ok(Answer::installed(&station.name, format!("at the {operations}th operation")))
    }

    pub(super) fn restart(&mut self, world: &mut World) -> Struck {
        let station = self.any(world)?;
        station.ask_stop();
        Ok(Answer::installed(&station.name, ""))
    }

    pub(super) fn clock_jump(&mut self, world: &mut World) -> Struck {
        let station: Arc<Station> = self.any(world)?;
        let at = usize::try_from(self.random.range(0..JUMPS_MS.len() as u64)).unwrap_or(0);
        station.set_skew(JUMPS_MS[at]);
        Ok(Answer::installed(&station.name, format!("{} ms", JUMPS_MS[at])))
    }
}
