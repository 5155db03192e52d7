//! The cluster in one answer: what works, what does not, and why.

use wire::pb;

use super::{Api, view};
use crate::metadata::image::{BrokerState, MetadataImage};

/// Partitions named in one answer; the counts tell the rest.
const NAMED_MAX: usize = 1_000;

impl Api {
    /// State of the cluster as this broker's image has it.
    pub fn cluster_status(&self) -> pb::ClusterStatusResponse {
        let image = self.parts().metadata.image();
        let controller_id = self.controller();
        let (mut leaderless, mut under_replicated) = (Vec::new(), Vec::new());
        for topic in image.live_topics() {
            for partition in &topic.partitions {
                if partition.leader.is_none() {
                    leaderless.push(view::reference(topic, partition));
                }
                if partition.isr.len() < partition.replicas.len() {
                    under_replicated.push(view::reference(topic, partition));
                }
            }
        }
        let (verdict, reasons) = verdict(&image, controller_id, leaderless.len(), under_replicated.len());
        leaderless.truncate(NAMED_MAX);
        under_replicated.truncate(NAMED_MAX);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        pb::ClusterStatusResponse {
            cluster_id: image.cluster_id.to_string(),
            cluster_name: image.cluster_name.clone(),
            controller_id,
            metadata_version: image.version,
            brokers: view::brokers(&image),
            topics: count(image.names.len()),
            partitions: count(image.partition_count()),
            leaderless,
            under_replicated,
            verdict: verdict.to_owned(),
            reasons,
        }
    }
}

fn verdict(
    image: &MetadataImage,
    controller: Option<u32>,
    leaderless: usize,
    under_replicated: usize,
) -> (&'static str, Vec<String>) {
    let mut reasons = Vec::new();
    if controller.is_none() {
        reasons.push("the metadata group has no leader: topics and leaders cannot change".to_owned());
    }
    if leaderless > 0 {
        reasons.push(format!("{leaderless} partitions have no leader: they take no writes"));
    }
    let unhealthy = !reasons.is_empty();
    if under_replicated > 0 {
        reasons.push(format!("{under_replicated} partitions have replicas that are not in sync"));
    }
    for broker in image.brokers.values() {
        match broker.state() {
            BrokerState::Alive => {}
            BrokerState::Fenced => reasons.push(format!("broker {} is down", broker.id)),
            BrokerState::Draining => reasons.push(format!("broker {} is draining", broker.id)),
        }
    }
    match (unhealthy, reasons.is_empty()) {
        (true, _) => ("unhealthy", reasons),
        (false, false) => ("degraded", reasons),
        (false, true) => ("healthy", reasons),
    }
}
