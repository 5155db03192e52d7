//! Takes over what the session task was told: which partitions begin, which end, and whom to tell.
//!
//! Partitions that stay are not touched: nobody stops reading what it keeps.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{PartitionIndex, TopicPartition};
use wire::pb;

use super::GroupConsumer;
use super::config::Guarantee;
use super::ledger::Fence;
use super::membership::News;
use crate::config::OffsetReset;
use crate::consumer::Position;
use crate::error::ClientError;

/// A change of what a consumer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// These begin, from their committed offsets; also one whose offset somebody reset begins again.
    Assigned(Vec<TopicPartition>),
    /// These end. They are still the consumer's own while it is told: what is done can be committed.
    Revoked(Vec<TopicPartition>),
    /// These are somebody else's already, or gone with their topic: nothing can be committed for them any more.
    Lost(Vec<TopicPartition>),
}

pub(super) type Listener = Box<dyn FnMut(Rebalance) -> BoxFuture<'static, ()> + Send>;

/// A partition that the consumer owns.
#[derive(Debug)]
pub(super) struct Part {
    /// Epoch at which it was assigned: another one means that it begins again.
    pub(super) since: u64,
    /// Where it began; `None` = where the policy says.
    pub(super) from: Option<u64>,
    /// It is read no more and goes back to the group once everybody was told.
    pub(super) is_revoked: bool,
    /// Everybody was told, and its last commit is under way.
    pub(super) is_departing: bool,
}

impl GroupConsumer {
    /// Takes note of what changed, tells the application, and gives back what others wait for.
    pub(super) async fn tend(&mut self) -> Result<(), ClientError> {
        while let Some(news) = self.membership.news() {
            match &news {
                News::Lost(error) => self.lose(error),
                News::Assignment { member, epoch, assignment } => {
                    self.ledger.set_fence(Some(Fence { member: member.clone(), epoch: *epoch }));
                    self.forget_departed();
                    self.take_over(assignment);
                }
            }
            self.membership.done_with(&news);
        }
        // From here on a dropped future leaves the rest to the next call.
        self.tell().await;
        self.give_back();
        self.membership.take_trouble().map_or(Ok(()), |error| Err(ClientError::Failed(error)))
    }

    fn lose(&mut self, error: &ApiError) {
        self.forget_departed();
        let parts = std::mem::take(&mut self.parts).into_iter();
        // Of what departs the application has taken leave.
        let lost = parts.filter(|(_, part)| !part.is_departing).map(|(at, _)| at);
        let lost: Vec<TopicPartition> = lost.collect();
        tracing::warn!(group = %self.config.group_id, count = lost.len(), %error, "partitions are lost");
        lost.iter().for_each(|at| self.stop_reading(at));
        self.ledger.set_fence(None);
        self.note(Rebalance::Lost, lost);
    }

    fn take_over(&mut self, assignment: &pb::Assignment) {
        let mut begun = Vec::new();
        let mut kept = BTreeSet::new();
        for assigned in &assignment.partitions {
            let at = place(&assigned.topic, assigned.partition);
            let known = self.parts.get(&at);
            if known.is_none_or(|part| part.since != assigned.since || part.is_revoked) {
                self.begin(&at, assigned);
                begun.push(at.clone());
            }
            kept.insert(at);
        }
        let mut revoked = Vec::new();
        for asked in &assignment.revoked {
            let at = place(&asked.topic, asked.partition);
            match self.parts.get_mut(&at) {
                Some(part) if part.is_revoked => {}
                Some(part) => {
                    part.is_revoked = true;
                    self.stop_reading(&at);
                    revoked.push(at.clone());
                }
                // An earlier life of this static member had it.
                None => self.membership.release([at.clone()]),
            }
            kept.insert(at);
        }
        let mut lost: Vec<TopicPartition> =
            self.parts.keys().filter(|at| !kept.contains(at)).cloned().collect();
        lost.retain(|at| {
            self.stop_reading(at);
            self.ledger.end(at);
            self.parts.remove(at).is_some_and(|part| !part.is_departing)
        });
        self.set_group_paused(assignment.paused);
        self.note(Rebalance::Revoked, revoked);
        self.note(Rebalance::Lost, lost);
        self.note(Rebalance::Assigned, begun);
    }

