//! Committed offsets: commit, fetch, delete.

use std::collections::BTreeMap;

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, LeaderEpoch, MemberEpoch, MemberId, Offset, TopicIdPartition};
use wire::pb;

use super::{assignment, check};
use crate::api::Api;
use crate::group::{COMMIT_METADATA_BYTES_MAX, Commit, CommitOffset, Committed, GroupCommand};
use crate::metadata::image::MetadataImage;

/// Offsets, and bytes of their texts, that go in one command: many clients' share one entry.
const CHUNK_OFFSETS: usize = 4_096;
const CHUNK_BYTES: usize = 256 << 10;

impl Api {
    /// Commits offsets; returns the partitions that were refused, each with its reason.
    ///
    /// # Errors
    /// `UnknownGroup`, `UnknownMember`, `FencedMemberEpoch`, `NotOwner` for all of them; `OutcomeUnknown`, after which
    /// the same may be committed again.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the commit back.
    pub async fn commit_offsets(
        &self,
        request: pb::CommitOffsetsRequest,
        deadline: Instant,
    ) -> Result<pb::CommitOffsetsResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        check::count(request.partitions.len())?;
        let by = match request.member_id.as_str() {
            "" => None,
            text => Some((check::member_id(text)?, MemberEpoch(request.member_epoch))),
        };
        let image = self.parts().metadata.image();
        let mut refused = Vec::new();
        let mut chunks = Chunks::default();
        for partition in request.partitions {
            match offset(&image, &partition) {
                Ok(offset) => chunks.push(offset),
                Err(error) => refused.push(refusal(partition.topic, partition.partition, error)),
            }
        }
        for chunk in chunks.done() {
            refused.extend(self.commit_chunk(&group, by, chunk, deadline).await?);
        }
        Ok(pb::CommitOffsetsResponse { refused })
    }

    async fn commit_chunk(
        &self,
        group: &GroupId,
        by: Option<(MemberId, MemberEpoch)>,
        offsets: Vec<CommitOffset>,
        deadline: Instant,
    ) -> Result<Vec<pb::PartitionError>, ApiError> {
        let at: Vec<TopicIdPartition> = offsets.iter().map(|offset| offset.at).collect();
        let time_ms = self.parts().seams.clock.now_ms();
        let commit = Commit { by, offsets, time_ms };
        let refused = self.parts().metadata.commit(group.clone(), commit, deadline).await?;
        if refused.is_empty() {
            return Ok(Vec::new());
        }
        let image = self.parts().metadata.image();
        let named = refused.into_iter().filter_map(|refused| {
            let at = *at.get(usize::try_from(refused.at).ok()?)?;
            let topic = assignment::name(&image, at.topic).unwrap_or_default();
            Some(refusal(topic, at.partition.0, refused.error.into()))
        });
        Ok(named.collect())
    }

    /// What is committed; all of it if no partition is named.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotCoordinator` if `linearizable` cannot be had.
    pub async fn fetch_offsets(
        &self,
        request: &pb::FetchOffsetsRequest,
        deadline: Instant,
    ) -> Result<pb::FetchOffsetsResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        if request.linearizable {
            self.parts().metadata.refresh(deadline).await?;
        }
        let image = self.parts().metadata.image();
        let entry = image.consumer_groups.get(&group).ok_or_else(|| check::unknown(&group))?;
        if request.partitions.is_empty() {
            let all = entry.offsets.iter().flat_map(|(topic, of_topic)| {
                let name = assignment::name(&image, *topic);
                of_topic.iter().filter_map(move |(partition, at)| {
                    Some(committed(name.clone()?, partition.0, Ok(Some(at))))
                })
            });
            return Ok(pb::FetchOffsetsResponse { partitions: all.collect() });
        }
        check::count(request.partitions.len())?;
        let named = request.partitions.iter().map(|named| {
            let at = check::partition(&image, &named.topic, named.partition);
            committed(named.topic.clone(), named.partition, at.map(|at| entry.committed(at)))
        });
        Ok(pb::FetchOffsetsResponse { partitions: named.collect() })
    }

    /// Forgets committed offsets of partitions that nobody owns.
    ///
    /// # Errors
    /// `UnknownGroup`, `GroupNotEmpty` if a member owns one of them; `OutcomeUnknown`.
    pub async fn delete_offsets(
        &self,
        request: pb::DeleteOffsetsRequest,
        deadline: Instant,
    ) -> Result<pb::DeleteOffsetsResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        check::count(request.partitions.len())?;
        let image = self.parts().metadata.image();
        let at = |named: &pb::PartitionRef| check::partition(&image, &named.topic, named.partition);
        let partitions = request.partitions.iter().map(at).collect::<Result<_, _>>()?;
        self.change_group(&group, GroupCommand::DeleteOffsets { partitions }, deadline).await?;
        Ok(pb::DeleteOffsetsResponse {})
    }
}

