//! Power goes off at every operation of the disk: nothing acknowledged is lost, nothing comes from nowhere, votes never
//! go back, and no torn write is taken for damage.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on must stop"
)]

mod common;
#[path = "common/sim.rs"]
mod sim;

use disk::faulty::FaultyDisk;
use sim::Sim;

/// Operations of one trace.
const ACTS: usize = 90;

/// Runs a trace until it ends or the power does.
fn run(sim: &mut Sim) {
    for _ in 0..ACTS {
        if !sim.act() {
            break;
        }
    }
}

/// Changing disk operations of the whole trace.
fn operations(seed: u64) -> u64 {
    let disk = FaultyDisk::new(seed);
    let (mut sim, _) = Sim::open(&disk, seed).unwrap();
    run(&mut sim);
    let stats = disk.stats();
    stats.changes
}

fn crash_at(seed: u64, nth: u64) {
    let disk = FaultyDisk::new(seed.wrapping_mul(1_000_003) ^ nth);
    disk.power_off_at(nth);
    let Ok((mut sim, _)) = Sim::open(&disk, seed) else {
        // The first start itself was cut off: the next one must do.
        disk.crash();
        Sim::open(&disk, seed).unwrap();
        return;
    };
    run(&mut sim);
    let mut sim = sim.crash(seed + 1);
    // Life goes on, and the next crash is survived as well: also one during recovery.
    for _ in 0..20 {
        sim.act();
    }
    let mut sim = sim.crash(seed + 2);
    sim.step(raft_store::Wait::Mark);
    for again in 1..4 {
        let models = sim.models.clone();
        drop(sim);
        disk.crash();
        disk.power_off_at(again);
        drop(Sim::open(&disk, seed + 3));
        disk.crash();
        let (reopened, recovery) = Sim::open(&disk, seed + 4 + again).unwrap();
        assert!(recovery.report.damaged_groups.is_empty());
        for (group, model) in &models {
            assert_eq!(&Sim::state_of(&reopened.wal, &recovery, *group), model.now());
        }
        sim = reopened;
        sim.models = models;
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    for seed in 1..=3 {
        let operations = operations(seed);
        assert!(operations > 50, "the trace does too little: {operations}");
        for nth in 1..=operations {
            crash_at(seed, nth);
        }
    }
}

#[test]
fn what_a_killed_process_left_unsynced_outlives_a_power_cut_once_it_was_believed() {
    for seed in 1..=3 {
        for nth in 1..=operations(seed) {
            let disk = FaultyDisk::new(seed.wrapping_mul(1_000_003) ^ nth);
            disk.power_off_at(nth);
            let Ok((mut sim, _)) = Sim::open(&disk, seed) else { continue };
            run(&mut sim);
            let mut sim = sim.kill(seed + 1);
            for _ in 0..3 {
                sim.act();
            }
            sim.crash(seed + 2);
        }
    }
}

#[test]
fn many_crashes_of_one_directory_lose_nothing_acknowledged() {
    for seed in 100..130 {
        let disk = FaultyDisk::new(seed);
        let (mut sim, _) = Sim::open(&disk, seed).unwrap();
        for round in 0..12 {
            let acts = sim.below(60);
            for _ in 0..acts {
                sim.act();
            }
            sim = sim.crash(seed * 100 + round);
        }
    }
}

/// A killed process leaves writes that nobody synced, a failed fsync leaves pages that the cache believes to be on the
/// device: both are read by the next start, which tells everybody that it has them.
#[test]
fn what_a_restart_finds_survives_the_next_loss_of_power() {
    for seed in 0..150 {
        let disk = FaultyDisk::new(seed);
        let (mut sim, _) = Sim::open(&disk, seed).unwrap();
        for round in 0..6 {
            if round % 2 == 0 {
                disk.fail_sync(1 + sim.below(40));
            }
            let acts = 20 + sim.below(40);
            for _ in 0..acts {
                if !sim.act() {
                    break;
                }
            }
            sim = sim.kill(seed * 100 + round);
            sim = sim.crash(seed * 100 + round + 50);
        }
    }
}
