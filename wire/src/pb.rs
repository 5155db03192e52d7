//! The public gRPC schema, generated from `proto/altair/v1`. `bytes` fields are [`bytes::Bytes`], maps are ordered.

// `unused` only fires in some builds of generated code, so these cannot be expectations.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "generated code; the schema files carry the documentation"
)]

tonic::include_proto!("altair.v1");

/// Encoded descriptors of `altair.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("altair.v1");