/// Offsets in pieces that fit into one command.
#[derive(Default)]
struct Chunks {
    full: Vec<Vec<CommitOffset>>,
    open: Vec<CommitOffset>,
    bytes: usize,
    /// Where a partition stands: of a partition that is named twice the later word counts.
    places: BTreeMap<TopicIdPartition, (usize, usize)>,
}

impl Chunks {
    fn push(&mut self, offset: CommitOffset) {
        if let Some((chunk, place)) = self.places.get(&offset.at).copied() {
            let chunk = self.full.get_mut(chunk).unwrap_or(&mut self.open);
            if let Some(earlier) = chunk.get_mut(place) {
                *earlier = offset;
            }
            return;
        }
        if self.open.len() >= CHUNK_OFFSETS || self.bytes >= CHUNK_BYTES {
            self.full.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += offset.metadata.len();
        self.places.insert(offset.at, (self.full.len(), self.open.len()));
        self.open.push(offset);
    }

    fn done(mut self) -> Vec<Vec<CommitOffset>> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

fn offset(image: &MetadataImage, partition: &pb::PartitionCommit) -> Result<CommitOffset, ApiError> {
    let at = check::partition(image, &partition.topic, partition.partition)?;
    let bytes = partition.metadata.len();
    if bytes > COMMIT_METADATA_BYTES_MAX {
        let message = format!(
            "the text beside an offset has {bytes} bytes, at most {COMMIT_METADATA_BYTES_MAX} are allowed"
        );
        return Err(ApiError::new(ErrorCode::CommitMetadataTooLarge, message));
    }
    Ok(CommitOffset {
        at,
        offset: Offset(partition.offset),
        leader_epoch: Some(LeaderEpoch(partition.leader_epoch)).filter(|epoch| epoch.0 != 0),
        metadata: partition.metadata.clone(),
    })
}

fn refusal(topic: String, partition: u32, error: ApiError) -> pb::PartitionError {
    pb::PartitionError { topic, partition, error: Some(error.into()) }
}

fn committed(
    topic: String,
    partition: u32,
    found: Result<Option<&Committed>, ApiError>,
) -> pb::CommittedOffset {
    let blank = pb::CommittedOffset { topic, partition, ..Default::default() };
    match found {
        Err(error) => pb::CommittedOffset { error: Some(error.into()), ..blank },
        Ok(None) => blank,
        Ok(Some(at)) => pb::CommittedOffset {
            offset: Some(at.offset.0),
            leader_epoch: at.leader_epoch.map_or(0, |epoch| epoch.0),
            metadata: at.metadata.clone(),
            time_ms: at.time_ms,
            ..blank
        },
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use wire::ids::{PartitionIndex, TopicId};

    use super::*;

    fn one(partition: u32, offset: u64, text: usize) -> CommitOffset {
        CommitOffset {
            at: TopicIdPartition { topic: TopicId(Uuid::nil()), partition: PartitionIndex(partition) },
            offset: Offset(offset),
            leader_epoch: None,
            metadata: "x".repeat(text),
        }
    }

    #[test]
    fn offsets_go_in_pieces_and_of_two_words_the_later_counts() {
        let mut chunks = Chunks::default();
        (0..200).for_each(|n| chunks.push(one(n, 1, 4_000)));
        chunks.push(one(0, 9, 1));
        chunks.push(one(199, 8, 1));
        let chunks = chunks.done();
        assert!(chunks.len() > 2, "{}", chunks.len());
        assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 200);
        assert_eq!(chunks[0][0].offset, Offset(9));
        assert_eq!(chunks.last().unwrap().last().unwrap().offset, Offset(8));
        assert!(Chunks::default().done().is_empty());
    }
}
