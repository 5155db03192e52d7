//! Power is cut before every single disk operation of a run; what the newest state names must come back, and the rest
//! must be writable again from the WAL.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::{Host, Input, Model, append, read_all, replay, small};
use disk::faulty::FaultyDisk;
use partition_log::{LogError, PartitionLog};
use wire::ids::{LeaderEpoch, Offset};

const APPENDS: u64 = 40;

fn input(n: u64) -> Input {
    let records = 1 + n % 3;
    let timestamps = (0..records).map(|r| i64::try_from(10 * n + r).unwrap()).collect();
    Input {
        epoch: u32::try_from(1 + n / 15).unwrap(),
        timestamps,
        value_len: 60 + usize::try_from(n % 7).unwrap() * 20,
    }
}

fn inputs() -> Vec<Input> {
    (0..APPENDS).map(input).collect()
}

/// The log start that the entries before number `n` have asked for.
fn log_start_before(n: u64) -> u64 {
    match n {
        0..=18 => 0,
        19..=30 => 13,
        _ => 37,
    }
}

/// Appends, flushes every fourth append, and moves the log start twice.
fn run(host: &Host, log: &mut PartitionLog, from: u64) -> Result<(), LogError> {
    for n in from..APPENDS {
        log.set_log_start(Offset(log_start_before(n)))?;
        append(log, &input(n))?;
        if n % 4 == 3 {
            host.flush(log)?;
        }
    }
    host.flush(log)
}

fn model(batches: u64) -> Model {
    let mut model = Model::default();
    inputs().iter().take(usize::try_from(batches).unwrap()).for_each(|input| model.push(input));
    model
}

fn start(seed: u64) -> Host {
    let host = Host::new(FaultyDisk::new(seed), small(500));
    host.prepare().unwrap();
    host
}

/// Recovers, checks, replays what the WAL has, and ends the run.
fn recover_and_go_on(host: &Host) -> Result<(), LogError> {
    let state = host.load("state");
    let (mut log, _) = host.open()?;
    let wanted = state.as_ref().map_or(0, |state| state.next_offset.0);
    let full = model(APPENDS);
    assert_eq!(log.next_offset().0, wanted);
    let batches = full.batches.iter().filter(|stored| stored.next <= wanted).count();
    assert_eq!(log.producers(), &state.map(|state| state.producers).unwrap_or_default());
    let restored = Model { log_start: log.log_start().0, ..full.clone() };
    assert_eq!(Some(read_all(&log)?), restored.read(restored.log_start, wanted, usize::MAX));
    run(host, &mut log, batches as u64)?;
    let log_start = log_start_before(APPENDS);
    assert_eq!((log.next_offset().0, log.log_start().0), (full.next(), log_start));
    let ended = Model { log_start, ..full };
    assert_eq!(Some(read_all(&log)?), ended.read(log_start, ended.next(), usize::MAX));
    Ok(())
}

#[test]
fn a_cut_before_any_operation_loses_nothing_that_the_state_names() {
    let whole = start(0);
    let before = whole.disk.stats().changes;
    let (mut log, _) = whole.open().unwrap();
    run(&whole, &mut log, 0).unwrap();
    let operations = whole.disk.stats().changes - before;
    assert!(operations > 200, "the run is too short to mean anything: {operations}");
    assert!(log.segment_count() > 2 && log.log_start() > Offset(0));
    for cut in 1..=operations {
        for seed in 0..3 {
            let host = start(seed * 1000 + cut);
            host.disk.power_off_at(cut);
            let ended = host.open().and_then(|(mut log, _)| run(&host, &mut log, 0));
            assert!(ended.is_err(), "the power did not go off");
            host.disk.crash();
            recover_and_go_on(&host).unwrap_or_else(|error| panic!("cut {cut}, seed {seed}: {error:?}"));
        }
    }
}

