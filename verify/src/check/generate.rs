//! Makes histories of a cluster that keeps its word: a model of one, with everything that may happen to its clients.
//!
//! Writers of every kind (idempotent or not, each level of acknowledgement), several sends in flight, outcomes lost in
//! both directions, records written late, retries that write twice where that is allowed, consumers that seek, retention,
//! leaders that change, topics that grow, a consumer group, several recorders with one clock. One seed, one history.

#![expect(clippy::unwrap_used, reason = "a model whose bugs must be loud; it is never part of a product")]

mod groups;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Expectations;
use crate::history::*;

/// Splitmix64: the same numbers from the same seed for ever.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(super) const REPLICAS: u32 = 3;

/// An offset as a place in the model's log, which begins at 0.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

struct Stored {
    value: u64,
    epoch: u32,
    sum: u32,
}

#[derive(Default)]
struct Partition {
    log: Vec<Stored>,
    start: u64,
    /// Leader of each epoch, from 1.
    leaders: Vec<u32>,
}

impl Partition {
    fn end(&self) -> u64 {
        self.log.len() as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waiting,
    Applied(u64),
    Never,
}

struct Pending {
    call: CallId,
    writer: usize,
    at: usize,
    vals: Vec<u64>,
    fate: Fate,
    /// The caller has its outcome.
    told: bool,
}

struct Writer {
    worker: u32,
    producer: u64,
    idem: bool,
    acks: AckLevel,
    seq: u64,
    values: u64,
}

struct Reader {
    worker: u32,
    consumer: u64,
    /// Next offset and high watermark by partition.
    at: BTreeMap<usize, (u64, u64)>,
    polling: Option<CallId>,
}

/// A question whose answer is on its way.
struct Asked {
    call: CallId,
    worker: u32,
    at: usize,
    what: OffsetKind,
    linearizable: bool,
    floor: u64,
}

pub(super) struct World {
    rng: Rng,
    now: Arc<AtomicU64>,
    recorders: Vec<Recorder>,
    names: Vec<(Arc<str>, u32)>,
    partitions: Vec<Partition>,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    pending: Vec<Pending>,
    asked: VecDeque<Asked>,
    next_producer: u64,
    retention: bool,
    grows: bool,
    /// Partitions of the last topic that each broker knows.
    known: BTreeMap<u32, usize>,
}

/// A history of about `steps` steps and what may be expected of it.
pub(super) fn history(seed: u64, steps: u64) -> (History, Expectations) {
    let mut world = World::new(seed);
    let mut group = world.group();
    for _ in 0..steps {
        if world.rng.chance(10) {
            world.nap();
            world.group_step(&mut group);
        } else {
            world.step();
        }
    }
    world.finish(group)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let now = Arc::new(AtomicU64::new(0));
        let recorders = (0..=rng.below(3))
            .map(|_| {
                let now = Arc::clone(&now);
                Recorder::memory(Arc::new(move || now.load(Ordering::Relaxed)))
            })
            .collect();
        let mut names = Vec::new();
        for topic in 0..=rng.below(2) {
            let topic: Arc<str> = format!("t{topic}").into();
            names.extend((0..=u32::try_from(rng.below(3)).unwrap()).map(|part| (Arc::clone(&topic), part)));
        }
        let partitions =
            names.iter().map(|_| Partition { leaders: vec![1], ..Partition::default() }).collect();
        let retention = rng.chance(50);
        let grows = rng.chance(30);
        let mut world = Self {
            rng,
            now,
            recorders,
            names,
            partitions,
            writers: Vec::new(),
            readers: Vec::new(),
            pending: Vec::new(),
            asked: VecDeque::new(),
            next_producer: 1,
            retention,
            grows,
            known: BTreeMap::new(),
        };
        for worker in 1..=1 + u32::try_from(world.rng.below(4)).unwrap() {
            let writer = world.writer(worker, 0);
            world.writers.push(writer);
        }
        for worker in 11..=11 + u32::try_from(world.rng.below(3)).unwrap() {
            world.next_producer += 1;
            let reader = Reader { worker, consumer: world.next_producer, at: BTreeMap::new(), polling: None };
            world.readers.push(reader);
        }
        world
    }

    fn writer(&mut self, worker: u32, values: u64) -> Writer {
        self.next_producer += 1;
        let acks = match self.rng.below(10) {
            0 => AckLevel::None,
            1 | 2 => AckLevel::Leader,
            _ => AckLevel::All,
        };
        let idem = acks == AckLevel::All && self.rng.chance(80);
        Writer { worker, producer: self.next_producer, idem, acks, seq: 0, values }
    }

    fn recorder(&self, worker: u32) -> &Recorder {
        &self.recorders[worker as usize % self.recorders.len()]
    }

