//! Why the metadata group refuses a command. Refusals are replicated like replies: the same on every broker.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId, TopicId};

use super::topic_config::SettingError;
use crate::group::GroupError;

/// A broker that cannot take replicas, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ineligible {
    /// The broker.
    pub broker: BrokerId,
    /// True = it drains, false = it is believed dead.
    pub draining: bool,
    /// Since when. Unit: ms since 1970.
    pub since_ms: i64,
}

/// Why a command was refused; nothing was changed (all are definite). Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MetaError {
    /// A topic of that name stands already.
    #[error("topic {name:?} exists already")]
    TopicExists {
        /// The name.
        name: String,
    },
    /// No such topic.
    #[error("there is no topic {id}")]
    UnknownTopic {
        /// The id asked for.
        id: TopicId,
    },
    /// The name breaks the rules.
    #[error("{name:?} cannot be a topic's name")]
    InvalidTopicName {
        /// The name, shortened.
        name: String,
        /// Which rule.
        rule: String,
    },
    /// Zero, too many, or fewer than there are.
    #[error("{count} partitions cannot be: {rule}")]
    InvalidPartitionCount {
        /// Asked for.
        count: u32,
        /// Which rule.
        rule: String,
    },
    /// Outside 1..=7.
    #[error("replication factor {factor} is outside 1..=7")]
    InvalidReplicationFactor {
        /// Asked for.
        factor: u32,
    },
    /// Fewer brokers can take replicas than the factor asks for.
    #[error("topic {topic:?} needs {wanted} brokers for --rf {wanted}, but {eligible} are eligible")]
    NotEnoughBrokers {
        /// The topic.
        topic: String,
        /// The replication factor.
        wanted: u32,
        /// Brokers that can take replicas.
        eligible: u32,
        /// Registered brokers that cannot.
        ineligible: Vec<Ineligible>,
    },
    /// A setting does not fit the topic.
    #[error("{key} = {value} does not fit: {rule}")]
    InvalidConfig {
        /// Canonical name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// Which rule.
        rule: String,
    },
    /// No such broker.
    #[error("there is no broker {broker}")]
    UnknownBroker {
        /// The id asked for.
        broker: BrokerId,
    },
    /// The broker id is in use by a living broker with another data directory.
    #[error("broker id {broker} is in use by a living broker at {peer} with another data directory")]
    DuplicateBroker {
        /// The id.
        broker: BrokerId,
        /// Where the living one is.
        peer: String,
    },
    /// A fence or unfence of another disk than the registered one.
    #[error("broker {broker} has another incarnation by now")]
    StaleIncarnation {
        /// The broker.
        broker: BrokerId,
    },
    /// The cluster has another identity.
    #[error("this cluster is {actual}, not {given}")]
    WrongCluster {
        /// The cluster's own.
        actual: Uuid,
        /// The one given.
        given: Uuid,
    },
    /// Nothing but [`super::command::Command::FormCluster`] can be first.
    #[error("the cluster is not formed yet")]
    NotFormed,
    /// No partition has that Raft group.
    #[error("there is no partition with Raft group {group}")]
    UnknownGroup {
        /// The group.
        group: RaftGroupId,
    },
    /// The partition has no such replica.
    #[error("Raft group {group} has no replica {replica}")]
    UnknownReplica {
        /// The group.
        group: RaftGroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Another replacement runs in the partition, or its target holds a replica already.
    #[error("Raft group {group}: {rule}")]
    ReplaceConflict {
        /// The group.
        group: RaftGroupId,
        /// What stands in the way.
        rule: String,
    },
    /// The topic is deleted, or is not and should be.
    #[error("topic {name:?}: {rule}")]
    TopicState {
        /// The topic.
        name: String,
        /// What stands in the way.
        rule: String,
    },
    /// A count outside its bounds.
    #[error("{what} {given} is outside 1..={most}")]
    OutOfBounds {
        /// What was counted.
        what: String,
        /// Asked for.
        given: u32,
        /// The bound.
        most: u32,
    },
    /// A consumer group refuses its change.
    #[error(transparent)]
    Group(GroupError),
}