#[test]
fn a_second_cut_during_recovery_is_survived_too() {
    for cut in (1..400).step_by(7) {
        for second in 1..12 {
            let host = start(second * 1000 + cut);
            host.disk.power_off_at(cut);
            let ended = host.open().and_then(|(mut log, _)| run(&host, &mut log, 0));
            if ended.is_ok() {
                return;
            }
            host.disk.crash();
            host.disk.power_off_at(second);
            let _ = recover_and_go_on(&host);
            host.disk.crash();
            recover_and_go_on(&host).unwrap_or_else(|error| panic!("cuts {cut}, {second}: {error:?}"));
        }
    }
}

#[test]
fn the_state_before_the_newest_can_be_restored_as_well() {
    for cut in 1..300 {
        let host = start(cut);
        host.disk.power_off_at(cut);
        if host.open().and_then(|(mut log, _)| run(&host, &mut log, 0)).is_ok() {
            return;
        }
        host.disk.crash();
        host.fall_back().unwrap();
        recover_and_go_on(&host).unwrap_or_else(|error| panic!("cut {cut}: {error:?}"));
    }
}

#[test]
fn after_a_failed_sync_or_write_the_log_takes_nothing_more() {
    let host = start(1);
    let (mut log, _) = host.open().unwrap();
    append(&mut log, &input(0)).unwrap();
    host.disk.fail_sync(1);
    assert!(matches!(log.flush(), Err(LogError::Disk(_))));
    assert!(matches!(log.flush(), Err(LogError::Failed)));
    assert!(matches!(append(&mut log, &input(1)), Err(LogError::Failed)));

    let host = start(2);
    let (mut log, _) = host.open().unwrap();
    append(&mut log, &input(0)).unwrap();
    host.disk.fail_write(1);
    assert!(matches!(append(&mut log, &input(1)), Err(LogError::Disk(_))));
    assert!(matches!(log.flush(), Err(LogError::Failed)));
    // What was read before stays readable.
    assert_eq!(read_all(&log).unwrap(), model(1).read(0, 99, usize::MAX).unwrap());
}

#[test]
fn a_refused_batch_leaves_the_log_as_it_was() {
    let host = start(1);
    let (mut log, _) = host.open().unwrap();
    append(&mut log, &Input { epoch: 5, ..input(0) }).unwrap();
    let state = log.state();
    assert!(matches!(log.append(input(1).batch(), LeaderEpoch(4), 0), Err(LogError::StaleEpoch { .. })));
    let batch = input(1).batch();
    assert!(matches!(log.append(batch.slice(..70), LeaderEpoch(5), 0), Err(LogError::BadBatch(_))));
    assert!(matches!(log.append(batch.slice(..7), LeaderEpoch(5), 0), Err(LogError::BadBatch(_))));
    assert_eq!(log.state(), state);
    append(&mut log, &Input { epoch: 5, ..input(1) }).unwrap();
}

#[test]
fn a_full_disk_is_reported_and_stops_the_log() {
    let host = start(1);
    let (mut log, _) = host.open().unwrap();
    host.disk.set_capacity(2 * 4096);
    let failed = (0..100).map(|n| append(&mut log, &input(n))).find_map(Result::err);
    assert!(matches!(failed, Some(LogError::Disk(disk::DiskError::Full { .. }))), "{failed:?}");
}

#[test]
fn less_than_the_state_names_is_not_restored() {
    let host = start(1);
    let (mut log, _) = host.open().unwrap();
    run(&host, &mut log, 0).unwrap();
    let state = log.state();
    drop(log);
    let first = host.dir.join(format!("{:020}.log", state.segments[0].base.0));
    disk::Disk::remove(&host.disk, &first).unwrap();
    assert!(
        matches!(host.open(), Err(LogError::Unrestorable { segment, .. }) if segment == state.segments[0].base)
    );
}

#[test]
fn replay_brings_the_model_back() {
    // The helper that other tests lean on, on a log that was never flushed.
    let host = start(4);
    let (mut log, _) = host.open().unwrap();
    let model = Model { log_start: 5, ..model(10) };
    replay(&mut log, &model, &inputs()[..10]).unwrap();
    assert_eq!(Some(read_all(&log).unwrap()), model.read(5, model.next(), usize::MAX));
}
