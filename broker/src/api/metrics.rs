//! Numbers of the doors: what came in, what was refused, how long it took.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use wire::error_code::ErrorCode;

use super::groups::GroupMetrics;

/// A gauge that holds a fraction.
pub(crate) type Fraction = Gauge<f64, AtomicU64>;

/// Label of a failed message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedLabel {
    /// Name of the error code, which is a closed set.
    reason: &'static str,
}

/// Label of a produce.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AcksLabel {
    acks: &'static str,
}

/// Label of a component's health.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ComponentLabel {
    component: &'static str,
}

/// All metrics that `api` and the frontends set. Handles are cheap to clone; each broker has its own registry.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    pub(crate) messages_received: Counter,
    pub(crate) messages_stored: Counter,
    messages_failed: Family<FailedLabel, Counter>,
    pub(crate) batch_size: Histogram,
    produce_seconds: [Histogram; 3],
    pub(crate) fetch_seconds: Histogram,
    pub(crate) fetched_bytes: Counter,
    pub(crate) produced_bytes: Counter,
    pub(crate) health_status: Fraction,
    component_health: Family<ComponentLabel, Fraction>,
    pub(crate) active_connections: Gauge,
    pub(crate) connections: Counter,
    pub(crate) connection_errors: Counter,
    pub(crate) disk_free_bytes: Gauge,
    pub(crate) raft_groups: Gauge,
    pub(crate) raft_leaders: Gauge,
    pub(crate) raft_apply_lag: Gauge,
    pub(crate) uptime_seconds: Gauge,
    pub(super) groups: GroupMetrics,
}

/// Latencies from 50 µs to about 26 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

impl ApiMetrics {
    /// Metrics registered with `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let by_acks: Family<AcksLabel, Histogram> = Family::new_with_constructor(seconds);
        let acks = |acks| by_acks.get_or_create_owned(&AcksLabel { acks });
        let metrics = Self {
            messages_received: Counter::default(),
            messages_stored: Counter::default(),
            messages_failed: Family::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            produce_seconds: [acks("0"), acks("leader"), acks("all")],
            fetch_seconds: seconds(),
            fetched_bytes: Counter::default(),
            produced_bytes: Counter::default(),
            health_status: Fraction::default(),
            component_health: Family::default(),
            active_connections: Gauge::default(),
            connections: Counter::default(),
            connection_errors: Counter::default(),
            disk_free_bytes: Gauge::default(),
            raft_groups: Gauge::default(),
            raft_leaders: Gauge::default(),
            raft_apply_lag: Gauge::default(),
            uptime_seconds: Gauge::default(),
            groups: GroupMetrics::default(),
        };
        registry.register("altair_produce_seconds", "Time from a produce's arrival to its answer", by_acks);
        // A family without members is not shown at all; dashboards want the usual ones from the start.
        for code in
            [ErrorCode::CorruptBatch, ErrorCode::NotLeader, ErrorCode::OutcomeUnknown, ErrorCode::Overloaded]
        {
            metrics.failed(code, 0);
        }
        metrics.register_traffic(registry);
        metrics.register_state(registry);
        metrics.groups.register(registry);
        metrics
    }

    /// Names the write-ahead log's metrics, its disk waits also as users of other brokers know them.
    pub fn register_wal(wal: &raft_store::WalMetrics, registry: &mut Registry) {
        wal.register(registry);
        let names = [
            ("altair_fsync_seconds", "Time of each wait for the disk"),
            ("altair_flush_duration_seconds", "Time to make a group of writes durable"),
        ];
        for (name, help) in names {
            registry.register(name, help, wal.sync_seconds.clone());
        }
    }

    fn register_traffic(&self, registry: &mut Registry) {
        let counters = [
            ("altair_messages_received", "Records that producers sent", &self.messages_received),
            ("altair_messages_stored", "Records that were acknowledged", &self.messages_stored),
            ("altair_produced_bytes", "Bytes of record batches that producers sent", &self.produced_bytes),
            ("altair_fetched_bytes", "Bytes of record batches that consumers got", &self.fetched_bytes),
            ("altair_connections", "Connections that clients opened", &self.connections),
            ("altair_connection_errors", "Connections refused or broken", &self.connection_errors),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "altair_messages_failed",
            "Records not stored, by reason",
            self.messages_failed.clone(),
        );
        registry.register("altair_batch_size", "Records in a produced batch", self.batch_size.clone());
        registry.register(
            "altair_fetch_seconds",
            "Time to answer a fetch, waiting included",
            self.fetch_seconds.clone(),
        );
        registry.register(
            "altair_active_connections",
            "Connections that are open",
            self.active_connections.clone(),
        );
    }

    fn register_state(&self, registry: &mut Registry) {
        registry.register(
            "altair_health_status",
            "1 healthy, 0.5 degraded, 0 unhealthy",
            self.health_status.clone(),
        );
        registry.register(
            "altair_component_health",
            "1 healthy, 0.5 degraded, 0 unhealthy, by component",
            self.component_health.clone(),
        );
        let gauges = [
            ("altair_disk_free_bytes", "Free bytes on the data directory's disk", &self.disk_free_bytes),
            ("altair_raft_groups", "Raft groups that run on this broker", &self.raft_groups),
            ("altair_raft_leader", "Raft groups that this broker leads", &self.raft_leaders),
            (
                "altair_raft_apply_lag",
                "Committed entries not yet applied, over all groups",
                &self.raft_apply_lag,
            ),
            ("altair_uptime_seconds", "Time since the broker started", &self.uptime_seconds),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(crate) fn failed(&self, code: ErrorCode, records: u64) {
        self.messages_failed.get_or_create_owned(&FailedLabel { reason: code.name() }).inc_by(records);
    }

    pub(crate) fn produce_seconds(&self, acks: crate::partition::Acks) -> &Histogram {
        use crate::partition::Acks;
        let [none, leader, all] = &self.produce_seconds;
        match acks {
            Acks::None => none,
            Acks::Leader => leader,
            Acks::All => all,
        }
    }

    pub(crate) fn component(&self, component: &'static str, health: f64) {
        self.component_health.get_or_create_owned(&ComponentLabel { component }).set(health);
    }
}
