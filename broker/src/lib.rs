//! Altair's server: everything that the binary `altair` runs.
//!
//! Modules stand in order from the ground up, and each may use only those above it in this list:
//! [`runtime`], [`config`], [`raft`], [`group`], [`metadata`], [`partition`], [`api`], the frontends [`grpc`] and
//! [`http`], [`node`].
//!
//! **Invariants** (the numbers of `docs/architecture.md`):
//! one direction of imports; one meaning, decided in `api` and below; one door to disk, clock, network and tasks
//! ([`runtime`]); state machines are pure; durable before visible.

pub mod api;
pub mod config;
pub mod group;
pub mod grpc;
pub mod http;
pub mod metadata;
pub mod node;
pub mod partition;
pub mod raft;
pub mod runtime;
pub mod supervise;
