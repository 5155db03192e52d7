//! How far a group is behind: in records, and in time.

use tokio::time::Instant;
use wire::ids::{Offset, PartitionIndex, TopicIdPartition};
use wire::internal::Bounds;
use wire::pb;

use super::bounds::Query;
use crate::api::{Api, route};
use crate::metadata::image::MetadataImage;

impl Api {
    /// Asks the leaders of all partitions of these groups and fills in what they say.
    pub(super) async fn fill_lag(
        &self,
        image: &MetadataImage,
        groups: &mut [pb::GroupDescription],
        deadline: Instant,
    ) {
        let partitions = || groups.iter().flat_map(|group| &group.partitions);
        let queries: Vec<Query> = partitions().filter_map(|one| query(image, one)).collect();
        if queries.len() != partitions().count() {
            // Unreachable: the names come from the same image.
            return;
        }
        let mut answers = self.bounds(image, &queries, false, deadline).await.into_iter();
        for group in groups {
            let mut total = Some(Lag::default());
            for (partition, answer) in group.partitions.iter_mut().zip(&mut answers) {
                let lag = match answer {
                    Ok(bounds) => Some(fill(partition, &bounds)),
                    Err(error) => {
                        partition.error = Some(error.into());
                        None
                    }
                };
                total = total.zip(lag).map(|(total, lag)| total.with(lag));
            }
            group.lag_records = total.map(|total| total.records);
            group.lag_ms = total.map(|total| total.ms);
        }
    }
}

fn query(image: &MetadataImage, partition: &pb::GroupPartition) -> Option<Query> {
    let topic = route::topic(image, &partition.topic).ok()?;
    let at = TopicIdPartition { topic: topic.id, partition: PartitionIndex(partition.partition) };
    let next = Offset(partition.committed_offset.unwrap_or(0));
    Some(Query { at, age_of: Some(next), timestamp_ms: None })
}

/// Lag of one partition, or of several: records add up, the longest time counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    pub(super) records: u64,
    pub(super) ms: u64,
}

impl Lag {
    /// The lag of a partition whose next record is `next`; what was removed from its log is not counted.
    pub(super) fn of(next: u64, log_start: u64, high_watermark: u64, age_ms: Option<u64>) -> Self {
        let records = high_watermark.saturating_sub(next.max(log_start));
        Self { records, ms: age_ms.filter(|_| records > 0).unwrap_or(0) }
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self { records: self.records.saturating_add(other.records), ms: self.ms.max(other.ms) }
    }
}

fn fill(partition: &mut pb::GroupPartition, bounds: &Bounds) -> Lag {
    let next = partition.committed_offset.unwrap_or(bounds.log_start_offset);
    let lag = Lag::of(next, bounds.log_start_offset, bounds.high_watermark, bounds.age_ms);
    partition.log_start_offset = Some(bounds.log_start_offset);
    partition.high_watermark = Some(bounds.high_watermark);
    partition.lag_records = Some(lag.records);
    partition.lag_ms = Some(lag.ms);
    lag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_is_there_and_not_yet_committed() {
        assert_eq!(Lag::of(5, 0, 10, Some(700)), Lag { records: 5, ms: 700 });
        assert_eq!(Lag::of(10, 0, 10, None), Lag::default());
        assert_eq!(Lag::of(2, 8, 10, Some(3)), Lag { records: 2, ms: 3 }, "the rest is removed");
        assert_eq!(Lag::of(12, 0, 10, Some(3)), Lag::default(), "the leader that answers is behind");
        let sum = Lag { records: 1, ms: 9 }.with(Lag { records: 4, ms: 2 });
        assert_eq!(sum, Lag { records: 5, ms: 9 });
    }
}
