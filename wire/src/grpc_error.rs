//! Errors on gRPC: the same [`ApiError`] in a status' details and in per-partition results.

use prost::Message;
use tonic::{Code, Status};

use crate::api_error::{ApiError, LeaderHint};
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch};
use crate::pb;

/// Texts of a status travel as HTTP/2 headers, which peers bound (16 KiB is common): each is cut at this many bytes.
const STATUS_TEXT_MAX: usize = 2 << 10;

impl From<ApiError> for pb::ErrorDetail {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.code().to_owned(),
            name: error.code.name().to_owned(),
            retriable: error.retriable(),
            definite: error.definite(),
            message: error.message,
            reason: error.reason,
            hint: error.hint,
            retry_after_ms: error.retry_after_ms,
            leader: error.leader.map(|leader| pb::LeaderHint {
                broker_id: leader.broker.0,
                address: leader.address,
                leader_epoch: leader.epoch.0,
            }),
        }
    }
}

impl From<pb::ErrorDetail> for ApiError {
    fn from(detail: pb::ErrorDetail) -> Self {
        Self {
            code: known_code(&detail),
            message: detail.message,
            reason: detail.reason,
            hint: detail.hint,
            retry_after_ms: detail.retry_after_ms,
            leader: detail.leader.map(|leader| LeaderHint {
                broker: BrokerId(leader.broker_id),
                address: leader.address,
                epoch: LeaderEpoch(leader.leader_epoch),
            }),
        }
    }
}

/// A newer broker may send a code that this side does not know; what matters to the caller travels beside it.
fn known_code(detail: &pb::ErrorDetail) -> ErrorCode {
    ErrorCode::from_code(&detail.code).unwrap_or(match (detail.definite, detail.retriable) {
        (false, true) => ErrorCode::OutcomeUnknown,
        (false, false) => ErrorCode::Internal,
        (true, true) => ErrorCode::Unavailable,
        (true, false) => ErrorCode::InvalidRequest,
    })
}

impl From<ApiError> for Status {
    fn from(mut error: ApiError) -> Self {
        for text in [&mut error.message, &mut error.reason, &mut error.hint] {
            text.truncate(text.floor_char_boundary(STATUS_TEXT_MAX));
        }
        let (code, message) = (Code::from_i32(error.code.grpc_code()), error.message.clone());
        let details = pb::ErrorDetail::from(error).encode_to_vec();
        Self::with_details(code, message, details.into())
    }
}

impl ApiError {
    /// Reads an error back from a status; one that carries no details (a proxy's, the transport's) is judged by its code.
    ///
    /// Where it is not certain that the request had no effect, the result is not [definite](Self::definite).
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        if let Ok(detail) = pb::ErrorDetail::decode(status.details())
            && !detail.code.is_empty()
        {
            return detail.into();
        }
        let code = match status.code() {
            Code::Unavailable => ErrorCode::ConnectionLost,
            Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => ErrorCode::OutcomeUnknown,
            Code::Unimplemented => ErrorCode::UnsupportedVersion,
            // tonic's own answer to a message above the limit.
            Code::OutOfRange | Code::ResourceExhausted => ErrorCode::RequestTooLarge,
            Code::InvalidArgument => ErrorCode::InvalidRequest,
            _ => ErrorCode::Internal,
        };
        Self::new(code, format!("{}: {}", status.code().description(), status.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_status_and_detail() {
        let error = ApiError::new(ErrorCode::NotLeader, "broker 2 leads orders/3")
            .reason("elected 3 s ago")
            .hint("ask broker 2")
            .retry_after_ms(20)
            .leader(LeaderHint { broker: BrokerId(2), address: "host:7400".into(), epoch: LeaderEpoch(5) });
        let status = Status::from(error.clone());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(ApiError::from_status(&status), error);
        assert_eq!(ApiError::from(pb::ErrorDetail::from(error.clone())), error);
    }

    #[test]
    fn a_status_without_details_is_indefinite_where_it_may_have_had_an_effect() {
        for code in
            [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal]
        {
            assert!(!ApiError::from_status(&Status::new(code, "x")).definite(), "{code:?}");
        }
    }

    #[test]
    fn an_unknown_code_keeps_its_meaning() {
        let detail = pb::ErrorDetail { code: "ALT-9999".into(), retriable: true, ..Default::default() };
        let error = ApiError::from(detail);
        assert_eq!((error.retriable(), error.definite()), (true, false));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let status = Status::from(ApiError::new(ErrorCode::Internal, "ü".repeat(5_000)));
        assert!(status.message().len() <= STATUS_TEXT_MAX);
    }

    #[test]
    fn garbage_in_the_details_is_ignored() {
        let status = Status::with_details(Code::NotFound, "x", vec![0xff; 40].into());
        assert_eq!(ApiError::from_status(&status).code, ErrorCode::Internal);
    }
}
