//! The gRPC door: services of `altair.v1`, health and reflection. It translates and decides nothing: every answer comes
//! from `api`.

mod admin;
mod broker;
mod convert;
mod deadline;
mod groups;
mod incoming;
mod limits;
mod produce_stream;
mod server;

pub use server::{GrpcError, GrpcServer};
