//! The one door behind every frontend: what a request means is decided here and below, never in a frontend.
//!
//! [`Api`] is a struct: there is one implementation, and frontends are tested against a real broker in process.

mod brokers;
mod connections;
mod fetch;
mod groups;
mod health;
mod metrics;
mod offsets;
mod partitions;
mod produce;
mod producer_ids;
mod relay;
mod route;
mod status;
mod topics;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::api_error::ApiError;
use wire::ids::BrokerId;

pub use connections::{Admission, Connections, InFlight, RequestGuard};
pub use fetch::{FetchItem, FetchRequest, FetchedItem};
pub use health::{ComponentHealth, Health, HealthReport};
pub use metrics::ApiMetrics;
pub use offsets::{FoundOffset, OffsetItem, OffsetQuery};
pub use produce::{PlainRecord, ProduceItem, ProduceOutcome, ProducePayload, ProduceRequest};
pub use topics::{CreateTopicArgs, CreatedTopic, UpdateTopicArgs};

pub use crate::partition::{Acks, Fetched, OffsetSpec, Receipt};

use crate::config::BrokerConfig;
use crate::metadata::Metadata;
use crate::metadata::command::{Command, CommandReply};
use crate::partition::Partitions;
use crate::raft::Groups;
use crate::runtime::Seams;

/// Time for a change of the metadata when the caller gave none.
pub const METADATA_DEADLINE: Duration = Duration::from_secs(10);

/// What the core is made of.
pub struct ApiParts {
    /// The world.
    pub seams: Seams,
    /// The broker's configuration.
    pub config: Arc<BrokerConfig>,
    /// Topics, brokers, leaders.
    pub metadata: Metadata,
    /// Replicas on this broker.
    pub partitions: Partitions,
    /// Raft groups on this broker.
    pub groups: Groups,
    /// Write-ahead log.
    pub wal: raft_store::Wal,
    /// Metrics of the whole broker, this module's own included.
    pub registry: Arc<Registry>,
    /// This module's own metrics, registered with `registry`.
    pub metrics: ApiMetrics,
}

/// The core of a broker; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Core>);

struct Core {
    parts: ApiParts,
    me: BrokerId,
    connections: Connections,
    producer_ids: producer_ids::ProducerIds,
    /// Next partition for records without key.
    round_robin: AtomicU32,
    started: Instant,
    /// Set once the shutdown has begun.
    stopping: CancellationToken,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api(broker {})", self.0.me)
    }
}

impl Api {
    /// Builds the core and answers the other brokers' questions about this one's replicas.
    pub fn new(parts: ApiParts) -> Self {
        let connections = Connections::new(&parts.config.limits, parts.metrics.clone());
        let api = Self(Arc::new(Core {
            me: BrokerId(parts.config.node.id),
            connections,
            producer_ids: producer_ids::ProducerIds::default(),
            round_robin: AtomicU32::new(0),
            started: Instant::now(),
            stopping: CancellationToken::new(),
            parts,
        }));
        relay::serve(&api);
        api
    }

    /// The bound on open connections, shared by all doors.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// This broker's metrics.
    pub fn metrics(&self) -> &ApiMetrics {
        &self.0.parts.metrics
    }

    /// Marks the broker as going away: it is not ready any more, and long waits of clients end.
    pub fn begin_shutdown(&self) {
        self.0.stopping.cancel();
    }

    /// True once the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Waits for [`Api::begin_shutdown`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Changes the cluster's state; the image of this broker shows the change when this returns.
    async fn change(&self, command: Command, deadline: Instant) -> Result<CommandReply, ApiError> {
        self.parts().metadata.propose(command, deadline.saturating_duration_since(Instant::now())).await
    }

    fn parts(&self) -> &ApiParts {
        &self.0.parts
    }
}
