//! What brokers ask each other about metadata (service 1 of the peer links). Variants and fields are only appended.

use bytes::Bytes;
use raft_store::codec::CodecError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::ids::{BrokerId, GroupId, MemberId};

use super::codec::{self, DecodeError};
use super::command::{BrokerRegistration, Command, Replies};
use crate::raft::LocalIdentity;

/// A request; who asks stands in the greeting of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who are you, and what do you know?
    Hello {
        /// The asker has neither a cluster nor a log.
        fresh: bool,
    },
    /// The asker is about to found a cluster with the asked one in it.
    Claim {
        /// The cluster to be.
        cluster_id: Uuid,
        /// Its founders.
        members: Vec<BrokerRegistration>,
    },
    /// The asker wants to join; the asked one passes it on to the metadata leader.
    Join {
        /// What the new broker says of itself.
        broker: BrokerRegistration,
        /// True if it was passed on once: it is not passed on again.
        forwarded: bool,
    },
    /// Commands for the metadata leader.
    Propose(Vec<Command>),
    /// Members of consumer groups that were heard of, for the coordinator.
    Sessions(Vec<(GroupId, MemberId)>),
    /// How far must an image be that has everything acknowledged before now?
    ReadIndex,
}

/// Where a broker lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    pub(crate) broker: BrokerId,
    pub(crate) incarnation: Uuid,
    pub(crate) peer: String,
}

/// What a broker knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Who answers.
    pub(crate) broker: BrokerRegistration,
    /// The cluster in its data directory.
    pub(crate) cluster_id: Option<Uuid>,
    /// Its image shows a formed cluster.
    pub(crate) formed: bool,
    /// It has neither a cluster nor a log.
    pub(crate) fresh: bool,
    /// Fresh brokers that it heard of lately.
    pub(crate) fresh_seen: Vec<BrokerRegistration>,
    /// Brokers of its image.
    pub(crate) brokers: Vec<Whereabouts>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To `Hello`.
    Known(Known),
    /// To `Claim`: the asked one belongs to that cluster now, durably.
    Claimed,
    /// To `Join`.
    Joined {
        /// The cluster.
        cluster_id: Uuid,
        /// Where its brokers live.
        brokers: Vec<Whereabouts>,
    },
    /// To `Propose`.
    Proposed(Replies),
    /// The asked one is not the metadata leader; nothing happened.
    NotLeader {
        /// Who is, as far as it knows.
        leader: Option<BrokerId>,
    },
    /// It will not do this, and nothing happened.
    Refused {
        /// True if the same request may be fine later.
        retriable: bool,
        /// Why.
        reason: String,
    },
    /// It may have happened.
    Unknown(String),
    /// To `Sessions`.
    Sessions {
        /// An image of this version shows at least what the coordinator knew.
        index: u64,
        /// For each member: how long it may take itself for one, `None` if it is none.
        leases_ms: Vec<Option<u32>>,
    },
    /// To `ReadIndex`.
    ReadIndex(u64),
}

impl Request {
    pub(crate) fn encode(&self) -> Result<Bytes, CodecError> {
        codec::encode(codec::REQUEST, self).map(Bytes::from)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(codec::REQUEST, bytes)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Result<Bytes, CodecError> {
        codec::encode(codec::ANSWER, self).map(Bytes::from)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(codec::ANSWER, bytes)
    }
}

/// What a broker says of itself, for the metadata group.
pub(crate) fn registration(identity: &LocalIdentity) -> BrokerRegistration {
    BrokerRegistration {
        id: identity.broker_id,
        incarnation: identity.incarnation,
        metadata_replica: identity.metadata_replica,
        grpc: identity.grpc.clone(),
        http: identity.http.clone(),
        peer: identity.peer.clone(),
        rack: identity.rack.clone(),
        version: identity.version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_and_answers_read_back() {
        let requests = [
            Request::Hello { fresh: true },
            Request::Claim { cluster_id: Uuid::from_u128(1), members: vec![] },
            Request::Propose(vec![Command::AllocateProducerIds { count: 1 }]),
            Request::Sessions(vec![(GroupId("g".into()), MemberId(Uuid::from_u128(1)))]),
            Request::ReadIndex,
        ];
        for request in requests {
            assert_eq!(Request::decode(&request.encode().unwrap()).unwrap(), request);
        }
        let answers = [
            Answer::Claimed,
            Answer::NotLeader { leader: Some(BrokerId(3)) },
            Answer::Refused { retriable: false, reason: "r".into() },
            Answer::Unknown("u".into()),
            Answer::Proposed(Replies::default()),
            Answer::Sessions { index: 3, leases_ms: vec![Some(1), None] },
            Answer::ReadIndex(7),
        ];
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode().unwrap()).unwrap(), answer);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(bytes: Vec<u8>) {
            prop_assert!(Request::decode(&bytes).is_err());
            prop_assert!(Answer::decode(&bytes).is_err());
            let wrapped = codec::encode(codec::REQUEST, &bytes).unwrap();
            let _ = Request::decode(&wrapped);
        }
    }
}
