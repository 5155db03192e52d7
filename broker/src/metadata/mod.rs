//! The metadata group: one Raft group that every broker carries, which says what the cluster is made of.
//!
//! From the ground up: [`topic_config`] and [`image`] are the nouns, [`command`] the verbs, [`state`] the pure
//! `apply` of one on the other, [`placement`] where replicas go; [`snapshot`] and the keyed store keep it; the rest
//! makes it run: founding and joining, proposing, and the metadata leader's loop. [`Metadata`] is the door.
//!
//! **Invariant:** everything that decides what the state becomes stands in a command; `apply` reads no clock, draws no
//! number and knows no broker of its own (I8).

mod bells;
mod bootstrap;
pub mod codec;
pub mod command;
mod controller;
mod coordinator;
mod core;
pub mod error;
mod flush;
mod handle;
pub mod image;
mod keyed;
mod machine;
mod message;
pub mod placement;
mod plan;
mod proposer;
mod service;
mod sessions;
pub mod snapshot;
pub mod state;
mod stored;
pub mod topic_config;
mod touches;

pub use self::core::MetadataConfig;
pub use crate::runtime::KeyedKind;
pub use bells::GroupChanges;
pub use handle::{Metadata, MetadataError, MetadataParts};
pub use machine::MetadataKind;
pub use touches::Touched;

#[cfg(test)]
mod tests;
