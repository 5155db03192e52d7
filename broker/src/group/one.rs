//! One group: members, rebalances, and who may commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use disk::mutant::{self, Mutant};
use serde::{Deserialize, Serialize};
use wire::ids::{Generation, MemberEpoch, MemberId, TopicId, TopicIdPartition};

use super::assignment::Assignment;
use super::assignor::{Assignor, Input};
use super::catalog::TopicCatalog;
use super::command::{GroupReply, Join};
use super::error::GroupError;
use super::member::Member;
use super::{MEMBERS_MAX, SUBSCRIPTION_BYTES_MAX, SUBSCRIPTIONS_MAX};

/// Why a group rebalanced. Order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A member came.
    Joined {
        /// What it calls itself.
        client_id: String,
    },
    /// A member reads other topics than before, or asks for another assignor.
    Changed {
        /// What it calls itself.
        client_id: String,
    },
    /// A member closed.
    Left {
        /// What it called itself.
        client_id: String,
    },
    /// A member was silent for too long.
    Expired {
        /// What it called itself.
        client_id: String,
    },
    /// A topic appeared, grew or was deleted.
    Topic {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { client_id } => write!(f, "member {client_id:?} joined"),
            Self::Changed { client_id } => write!(f, "member {client_id:?} changed its subscription"),
            Self::Left { client_id } => write!(f, "member {client_id:?} left"),
            Self::Expired { client_id } => write!(f, "member {client_id:?} was silent for too long"),
            Self::Topic { name } => write!(f, "topic {name:?} appeared, grew or was deleted"),
        }
    }
}

/// The last rebalance. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Why.
    pub cause: Cause,
    /// When, by the coordinator's wall clock; `None` = the change of the topic carried no time. Unit: ms since 1970.
    pub time_ms: Option<i64>,
    /// Partitions that had to leave a member that was there.
    pub moved: u32,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No members.
    Empty,
    /// Some partitions are on their way from one member to another.
    Rebalancing,
    /// Everybody has what they shall have.
    Stable,
}

impl Phase {
    /// The word that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Rebalancing => "rebalancing",
            Self::Stable => "stable",
        }
    }
}

/// A group without its offsets. Field order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// Rebalances so far.
    pub generation: Generation,
    /// Changes of the assignment so far.
    pub epoch: MemberEpoch,
    /// Members.
    pub members: BTreeMap<MemberId, Member>,
    /// Who has what.
    pub assignment: Assignment,
    /// How it was decided last.
    pub assignor: Assignor,
    /// Members shall not read.
    pub paused: bool,
    /// The last rebalance.
    pub last_rebalance: Option<Rebalance>,
    /// When the last member went, or the group came to be. Unit: ms since 1970.
    pub idle_since_ms: i64,
}

impl Group {
    /// A group that comes into being.
    pub(super) fn new(time_ms: i64) -> Self {
        Self { idle_since_ms: time_ms, ..Self::default() }
    }

    /// Where the group stands.
    pub fn phase(&self) -> Phase {
        if self.members.is_empty() {
            Phase::Empty
        } else if self.assignment.is_settled() {
            Phase::Stable
        } else {
            Phase::Rebalancing
        }
    }

    /// A member, if it sent an epoch that it was told.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`], [`GroupError::FencedEpoch`].
    pub fn fenced(&self, id: MemberId, given: MemberEpoch) -> Result<&Member, GroupError> {
        let member = self.members.get(&id).ok_or(GroupError::UnknownMember { member: id })?;
        if given < member.joined || given > member.epoch {
            return Err(GroupError::FencedEpoch { given, known: member.epoch });
        }
        Ok(member)
    }

    /// The static member of an instance id.
    pub fn instance(&self, instance: &str) -> Option<(MemberId, &Member)> {
        let found = self.members.iter().find(|(_, member)| member.instance.as_deref() == Some(instance));
        found.map(|(id, member)| (*id, member))
    }

