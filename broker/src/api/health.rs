//! What of this broker works, as one document and as three short answers for probes.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use serde_json::json;

use super::{Api, ApiParts};
use crate::metadata::image::BrokerState;
use crate::partition::Room;
use crate::raft::Verdict;

/// Share of the write-ahead log's bound above which producers are being slowed down.
const WAL_PRESSED: f64 = 0.9;

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is well.
    Healthy,
    /// It works, and someone should look.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    fn as_metric(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::Degraded => 0.5,
            Self::Unhealthy => 0.0,
        }
    }
}

/// One component's state with its numbers.
#[derive(Debug, Clone)]
pub struct ComponentHealth {
    /// How well it works.
    pub health: Health,
    /// Why it is not healthy; empty if it is.
    pub message: String,
    /// Its numbers.
    pub details: serde_json::Value,
}

impl ComponentHealth {
    fn new(details: serde_json::Value) -> Self {
        Self { health: Health::Healthy, message: String::new(), details }
    }

    /// Keeps the worst verdict and its reason.
    fn worse(mut self, is_so: bool, health: Health, message: impl FnOnce() -> String) -> Self {
        if is_so && health > self.health {
            self.health = health;
            self.message = message();
        }
        self
    }
}

/// The whole document of `/health`.
#[derive(Debug, Clone)]
pub struct HealthReport {
    components: BTreeMap<&'static str, ComponentHealth>,
    timestamp_ms: i64,
    uptime: Duration,
    broker: u32,
}

impl HealthReport {
    /// The worst component's verdict.
    pub fn overall(&self) -> Health {
        self.components.values().map(|component| component.health).max().unwrap_or(Health::Healthy)
    }

    /// True if the broker cannot do its work.
    pub fn is_unhealthy(&self) -> bool {
        self.overall() == Health::Unhealthy
    }

    /// The components by name.
    pub fn components(&self) -> &BTreeMap<&'static str, ComponentHealth> {
        &self.components
    }

    /// The document.
    pub fn to_json(&self) -> serde_json::Value {
        let count = |wanted| self.components.values().filter(|component| component.health == wanted).count();
        let components: serde_json::Map<_, _> = self
            .components
            .iter()
            .map(|(name, component)| {
                let about = json!({
                    "status": component.health.name(),
                    "message": component.message,
                    "details": component.details,
                });
                ((*name).to_owned(), about)
            })
            .collect();
        json!({
            "status": self.overall().name(),
            "timestamp": timestamp(self.timestamp_ms),
            "uptime": humantime::format_duration(Duration::from_secs(self.uptime.as_secs())).to_string(),
            "uptime_seconds": self.uptime.as_secs(),
            "broker": self.broker,
            "version": env!("CARGO_PKG_VERSION"),
            "components": components,
            "summary": {
                "total_components": self.components.len(),
                "healthy": count(Health::Healthy),
                "degraded": count(Health::Degraded),
                "unhealthy": count(Health::Unhealthy),
            },
        })
    }
}

