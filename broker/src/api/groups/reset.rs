//! Moving committed offsets: to an end, an offset, a time, or by a number of records.

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, Offset, TopicIdPartition};
use wire::internal::Bounds;
use wire::pb;
use wire::pb::reset_offsets_request::To;

use super::bounds::Query;
use super::{admin, assignment, check};
use crate::api::{Api, route};
use crate::group::GroupCommand;
use crate::metadata::image::MetadataImage;

impl Api {
    /// Moves committed offsets, or says where they would go. A group that is not there comes to be if topics are named.
    ///
    /// # Errors
    /// `UnknownGroup`, `UnknownTopic`, `UnknownPartition`; that of a partition whose leader does not answer, after which
    /// nothing was moved; `OutcomeUnknown`.
    pub async fn reset_offsets(
        &self,
        request: &pb::ResetOffsetsRequest,
        deadline: Instant,
    ) -> Result<pb::ResetOffsetsResponse, ApiError> {
        let group = check::group_id(&request.group_id)?;
        let to = target(request.to)?;
        let image = self.parts().metadata.image();
        let partitions = scope(&image, &group, &request.scope)?;
        check::count(partitions.len())?;
        let timestamp_ms = if let To::TimestampMs(ms) = to { Some(ms) } else { None };
        let queries: Vec<Query> =
            partitions.iter().map(|at| Query { at: *at, age_of: None, timestamp_ms }).collect();
        let bounds = self.bounds(&image, &queries, true, deadline).await;
        let mut moves = Vec::with_capacity(partitions.len());
        for (at, bounds) in partitions.into_iter().zip(bounds) {
            let before = image.consumer_groups.get(&group).and_then(|entry| entry.committed(at));
            moves.push(Move::new(at, before.map(|committed| committed.offset.0), to, &bounds?));
        }
        if !request.dry_run {
            let offsets = moves.iter().map(|one| (one.at, Offset(one.after))).collect();
            let time_ms = self.parts().seams.clock.now_ms();
            self.change_group(&group, GroupCommand::Reset { offsets, time_ms }, deadline).await?;
        }
        let partitions = moves.into_iter().filter_map(|one| one.shown(&image)).collect();
        Ok(pb::ResetOffsetsResponse { partitions })
    }
}

fn target(to: Option<To>) -> Result<To, ApiError> {
    match to {
        None | Some(To::Earliest(false) | To::Latest(false)) => {
            let message = "say where to: earliest, latest, offset, timestamp_ms, before_end or shift_by";
            Err(ApiError::new(ErrorCode::InvalidRequest, message))
        }
        Some(to) => Ok(to),
    }
}

/// The partitions that are named, or all that the group has something of.
fn scope(
    image: &MetadataImage,
    group: &GroupId,
    scope: &[pb::ResetScope],
) -> Result<Vec<TopicIdPartition>, ApiError> {
    let Some(entry) = image.consumer_groups.get(group).filter(|_| scope.is_empty()) else {
        if scope.is_empty() {
            return Err(check::unknown(group));
        }
        let mut named = std::collections::BTreeSet::new();
        for part in scope {
            let topic = route::topic(image, &part.topic)?;
            if part.partitions.is_empty() {
                let all = topic.partitions.iter();
                named.extend(all.map(|one| TopicIdPartition { topic: topic.id, partition: one.index }));
            }
            for index in &part.partitions {
                named.insert(check::partition(image, &part.topic, *index)?);
            }
        }
        return Ok(named.into_iter().collect());
    };
    Ok(admin::partitions_of(image, entry).into_iter().collect())
}

/// One partition's move.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    at: TopicIdPartition,
    before: Option<u64>,
    after: u64,
    log_start: u64,
    high_watermark: u64,
}

impl Move {
    fn new(at: TopicIdPartition, before: Option<u64>, to: To, bounds: &Bounds) -> Self {
        let (log_start, high_watermark) = (bounds.log_start_offset, bounds.high_watermark);
        let wanted = match to {
            To::Earliest(_) => log_start,
            To::Latest(_) => high_watermark,
            To::Offset(offset) => offset,
            To::TimestampMs(_) => bounds.offset_at_time.unwrap_or(high_watermark),
            To::BeforeEnd(count) => high_watermark.saturating_sub(count),
            To::ShiftBy(by) => before.unwrap_or(log_start).saturating_add_signed(by),
        };
        let after = wanted.clamp(log_start, high_watermark.max(log_start));
        Self { at, before, after, log_start, high_watermark }
    }

    /// `None` if the topic is gone meanwhile.
    fn shown(self, image: &MetadataImage) -> Option<pb::ResetOffset> {
        Some(pb::ResetOffset {
            topic: assignment::name(image, self.at.topic)?,
            partition: self.at.partition.0,
            before: self.before,
            after: self.after,
            log_start_offset: self.log_start,
            high_watermark: self.high_watermark,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use wire::ids::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn every_target_ends_inside_the_log() {
        let at = TopicIdPartition { topic: TopicId(Uuid::nil()), partition: PartitionIndex(0) };
        let bounds = Bounds {
            log_start_offset: 10,
            high_watermark: 100,
            offset_at_time: Some(40),
            ..Bounds::default()
        };
        let cases = [
            (To::Earliest(true), Some(50), 10),
            (To::Latest(true), None, 100),
            (To::Offset(60), Some(1), 60),
            (To::Offset(3), None, 10),
            (To::Offset(500), None, 100),
            (To::TimestampMs(7), None, 40),
            (To::BeforeEnd(5), None, 95),
            (To::BeforeEnd(500), None, 10),
            (To::ShiftBy(-20), Some(50), 30),
            (To::ShiftBy(20), Some(50), 70),
            (To::ShiftBy(5), None, 15),
            (To::ShiftBy(i64::MIN), Some(50), 10),
            (To::ShiftBy(i64::MAX), Some(50), 100),
        ];
        for (to, before, after) in cases {
            assert_eq!(Move::new(at, before, to, &bounds).after, after, "{to:?} from {before:?}");
        }
        let late = Bounds { offset_at_time: None, ..bounds };
        assert_eq!(Move::new(at, None, To::TimestampMs(9), &late).after, 100, "nothing is as new");
    }
}
