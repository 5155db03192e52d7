//! Drives the WAL by hand, one step at a time, on the simulated disk, next to a model of what must survive.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests; each binary uses its own part"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use disk::faulty::FaultyDisk;
use futures::FutureExt;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use raft_store::{
    GroupMark, GroupSpec, LogPosition, Payload, Recovery, Step, Vote, Wait, Wal, WalConfig, WalError,
    WalWriter,
};

use crate::common::{Log, Types, entry, open, salts};

pub const ROOT: &str = "/data";
const GROUPS: u64 = 4;

/// What a group is: its replica, entries, vote and purge point.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    pub replica: Option<u64>,
    pub entries: Vec<(u64, u64, Vec<u8>)>,
    pub vote: Option<Vote>,
    pub purged: Option<LogPosition>,
}

impl State {
    fn next_index(&self) -> u64 {
        let after_purged = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries.last().map_or(after_purged, |(index, ..)| index + 1)
    }

    fn last(&self) -> Option<LogPosition> {
        self.entries.last().map(|(index, term, _)| LogPosition { term: *term, index: *index }).or(self.purged)
    }
}

/// All states that a group went through, and how far they are known to be durable.
#[derive(Debug, Clone, Default)]
pub struct GroupModel {
    pub states: Vec<State>,
    pub acked: usize,
}

impl GroupModel {
    fn new() -> Self {
        Self { states: vec![State::default()], acked: 0 }
    }

    pub fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }
}

type Receiver = <<openraft::type_config::alias::AsyncRuntimeOf<Types> as openraft::AsyncRuntime>::Oneshot as openraft::async_runtime::Oneshot>::Receiver<std::io::Result<()>>;

/// A WAL that is driven by hand.
pub struct Sim {
    pub disk: FaultyDisk,
    pub wal: Wal,
    pub writer: WalWriter,
    pub models: BTreeMap<u64, GroupModel>,
    waiting: Vec<(u64, usize, Receiver)>,
    random: Box<dyn FnMut() -> u64 + Send>,
    next_replica: u64,
}

pub fn sim_config() -> WalConfig {
    WalConfig {
        file_bytes: 64 << 10,
        pool_files: 3,
        outstanding_max: 64 << 20,
        reserve: 1 << 20,
        relocate_after_files: 3,
        tail_cache_bytes: 32 << 10,
        ..WalConfig::default()
    }
}

impl Sim {
    pub fn open(disk: &FaultyDisk, seed: u64) -> Result<(Self, Recovery), WalError> {
        let (wal, writer, recovery) = open(Arc::new(disk.clone()), Path::new(ROOT), sim_config(), seed)?;
        let sim = Self {
            disk: disk.clone(),
            wal,
            writer,
            models: (0..GROUPS).map(|group| (group, GroupModel::new())).collect(),
            waiting: Vec::new(),
            random: Box::new(salts(seed ^ 0x5eed)),
            next_replica: 1000 + seed * 100_000,
        };
        Ok((sim, recovery))
    }

