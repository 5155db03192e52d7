//! The compose cluster that users start, in containers: `docker-compose.yml` for three brokers, `deploy/compose-5.yml` for
//! five, with settings of the round over them.
//!
//! Kills, pauses and cables go through the engine. Links are cut by rules inside the containers' own network namespaces, which
//! the kernel removes with the containers. Delays, losses and disks of its own are for the other fabrics.

mod compose;
mod engine;
mod fabric;
mod firewall;

pub use engine::{check, clear_stale, has_image, remove};
pub use fabric::Docker;
