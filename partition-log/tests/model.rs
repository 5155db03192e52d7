//! Any sequence of appends, flushes, trims, crashes and reopenings leaves what a vector of batches would hold.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod common;

use common::{Host, Input, Model, append, read_all, replay, small};
use disk::faulty::FaultyDisk;
use partition_log::{LogError, PartitionLog, ReadOutcome};
use proptest::prelude::*;
use wire::ids::Offset;

#[derive(Debug, Clone)]
enum Op {
    Append {
        records: usize,
        value_len: usize,
        time_step: i64,
        new_epoch: bool,
    },
    Flush,
    /// Loss of power, then recovery from the newest state (or the one before) and replay of the rest.
    Crash {
        from_before: bool,
    },
    /// Death of the process only.
    Kill,
    SetLogStart(prop::sample::Index),
    Read {
        from: prop::sample::Index,
        upto: prop::sample::Index,
        max_bytes: usize,
        nowait: bool,
        cold: bool,
    },
    Time {
        timestamp: i64,
        upto: prop::sample::Index,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (1..5_usize, 0..200_usize, -20..60_i64, prop::bool::weighted(0.1))
            .prop_map(|(records, value_len, time_step, new_epoch)| Op::Append { records, value_len, time_step, new_epoch }),
        3 => Just(Op::Flush),
        1 => any::<bool>().prop_map(|from_before| Op::Crash { from_before }),
        1 => Just(Op::Kill),
        1 => index().prop_map(Op::SetLogStart),
        4 => (index(), index(), 0..4000_usize, any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(from, upto, max_bytes, nowait, cold)| Op::Read { from, upto, max_bytes, nowait, cold }),
        1 => (-50..2000_i64, index()).prop_map(|(timestamp, upto)| Op::Time { timestamp, upto }),
    ]
}

struct Run {
    host: Host,
    log: PartitionLog,
    model: Model,
    inputs: Vec<Input>,
    epoch: u32,
    time: i64,
}

impl Run {
    fn new(seed: u64, tail_cache_bytes: usize) -> Self {
        let host = Host::new(FaultyDisk::new(seed), small(tail_cache_bytes));
        host.prepare().unwrap();
        let (log, _) = host.open().unwrap();
        Self { host, log, model: Model::default(), inputs: Vec::new(), epoch: 1, time: 0 }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append { records, value_len, time_step, new_epoch } => {
                self.epoch += u32::from(*new_epoch);
                self.time += time_step;
                let timestamps = (0..*records).map(|n| self.time + i64::try_from(n).unwrap()).collect();
                let input = Input { epoch: self.epoch, timestamps, value_len: *value_len };
                append(&mut self.log, &input).unwrap();
                self.model.push(&input);
                self.inputs.push(input);
            }
            Op::Flush => self.host.flush(&mut self.log).unwrap(),
            Op::Crash { from_before } => {
                self.host.disk.crash();
                if *from_before {
                    self.host.fall_back().unwrap();
                }
                self.recover();
            }
            Op::Kill => {
                self.host.disk.kill();
                self.recover();
            }
            Op::SetLogStart(at) => {
                let to = at.index(usize::try_from(self.model.next()).unwrap() + 1) as u64;
                self.log.set_log_start(Offset(to)).unwrap();
                self.model.log_start = self.model.log_start.max(to);
            }
            Op::Read { from, upto, max_bytes, nowait, cold } => {
                let end = usize::try_from(self.model.next()).unwrap() + 2;
                self.read((from.index(end) as u64, upto.index(end) as u64), *max_bytes, *nowait, *cold);
            }
            Op::Time { timestamp, upto } => {
                let upto = upto.index(usize::try_from(self.model.next()).unwrap() + 1) as u64;
                let found = self.log.reader().offset_for_time(*timestamp, Offset(upto)).unwrap();
                assert_eq!(found.map(|(at, time)| (at.0, time)), self.model.since(*timestamp, upto));
            }
        }
    }

    fn recover(&mut self) {
        // A state from before the first flush does not exist: the log then begins empty.
        let wanted = self.host.load("state").map_or(0, |state| state.next_offset.0);
        let (log, _) = self.host.open().unwrap();
        self.log = log;
        assert_eq!(self.log.next_offset().0, wanted);
        let restored = Model { log_start: self.log.log_start().0, ..self.model.clone() };
        assert_eq!(
            read_all(&self.log).unwrap(),
            restored.read(restored.log_start, wanted, usize::MAX).unwrap()
        );
        replay(&mut self.log, &self.model, &self.inputs).unwrap();
    }

    fn read(&self, (from, upto): (u64, u64), max_bytes: usize, nowait: bool, cold: bool) {
        self.host.disk.set_cold(cold);
        let found = self.log.reader().read(Offset(from), Offset(upto), max_bytes, nowait);
        self.host.disk.set_cold(false);
        match (found, self.model.read(from, upto, max_bytes)) {
            (Ok(ReadOutcome::Data(found)), Some(wanted)) if nowait => {
                // A part is fine, unless nothing came although something was there.
                assert!(wanted.starts_with(&found));
                assert!(wanted.is_empty() || !found.is_empty());
            }
            (Ok(ReadOutcome::Data(found)), Some(wanted)) => assert_eq!(found, wanted),
            (Ok(ReadOutcome::WouldBlock), Some(_)) => assert!(nowait),
            (Err(LogError::OffsetOutOfRange { .. }), None) => {}
            other => panic!("{other:?}"),
        }
    }

    fn check(&self) {
        let model = &self.model;
        assert_eq!(self.log.next_offset().0, model.next());
        assert_eq!(self.log.log_start().0, model.log_start);
        let all = model.read(model.log_start, model.next(), usize::MAX).unwrap();
        assert_eq!(read_all(&self.log).unwrap(), all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_a_vector_would_be(
        seed in any::<u64>(),
        tail_cache_bytes in prop_oneof![Just(0), Just(700), Just(1 << 20)],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut run = Run::new(seed, tail_cache_bytes);
        for op in &ops {
            run.step(op);
            run.check();
        }
    }
}
