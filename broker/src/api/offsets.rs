//! First, last and by time: which offset is where.

use futures::future::join_all;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::ids::{LeaderEpoch, Offset, PartitionIndex};

use super::{Api, route};
use crate::metadata::image::MetadataImage;
use crate::partition::OffsetSpec;

/// One partition's question.
#[derive(Debug, Clone)]
pub struct OffsetQuery {
    /// Name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Which offset.
    pub at: OffsetSpec,
}

/// One partition's answer.
#[derive(Debug, Clone)]
pub struct OffsetItem {
    /// Name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset, or why there is none.
    pub result: Result<FoundOffset, ApiError>,
}

/// An offset that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; for a time after the last record the high watermark.
    pub offset: Offset,
    /// Time of the record there, where a time was asked for and there is one.
    pub timestamp_ms: Option<i64>,
    /// Epoch of the leader that this broker follows.
    pub leader_epoch: LeaderEpoch,
}

impl Api {
    /// Answers each question, in their order. `linearizable` takes a read index first, so that every record that was
    /// acknowledged before the call counts.
    ///
    /// # Cancel safety
    /// Reading changes nothing.
    pub async fn list_offsets(
        &self,
        queries: Vec<OffsetQuery>,
        linearizable: bool,
        deadline: Instant,
    ) -> Vec<OffsetItem> {
        let image = self.parts().metadata.image();
        let answers = queries.into_iter().map(|query| async {
            let result = self.list_offset(&image, &query, linearizable, deadline).await;
            OffsetItem { topic: query.topic, partition: query.partition, result }
        });
        join_all(answers).await
    }

    async fn list_offset(
        &self,
        image: &MetadataImage,
        query: &OffsetQuery,
        linearizable: bool,
        deadline: Instant,
    ) -> Result<FoundOffset, ApiError> {
        let replica = self.replica(image, route::topic(image, &query.topic)?, query.partition)?;
        match (query.at, linearizable) {
            // What this broker knows, without a question to the others.
            (OffsetSpec::Latest, false) => {
                let (offset, leader_epoch) = (replica.high_watermark(), replica.leader_epoch());
                return Ok(FoundOffset { offset, timestamp_ms: None, leader_epoch });
            }
            // Takes a read index itself.
            (OffsetSpec::Latest, true) | (_, false) => {}
            (OffsetSpec::Earliest | OffsetSpec::Timestamp(_), true) => {
                replica.read_index(deadline).await?;
            }
        }
        let listed = replica.list_offset(query.at, deadline).await?;
        Ok(FoundOffset {
            offset: listed.offset.unwrap_or_else(|| replica.high_watermark()),
            timestamp_ms: listed.timestamp_ms,
            leader_epoch: listed.leader_epoch,
        })
    }
}
