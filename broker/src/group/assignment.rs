//! Who owns which partition, and who shall: the two meet when owners let go.

use std::collections::{BTreeMap, BTreeSet};

use disk::mutant::{self, Mutant};
use serde::{Deserialize, Serialize};
use wire::ids::{MemberEpoch, MemberId, TopicIdPartition};

/// The member that may read a partition. Field order is part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The member.
    pub member: MemberId,
    /// Epoch at which it got the partition; it may commit only once it was told this epoch.
    pub since: MemberEpoch,
    /// Epoch at which it was asked to let go; it owns the partition until it does.
    pub revoking: Option<MemberEpoch>,
}

/// One partition. Field order is part of the stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Who has it.
    pub owner: Option<Owner>,
    /// Who shall have it; `None` = nobody wants it.
    pub target: Option<MemberId>,
}

/// The partitions of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignment {
    slots: BTreeMap<TopicIdPartition, Slot>,
}

impl Assignment {
    /// Every partition with an owner or a target.
    pub fn slots(&self) -> &BTreeMap<TopicIdPartition, Slot> {
        &self.slots
    }

    /// Who owns a partition.
    pub fn owner(&self, at: TopicIdPartition) -> Option<&Owner> {
        self.slots.get(&at)?.owner.as_ref()
    }

    /// What a member owns, those that it was asked to release included.
    pub fn owned_by(&self, member: MemberId) -> impl Iterator<Item = (TopicIdPartition, &Owner)> {
        self.slots.iter().filter_map(move |(at, slot)| {
            Some((*at, slot.owner.as_ref().filter(|owner| owner.member == member)?))
        })
    }

    /// True if every partition is with its target.
    pub fn is_settled(&self) -> bool {
        self.slots.values().all(|slot| slot.owner.map(|owner| owner.member) == slot.target)
    }

    /// The basis of a sticky assignment: who has a partition, or was about to get it.
    pub(super) fn holders(&self) -> BTreeMap<TopicIdPartition, MemberId> {
        let holder = |slot: &Slot| slot.owner.map(|owner| owner.member).or(slot.target);
        self.slots.iter().filter_map(|(at, slot)| Some((*at, holder(slot)?))).collect()
    }

    /// Takes over new targets: grants what is free, asks for the rest, drops what `exists` does not know. Returns the
    /// members that must hear of it.
    pub(super) fn retarget(
        &mut self,
        targets: &BTreeMap<TopicIdPartition, MemberId>,
        exists: impl Fn(TopicIdPartition) -> bool,
        epoch: MemberEpoch,
    ) -> BTreeSet<MemberId> {
        let mut concerned = BTreeSet::new();
        for at in targets.keys() {
            self.slots.entry(*at).or_default();
        }
        self.slots.retain(|at, slot| {
            if !exists(*at) {
                concerned.extend(slot.owner.map(|owner| owner.member));
                return false;
            }
            slot.target = targets.get(at).copied();
            concerned.extend(slot.move_on(epoch));
            slot.owner.is_some() || slot.target.is_some()
        });
        concerned
    }

    /// A member let go of partitions, as it was asked to at `told` or before. Anything else is a late message about an
    /// earlier assignment and is passed over. Returns the members that must hear of it.
    pub(super) fn release(
        &mut self,
        member: MemberId,
        told: MemberEpoch,
        partitions: &[TopicIdPartition],
        epoch: MemberEpoch,
    ) -> BTreeSet<MemberId> {
        let mut concerned = BTreeSet::new();
        for at in partitions {
            let Some(slot) = self.slots.get_mut(at) else { continue };
            let asked = slot.owner.filter(|owner| owner.member == member).and_then(|owner| owner.revoking);
            if asked.is_none_or(|asked| asked > told) {
                continue;
            }
            slot.owner = None;
            concerned.insert(member);
            concerned.extend(slot.move_on(epoch));
            if slot.target.is_none() {
                self.slots.remove(at);
            }
        }
        concerned
    }

    /// A member is gone: it owns nothing and gets nothing.
    pub(super) fn remove_member(&mut self, member: MemberId) {
        for slot in self.slots.values_mut() {
            slot.owner = slot.owner.filter(|owner| owner.member != member);
            slot.target = slot.target.filter(|target| *target != member);
        }
    }

    /// A static member came back under a new id: it has what the old one had, and the old one's commits are stale.
    pub(super) fn hand_over(&mut self, old: MemberId, new: MemberId, epoch: MemberEpoch) {
        for slot in self.slots.values_mut() {
            if let Some(owner) = slot.owner.as_mut().filter(|owner| owner.member == old) {
                // Nobody reads for the old one any more, but the new one must say so itself.
                *owner = Owner { member: new, since: epoch, revoking: owner.revoking.map(|_| epoch) };
            }
            if slot.target == Some(old) {
                slot.target = Some(new);
            }
        }
    }

    /// A partition begins anew with its owner: what it sent before is stale. Returns the owner.
    pub(super) fn renew(&mut self, at: TopicIdPartition, epoch: MemberEpoch) -> Option<MemberId> {
        let owner = self.slots.get_mut(&at)?.owner.as_mut()?;
        owner.since = epoch;
        Some(owner.member)
    }
}

impl Slot {
    /// One step towards the target; the member that must hear of it.
    fn move_on(&mut self, epoch: MemberEpoch) -> Option<MemberId> {
        match (&mut self.owner, self.target) {
            (None, None) => None,
            (None, Some(target)) => {
                self.owner = Some(Owner { member: target, since: epoch, revoking: None });
                Some(target)
            }
            (Some(owner), target) if target == Some(owner.member) => {
                owner.revoking.take().map(|_| owner.member)
            }
            (Some(owner), Some(target)) if mutant::on(Mutant::GrantBeforeRelease) => {
                *owner = Owner { member: target, since: epoch, revoking: None };
                Some(target)
            }
            (Some(owner), _) if owner.revoking.is_none() => {
                owner.revoking = Some(epoch);
                Some(owner.member)
            }
            (Some(_), _) => None,
        }
    }
}
