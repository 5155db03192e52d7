//! What brokers ask each other so that any of them can answer an admin call: replica states, and moves of a leadership.
//!
//! | byte | content                                                            |
//! |------|--------------------------------------------------------------------|
//! | 0    | question: 1 = describe replicas, 2 = transfer a leader, 3 = bounds |
//! | 1…   | the request of the same call of `altair.v1.Admin`, as protobuf;    |
//! |      | of bounds that of `altair.internal.v1`                             |
//!
//! The answer is one byte, 0 = the call's response follows, 1 = an `ErrorDetail` follows, and that message.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use prost::Message;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::BrokerId;
use wire::{internal, pb};

use super::{Api, Core};
use crate::raft::{Hello, PeerError, PeerService};

/// Number of this service among the calls of peers.
const SERVICE: u8 = 2;
/// A question to another broker gets this much time, and no more than the caller has.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

const DESCRIBE: u8 = 1;
const TRANSFER: u8 = 2;
const BOUNDS: u8 = 3;
const GOOD: u8 = 0;
const FAILED: u8 = 1;

/// Answers the other brokers. It does not keep the core alive: that owns the peers which own this.
struct Answers(Weak<Core>);

/// Offers the service.
pub(super) fn serve(api: &Api) {
    let answers = Arc::new(Answers(Arc::downgrade(&api.0)));
    api.parts().groups.peers().serve(SERVICE, answers);
}

impl PeerService for Answers {
    fn handle(&self, _from: Arc<Hello>, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let core = self.0.upgrade();
        Box::pin(async move {
            let Some(core) = core else { return Err("the broker is stopping".to_owned()) };
            answer(&Api(core), body).await
        })
    }
}

async fn answer(api: &Api, mut body: Bytes) -> Result<Bytes, String> {
    if body.is_empty() {
        return Err("the question is empty".to_owned());
    }
    let question = body.split_to(1);
    match question.first().copied() {
        Some(DESCRIBE) => {
            let request = pb::DescribePartitionsRequest::decode(body).map_err(|error| error.to_string())?;
            let response = api.describe_local(&request).await;
            Ok(encode(Ok(pb::DescribePartitionsResponse { replicas: response })))
        }
        Some(TRANSFER) => {
            let request = pb::TransferLeaderRequest::decode(body).map_err(|error| error.to_string())?;
            Ok(encode(api.transfer_here(&request).await))
        }
        Some(BOUNDS) => {
            let request = internal::BoundsRequest::decode(body).map_err(|error| error.to_string())?;
            let response = super::groups::answer_bounds(api, request, Instant::now() + ANSWER_WITHIN).await;
            Ok(encode(Ok(response)))
        }
        _ => Err("this broker does not know the question".to_owned()),
    }
}

fn encode<M: Message>(answer: Result<M, ApiError>) -> Bytes {
    let mut out = BytesMut::new();
    match answer {
        Ok(message) => {
            out.put_u8(GOOD);
            out.put_slice(&message.encode_to_vec());
        }
        Err(error) => {
            out.put_u8(FAILED);
            out.put_slice(&pb::ErrorDetail::from(error).encode_to_vec());
        }
    }
    out.freeze()
}

fn decode<M: Message + Default>(mut body: Bytes) -> Result<M, ApiError> {
    let damaged = || ApiError::new(ErrorCode::Internal, "another broker's answer cannot be read");
    if body.is_empty() {
        return Err(damaged());
    }
    match body.split_to(1).first().copied() {
        Some(GOOD) => M::decode(body).map_err(|_| damaged()),
        Some(FAILED) => Err(pb::ErrorDetail::decode(body).map_err(|_| damaged())?.into()),
        _ => Err(damaged()),
    }
}

impl Api {
    /// Asks another broker for its replicas.
    pub(super) async fn ask_replicas(
        &self,
        broker: BrokerId,
        request: &pb::DescribePartitionsRequest,
        deadline: Instant,
    ) -> Result<Vec<pb::ReplicaStatus>, ApiError> {
        let answer: pb::DescribePartitionsResponse = self.ask(broker, DESCRIBE, request, deadline).await?;
        Ok(answer.replicas)
    }

    /// Asks the broker that leads a partition to give the leadership away.
    pub(super) async fn ask_transfer(
        &self,
        broker: BrokerId,
        request: &pb::TransferLeaderRequest,
        deadline: Instant,
    ) -> Result<pb::TransferLeaderResponse, ApiError> {
        self.ask(broker, TRANSFER, request, deadline).await
    }

    /// Asks the broker that leads partitions where they stand.
    pub(super) async fn ask_bounds(
        &self,
        broker: BrokerId,
        request: &internal::BoundsRequest,
        deadline: Instant,
    ) -> Result<internal::BoundsResponse, ApiError> {
        self.ask(broker, BOUNDS, request, deadline).await
    }

    async fn ask<M: Message + Default>(
        &self,
        broker: BrokerId,
        question: u8,
        request: &impl Message,
        deadline: Instant,
    ) -> Result<M, ApiError> {
        let mut body = BytesMut::new();
        body.put_u8(question);
        body.put_slice(&request.encode_to_vec());
        let left = deadline.saturating_duration_since(Instant::now());
        let within = if question != TRANSFER { left.min(ANSWER_WITHIN) } else { left };
        let peers = self.parts().groups.peers();
        let answer = peers
            .call(broker, SERVICE, body.freeze(), within)
            .await
            .map_err(|error| unreached(broker, &error))?;
        decode(answer)
    }
}

fn unreached(broker: BrokerId, error: &PeerError) -> ApiError {
    let message = format!("broker {broker} did not answer");
    let code = match error {
        PeerError::Timeout(_) => ErrorCode::OutcomeUnknown,
        _ => ErrorCode::Unavailable,
    };
    ApiError::new(code, message).reason(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_way_and_garbage_is_an_error() {
        let response = pb::TransferLeaderResponse { leader: 2, leader_epoch: 9 };
        assert_eq!(decode::<pb::TransferLeaderResponse>(encode(Ok(response))), Ok(response));
        let error = ApiError::new(ErrorCode::NoLeader, "no leader");
        let failed = encode::<pb::TransferLeaderResponse>(Err(error.clone()));
        assert_eq!(decode::<pb::TransferLeaderResponse>(failed), Err(error));
        for garbage in [&b""[..], b"\x00\xff\xff\xff", b"\x01\xff", b"\x07abc"] {
            let read = decode::<pb::TransferLeaderResponse>(Bytes::copy_from_slice(garbage));
            assert_eq!(read.expect_err("garbage").code, ErrorCode::Internal, "{garbage:?}");
        }
    }
}
