//! Replicas as they are, asked from the brokers that carry them, and moves of leaderships.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, PartitionIndex};
use wire::pb;

use super::{Api, brokers, route};
use crate::metadata::image::{MetadataImage, Partition, Topic};
use crate::raft::{GroupError, GroupStatus, Role};

/// How long a move may take when the caller did not say.
const TRANSFER_WITHIN: Duration = Duration::from_secs(5);
/// The longest a caller may ask for.
const TRANSFER_WITHIN_MAX: Duration = Duration::from_secs(60);
/// How often a move looks whether the new leader is reported.
const ASKED_MAX: usize = 10_000;

impl Api {
    /// State of each replica of the partitions asked for; a broker that does not answer has an error in each of its.
    ///
    /// # Errors
    /// `UnknownTopic` or `UnknownPartition`.
    pub async fn describe_partitions(
        &self,
        request: &pb::DescribePartitionsRequest,
        deadline: Instant,
    ) -> Result<Vec<pb::ReplicaStatus>, ApiError> {
        let image = self.parts().metadata.image();
        let wanted = wanted(&image, request)?;
        if request.local_only {
            return Ok(self.describe_local(request).await);
        }
        let carriers: BTreeSet<BrokerId> = wanted
            .iter()
            .flat_map(|(_, partition)| partition.all_replicas())
            .map(|replica| replica.broker)
            .collect();
        let asked = carriers.into_iter().map(|broker| async move {
            if broker == self.0.me {
                return (broker, Ok(self.describe_local(request).await));
            }
            let question = pb::DescribePartitionsRequest { local_only: true, ..request.clone() };
            (broker, self.ask_replicas(broker, &question, deadline).await)
        });
        let mut replicas = Vec::new();
        for (broker, answer) in join_all(asked).await {
            match answer {
                Ok(answered) => replicas.extend(answered),
                Err(error) => replicas.extend(unanswered(&wanted, broker, &error)),
            }
        }
        replicas.sort_by(|a, b| {
            (&a.topic, a.partition, a.broker_id, a.replica_id).cmp(&(
                &b.topic,
                b.partition,
                b.broker_id,
                b.replica_id,
            ))
        });
        Ok(replicas)
    }

    /// The replicas on this broker among those asked for.
    pub(super) async fn describe_local(
        &self,
        request: &pb::DescribePartitionsRequest,
    ) -> Vec<pb::ReplicaStatus> {
        let image = self.parts().metadata.image();
        // Names that this broker does not know yet have no replicas here.
        let wanted = wanted(&image, request).unwrap_or_default();
        let mut replicas = Vec::new();
        for (topic, partition) in wanted {
            for replica in partition.all_replicas().filter(|replica| replica.broker == self.0.me) {
                let mut status = pb::ReplicaStatus {
                    topic: topic.name.clone(),
                    partition: partition.index.0,
                    broker_id: replica.broker.0,
                    replica_id: replica.id.0,
                    role: "stopped".to_owned(),
                    ..Default::default()
                };
                match self.parts().groups.status(partition.group) {
                    Some(raft) if raft.replica == replica.id => fill_raft(&mut status, &raft),
                    _ => "the replica does not run here".clone_into(&mut status.error),
                }
                self.fill_log(&mut status, topic, partition.index);
                replicas.push(status);
            }
        }
        replicas
    }

    fn fill_log(&self, status: &mut pb::ReplicaStatus, topic: &Topic, index: PartitionIndex) {
        let Some(replica) = self.parts().partitions.get(topic.id, index) else { return };
        let log = replica.status();
        status.log_start_offset = log.log_start.0;
        status.high_watermark = log.high_watermark.0;
        status.size_bytes = log.size_bytes;
        status.segments = u32::try_from(log.segments).unwrap_or(u32::MAX);
    }

    /// Gives the leadership of a partition to a broker, by default to the preferred one. Executed by the broker that
    /// leads it now.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`, `UnknownBroker`, `NotReplica`, `NoLeader`, `Conflict` if the target lags, or
    /// `OutcomeUnknown` at the deadline.
    pub async fn transfer_leader(
        &self,
        request: &pb::TransferLeaderRequest,
    ) -> Result<pb::TransferLeaderResponse, ApiError> {
        let image = self.parts().metadata.image();
        let (topic, partition, _) = target(&image, request)?;
        match self.leader_of(topic, partition) {
            Some(leader) if leader == self.0.me => self.transfer_here(request).await,
            Some(leader) => self.ask_transfer(leader, request, Instant::now() + within(request)).await,
            None => Err(route::elsewhere(&image, topic, partition)),
        }
    }

    /// The leader by this broker's own Raft state, else by the image.
    fn leader_of(&self, _topic: &Topic, partition: &Partition) -> Option<BrokerId> {
        let by_raft = self.parts().groups.status(partition.group).and_then(|status| status.leader);
        by_raft.map(|(_, broker)| broker).or_else(|| partition.leader_broker())
    }