fn timestamp(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

impl Api {
    /// State of every component.
    ///
    /// # Cancel safety
    /// Looking changes nothing.
    pub async fn health(&self) -> HealthReport {
        let parts = self.parts();
        let components = BTreeMap::from([
            ("wal", wal(parts)),
            ("partition_logs", self.partition_logs()),
            ("raft_groups", self.raft_groups()),
            ("metadata", self.metadata_health()),
            ("peers", self.peers_health()),
            ("disk", disk(parts).await),
        ]);
        HealthReport {
            components,
            timestamp_ms: parts.seams.clock.now_ms(),
            uptime: self.0.started.elapsed(),
            broker: self.0.me.0,
        }
    }

    /// Whether clients should be sent here: `Err` says why not.
    ///
    /// # Errors
    /// The reason in words.
    pub fn readiness(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the broker is stopping".to_owned());
        }
        self.startup()?;
        let image = self.parts().metadata.image();
        match image.broker(self.0.me).map(|entry| entry.state()) {
            Some(BrokerState::Alive) if !self.parts().partitions.is_ready() => {
                Err("the replicas on this broker are being opened".to_owned())
            }
            None => Err("the broker is not registered in its cluster yet".to_owned()),
            Some(BrokerState::Fenced) => Err("the cluster believes this broker dead".to_owned()),
            Some(BrokerState::Draining) => Err("the broker is draining".to_owned()),
            Some(BrokerState::Alive) => Ok(()),
        }
    }

    /// Whether the start is over: storage recovered, cluster joined.
    ///
    /// # Errors
    /// The reason in words.
    pub fn startup(&self) -> Result<(), String> {
        if self.parts().metadata.image().is_formed() {
            Ok(())
        } else {
            Err("the broker has not joined a cluster yet".to_owned())
        }
    }

    /// All metrics in the OpenMetrics text format.
    pub async fn metrics_text(&self) -> String {
        let report = self.health().await;
        let metrics = self.metrics();
        metrics.health_status.set(report.overall().as_metric());
        for (name, component) in report.components() {
            metrics.component(name, component.health.as_metric());
        }
        let number = |component: &str, key: &str| {
            report
                .components()
                .get(component)
                .and_then(|found| found.details.get(key)?.as_i64())
                .unwrap_or_default()
        };
        metrics.disk_free_bytes.set(number("disk", "free_bytes"));
        metrics.raft_groups.set(number("raft_groups", "groups"));
        metrics.raft_leaders.set(number("raft_groups", "leaders"));
        metrics.raft_apply_lag.set(number("raft_groups", "apply_lag"));
        metrics.uptime_seconds.set(i64::try_from(report.uptime.as_secs()).unwrap_or(i64::MAX));
        self.measure_groups(&metrics.groups).await;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.parts().registry);
        text
    }

    fn partition_logs(&self) -> ComponentHealth {
        let image = self.parts().metadata.image();
        let (mut logs, mut missing, mut bytes) = (0_u64, 0_u64, 0_u64);
        for local in image.local_replicas(self.0.me) {
            match self.parts().partitions.get(local.topic.id, local.partition.index) {
                Some(replica) => {
                    logs += 1;
                    bytes += replica.status().size_bytes;
                }
                None => missing += 1,
            }
        }
        let room = match self.parts().partitions.gate().room() {
            Room::Ample => "ample",
            Room::Low => "low",
            Room::Refusing => "refusing",
            Room::Critical => "critical",
        };
        let failures = self.parts().partitions.failures();
        let failure = failures.iter().next().map(|(group, reason)| format!("group {group}: {reason}"));
        ComponentHealth::new(json!({ "logs": logs, "not_open": missing, "size_bytes": bytes, "room": room }))
            .worse(missing > 0, Health::Degraded, || format!("{missing} replicas are not open"))
            .worse(failure.is_some(), Health::Unhealthy, || failure.unwrap_or_default())
    }

    fn raft_groups(&self) -> ComponentHealth {
        let groups = self.parts().groups.ids();
        let (mut leaders, mut leaderless, mut apply_lag) = (0_u64, 0_u64, 0_u64);
        let mut stopped = None;
        for id in &groups {
            let Some(status) = self.parts().groups.status(*id) else { continue };
            leaders += u64::from(status.is_leader());
            leaderless += u64::from(status.leader.is_none());
            let (committed, applied) =
                (status.committed.unwrap_or_default(), status.applied.unwrap_or_default());
            apply_lag += committed.saturating_sub(applied);
            if let Err(reason) = status.running {
                stopped = Some(format!("group {id}: {reason}"));
            }
        }
        let details = json!({ "groups": groups.len(), "leaders": leaders, "leaderless": leaderless, "apply_lag": apply_lag });
        ComponentHealth::new(details)
            .worse(leaderless > 0, Health::Degraded, || format!("{leaderless} groups have no leader"))
            .worse(stopped.is_some(), Health::Unhealthy, || stopped.unwrap_or_default())
    }

    fn metadata_health(&self) -> ComponentHealth {
        let image = self.parts().metadata.image();
        let controller = self.controller();
        let details = json!({
            "cluster_id": image.cluster_id.to_string(),
            "version": image.version,
            "controller": controller,
            "topics": image.names.len(),
            "partitions": image.partition_count(),
        });
        ComponentHealth::new(details)
            .worse(controller.is_none(), Health::Degraded, || "the metadata group has no leader".to_owned())
            .worse(!image.is_formed(), Health::Unhealthy, || {
                "the broker has not joined a cluster yet".to_owned()
            })
    }

    fn peers_health(&self) -> ComponentHealth {
        let health = self.parts().groups.peers().health();
        let dead: Vec<u32> = health
            .iter()
            .filter(|(_, peer)| peer.verdict == Verdict::Dead)
            .map(|(broker, _)| broker.0)
            .collect();
        let suspect = health.values().filter(|peer| peer.verdict == Verdict::Suspect).count();
        let details = json!({ "known": health.len(), "suspect": suspect, "dead": dead });
        ComponentHealth::new(details)
            .worse(suspect > 0, Health::Degraded, || format!("{suspect} brokers are late"))
            .worse(!dead.is_empty(), Health::Degraded, || format!("brokers {dead:?} are down"))
    }
}

fn wal(parts: &ApiParts) -> ComponentHealth {
    let pressure = parts.wal.pressure();
    #[expect(clippy::cast_precision_loss, reason = "a share for people needs no more than 52 bits")]
    let used = pressure.outstanding as f64 / (pressure.max.max(1)) as f64;
    let failed = parts.wal.failed().borrow().clone();
    ComponentHealth::new(json!({ "outstanding_bytes": pressure.outstanding, "max_bytes": pressure.max }))
        .worse(used > WAL_PRESSED, Health::Degraded, || {
            "producers are slowed until segments are flushed".to_owned()
        })
        .worse(failed.is_some(), Health::Unhealthy, || failed.unwrap_or_default())
}

async fn disk(parts: &ApiParts) -> ComponentHealth {
    let (disk, dir) = (parts.seams.disk.clone(), parts.config.storage.data_dir.clone());
    let space = parts.seams.io.run(move || disk.space(&dir)).await;
    let refuses = parts.partitions.gate().refuses();
    match space {
        Ok(space) => ComponentHealth::new(json!({ "free_bytes": space.free, "total_bytes": space.total }))
            .worse(refuses, Health::Unhealthy, || {
                "too little space is free: produces are refused".to_owned()
            }),
        Err(error) => ComponentHealth::new(json!({})).worse(true, Health::Unhealthy, || error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(healths: [Health; 3]) -> HealthReport {
        let [a, b, c] =
            healths.map(|health| ComponentHealth { health, message: "m".into(), details: json!({}) });
        HealthReport {
            components: BTreeMap::from([("a", a), ("b", b), ("c", c)]),
            timestamp_ms: 1_700_000_000_123,
            uptime: Duration::from_secs(61),
            broker: 3,
        }
    }

    #[test]
    fn the_worst_component_decides_and_the_summary_counts() {
        let document = report([Health::Healthy, Health::Degraded, Health::Unhealthy]).to_json();
        assert_eq!(document["status"], "unhealthy");
        assert_eq!(document["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(document["uptime"], "1m 1s");
        assert_eq!(
            document["summary"],
            json!({ "total_components": 3, "healthy": 1, "degraded": 1, "unhealthy": 1 })
        );
        assert!(!report([Health::Healthy, Health::Degraded, Health::Healthy]).is_unhealthy());
    }
}
