//! Altair's vocabulary: ids, record batches, error codes and the gRPC schema. No I/O and no runtime.

pub mod api_error;
pub mod error_code;
#[cfg(feature = "grpc")]
mod grpc_error;
pub mod ids;
#[cfg(feature = "grpc")]
pub mod internal;
pub mod limits;
pub mod murmur2;
#[cfg(feature = "grpc")]
pub mod pb;
pub mod record;
pub mod topic_name;
pub mod topic_pattern;