    pub(super) fn join(&mut self, join: &Join, catalog: &dyn TopicCatalog) -> Result<GroupReply, GroupError> {
        if join.subscription.len() > SUBSCRIPTIONS_MAX {
            return Err(limit("topics and patterns of a subscription", SUBSCRIPTIONS_MAX));
        }
        if join.subscription.bytes() > SUBSCRIPTION_BYTES_MAX {
            return Err(limit("bytes of the names in a subscription", SUBSCRIPTION_BYTES_MAX));
        }
        let holder = join.instance.as_deref().and_then(|instance| self.instance(instance));
        let holder = holder.map(|(id, member)| (id, member.clone())).filter(|(id, _)| *id != join.member);
        if let Some((_, old)) = &holder
            && !old.away
            && !join.take_over
        {
            return Err(GroupError::InstanceInUse { instance: join.instance.clone().unwrap_or_default() });
        }
        let known = self.members.get(&join.member).cloned();
        if known.is_none() && holder.is_none() && self.members.len() >= MEMBERS_MAX {
            return Err(limit("members of a group", MEMBERS_MAX));
        }
        let before = known.clone().or_else(|| holder.as_ref().map(|(_, old)| old.clone()));
        if known.is_none() {
            self.epoch.0 += 1;
        }
        if let Some((old, _)) = holder {
            self.members.remove(&old);
            self.assignment.hand_over(old, join.member, self.epoch);
        }
        let (joined, epoch) =
            known.as_ref().map_or((self.epoch, self.epoch), |known| (known.joined, known.epoch));
        let member = Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            host: join.host.clone(),
            subscription: join.subscription.clone(),
            assignor: join.assignor,
            session_timeout_ms: join.session_timeout_ms,
            joined,
            epoch,
            joined_ms: known.as_ref().map_or(join.time_ms, |known| known.joined_ms),
            away: false,
        };
        self.members.insert(join.member, member);
        let client_id = join.client_id.clone();
        let cause = match &before {
            None => Some(Cause::Joined { client_id }),
            Some(old) if old.subscription != join.subscription || old.assignor != join.assignor => {
                Some(Cause::Changed { client_id })
            }
            // A retry, or a static member that is back: nothing moves.
            Some(_) => None,
        };
        if let Some(cause) = cause {
            self.rebalance(catalog, cause, Some(join.time_ms));
        }
        let epoch = self.members.get(&join.member).map_or(self.epoch, |member| member.epoch);
        Ok(GroupReply::Joined { epoch, generation: self.generation })
    }

    pub(super) fn release(
        &mut self,
        member: MemberId,
        told: MemberEpoch,
        partitions: &[TopicIdPartition],
    ) -> Result<(), GroupError> {
        self.fenced(member, told)?;
        let next = MemberEpoch(self.epoch.0 + 1);
        let concerned = self.assignment.release(member, told, partitions, next);
        self.tell(&concerned, next);
        Ok(())
    }

    /// Removes a member, or lets a static one be away. False if it was not there: an earlier attempt did it.
    pub(super) fn leave(
        &mut self,
        id: MemberId,
        keep_place: bool,
        time_ms: i64,
        catalog: &dyn TopicCatalog,
    ) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        if keep_place && member.instance.is_some() {
            member.away = true;
            return true;
        }
        let client_id = member.client_id.clone();
        self.remove(id, Cause::Left { client_id }, time_ms, catalog);
        true
    }

    /// Removes a member that was silent. False if it was not there.
    pub(super) fn expire(&mut self, id: MemberId, time_ms: i64, catalog: &dyn TopicCatalog) -> bool {
        let Some(client_id) = self.members.get(&id).map(|member| member.client_id.clone()) else {
            return false;
        };
        self.remove(id, Cause::Expired { client_id }, time_ms, catalog);
        true
    }

    fn remove(&mut self, id: MemberId, cause: Cause, time_ms: i64, catalog: &dyn TopicCatalog) {
        self.members.remove(&id);
        self.assignment.remove_member(id);
        if self.members.is_empty() {
            self.idle_since_ms = time_ms;
        }
        self.rebalance(catalog, cause, Some(time_ms));
    }

    /// Tells every member whether to read.
    pub(super) fn set_paused(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            let everybody = self.members.keys().copied().collect();
            self.tell(&everybody, MemberEpoch(self.epoch.0 + 1));
        }
    }

    /// Owners of these partitions begin anew.
    pub(super) fn renew(&mut self, partitions: impl Iterator<Item = TopicIdPartition>) {
        let next = MemberEpoch(self.epoch.0 + 1);
        let owners = partitions.filter_map(|at| self.assignment.renew(at, next)).collect();
        self.tell(&owners, next);
    }

    /// True if a topic of this name, which came, changed or went, concerns the group.
    pub(super) fn is_concerned(&self, name: &str, id: TopicId) -> bool {
        self.members.values().any(|member| member.subscription.covers(name))
            || self.assignment.slots().keys().any(|at| at.topic == id)
    }

    /// Shares the partitions out anew. Nobody loses one before it is released.
    pub(super) fn rebalance(&mut self, catalog: &dyn TopicCatalog, cause: Cause, time_ms: Option<i64>) {
        let mut members: Vec<(MemberId, BTreeSet<TopicId>)> =
            self.members.iter().map(|(id, member)| (*id, member.subscription.resolve(catalog))).collect();
        members.sort_by_key(|(id, _)| (self.members.get(id).map(|member| member.joined), *id));
        let mut topics = BTreeMap::new();
        for id in members.iter().flat_map(|(_, topics)| topics) {
            topics.entry(*id).or_insert_with(|| catalog.by_id(*id).map_or(0, |topic| topic.partitions));
        }
        self.assignor = self.elect_assignor();
        let holders = self.assignment.holders();
        let mut targets =
            self.assignor.assign(&Input { members: &members, topics: &topics, holders: &holders });
        if mutant::on(Mutant::PartitionLeftOut) {
            targets.pop_last();
        }
        let next = MemberEpoch(self.epoch.0 + 1);
        let concerned = self.assignment.retarget(&targets, |at| catalog.has(at), next);
        self.generation.0 += 1;
        let moves = |slot: &&super::Slot| slot.owner.is_some_and(|owner| Some(owner.member) != slot.target);
        let moved = self.assignment.slots().values().filter(moves).count();
        self.last_rebalance =
            Some(Rebalance { cause, time_ms, moved: u32::try_from(moved).unwrap_or(u32::MAX) });
        self.tell(&concerned, next);
    }

    /// The assignor that most members name; among equals the first of sticky, range and round robin.
    fn elect_assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.values().max().copied();
        votes
            .into_iter()
            .find(|(_, count)| Some(*count) == most)
            .map(|(assignor, _)| assignor)
            .unwrap_or_default()
    }

    /// Members that are there must hear of the change of this epoch.
    fn tell(&mut self, concerned: &BTreeSet<MemberId>, epoch: MemberEpoch) {
        for id in concerned {
            if let Some(member) = self.members.get_mut(id) {
                member.epoch = epoch;
                self.epoch = epoch;
            }
        }
    }
}

pub(super) fn limit(what: &str, most: usize) -> GroupError {
    GroupError::Limit { what: what.to_owned(), most: u32::try_from(most).unwrap_or(u32::MAX) }
}
