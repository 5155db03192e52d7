//! What goes between brokers only, generated from `proto/altair/internal/v1`: questions that no client asks.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "generated code; the schema file carries the documentation"
)]

tonic::include_proto!("altair.internal.v1");
