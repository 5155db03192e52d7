//! Which path asks what of `api`.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use super::problem::{Answer, body_of, problem, refusal};
use crate::api::Api;

/// No path takes a body yet; a small one is read and dropped so that the connection stays usable.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long an answer may take; health asks the disk, nothing asks another broker.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers one request; never fails.
pub(super) async fn answer(api: &Api, request: Request<Incoming>) -> Answer {
    // hyper sends no body to a HEAD.
    let answered = tokio::time::timeout(ANSWER_DEADLINE, route(api, request)).await;
    answered
        .unwrap_or_else(|_| problem(&ApiError::new(ErrorCode::Timeout, "the answer took longer than 10 s")))
}

async fn route(api: &Api, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    if Limited::new(body, BODY_BYTES_MAX).collect().await.is_err() {
        return close(refusal(StatusCode::PAYLOAD_TOO_LARGE, "this path takes no body"));
    }
    let path = head.uri.path().trim_end_matches('/');
    let known = ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"];
    if !known.contains(&path) {
        return refusal(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this path is read with GET");
        answer.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        // Never anything but "the process answers": a restart does not bring a quorum back.
        "/health/live" => body_of(StatusCode::OK, JSON, json!({ "status": "alive" }).to_string()),
        "/health/ready" => verdict(api.readiness(), "ready"),
        "/health/startup" => verdict(api.startup(), "started"),
        "/metrics" => body_of(StatusCode::OK, METRICS, api.metrics_text().await),
        _ => health(api).await,
    }
}

fn verdict(result: Result<(), String>, good: &str) -> Answer {
    match result {
        Ok(()) => body_of(StatusCode::OK, JSON, json!({ "status": good }).to_string()),
        Err(reason) => {
            let body = json!({ "status": format!("not {good}"), "reason": reason });
            body_of(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
        }
    }
}

async fn health(api: &Api) -> Answer {
    let report = api.health().await;
    let status = if report.is_unhealthy() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    body_of(status, JSON, format!("{:#}\n", report.to_json()))
}

fn close(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    answer
}
