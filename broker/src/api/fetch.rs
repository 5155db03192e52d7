//! Fetch: several partitions in one answer, waiting for bytes up to a deadline.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{LeaderEpoch, Offset, PartitionIndex};

use super::{Api, route};
use crate::metadata::image::MetadataImage;
use crate::partition::{FetchArgs, Fetched, Replica};

/// One fetch over any number of partitions.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// What is read.
    pub items: Vec<FetchItem>,
    /// Answer as soon as this many bytes are there.
    pub min_bytes: usize,
    /// Bound of the whole answer; the first batch comes even if it is larger.
    pub max_bytes: usize,
    /// How long to wait for `min_bytes`.
    pub deadline: Instant,
}

/// One partition to read.
#[derive(Debug, Clone)]
pub struct FetchItem {
    /// Name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// First offset wanted.
    pub offset: Offset,
    /// Bound of this partition's part.
    pub max_bytes: usize,
    /// The leader epoch that the reader knows; a newer one here fences it.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What was read from one partition.
#[derive(Debug, Clone)]
pub struct FetchedItem {
    /// Name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Batches and watermarks, or why there are none.
    pub result: Result<Fetched, ApiError>,
}

impl FetchedItem {
    fn bytes(&self) -> usize {
        self.result.as_ref().map_or(0, |fetched| fetched.batches.iter().map(Bytes::len).sum())
    }
}

impl Api {
    /// Reads committed records; one answer for each item, in their order. An error of one partition ends the wait, so
    /// that the reader can turn to another broker.
    ///
    /// # Cancel safety
    /// Reading changes nothing.
    pub async fn fetch(&self, request: &FetchRequest) -> Vec<FetchedItem> {
        let started = Instant::now();
        let fetched = loop {
            let image = self.parts().metadata.image();
            let fetched = self.fetch_now(&image, request).await;
            let bytes: usize = fetched.iter().map(FetchedItem::bytes).sum();
            let failed = fetched.iter().any(|item| item.result.is_err());
            let enough = bytes >= request.min_bytes.max(1);
            if enough || failed || Instant::now() >= request.deadline || self.is_stopping() {
                self.metrics().fetched_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
                break fetched;
            }
            self.wait_for_more(&image, request, &fetched).await;
        };
        self.metrics().fetch_seconds.observe(started.elapsed().as_secs_f64());
        fetched
    }

    async fn fetch_now(&self, image: &MetadataImage, request: &FetchRequest) -> Vec<FetchedItem> {
        let mut left = request.max_bytes;
        let mut fetched = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let is_first = left == request.max_bytes;
            let mut result = self.fetch_one(image, item, left).await;
            if let Ok(part) = &mut result {
                let bytes: usize = part.batches.iter().map(Bytes::len).sum();
                if bytes > left && !is_first {
                    // Its first batch alone is larger than what is left; it comes first in a later answer.
                    part.batches.clear();
                } else {
                    left = left.saturating_sub(bytes);
                }
            }
            fetched.push(FetchedItem { topic: item.topic.clone(), partition: item.partition, result });
        }
        fetched
    }

    async fn fetch_one(
        &self,
        image: &MetadataImage,
        item: &FetchItem,
        left: usize,
    ) -> Result<Fetched, ApiError> {
        let replica = self.replica_of(image, item)?;
        let args = FetchArgs {
            offset: item.offset,
            max_bytes: item.max_bytes.min(left).max(1),
            min_bytes: 0,
            // The wait is over all partitions together, above.
            deadline: Instant::now(),
            leader_only: false,
        };
        let fetched = replica.fetch(args).await?;
        fence(item, fetched.leader_epoch)?;
        Ok(fetched)
    }

    fn replica_of(&self, image: &MetadataImage, item: &FetchItem) -> Result<Arc<Replica>, ApiError> {
        self.replica(image, route::topic(image, &item.topic)?, item.partition)
    }

    /// Until one of the partitions has more than was just seen, or the deadline.
    async fn wait_for_more(&self, image: &MetadataImage, request: &FetchRequest, seen: &[FetchedItem]) {
        let mut waits = FuturesUnordered::new();
        for (item, seen) in request.items.iter().zip(seen) {
            let Ok(fetched) = &seen.result else { continue };
            let Ok(replica) = self.replica_of(image, item) else { continue };
            let (watermark, deadline) = (fetched.high_watermark, request.deadline);
            waits.push(async move {
                let _ = replica.wait_past(watermark, deadline).await;
            });
        }
        if waits.is_empty() {
            return tokio::time::sleep_until(request.deadline).await;
        }
        tokio::select! {
            _ = waits.next() => {}
            () = self.stopping() => {}
        }
    }
}

fn fence(item: &FetchItem, here: LeaderEpoch) -> Result<(), ApiError> {
    let Some(known) = item.leader_epoch else { return Ok(()) };
    let name = format!("{}/{}", item.topic, item.partition);
    if known < here {
        return Err(ApiError::new(
            ErrorCode::FencedLeaderEpoch,
            format!("{name} has leader epoch {here}, newer than {known}"),
        ));
    }
    if known > here {
        return Err(ApiError::new(
            ErrorCode::UnknownLeaderEpoch,
            format!("{name} has leader epoch {here} here, {known} is not known yet"),
        )
        .retry_after_ms(50));
    }
    Ok(())
}