    /// As [`Api::transfer_leader`], on the broker that leads.
    pub(super) async fn transfer_here(
        &self,
        request: &pb::TransferLeaderRequest,
    ) -> Result<pb::TransferLeaderResponse, ApiError> {
        let image = self.parts().metadata.image();
        let (topic, partition, to) = target(&image, request)?;
        let deadline = Instant::now() + within(request);
        let groups = &self.parts().groups;
        if to.broker != self.0.me {
            groups
                .transfer(partition.group, to.id, within(request))
                .await
                .map_err(|error| refused(topic, partition, &error))?;
        }
        let group = partition.group;
        let led = self.wait_image(deadline, |image| {
            let (_, partition) = image.group(group)?;
            (partition.leader == Some(to.id)).then_some(partition.leader_epoch)
        });
        match led.await {
            Some(epoch) => Ok(pb::TransferLeaderResponse { leader: to.broker.0, leader_epoch: epoch.0 }),
            None => {
                let message = format!(
                    "broker {} is not reported as leader of {}/{} yet",
                    to.broker, topic.name, partition.index
                );
                Err(ApiError::new(ErrorCode::OutcomeUnknown, message)
                    .hint("altair-cli topic describe shows who leads"))
            }
        }
    }
}

fn within(request: &pb::TransferLeaderRequest) -> Duration {
    match request.timeout_ms {
        0 => TRANSFER_WITHIN,
        ms => Duration::from_millis(u64::from(ms)).min(TRANSFER_WITHIN_MAX),
    }
}

type Wanted<'a> = Vec<(&'a Topic, &'a Partition)>;

fn wanted<'a>(
    image: &'a MetadataImage,
    request: &pb::DescribePartitionsRequest,
) -> Result<Wanted<'a>, ApiError> {
    if request.partitions.len() > ASKED_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("at most {ASKED_MAX} partitions can be named"),
        ));
    }
    if request.topic.is_empty() {
        let all =
            image.live_topics().flat_map(|topic| topic.partitions.iter().map(move |one| (&**topic, &**one)));
        return Ok(all.collect());
    }
    let topic = route::topic(image, &request.topic)?;
    if request.partitions.is_empty() {
        return Ok(topic.partitions.iter().map(|one| (&**topic, &**one)).collect());
    }
    let named = request.partitions.iter().map(|index| {
        let partition = route::partition(topic, PartitionIndex(*index))?;
        Ok((&**topic, &**partition))
    });
    named.collect()
}

fn unanswered(wanted: &Wanted<'_>, broker: BrokerId, error: &ApiError) -> Vec<pb::ReplicaStatus> {
    let carried = wanted.iter().filter_map(|(topic, partition)| {
        let replica = partition.all_replicas().find(|replica| replica.broker == broker)?;
        Some(pb::ReplicaStatus {
            topic: topic.name.clone(),
            partition: partition.index.0,
            broker_id: broker.0,
            replica_id: replica.id.0,
            role: "stopped".to_owned(),
            error: error.message.clone(),
            ..Default::default()
        })
    });
    carried.collect()
}

fn fill_raft(status: &mut pb::ReplicaStatus, raft: &GroupStatus) {
    let role = match raft.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    };
    role.clone_into(&mut status.role);
    status.term = raft.term;
    status.last_log_index = raft.last_index.unwrap_or_default();
    status.committed_index = raft.committed.unwrap_or_default();
    status.applied_index = raft.applied.unwrap_or_default();
    status.purged_index = raft.purged.unwrap_or_default();
    if let Err(reason) = &raft.running {
        status.error.clone_from(reason);
    }
}

type Target<'a> = (&'a Topic, &'a Partition, crate::metadata::image::Replica);

fn target<'a>(image: &'a MetadataImage, request: &pb::TransferLeaderRequest) -> Result<Target<'a>, ApiError> {
    let topic = route::topic(image, &request.topic)?;
    let partition = route::partition(topic, PartitionIndex(request.partition))?;
    let to = match request.to_broker.map(BrokerId) {
        Some(broker) => {
            image.broker(broker).ok_or_else(|| brokers::unknown_broker(broker))?;
            partition.replicas.iter().find(|replica| replica.broker == broker).copied().ok_or_else(|| {
                let message = format!("broker {broker} has no replica of {}/{}", topic.name, partition.index);
                ApiError::new(ErrorCode::NotReplica, message)
            })?
        }
        None => partition.replica(partition.preferred).ok_or_else(|| {
            ApiError::new(ErrorCode::Internal, "the preferred leader is no replica of the partition")
        })?,
    };
    Ok((topic, partition, to))
}

fn refused(topic: &Topic, partition: &Partition, error: &GroupError) -> ApiError {
    let name = format!("{}/{}", topic.name, partition.index);
    let code = match error {
        GroupError::NotLeader(_) | GroupError::NotHere(_) => ErrorCode::NotLeader,
        GroupError::Unfit { .. } => ErrorCode::Conflict,
        GroupError::Timeout(_) => ErrorCode::OutcomeUnknown,
        GroupError::Open(_) | GroupError::Wal { .. } | GroupError::Stopped { .. } => ErrorCode::Unavailable,
    };
    ApiError::new(code, format!("the leadership of {name} was not moved")).reason(error.to_string())
}
