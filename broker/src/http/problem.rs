//! Errors as `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

/// An answer whose body is at hand.
pub(super) type Answer = Response<Full<Bytes>>;

/// The error as an answer.
pub(super) fn problem(error: &ApiError) -> Answer {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = problem_with(status, error);
    if error.retry_after_ms > 0 {
        // The header counts whole seconds.
        let seconds = error.retry_after_ms.div_ceil(1000);
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// An error of the HTTP layer itself, such as a path that is not there.
pub(super) fn refusal(status: StatusCode, message: &str) -> Answer {
    problem_with(status, &ApiError::new(ErrorCode::InvalidRequest, message))
}

fn problem_with(status: StatusCode, error: &ApiError) -> Answer {
    let body = json!({
        "type": format!("urn:altair:error:{}", error.code.code()),
        "title": error.code.title(),
        "status": status.as_u16(),
        "detail": error.message,
        "code": error.code.code(),
        "name": error.code.name(),
        "reason": error.reason,
        "hint": error.next_step(),
        "retriable": error.retriable(),
        "definite": error.definite(),
    });
    body_of(status, "application/problem+json", body.to_string())
}

/// An answer with a body of one content type.
pub(super) fn body_of(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
