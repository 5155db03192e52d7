//! The SDK against brokers that misbehave on purpose: a real gRPC server with the generated service, over in-memory
//! connections that can be cut.

#![expect(clippy::unwrap_used, reason = "tests: what cannot be is a failure")]

mod consume;
mod fake;
mod fake_groups;
mod group;
mod produce;
mod storm;
