//! From a topic's name and a partition's number to the replica here, or to the broker that has it.

use std::sync::Arc;

use wire::api_error::{ApiError, LeaderHint};
use wire::error_code::ErrorCode;
use wire::ids::PartitionIndex;

use super::Api;
use crate::metadata::image::{MetadataImage, Partition, Topic};
use crate::partition::Replica;

/// There is no such topic.
pub(super) fn unknown_topic(name: &str) -> ApiError {
    // The name comes from outside and may be long.
    let shown: String = name.chars().take(wire::limits::TOPIC_NAME_LEN_MAX).collect();
    ApiError::new(ErrorCode::UnknownTopic, format!("there is no topic {shown:?}"))
}

/// The topic of a name.
pub(super) fn topic<'a>(image: &'a MetadataImage, name: &str) -> Result<&'a Arc<Topic>, ApiError> {
    image.topic(name).ok_or_else(|| unknown_topic(name))
}

/// The partition of a topic.
pub(super) fn partition(topic: &Topic, index: PartitionIndex) -> Result<&Arc<Partition>, ApiError> {
    topic.partition(index).ok_or_else(|| {
        let (name, count) = (&topic.name, topic.partitions.len());
        ApiError::new(ErrorCode::UnknownPartition, format!("topic {name:?} has no partition {index}"))
            .reason(format!("it has {count}, numbered from 0"))
    })
}

/// Where the leader of a partition is, as this broker's image has it.
pub(super) fn leader_hint(image: &MetadataImage, partition: &Partition) -> Option<LeaderHint> {
    let broker = image.leader_broker(partition)?;
    Some(LeaderHint { broker: broker.id, address: broker.grpc.clone(), epoch: partition.leader_epoch })
}

/// This broker has no replica of the partition: go to its leader.
pub(super) fn elsewhere(image: &MetadataImage, topic: &Topic, partition: &Partition) -> ApiError {
    let name = format!("{}/{}", topic.name, partition.index);
    match leader_hint(image, partition) {
        Some(hint) => {
            ApiError::new(ErrorCode::NotLeader, format!("broker {} leads {name}", hint.broker)).leader(hint)
        }
        None => ApiError::new(ErrorCode::NoLeader, format!("{name} has no leader now"))
            .reason("an election is under way, or too few of its replicas are up")
            .retry_after_ms(50),
    }
}

impl Api {
    /// The replica of a partition on this broker.
    pub(super) fn replica(
        &self,
        image: &MetadataImage,
        topic: &Topic,
        index: PartitionIndex,
    ) -> Result<Arc<Replica>, ApiError> {
        let partition = partition(topic, index)?;
        if let Some(replica) = self.parts().partitions.get(topic.id, index) {
            return Ok(replica);
        }
        if partition.replica_on(self.0.me).is_some() {
            // The registry follows the image with a small delay.
            return Err(ApiError::new(
                ErrorCode::NotReady,
                format!("the replica of {}/{index} here is starting", topic.name),
            )
            .retry_after_ms(20));
        }
        Err(elsewhere(image, topic, partition))
    }
}