    /// Polls a future and steps the writer until the future is done; `None` if the WAL has failed.
    pub fn drive<T>(&mut self, future: impl Future<Output = Result<T, WalError>>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..1000 {
            if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
                return done.ok();
            }
            self.writer.step(Wait::No);
        }
        panic!("the WAL does not answer");
    }

    pub fn step(&mut self, wait: Wait) -> Step {
        let step = self.writer.step(wait);
        self.settle();
        step
    }

    fn settle(&mut self) {
        let mut waiting = Vec::new();
        for (group, state, mut receiver) in std::mem::take(&mut self.waiting) {
            match (&mut receiver).now_or_never() {
                Some(Ok(Ok(()))) => {
                    let model = self.models.get_mut(&group).unwrap();
                    model.acked = model.acked.max(state);
                }
                Some(_) => {}
                None => waiting.push((group, state, receiver)),
            }
        }
        self.waiting = waiting;
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.random)() % bound
    }

    fn log(&self, group: u64) -> Option<Log> {
        self.wal.log(group, self.models[&group].now().replica?).ok()
    }

    /// One random operation; false when the WAL has failed.
    pub fn act(&mut self) -> bool {
        let group = self.below(GROUPS);
        let Some(log) = self.log(group) else { return self.create(group) };
        match self.below(20) {
            0..=8 => self.append(group, log),
            9 | 10 => self.vote(group, log),
            11 => self.truncate(group, log),
            12 | 13 => self.purge(group, log),
            14 => self.checkpoint(),
            15 if self.below(4) == 0 => self.delete(group),
            16 => self.commit(group, log),
            17 => self.step(Wait::Mark) != Step::Failed,
            _ => self.step(Wait::No) != Step::Failed,
        }
    }

    fn create(&mut self, group: u64) -> bool {
        self.next_replica += 1;
        let spec = GroupSpec {
            group,
            replica: self.next_replica,
            topic: uuid::Uuid::from_u128(group.into()),
            partition: 3,
        };
        let replica = Some(spec.replica);
        let at = self.models.get_mut(&group).unwrap().push(State { replica, ..State::default() });
        let wal = self.wal.clone();
        self.acked(group, at, async move { wal.create_group(spec).await })
    }

    fn delete(&mut self, group: u64) -> bool {
        let Some(replica) = self.models[&group].now().replica else { return true };
        let at = self.models.get_mut(&group).unwrap().push(State::default());
        let wal = self.wal.clone();
        self.acked(group, at, async move { wal.delete_group(group, replica).await })
    }

    fn acked(&mut self, group: u64, at: usize, future: impl Future<Output = Result<(), WalError>>) -> bool {
        let done = self.drive(future).is_some();
        self.settle();
        if done {
            let model = self.models.get_mut(&group).unwrap();
            model.acked = model.acked.max(at);
        }
        done
    }

    pub fn append(&mut self, group: u64, mut log: Log) -> bool {
        let mut state = self.models[&group].now().clone();
        let term =
            state.last().map_or(1, |last| last.term).max(state.vote.map_or(1, |vote| vote.leader_id.term));
        let mut entries = Vec::new();
        for _ in 0..=self.below(3) {
            let len = if self.below(12) == 0 { 20_000 } else { self.below(600) };
            let fill = (self.random)().to_le_bytes();
            let body: Vec<u8> = fill.iter().copied().cycle().take(usize::try_from(len).unwrap()).collect();
            let index = state.next_index();
            entries.push(entry(term, index, &body));
            state.entries.push((index, term, body));
            // A long append may take several writes, of which the first ones may be all that is left.
            self.models.get_mut(&group).unwrap().push(state.clone());
        }
        let at = self.models[&group].states.len() - 1;
        let (sender, receiver) = Types::oneshot();
        let appended = log.append(entries, IOFlushed::signal(sender)).now_or_never().unwrap();
        self.waiting.push((group, at, receiver));
        appended.is_ok()
    }

    fn vote(&mut self, group: u64, mut log: Log) -> bool {
        let mut state = self.models[&group].now().clone();
        let term = state.vote.map_or(1, |vote| vote.leader_id.term + 1);
        // Never the own replica: what becomes of its committed votes is another test.
        let vote = if self.below(2) == 0 { Vote::new(term, 1) } else { Vote::new_committed(term, 2) };
        state.vote = Some(vote);
        let at = self.models.get_mut(&group).unwrap().push(state);
        self.acked(group, at, async move { log.save_vote(&vote).await.map_err(|_| WalError::Closed) })
    }

    fn truncate(&mut self, group: u64, mut log: Log) -> bool {
        let mut state = self.models[&group].now().clone();
        if state.entries.is_empty() {
            return true;
        }
        let keep = usize::try_from(self.below(state.entries.len() as u64)).unwrap();
        state.entries.truncate(keep);
        // What comes next has a higher term, as in Raft.
        let term = state.vote.map_or(1, |vote| vote.leader_id.term + 1);
        let vote = Vote::new_committed(term, 3);
        let last = state.last().map(LogPosition::log_id);
        let model = self.models.get_mut(&group).unwrap();
        model.push(state.clone());
        if log.truncate_after(last).now_or_never().unwrap().is_err() {
            return false;
        }
        state.vote = Some(vote);
        let at = self.models.get_mut(&group).unwrap().push(state);
        self.acked(group, at, async move { log.save_vote(&vote).await.map_err(|_| WalError::Closed) })
    }

    fn purge(&mut self, group: u64, mut log: Log) -> bool {
        let mut state = self.models[&group].now().clone();
        if state.entries.is_empty() {
            return true;
        }
        let count = usize::try_from(self.below(state.entries.len() as u64 + 1)).unwrap();
        let Some((index, term, _)) = state.entries.drain(..count).next_back() else { return true };
        let upto = LogPosition { term, index };
        state.purged = Some(upto);
        self.models.get_mut(&group).unwrap().push(state);
        log.purge(upto.log_id()).now_or_never().unwrap().is_ok()
    }

    fn commit(&mut self, group: u64, mut log: Log) -> bool {
        let last = self.models[&group].now().last().map(LogPosition::log_id);
        log.save_committed(last).now_or_never().unwrap().is_ok()
    }

    pub fn checkpoint(&mut self) -> bool {
        self.checkpoint_with(Vec::new())
    }

    pub fn checkpoint_with(&mut self, marks: Vec<GroupMark>) -> bool {
        let wal = self.wal.clone();
        let done = self.drive(async move { wal.checkpoint(marks).await }).is_some();
        self.settle();
        if done {
            // What was submitted before a checkpoint is durable after it.
            for model in self.models.values_mut() {
                model.acked = model.states.len() - 1;
            }
        }
        done
    }

    /// What the WAL holds for a group.
    pub fn state_of(wal: &Wal, recovery: &Recovery, group: u64) -> State {
        let Some(recovered) = recovery.groups.get(&group) else { return State::default() };
        let mut log: Log = wal.log(group, recovered.replica).unwrap();
        let state = log.get_log_state().now_or_never().unwrap().unwrap();
        let entries = log.try_get_log_entries(0..).now_or_never().unwrap().unwrap();
        let entries = entries.into_iter().map(|entry| {
            let Payload::Normal(data) = entry.payload else { panic!("only normal entries were written") };
            (entry.log_id.index, entry.log_id.leader_id.term, data.body.to_vec())
        });
        State {
            replica: Some(recovered.replica),
            entries: entries.collect(),
            vote: log.read_vote().now_or_never().unwrap().unwrap(),
            purged: state.last_purged_log_id.as_ref().map(LogPosition::of),
        }
    }

    /// The disk crashes; what comes back must be one of the states after the last acknowledged one.
    pub fn crash(self, seed: u64) -> Self {
        self.end(seed, FaultyDisk::crash)
    }

    /// The process is killed, the page cache stays; what comes back is judged as after [`Sim::crash`].
    pub fn kill(self, seed: u64) -> Self {
        self.end(seed, FaultyDisk::kill)
    }

    fn end(self, seed: u64, how: fn(&FaultyDisk)) -> Self {
        let Self { disk, wal, writer, mut models, next_replica, .. } = self;
        drop((wal, writer));
        how(&disk);
        let (mut sim, recovery) = Self::open(&disk, seed).unwrap();
        assert!(recovery.report.damaged_groups.is_empty(), "false alarm: {:?}", recovery.report);
        assert!(recovery.report.lost.is_empty(), "false alarm: {:?}", recovery.report);
        for (group, model) in &mut models {
            let found = Self::state_of(&sim.wal, &recovery, *group);
            let known = model.states[model.acked..].iter().position(|state| *state == found);
            assert!(
                known.is_some(),
                "group {group} came back as {}, which is none of {:?}",
                brief(&found),
                model.states[model.acked..].iter().map(brief).collect::<Vec<_>>()
            );
            *model = GroupModel { states: vec![found], acked: 0 };
        }
        sim.models = models;
        sim.next_replica = next_replica;
        sim
    }
}

fn brief(state: &State) -> String {
    let entries: Vec<_> = state.entries.iter().map(|(index, term, body)| (index, term, body.len())).collect();
    format!("{:?} purged {:?} vote {:?} {entries:?}", state.replica, state.purged, state.vote)
}
