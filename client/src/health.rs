//! Whether the cluster can be reached from here.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use wire::pb;

use crate::ClientCore;
use crate::error::ClientError;

/// Longest wait for one broker.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reachability of the brokers that the client knows.
#[derive(Debug, Clone)]
pub struct Health {
    /// True if at least one broker answers and each known partition has a leader.
    pub healthy: bool,
    /// Each known broker, or each bootstrap address while none is known.
    pub brokers: Vec<BrokerHealth>,
    /// Partitions of the topics in use that have no leader, as `topic/partition`.
    pub leaderless: Vec<String>,
}

/// Reachability of one broker.
#[derive(Debug, Clone)]
pub struct BrokerHealth {
    /// Its gRPC address.
    pub address: String,
    /// Time of one metadata request, or why there was no answer.
    pub answered: Result<Duration, ClientError>,
}

pub(crate) async fn check(core: &ClientCore) -> Health {
    let mut addresses = core.metadata.addresses();
    let known: Vec<String> =
        core.metadata.view().brokers.values().map(|broker| broker.address.clone()).collect();
    if !known.is_empty() {
        addresses = known;
    }
    let brokers = join_all(addresses.into_iter().map(|address| probe(core, address))).await;
    let view = core.metadata.view();
    let leaderless: Vec<String> = view
        .topics
        .iter()
        .flat_map(|(name, topic)| topic.partitions.iter().enumerate().map(move |(at, lead)| (name, at, lead)))
        .filter(|(_, _, leadership)| leadership.broker.is_none())
        .map(|(name, at, _)| format!("{name}/{at}"))
        .collect();
    let reachable = brokers.iter().any(|broker| broker.answered.is_ok());
    Health { healthy: reachable && leaderless.is_empty(), brokers, leaderless }
}

async fn probe(core: &ClientCore, address: String) -> BrokerHealth {
    let asked = Instant::now();
    // Any name will do: an unknown topic is answered shortly, an empty list with every topic.
    let request = pb::GetMetadataRequest { topics: vec!["health".to_owned()] };
    let answer = core
        .connections
        .call(&address, PATIENCE, |connection| async move { connection.broker().get_metadata(request).await })
        .await;
    BrokerHealth { address, answered: answer.map(|_| asked.elapsed()).map_err(ClientError::from) }
}
