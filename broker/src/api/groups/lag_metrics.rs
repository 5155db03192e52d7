//! Lag of groups in `/metrics`: each broker tells of the partitions that it leads, so that the numbers of all brokers
//! together are those of the cluster, and nobody has to be asked.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wire::ids::{Offset, TopicIdPartition};

use super::bounds::age;
use super::lag::Lag;
use crate::api::Api;
use crate::group::GroupEntry;

/// Pairs of group and topic that are shown; those with the longest lag come first.
const SERIES_MAX: usize = 1_000;

/// Labels of a lag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct GroupLabels {
    group: String,
    topic: String,
}

/// Numbers of consumer groups.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct GroupMetrics {
    groups: Gauge,
    members: Gauge,
    lag_messages: Family<GroupLabels, Gauge>,
    lag_seconds: Family<GroupLabels, Gauge<f64, AtomicU64>>,
}

impl GroupMetrics {
    /// Registers them.
    pub(in crate::api) fn register(&self, registry: &mut Registry) {
        registry.register("altair_groups", "Consumer groups of the cluster", self.groups.clone());
        registry.register(
            "altair_group_members",
            "Members of all consumer groups of the cluster",
            self.members.clone(),
        );
        registry.register(
            "altair_group_lag_messages",
            "Records that a group has not committed, of partitions that this broker leads",
            self.lag_messages.clone(),
        );
        registry.register(
            "altair_group_lag_seconds",
            "Age of the oldest record that a group has not committed, of partitions that this broker leads",
            self.lag_seconds.clone(),
        );
    }
}

impl Api {
    /// Looks at the lag of every group in the partitions that this broker leads.
    pub(in crate::api) async fn measure_groups(&self, metrics: &GroupMetrics) {
        let image = self.parts().metadata.image();
        let groups = image.consumer_groups.all();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.groups.set(count(groups.len()));
        metrics.members.set(count(groups.values().map(|entry| entry.group.members.len()).sum()));
        let mut lags: BTreeMap<GroupLabels, Lag> = BTreeMap::new();
        for (id, entry) in groups {
            for (topic, of_topic) in &entry.offsets {
                let Some(name) = super::assignment::name(&image, *topic) else { continue };
                let labels = GroupLabels { group: id.0.clone(), topic: name };
                for partition in of_topic.keys() {
                    let at = TopicIdPartition { topic: *topic, partition: *partition };
                    if let Some(lag) = self.lag_here(entry, at).await {
                        let known = lags.entry(labels.clone()).or_default();
                        *known = known.with(lag);
                    }
                }
            }
        }
        show(metrics, lags);
    }

    /// Lag in one partition, if this broker leads it.
    async fn lag_here(&self, entry: &GroupEntry, at: TopicIdPartition) -> Option<Lag> {
        let replica = self.parts().partitions.get(at.topic, at.partition).filter(|one| one.is_leader())?;
        let next = entry.committed(at)?.offset;
        let (start, end) = (replica.log_start(), replica.high_watermark());
        let age_ms = age(self, &replica, Offset(next.0.max(start.0)), end).await.ok().flatten();
        Some(Lag::of(next.0, start.0, end.0, age_ms))
    }
}

fn show(metrics: &GroupMetrics, lags: BTreeMap<GroupLabels, Lag>) {
    metrics.lag_messages.clear();
    metrics.lag_seconds.clear();
    let mut lags: Vec<_> = lags.into_iter().collect();
    lags.sort_by_key(|(_, lag)| std::cmp::Reverse((lag.ms, lag.records)));
    for (labels, lag) in lags.into_iter().take(SERIES_MAX) {
        #[expect(clippy::cast_precision_loss, reason = "a number for people needs no more than 52 bits")]
        let seconds = lag.ms as f64 / 1_000.0;
        metrics.lag_seconds.get_or_create(&labels).set(seconds);
        metrics.lag_messages.get_or_create(&labels).set(i64::try_from(lag.records).unwrap_or(i64::MAX));
    }
}
