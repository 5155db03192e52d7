//! Consumer groups of the model: members that come, go and die, and share partitions as they should.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{World, place};
use crate::history::*;

/// A member.
struct Member {
    worker: u32,
    consumer: u64,
    /// Next offset of each partition that it has.
    at: BTreeMap<usize, u64>,
}

/// One group that reads everything.
pub(super) struct Group {
    name: Arc<str>,
    epoch: u64,
    members: Vec<Member>,
    committed: BTreeMap<usize, u64>,
}

impl World {
    pub(super) fn group(&mut self) -> Group {
        let members = (0..2 + u32::try_from(self.rng.below(2)).unwrap()).map(|n| 51 + n);
        let members = members.map(|worker| {
            self.next_producer += 1;
            Member { worker, consumer: self.next_producer, at: BTreeMap::new() }
        });
        Group { name: "g".into(), epoch: 0, members: members.collect(), committed: BTreeMap::new() }
    }

    pub(super) fn group_step(&mut self, group: &mut Group) {
        match self.rng.below(10) {
            0..3 => {
                let at = self.rng.index(self.partitions.len());
                let to = self.rng.index(group.members.len());
                self.hand_over(group, at, to);
            }
            3..7 => {
                let member = self.rng.index(group.members.len());
                self.group_poll(group, member, 8);
            }
            7..9 => {
                let member = self.rng.index(group.members.len());
                self.group_commit(group, member);
            }
            _ => self.group_death(group),
        }
    }

    /// A partition goes to a member, after the one that has it let go.
    fn hand_over(&mut self, group: &mut Group, at: usize, to: usize) {
        let (topic, part) = self.names[at].clone();
        let name = group.name.clone();
        for member in &mut group.members {
            if member.at.remove(&at).is_some() {
                let (group, topic) = (name.clone(), topic.clone());
                let op = Op::Release(Release { consumer: member.consumer, group, topic, part });
                let recorder = self.recorder(member.worker);
                let call = recorder.invoke(member.worker, op);
                recorder.ok(call, Answer::Release);
            }
        }
        self.nap();
        group.epoch += 1;
        let from = group.committed.get(&at).copied();
        let member = &mut group.members[to];
        member.at.insert(at, from.unwrap_or(0));
        let (consumer, since) = (member.consumer, group.epoch);
        let op = Op::Assign(Assign { consumer, group: name, topic, part, since, from });
        let recorder = self.recorder(member.worker);
        let call = recorder.invoke(member.worker, op);
        recorder.ok(call, Answer::Assign);
    }

    fn group_poll(&mut self, group: &mut Group, member: usize, most: u64) {
        let member = &mut group.members[member];
        let mut parts = Vec::new();
        for (at, next) in &mut member.at {
            let partition = &self.partitions[*at];
            let from = (*next).max(partition.start);
            let until = partition.end().min(from + self.rng.below(most));
            let recs = (from..until).map(|offset| (offset, partition.log[place(offset)].value)).collect();
            *next = until.max(from);
            let (topic, part) = self.names[*at].clone();
            parts.push(PolledPartition { topic, part, recs, hw: None, start: Some(partition.start) });
        }
        let (worker, consumer) = (member.worker, member.consumer);
        let recorder = self.recorder(worker);
        let call = recorder.invoke(worker, Op::Poll(Poll { consumer }));
        recorder.ok(call, Answer::Poll(PollAnswer { parts }));
    }

    fn group_commit(&mut self, group: &mut Group, member: usize) {
        let member = &group.members[member];
        if member.at.is_empty() {
            return;
        }
        let parts = member.at.iter().map(|(at, next)| {
            let (topic, part) = self.names[*at].clone();
            CommitPart { topic, part, off: *next }
        });
        let op = Op::Commit(Commit {
            consumer: member.consumer,
            group: group.name.clone(),
            parts: parts.collect(),
        });
        let (worker, reached) = (member.worker, member.at.clone());
        let (is_taken, is_told) = (self.rng.chance(90), self.rng.chance(90));
        if is_taken {
            for (at, next) in reached {
                let committed = group.committed.entry(at).or_insert(0);
                *committed = next.max(*committed);
            }
        }
        let recorder = self.recorder(worker);
        let call = recorder.invoke(worker, op);
        match (is_taken, is_told) {
            (true, true) => recorder.ok(call, Answer::Commit),
            (false, true) => recorder.fail(call, "NotCoordinator"),
            (_, false) => recorder.info(call, "RequestTimedOut"),
        }
    }

    /// A member dies without a word; another takes its place once its session is over.
    fn group_death(&mut self, group: &mut Group) {
        let dead = self.rng.index(group.members.len());
        self.next_producer += 1;
        let (worker, consumer) = (group.members[dead].worker, self.next_producer);
        let left =
            std::mem::replace(&mut group.members[dead], Member { worker, consumer, at: BTreeMap::new() });
        for at in left.at.into_keys() {
            let to = self.rng.index(group.members.len());
            self.hand_over(group, at, to);
        }
    }

    /// A last member reads and commits everything.
    pub(super) fn drain_group(&mut self, group: &mut Group) {
        self.nap();
        let (worker, topics) = (group.members[0].worker, self.topics());
        let drain = Op::Drain(Drain { group: group.name.clone(), topics });
        let drain = self.recorder(worker).invoke(worker, drain);
        for at in 0..self.partitions.len() {
            self.hand_over(group, at, 0);
        }
        while group.members[0].at.iter().any(|(at, next)| *next < self.partitions[*at].end()) {
            self.group_poll(group, 0, 30);
        }
        let member = &group.members[0];
        for (at, next) in member.at.clone() {
            let (topic, part) = self.names[at].clone();
            let parts = vec![CommitPart { topic: topic.clone(), part, off: next }];
            let commit = Commit { consumer: group.members[0].consumer, group: group.name.clone(), parts };
            let recorder = self.recorder(worker);
            let call = recorder.invoke(worker, Op::Commit(commit));
            recorder.ok(call, Answer::Commit);
            let ask = Committed { group: group.name.clone(), topic, part };
            let call = recorder.invoke(worker, Op::Committed(ask));
            recorder.ok(call, Answer::Committed(CommittedAnswer { off: Some(next) }));
        }
        self.recorder(worker).ok(drain, Answer::Drain);
    }

    fn topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = self.names.iter().map(|(topic, _)| topic.clone()).collect();
        topics.dedup();
        topics
    }
}
