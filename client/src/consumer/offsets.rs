//! Looking up offsets: of the beginning, the end, or a time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;
use wire::pb;

use super::Position;
use crate::ClientCore;
use crate::error::{CallFailure, ClientError};
use crate::metadata::Route;
use crate::retry::{Repeat, retry};

/// Offsets of many partitions; asks each leader once and repeats what failed.
pub(super) async fn list(
    core: &ClientCore,
    of: &[TopicPartition],
    position: Position,
    linearizable: bool,
) -> Result<BTreeMap<TopicPartition, u64>, ClientError> {
    let wait = Duration::from_millis(u64::from(core.config.request_timeout_ms)) * 3;
    let deadline = Instant::now() + wait;
    for at in of {
        core.metadata.topic(&at.topic, deadline).await?;
    }
    let mut found = BTreeMap::new();
    for at in of {
        let offset = retry(&core.config.retry, &core.random, deadline, Repeat::Always, |_| {
            one(core, at, position, linearizable)
        })
        .await?;
        found.insert(at.clone(), offset);
    }
    Ok(found)
}

/// One partition, one attempt. Errors about the leader have been told to the metadata.
pub(super) async fn one(
    core: &ClientCore,
    at: &TopicPartition,
    position: Position,
    linearizable: bool,
) -> Result<u64, CallFailure> {
    let partition = at.partition.0;
    let Route::Leader { address, .. } = core.metadata.view().route(&at.topic, partition) else {
        core.metadata.request_refresh();
        return Err(CallFailure::definite(ApiError::new(
            ErrorCode::NoLeader,
            format!("{at} has no leader now"),
        )));
    };
    let at_query = match position {
        Position::Offset(offset) => return Ok(offset),
        Position::Earliest => pb::partition_offset_query::At::Earliest(true),
        Position::Latest => pb::partition_offset_query::At::Latest(true),
        Position::Timestamp(timestamp_ms) => pb::partition_offset_query::At::TimestampMs(timestamp_ms),
    };
    let query = pb::PartitionOffsetQuery { topic: at.topic.clone(), partition, at: Some(at_query) };
    let request = pb::ListOffsetsRequest { partitions: vec![query], linearizable };
    // Short attempts: a stopped leader must not hold up the question who leads now.
    let timeout = Duration::from_millis(u64::from(core.config.request_timeout_ms.min(2_000)));
    let answer = core
        .connections
        .call(&address, timeout, |connection| async move { connection.broker().list_offsets(request).await })
        .await
        .inspect_err(|_| core.metadata.request_refresh())?;
    let Some(result) = answer.partitions.into_iter().next() else {
        return Err(CallFailure::definite(ApiError::new(
            ErrorCode::Internal,
            "the answer lacks the partition",
        )));
    };
    match result.error {
        None => Ok(result.offset),
        Some(detail) => {
            let error = ApiError::from(detail);
            core.metadata.not_leader(&at.topic, partition, error.leader.as_ref());
            Err(CallFailure::definite(error))
        }
    }
}