impl From<MetaError> for ApiError {
    fn from(error: MetaError) -> Self {
        let message = error.to_string();
        let plain = |code| Self::new(code, message.clone());
        match error {
            MetaError::TopicExists { name } => plain(ErrorCode::TopicExists)
                .hint(format!("another name, or: altair-cli topic describe {name}")),
            MetaError::UnknownTopic { .. } => plain(ErrorCode::UnknownTopic),
            MetaError::InvalidTopicName { rule, .. } => plain(ErrorCode::InvalidTopicName)
                .reason(rule)
                .hint("1 to 249 of the characters a-z A-Z 0-9 . _ -"),
            MetaError::InvalidPartitionCount { .. } => plain(ErrorCode::InvalidPartitionCount),
            MetaError::InvalidReplicationFactor { .. } => {
                plain(ErrorCode::InvalidReplicationFactor).hint("--rf 1, 3 or 5")
            }
            MetaError::NotEnoughBrokers { eligible, wanted, ineligible, .. } => {
                plain(ErrorCode::NotEnoughBrokers)
                    .reason(why_ineligible(&ineligible, eligible))
                    .hint(next_for_brokers(&ineligible, eligible, wanted))
            }
            MetaError::InvalidConfig { .. } => plain(ErrorCode::InvalidConfig),
            MetaError::UnknownBroker { .. } => plain(ErrorCode::UnknownBroker).hint("altair-cli broker list"),
            MetaError::DuplicateBroker { broker, .. } => plain(ErrorCode::Conflict)
                .hint(format!("give this broker another node.id, or stop the other broker {broker}")),
            MetaError::WrongCluster { .. } => plain(ErrorCode::WrongCluster),
            MetaError::NotFormed => plain(ErrorCode::NotReady),
            MetaError::UnknownGroup { .. } => plain(ErrorCode::UnknownPartition),
            MetaError::UnknownReplica { .. } => plain(ErrorCode::NotReplica),
            MetaError::StaleIncarnation { .. }
            | MetaError::ReplaceConflict { .. }
            | MetaError::TopicState { .. } => plain(ErrorCode::Conflict),
            MetaError::OutOfBounds { .. } => plain(ErrorCode::InvalidRequest),
            MetaError::Group(error) => error.into(),
        }
    }
}

impl From<SettingError> for ApiError {
    fn from(error: SettingError) -> Self {
        Self::new(ErrorCode::InvalidConfig, error.to_string()).hint(error.hint())
    }
}

/// Who cannot take replicas, and since when.
fn why_ineligible(ineligible: &[Ineligible], eligible: u32) -> String {
    if ineligible.is_empty() {
        return format!("the cluster has {eligible} brokers");
    }
    let one = |broker: &Ineligible| {
        let state = if broker.draining { "draining" } else { "down" };
        let id = broker.broker;
        format!("broker {id} is {state} since {} (altair-cli broker describe {id})", utc(broker.since_ms))
    };
    ineligible.iter().take(SHOWN_BROKERS).map(one).collect::<Vec<_>>().join(", ")
}

fn next_for_brokers(ineligible: &[Ineligible], eligible: u32, wanted: u32) -> String {
    // An even factor survives no more than the odd one below it.
    let fits = (1..=eligible.min(wanted)).rev().find(|factor| factor % 2 == 1);
    let smaller = fits.map(|factor| format!("--rf {factor}"));
    let drained = ineligible.iter().find(|broker| broker.draining);
    let other = match (drained, ineligible.first()) {
        (Some(broker), _) => format!("altair-cli broker undrain {}", broker.broker),
        (None, Some(broker)) => format!("start broker {} again", broker.broker),
        (None, None) => "start more brokers".to_owned(),
    };
    smaller.map_or_else(|| other.clone(), |smaller| format!("{smaller}, or: {other}"))
}

/// Brokers named in one error; a hundred would hide the sentence.
const SHOWN_BROKERS: usize = 5;

/// A time as people read it, to the minute.
fn utc(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let text = SystemTime::UNIX_EPOCH.checked_add(since_epoch).map(humantime::format_rfc3339_seconds);
    let text = text.map(|text| text.to_string()).unwrap_or_default();
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => "long ago".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_brokers_reads_as_a_person_would_say_it() {
        let ineligible =
            vec![Ineligible { broker: BrokerId(3), draining: true, since_ms: 1_795_255_320_000 }];
        let error =
            MetaError::NotEnoughBrokers { topic: "orders".into(), wanted: 3, eligible: 2, ineligible };
        assert_eq!(
            ApiError::from(error).to_string(),
            "error[ALT-2107]: topic \"orders\" needs 3 brokers for --rf 3, but 2 are eligible\n  \
             broker 3 is draining since 2026-11-21 10:02 UTC (altair-cli broker describe 3)\n  \
             try: --rf 1, or: altair-cli broker undrain 3"
        );
    }

    #[test]
    fn every_refusal_is_definite_and_has_a_next_step() {
        let group = RaftGroupId(4);
        let all = [
            MetaError::TopicExists { name: "a".into() },
            MetaError::UnknownTopic { id: TopicId(Uuid::nil()) },
            MetaError::InvalidPartitionCount { count: 0, rule: "r".into() },
            MetaError::InvalidReplicationFactor { factor: 9 },
            MetaError::NotEnoughBrokers { topic: "t".into(), wanted: 3, eligible: 0, ineligible: vec![] },
            MetaError::UnknownBroker { broker: BrokerId(1) },
            MetaError::DuplicateBroker { broker: BrokerId(1), peer: "a:1".into() },
            MetaError::StaleIncarnation { broker: BrokerId(1) },
            MetaError::NotFormed,
            MetaError::UnknownGroup { group },
            MetaError::UnknownReplica { group, replica: ReplicaId(3) },
            MetaError::ReplaceConflict { group, rule: "r".into() },
            MetaError::TopicState { name: "t".into(), rule: "r".into() },
            MetaError::OutOfBounds { what: "n".into(), given: 0, most: 1 },
        ];
        for refusal in all {
            let text = refusal.to_string();
            let error = ApiError::from(refusal);
            assert!(error.definite(), "{text}");
            assert!(!error.next_step().is_empty(), "{text}");
        }
    }
}