    /// Half of all steps take no time at all: clocks have a grain.
    fn nap(&mut self) {
        let nap = if self.rng.chance(50) { 0 } else { self.rng.below(2_000_000) };
        self.now.fetch_add(nap, Ordering::Relaxed);
    }

    fn step(&mut self) {
        self.nap();
        match self.rng.below(100) {
            0..25 => self.send(),
            25..50 => self.apply(),
            50..70 => self.tell(),
            70..85 => self.poll(),
            85..88 => self.seek(),
            88..91 => self.ask(),
            91..94 => self.answer(),
            94..95 => self.retire(),
            95..96 => self.elect(),
            96..98 => self.metadata(),
            98 => self.fault(),
            _ => self.restart(),
        }
    }

    fn send(&mut self) {
        let writer = self.rng.index(self.writers.len());
        let at = self.rng.index(self.partitions.len());
        if self.pending.len() > 64 {
            return;
        }
        let count = if self.rng.chance(80) { 1 } else { 1 + self.rng.below(3) };
        let (topic, part) = self.names[at].clone();
        let from = &mut self.writers[writer];
        let vals: Vec<u64> = (0..count).map(|n| value(from.worker, from.values + n)).collect();
        from.values += count;
        let seq = from.seq;
        from.seq += 1 + seq % 2;
        let (producer, idem, acks, worker) = (from.producer, from.idem, from.acks, from.worker);
        let op = Op::Send(Send { topic, part, producer, idem, acks, seq, vals: vals.clone() });
        let call = self.recorder(worker).invoke(worker, op);
        self.pending.push(Pending { call, writer, at, vals, fate: Fate::Waiting, told: false });
    }

    /// Something that waits is written, or never will be.
    fn apply(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.rng.index(self.pending.len());
        let (writer, at, told) = {
            let pending = &self.pending[index];
            (pending.writer, pending.at, pending.told)
        };
        if self.pending[index].fate != Fate::Waiting {
            return;
        }
        // An idempotent producer's records wait for those before them, unless it gave those up.
        let overtakes = self.writers[writer].idem
            && self.pending[..index].iter().any(|other| {
                (other.writer, other.at, other.fate, other.told) == (writer, at, Fate::Waiting, false)
            });
        if overtakes {
            return;
        }
        if self.rng.chance(10) {
            self.pending[index].fate = Fate::Never;
        } else {
            let offset = self.append(index);
            // Tried again without need.
            if !self.writers[writer].idem && self.rng.chance(5) {
                self.append(index);
            }
            self.pending[index].fate = Fate::Applied(offset);
        }
        if told {
            self.pending.remove(index);
        }
    }

    fn append(&mut self, index: usize) -> u64 {
        let pending = &self.pending[index];
        let partition = &mut self.partitions[pending.at];
        let offset = partition.end();
        let epoch = u32::try_from(partition.leaders.len()).unwrap();
        let stored = pending.vals.iter().map(|value| Stored {
            value: *value,
            epoch,
            sum: u32::try_from(value.wrapping_mul(0x9e37_79b9) >> 32 & 0x7fff_ffff).unwrap() | 1,
        });
        partition.log.extend(stored);
        offset
    }

    /// A caller is told, or stops waiting.
    fn tell(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.rng.index(self.pending.len());
        let lost_answer = self.rng.chance(15);
        let pending = &self.pending[index];
        if pending.told {
            return;
        }
        let writer = &self.writers[pending.writer];
        let recorder = self.recorder(writer.worker);
        let count = pending.vals.len() as u64;
        let receipt = |offset: Option<u64>| {
            let off = offset.map_or_else(Vec::new, |offset| (offset..offset + count).collect());
            Answer::Send(SendAnswer { off, epoch: 1, index: 0, dup: false })
        };
        match (pending.fate, writer.acks) {
            (_, AckLevel::None) => recorder.ok(pending.call, receipt(None)),
            _ if lost_answer => recorder.info(pending.call, "RequestTimedOut"),
            (Fate::Applied(offset), AckLevel::All) => recorder.ok(pending.call, receipt(Some(offset))),
            (Fate::Waiting, AckLevel::All) => return,
            // On the leader's disk, and lost with it or not.
            (_, AckLevel::Leader) => recorder.ok(pending.call, receipt(None)),
            (Fate::Never, AckLevel::All) => recorder.fail(pending.call, "NotEnoughReplicas"),
        }
        if pending.fate == Fate::Waiting {
            self.pending[index].told = true;
        } else {
            self.pending.remove(index);
        }
    }

