//! What a member is told to read.

use disk::mutant::{self, Mutant};
use wire::ids::TopicId;
use wire::pb;

use super::Found;
use crate::metadata::image::MetadataImage;

/// The assignment as of the member's epoch, with the offsets where it begins. Both are of one image: whatever an earlier
/// owner committed is in it, and nothing more of it can come.
pub(super) fn of(image: &MetadataImage, found: &Found<'_>) -> pb::Assignment {
    let mut assignment = pb::Assignment { paused: found.group.paused, ..Default::default() };
    for (at, owner) in found.group.assignment.owned_by(found.id) {
        let Some(topic) = name(image, at.topic) else { continue };
        if owner.revoking.is_some() {
            assignment.revoked.push(pb::PartitionRef { topic, partition: at.partition.0 });
            continue;
        }
        let committed = found.entry.committed(at);
        assignment.partitions.push(pb::AssignedPartition {
            topic,
            partition: at.partition.0,
            since: owner.since.0,
            committed_offset: committed
                .map(|committed| committed.offset.0 + u64::from(mutant::on(Mutant::AssignedOneTooFar))),
            leader_epoch: committed.and_then(|committed| committed.leader_epoch).map_or(0, |epoch| epoch.0),
        });
    }
    assignment
}

/// Name of a topic that is not deleted.
pub(super) fn name(image: &MetadataImage, topic: TopicId) -> Option<String> {
    let topic = image.topic_by_id(topic).filter(|topic| topic.deleted_ms.is_none())?;
    Some(topic.name.clone())
}
