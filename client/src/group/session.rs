//! The task that keeps a consumer in its group: joins, sends heartbeats that wait for news, gives back, leaves.
//!
//! **Invariant:** all times of a lease count from before the request was sent, so the coordinator never takes a member for
//! gone that takes itself for one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use uuid::Uuid;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::TopicPartition;
use wire::pb;

use super::config::GroupConfig;
use super::membership::{Member, Membership, Step, Subscription, stuck};
use crate::ClientCore;
use crate::any_broker::no_address;
use crate::connection::Connection;
use crate::error::CallFailure;
use crate::retry::Backoff;

/// One attempt of a call that does not wait. Short: a stopped broker must not cost the session.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long joining may fail before the application hears of it.
const JOIN_PATIENCE: Duration = Duration::from_secs(15);
/// How long a consumer that closes tries to say so.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Session {
    core: Arc<ClientCore>,
    config: GroupConfig,
    shared: Arc<Membership>,
    /// The broker that answered last.
    address: Option<String>,
    backoff: Backoff,
    /// Id of a member that is about to join: another attempt is the same member.
    joining: Option<String>,
    /// Since when joining fails.
    failing_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(core: Arc<ClientCore>, config: GroupConfig, shared: Arc<Membership>) -> Self {
        let (address, backoff) = (None, Backoff::default());
        Self { core, config, shared, address, backoff, joining: None, failing_since: None }
    }

    /// Runs until it has left the group, or the consumer is dropped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let work = async {
            loop {
                match shared.step(Instant::now()) {
                    Step::Wait => shared.wished().await,
                    Step::Join { id, number, subscription } => self.join(id, number, subscription).await,
                    Step::Beat { member, released } => self.beat(member, released).await,
                    Step::GiveUp { member } => {
                        let _ = self.leave(&member.id, true, member.session).await;
                        shared
                            .lost(stuck(Duration::from_millis(u64::from(self.config.max_poll_interval_ms))));
                    }
                    Step::Leave { id, for_good } => {
                        let left = match (id, self.joining.take()) {
                            (Some(id), _) => self.leave(&id, for_good, LEAVE_PATIENCE).await,
                            (None, Some(id)) => {
                                // It never heard that it is a member; if it is one, its session will tell.
                                let _ = self.leave(&id, for_good, ATTEMPT).await;
                                Ok(())
                            }
                            (None, None) => Ok(()),
                        };
                        return shared.gone(left);
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn join(&mut self, id: Option<String>, number: u64, subscription: Subscription) {
        let random = &self.core.random;
        let id = id.or(self.joining.take()).unwrap_or_else(|| {
            uuid::Builder::from_random_bytes(Uuid::from_u64_pair(random.next(), random.next()).into_bytes())
                .into_uuid()
                .to_string()
        });
        let request = pb::JoinGroupRequest {
            group_id: self.config.group_id.clone(),
            member_id: id.clone(),
            instance_id: self.config.instance_id.clone().unwrap_or_default(),
            client_id: self.core.config.client_id.clone(),
            topics: subscription.topics.into_iter().collect(),
            patterns: subscription.patterns.into_iter().collect(),
            assignor: self.config.assignor.map(|assignor| assignor.name().to_owned()).unwrap_or_default(),
            session_timeout_ms: self.config.session_timeout_ms,
        };
        let sent = Instant::now();
        let answer = self
            .call(ATTEMPT, |connection| async move { connection.groups().join_group(request).await })
            .await;
        match answer {
            Ok(joined) => {
                self.failing_since = None;
                self.learn(joined.coordinator_id);
                let millis = |ms: u32| Duration::from_millis(u64::from(ms));
                let member = Member {
                    id: joined.member_id,
                    told: joined.member_epoch,
                    generation: joined.generation,
                    valid_until: sent + millis(joined.valid_ms),
                    session: millis(joined.session_timeout_ms),
                    heartbeat: millis(joined.heartbeat_interval_ms),
                };
                self.shared.joined(number, member, joined.assignment.unwrap_or_default());
            }
            Err(failure) => {
                self.joining = Some(id);
                self.join_failed(failure.error).await;
            }
        }
    }

    /// Tries again soon, or tells the application and waits for it.
    async fn join_failed(&mut self, error: ApiError) {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !error.retriable() || since.elapsed() >= JOIN_PATIENCE {
            self.failing_since = None;
            self.shared.troubled(error);
            return;
        }
        tracing::debug!(group = %self.config.group_id, %error, "joining failed, it is tried again");
        self.pause(error.retry_after_ms).await;
    }

    /// One heartbeat. It waits at the broker for news, and ends when the consumer wishes something.
    async fn beat(&mut self, member: Member, released: Vec<TopicPartition>) {
        // What is given back should reach its next owner now: the answer to that is not waited for long.
        let wait = if released.is_empty() { member.heartbeat } else { Duration::ZERO };
        let request = pb::HeartbeatRequest {
            group_id: self.config.group_id.clone(),
            member_id: member.id.clone(),
            member_epoch: member.told,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            released: released.iter().map(partition_ref).collect(),
        };
        let sent = Instant::now();
        let grace = (member.session / 3).min(ATTEMPT);
        let shared = Arc::clone(&self.shared);
        let answer = {
            let call = self
                .call(wait + grace, |connection| async move { connection.groups().heartbeat(request).await });
            tokio::select! {
                biased;
                answer = call => answer,
                // Nothing is lost: the next heartbeat asks for the same and says more.
                () = urgent(&shared, &released) => return,
            }
        };
        match answer {
            Ok(answer) => {
                self.backoff.reset();
                self.learn(answer.coordinator_id);
                let is_news = answer.assignment.is_some();
                self.shared.heard(sent, &released, answer);
                if !is_news && sent.elapsed() < wait / 2 {
                    // The broker did not wait, because the connection is crowded. That to another one may have room.
                    self.step_aside();
                    tokio::select! {
                        () = urgent(&self.shared, &[]) => {}
                        () = tokio::time::sleep_until(sent + wait) => {}
                    }
                }
            }
            Err(failure) if ends_membership(failure.error.code) => {
                tracing::info!(group = %self.config.group_id, error = %failure.error, "the membership is lost");
                self.shared.lost(failure.error);
            }
            Err(failure) => {
                tracing::debug!(group = %self.config.group_id, error = %failure.error, "a heartbeat failed");
                self.pause(failure.error.retry_after_ms).await;
            }
        }
    }

    /// Tells the group that the member goes. One that is gone already is fine.
    async fn leave(&mut self, id: &str, for_good: bool, patience: Duration) -> Result<(), ApiError> {
        let keep_place = !for_good && self.config.instance_id.is_some();
        let request = pb::LeaveGroupRequest {
            group_id: self.config.group_id.clone(),
            member_id: id.to_owned(),
            keep_place,
        };
        let until = Instant::now() + patience;
        loop {
            let request = request.clone();
            let answer = self
                .call(ATTEMPT, |connection| async move { connection.groups().leave_group(request).await })
                .await;
            match answer {
                Ok(pb::LeaveGroupResponse {}) => return Ok(()),
                Err(failure) if ends_membership(failure.error.code) => return Ok(()),
                Err(failure) if !failure.error.retriable() || Instant::now() >= until => {
                    return Err(failure.error);
                }
                Err(failure) => self.pause(failure.error.retry_after_ms).await,
            }
        }
    }

    /// Goes where the coordinator is said to be; an answer that names none may come from a broker that is cut off.
    fn learn(&mut self, coordinator: Option<u32>) {
        self.core.coordinator.learn(coordinator);
        if coordinator.is_none() {
            self.address = None;
        }
    }

    fn step_aside(&mut self) {
        self.address = None;
        if let Some((id, _)) = self.core.coordinator() {
            self.core.shun_coordinator(id);
        }
    }

    /// Asks the coordinator, or else the broker that answered last; after a failure another one.
    async fn call<T, F, Fut>(&mut self, timeout: Duration, call: F) -> Result<T, CallFailure>
    where
        F: FnOnce(Connection) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let coordinator = self.core.coordinator();
        let known = coordinator.as_ref().map(|(_, address)| address.clone()).or_else(|| self.address.clone());
        let Some(address) = known.or_else(|| self.core.metadata.addresses().into_iter().next()) else {
            return Err(CallFailure::definite(no_address()));
        };
        let answer = self.core.connections.call(&address, timeout, call).await;
        let is_sound = answer.as_ref().err().is_none_or(|failure| !failure.error.retriable());
        if let Some((id, _)) = coordinator.filter(|_| !is_sound) {
            self.core.shun_coordinator(id);
        }
        self.address = is_sound.then_some(address);
        answer
    }

    async fn pause(&mut self, retry_after_ms: u32) {
        let wait = self.backoff.next(&self.core.config.retry, &self.core.random, retry_after_ms);
        tokio::time::sleep(wait).await;
    }
}

/// Waits until the next heartbeat should go now.
async fn urgent(shared: &Membership, under_way: &[TopicPartition]) {
    while !shared.is_urgent(under_way) {
        shared.wished().await;
    }
}

/// Errors that say for sure that the member is none.
fn ends_membership(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownMember | ErrorCode::UnknownGroup | ErrorCode::FencedMemberEpoch)
}

fn partition_ref(at: &TopicPartition) -> pb::PartitionRef {
    pb::PartitionRef { topic: at.topic.clone(), partition: at.partition.0 }
}