    fn poll(&mut self) {
        let index = self.rng.index(self.readers.len());
        let reader = &self.readers[index];
        let recorder = self.recorder(reader.worker).clone();
        let Some(call) = reader.polling else {
            let call = recorder.invoke(reader.worker, Op::Poll(Poll { consumer: reader.consumer }));
            self.readers[index].polling = Some(call);
            return;
        };
        self.readers[index].polling = None;
        if self.rng.chance(5) {
            recorder.fail(call, "OffsetOutOfRange");
            return;
        }
        let unknown = self.rng.chance(3);
        let mut parts = Vec::new();
        for at in 0..self.partitions.len() {
            if self.rng.chance(50) {
                parts.push(self.take(index, at));
            }
        }
        if unknown {
            recorder.info(call, "cancelled");
        } else {
            recorder.ok(call, Answer::Poll(PollAnswer { parts }));
        }
    }

    /// What one partition has for a consumer; it may lag, never go back.
    fn take(&mut self, reader: usize, at: usize) -> PolledPartition {
        let partition = &self.partitions[at];
        let (next, watermark) =
            self.readers[reader].at.get(&at).copied().unwrap_or((partition.start, partition.start));
        let next = next.max(partition.start);
        let low = watermark.max(next).min(partition.end());
        let hw = low + self.rng.below(partition.end() - low + 1);
        let until = hw.min(next + self.rng.below(20)).max(next);
        let recs = (next..until).map(|offset| (offset, partition.log[place(offset)].value)).collect();
        let told = self.rng.chance(80);
        let (topic, part) = self.names[at].clone();
        let start = told.then_some(partition.start);
        self.readers[reader].at.insert(at, (until, hw));
        PolledPartition { topic, part, recs, hw: told.then_some(hw), start }
    }

    fn seek(&mut self) {
        let index = self.rng.index(self.readers.len());
        let at = self.rng.index(self.partitions.len());
        if self.readers[index].polling.is_some() {
            return;
        }
        let (start, end) = (self.partitions[at].start, self.partitions[at].end());
        let somewhere = start + self.rng.below(end - start + 1);
        let (to, next) = match self.rng.below(3) {
            0 => (SeekTo::Earliest, start),
            1 => (SeekTo::Latest, end),
            _ => (SeekTo::Offset(somewhere), somewhere),
        };
        let reader = &mut self.readers[index];
        let watermark = reader.at.get(&at).map_or(0, |(_, watermark)| *watermark);
        reader.at.insert(at, (next, watermark));
        let (worker, consumer) = (reader.worker, reader.consumer);
        let (topic, part) = self.names[at].clone();
        let recorder = self.recorder(worker);
        let call = recorder.invoke(worker, Op::Seek(Seek { consumer, topic, part, to }));
        recorder.ok(call, Answer::Seek);
    }

    fn ask(&mut self) {
        let worker = 21 + u32::try_from(self.rng.below(3)).unwrap();
        let at = self.rng.index(self.partitions.len());
        let what = if self.rng.chance(70) { OffsetKind::End } else { OffsetKind::Start };
        let linearizable = self.rng.chance(70);
        let (topic, part) = self.names[at].clone();
        let op = Op::ListOffsets(ListOffsets { topic, part, what, linearizable });
        let call = self.recorder(worker).invoke(worker, op);
        let floor = self.partitions[at].end();
        self.asked.push_back(Asked { call, worker, at, what, linearizable, floor });
    }

    fn answer(&mut self) {
        let Some(asked) = self.asked.pop_front() else { return };
        let partition = &self.partitions[asked.at];
        let span = partition.end() - asked.floor;
        let off = match (asked.what, asked.linearizable) {
            (OffsetKind::Start, _) => partition.start,
            (OffsetKind::End, true) => asked.floor + self.rng.below(span + 1),
            (OffsetKind::End, false) => self.rng.below(partition.end() + 1),
        };
        // Two of one worker at once may be answered in any order; the model answers in order, but never less.
        let off =
            if asked.linearizable && asked.what == OffsetKind::End { off.max(partition.end()) } else { off };
        let lost_answer = self.rng.chance(10);
        let recorder = self.recorder(asked.worker);
        if lost_answer {
            recorder.info(asked.call, "RequestTimedOut");
        } else {
            recorder.ok(asked.call, Answer::ListOffsets(ListOffsetsAnswer { off }));
        }
    }

    fn retire(&mut self) {
        let at = self.rng.index(self.partitions.len());
        if self.retention {
            let kept = self.partitions[at].end() - self.partitions[at].start;
            self.partitions[at].start += self.rng.below(kept / 2 + 1);
        }
    }

    fn elect(&mut self) {
        let at = self.rng.index(self.partitions.len());
        let leader = 1 + u32::try_from(self.rng.below(3)).unwrap();
        self.partitions[at].leaders.push(leader);
        if self.grows && self.partitions.len() < 10 && self.rng.chance(20) {
            let (topic, part) = self.names[self.names.len() - 1].clone();
            self.names.push((topic, part + 1));
            self.partitions.push(Partition { leaders: vec![2], ..Partition::default() });
        }
    }

