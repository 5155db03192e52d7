//! Accepts connections and serves HTTP/2 on each, within bounds. Every task of a connection belongs to the broker, so that
//! its end ends them.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;
use wire::pb;
use wire::pb::admin_server::AdminServer;
use wire::pb::broker_server::BrokerServer;
use wire::pb::groups_server::GroupsServer;

use super::admin::AdminService;
use super::broker::BrokerService;
use super::groups::GroupsService;
use super::incoming::Greeted;
use super::limits::Limited;
use crate::api::{Admission, Api};
use crate::config::LimitsConfig;
use crate::runtime::{BoxStream, HttpExecutor, Listener, Tasks};

/// Streams a connection may have open; calls beyond `limits.in_flight_requests` are refused with advice, streams beyond
/// this wait in the client.
const STREAMS_MAX: u32 = 256;
/// Bytes of headers of one call.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Bytes a client may send ahead on one call and on one connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of one frame that a client may send. With the default of 16 KiB each costs two reads of the socket.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A connection whose other end has vanished is found out in half a minute.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after an accept failed (file descriptors ran out), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the health service looks whether the broker is ready.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// The gRPC door of a broker.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    tasks: Tasks,
}

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The listener has no address.
    #[error("the gRPC listener has no address")]
    Address(#[from] std::io::Error),
    /// The schema for reflection is damaged, a fault of the build.
    #[error("the schema for reflection is damaged")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl GrpcServer {
    /// Serves `api` on a listener until the scope of `tasks` ends.
    ///
    /// # Errors
    /// [`GrpcError`].
    pub fn start(
        listener: Box<dyn Listener>,
        api: Api,
        limits: &LimitsConfig,
        tasks: Tasks,
    ) -> Result<Self, GrpcError> {
        let address = listener.local_addr()?;
        let message_max = usize::try_from(limits.message_bytes).unwrap_or(usize::MAX);
        let broker = BrokerServer::new(BrokerService::new(api.clone(), tasks.clone()))
            .max_decoding_message_size(message_max)
            .max_encoding_message_size(message_max);
        let admin = AdminServer::new(AdminService::new(api.clone()))
            .max_decoding_message_size(message_max)
            .max_encoding_message_size(message_max);
        let groups = GroupsServer::new(GroupsService::new(api.clone()))
            .max_decoding_message_size(message_max)
            .max_encoding_message_size(message_max);
        let (reporter, health) = tonic_health::server::health_reporter();
        tasks.spawn("grpc-health", 0, report_health(reporter, api.clone(), tasks.clone()));
        let reflection = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let services = Routes::new(broker)
            .add_service(admin)
            .add_service(groups)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        tasks.spawn("grpc-accept", 0, accept_loop(listener, api, services, tasks.clone()));
        Ok(Self { address, tasks })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets calls in progress end, and cuts off what is left at the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.tasks.shutdown(deadline).await;
    }
}

async fn accept_loop(listener: Box<dyn Listener>, api: Api, services: Routes, tasks: Tasks) {
    let stop = tasks.token();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(admission) = api.connections().admit() else { continue };
                let service = Limited::new(services.clone(), admission.in_flight(), from);
                let connection = Connection { api: api.clone(), admission, service };
                let executor = HttpExecutor::new(tasks.clone(), "grpc-call");
                tasks.spawn("grpc-connection", 0, connection.serve(stream, executor, stop.clone()));
            }
            Err(error) => {
                api.connections().note_error();
                tracing::warn!(%error, "accepting a gRPC connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client's connection.
struct Connection {
    api: Api,
    admission: Admission,
    service: Limited,
}

impl Connection {
    /// Serves calls until the client leaves; once the broker stops, those in progress.
    async fn serve(self, stream: BoxStream, executor: HttpExecutor, stop: CancellationToken) {
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_PATIENCE)
            .serve_connection(TokioIo::new(Greeted::new(stream)), TowerToHyperService::new(self.service));
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = served {
            self.api.connections().note_error();
            tracing::debug!(%error, "a gRPC connection ended badly");
        }
        drop(self.admission);
    }
}

/// Keeps `grpc.health.v1` at what `/health/ready` says.
async fn report_health(reporter: HealthReporter, api: Api, tasks: Tasks) {
    let stop = tasks.token();
    let services = ["", "altair.v1.Broker", "altair.v1.Admin", "altair.v1.Groups"];
    let mut told = None;
    loop {
        let ready = api.readiness().is_ok();
        if told != Some(ready) {
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in services {
                reporter.set_service_status(service, status).await;
            }
            told = Some(ready);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}
