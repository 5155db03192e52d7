//! The clients of the simulated cluster: the recorded workload on machines of its own, the operator, the final read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{Client, ClientConfig, ClientError, Clock};
use verify::history::Recorder;
use verify::workload::{DrainSpec, FinalReadSpec, FinalReads, Workload, drain, final_read};
use wire::pb;

use super::load::{GROUP, TOPIC};
use super::net::SimConnect;
use super::operator::Operator;
use super::plan::Plan;
use super::stage::Stage;
use super::station::{grpc_address, wall_ms};
use super::trace::{SimClock, Trace};

/// Worker numbers of the topic's creator and of the operator, who have no part in the workload.
const CREATOR: u32 = 0;
const OPERATOR: u32 = 100_000;
/// Replicas of every partition.
pub(super) const REPLICAS: u32 = 3;
/// Time for all replicas to agree on their ends after the workload, and to read one of them. Unit: simulated.
const CATCH_UP: Duration = Duration::from_secs(20);
const READ: Duration = Duration::from_secs(20);
/// Time for the group to read everything once its members went. Unit: simulated.
const DRAIN: Duration = Duration::from_secs(40);

/// Everything the clients need.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    pub(super) plan: Arc<Plan>,
    pub(super) clock: SimClock,
    pub(super) trace: Trace,
    pub(super) stage: Arc<Stage>,
    pub(super) operator: Arc<Operator>,
    pub(super) recorder: Recorder,
}

impl Clients {
    fn config(&self, worker: u32) -> ClientConfig {
        let clock = self.clock.clone();
        ClientConfig {
            connect: Arc::new(SimConnect),
            random_seed: Some(self.plan.derive(0xC11E, u64::from(worker))),
            clock: Clock::from_fn(move || wall_ms(&clock)),
            request_timeout_ms: 2_000,
            keep_alive_ms: 1_000,
            ..ClientConfig::new((1..=self.plan.nodes).map(grpc_address))
        }
    }

    /// The software of a clients' machine; the first one also creates the topic, has the operator and takes the final
    /// read.
    pub(super) async fn run(self, machine: u32) -> turmoil::Result {
        let stage = self.stage.clone();
        if machine == 0 {
            self.create_topic().await?;
            stage.ready.cancel();
        }
        stage.ready.cancelled().await;
        let clients = self.clone();
        let config = Arc::new(move |worker| clients.config(worker));
        let spec = self.plan.load.spec(machine, self.plan.derive(0x10AD, 0), config);
        let workload = Workload::new(spec, self.recorder.clone())?;
        stage.watch(workload.progress());
        let operate = async {
            if machine > 0 {
                return Ok(());
            }
            let (config, stop) = (self.config(OPERATOR), stage.stop.clone());
            self.operator.clone().run(config, self.recorder.clone(), self.trace.clone(), stop).await
        };
        let (_, operated) = tokio::join!(workload.run(stage.stop.clone()), operate);
        operated?;
        stage.ended.fetch_add(1, Ordering::Relaxed);
        if machine == 0 {
            stage.last_look.cancelled().await;
            stage.set_final_reads(self.look().await);
        }
        Ok(())
    }

    async fn create_topic(&self) -> Result<(), ClientError> {
        let admin = Client::start(self.config(CREATOR))?;
        let load = &self.plan.load;
        let config = [("min_insync_replicas".to_owned(), load.min_insync.to_string())];
        loop {
            let request = pb::CreateTopicRequest {
                name: TOPIC.into(),
                partitions: load.partitions,
                replication_factor: REPLICAS,
                config: config.clone().into_iter().collect(),
                wait_ms: 10_000,
                ..pb::CreateTopicRequest::default()
            };
            match admin.admin().create_topic(request).await {
                Ok(_) => break,
                Err(error) => self.trace.note(format_args!("create_topic: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.trace.note(format_args!("the topic is there"));
        Ok(())
    }

    /// Lets the group read to the end, and reads every replica of every partition into the history.
    async fn look(&self) -> Result<FinalReads, String> {
        let topics = self.plan.load.topics();
        let group = DrainSpec {
            client: self.config(OPERATOR + 2),
            worker: OPERATOR + 2,
            group: GROUP.to_owned(),
            topics: topics.clone(),
            patience: DRAIN,
        };
        let drained = drain(&group, &self.recorder).await;
        let spec = FinalReadSpec::new(self.config(OPERATOR + 1), topics);
        let spec = FinalReadSpec { catch_up: CATCH_UP, read: READ, ..spec };
        let read = final_read(&spec, &self.recorder).await.map_err(|error| error.to_string());
        drained.map_err(|error| error.to_string()).and(read)
    }
}