    /// A broker tells what it knows, which may be old.
    fn metadata(&mut self) {
        let broker = u32::try_from(self.rng.below(4)).unwrap();
        let mut known = self.known.get(&broker).copied().unwrap_or(0);
        known = known.max(if self.rng.chance(50) || !self.grows { self.names.len() } else { known.max(1) });
        if !self.grows || broker == 0 {
            known = self.names.len();
        }
        self.known.insert(broker, known);
        let mut topics: Vec<TopicView> = Vec::new();
        for at in 0..known {
            let topic = Arc::clone(&self.names[at].0);
            let leaders = &self.partitions[at].leaders;
            let epoch = 1 + self.rng.index(leaders.len());
            let leader = self.rng.chance(90).then(|| leaders[epoch - 1]);
            let view = PartitionLeader { leader, epoch: u32::try_from(epoch).unwrap() };
            match topics.last_mut() {
                Some(last) if last.topic == topic => last.parts.push(view),
                _ => topics.push(TopicView { id: format!("id-{topic}"), topic, parts: vec![view] }),
            }
        }
        // A broker that does not know all of a topic's partitions does not know the topic yet, unless it grew.
        if !self.grows && self.rng.chance(10) {
            topics.pop();
        }
        let recorder = self.recorder(31);
        let call = recorder.invoke(31, Op::Metadata(Metadata { broker }));
        recorder.ok(call, Answer::Metadata(MetadataAnswer { topics }));
    }

    fn fault(&mut self) {
        let outcome =
            [FaultOutcome::Installed, FaultOutcome::Skipped, FaultOutcome::Indeterminate][self.rng.index(3)];
        let kind = ["kill", "cut", "heal"][self.rng.index(3)];
        self.recorder(0).fault(kind, "broker 2", outcome, "");
    }

    /// A client goes away and a new one comes in its place.
    fn restart(&mut self) {
        if self.rng.chance(50) {
            let index = self.rng.index(self.writers.len());
            // What it had in flight stays unknown for ever, and may still be written.
            let left: Vec<usize> =
                (0..self.pending.len()).filter(|at| self.pending[*at].writer == index).collect();
            if left.is_empty() {
                let (worker, values) = (self.writers[index].worker, self.writers[index].values);
                self.writers[index] = self.writer(worker, values);
            }
        } else {
            let index = self.rng.index(self.readers.len());
            self.next_producer += 1;
            let (consumer, worker) = (self.next_producer, self.readers[index].worker);
            self.readers[index] = Reader { worker, consumer, at: BTreeMap::new(), polling: None };
        }
    }

    /// Everything settles, and every replica is read.
    fn finish(mut self, mut group: groups::Group) -> (History, Expectations) {
        for _ in 0..200 {
            self.now.fetch_add(1_000, Ordering::Relaxed);
            if self.rng.chance(50) { self.apply() } else { self.tell() }
        }
        self.drain_group(&mut group);
        self.now.fetch_add(1_000_000_000, Ordering::Relaxed);
        for at in 0..self.partitions.len() {
            for replica in 1..=REPLICAS {
                let again = self.rng.chance(10);
                let worker = 40 + replica;
                let (topic, part) = self.names[at].clone();
                let recorder = self.recorder(worker).clone();
                let op = Op::FinalRead(FinalRead { topic, part, replica });
                if again {
                    let call = recorder.invoke(worker, op.clone());
                    recorder.fail(call, "NotReady");
                }
                let call = recorder.invoke(worker, op);
                self.now.fetch_add(1_000, Ordering::Relaxed);
                let partition = &self.partitions[at];
                // Replicas retire records one after another.
                let start = partition.start - if self.rng.chance(30) { partition.start / 2 } else { 0 };
                let recs = (start..)
                    .zip(&partition.log[place(start)..])
                    .map(|(off, stored)| {
                        let known = !self.rng.chance(5);
                        let (epoch, sum) = if known { (stored.epoch, stored.sum) } else { (0, 0) };
                        FinalRecord { off, val: stored.value, epoch, sum }
                    })
                    .collect();
                let answer = FinalReadAnswer { start, hw: partition.end(), recs };
                recorder.ok(call, Answer::FinalRead(answer));
            }
        }
        let events = (0_u32..)
            .zip(&self.recorders)
            .map(|(file, recorder)| {
                recorder.finish().unwrap();
                (format!("w{file}.jsonl"), recorder.take_events())
            })
            .collect();
        let expectations =
            Expectations { retention: self.retention, replicas: REPLICAS, dense: true, grows: self.grows };
        (History::from_events(events).unwrap(), expectations)
    }
}
