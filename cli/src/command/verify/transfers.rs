//! The one fault that a run may cause on a cluster that is not its own: leaders of its own partitions move to and fro.

use std::time::Duration;

use client::Client;
use verify::history::{FaultOutcome, Recorder};
use wire::pb;

use crate::context::Context;

/// Between two transfers: long enough to see writes again, short enough for some in a minute.
const EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one transfer.
const TIMEOUT_MS: u32 = 5_000;

/// Moves leaders until it is dropped: one partition after the other, to the next replica in sync.
pub(super) async fn transfer(context: &Context, client: &Client, topic: &str, recorder: &Recorder) {
    for turn in 0_usize.. {
        tokio::time::sleep(EVERY).await;
        let Some((partition, to)) = target(client, topic, turn).await else {
            recorder.fault(
                "transfer",
                topic,
                FaultOutcome::Skipped,
                "no partition with another replica in sync",
            );
            continue;
        };
        let request = pb::TransferLeaderRequest {
            topic: topic.to_owned(),
            partition,
            to_broker: Some(to),
            timeout_ms: TIMEOUT_MS,
        };
        let moved = client.admin().transfer_leader(context.call("Admin/TransferLeader", request)).await;
        let (outcome, detail) = match moved {
            Ok(answer) => (FaultOutcome::Installed, format!("epoch {}", answer.leader_epoch)),
            Err(client::ClientError::Unknown(error)) => (FaultOutcome::Indeterminate, error.to_string()),
            Err(error) => (FaultOutcome::Skipped, error.into_api().to_string()),
        };
        recorder.fault("transfer", format!("{topic}/{partition} to broker {to}"), outcome, detail);
    }
}

/// The partition whose turn it is, and the replica after its leader among those in sync.
async fn target(client: &Client, topic: &str, turn: usize) -> Option<(u32, u32)> {
    let request = pb::DescribeTopicsRequest { names: vec![topic.to_owned()] };
    let topics = client.admin().describe_topics(request).await.ok()?.topics;
    let partitions = &topics.first()?.partitions;
    let partition = partitions.get(turn % partitions.len().max(1))?;
    next_leader(partition).map(|to| (partition.partition, to))
}

fn next_leader(partition: &pb::PartitionInfo) -> Option<u32> {
    let leader = partition.leader?;
    let mut others: Vec<u32> = partition.isr.iter().copied().filter(|id| *id != leader).collect();
    others.sort_unstable();
    others.iter().find(|id| **id > leader).or(others.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replica_in_sync_gets_its_turn() {
        let led_by = |leader, isr: &[u32]| {
            next_leader(&pb::PartitionInfo { leader, isr: isr.to_vec(), ..Default::default() })
        };
        assert_eq!([1, 2, 3].map(|leader| led_by(Some(leader), &[3, 1, 2])), [Some(2), Some(3), Some(1)]);
        assert_eq!(led_by(Some(2), &[2, 1]), Some(1));
        assert_eq!(led_by(Some(1), &[1]), None);
        assert_eq!(led_by(None, &[1, 2]), None);
    }
}