    /// Reads a partition from its committed offset, or where the policy says.
    fn begin(&mut self, at: &TopicPartition, assigned: &pb::AssignedPartition) {
        self.stop_reading(at);
        // Asked back before it was given back: it goes on where it is.
        let goes_on = self.parts.get(at).is_some_and(|part| part.since == assigned.since);
        if !goes_on || !self.ledger.stay(at) {
            self.ledger.begin(at, assigned.committed_offset);
        }
        self.membership.keep(at);
        let offset = self.ledger.reached(at);
        let part = Part { since: assigned.since, from: offset, is_revoked: false, is_departing: false };
        self.parts.insert(at.clone(), part);
        let from = offset.map(Position::Offset).or(self.config.consumer.offset_reset.start());
        let paused = self.group_paused || self.held.contains(at);
        match from {
            Some(from) => self.reader.add(at, from, paused),
            None => {
                let message = format!("group {:?} has no offset for {at}", self.config.group_id);
                let error = ApiError::new(ErrorCode::NoCommittedOffset, message);
                self.reader.add_unread(at, paused, ClientError::Failed(error));
            }
        }
        let is_latest = self.config.consumer.offset_reset == OffsetReset::Latest;
        if offset.is_none() && is_latest && self.config.guarantee == Guarantee::AtLeastOnce {
            self.unanchored.insert(at.clone());
        }
    }

    /// What begins at the end of the log is committed there: a successor must not begin at a later end.
    pub(super) fn anchor(&mut self) {
        let (reader, ledger) = (&self.reader, &self.ledger);
        self.unanchored.retain(|at| {
            let Some(position) = reader.position(at) else { return true };
            ledger.returned(at, Some(position));
            ledger.done([at.clone()]);
            false
        });
    }

    fn stop_reading(&mut self, at: &TopicPartition) {
        self.reader.remove(at);
        self.ready.retain(|record| !is_of(record, at));
        self.handed.remove(at);
        self.unanchored.remove(at);
    }

    pub(super) fn note(
        &mut self,
        change: impl Fn(Vec<TopicPartition>) -> Rebalance,
        partitions: Vec<TopicPartition>,
    ) {
        if !partitions.is_empty() {
            self.untold.push_back(change(partitions));
        }
    }

    pub(super) async fn tell(&mut self) {
        while let Some(change) = self.untold.front() {
            if let Some(listener) = &mut self.listener {
                listener(change.clone()).await;
            }
            self.untold.pop_front();
        }
    }

    /// Has revoked partitions given back after what is done of them was committed, and does not wait for that: records of
    /// what stays are returned meanwhile.
    fn give_back(&mut self) {
        let revoked = self.parts.iter_mut().filter(|(_, part)| part.is_revoked && !part.is_departing);
        let going = revoked.map(|(at, part)| {
            part.is_departing = true;
            at.clone()
        });
        let going: Vec<TopicPartition> = going.collect();
        if going.is_empty() {
            return;
        }
        let (departure, due) = self.ledger.depart(going);
        let is_auto = self.config.guarantee == Guarantee::AtLeastOnce;
        self.committer.give_back(departure, due.filter(|_| is_auto));
    }

    /// Forgets partitions whose last commit is over.
    fn forget_departed(&mut self) {
        let ledger = &self.ledger;
        self.parts.retain(|at, part| !part.is_departing || ledger.has(at));
    }
}

pub(super) fn place(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.to_owned(), partition: PartitionIndex(partition) }
}

pub(super) fn is_of(record: &crate::ConsumedRecord, at: &TopicPartition) -> bool {
    record.partition == at.partition.0 && *record.topic == *at.topic
}
