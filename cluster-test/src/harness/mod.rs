//! What the cluster tests share: binaries, clusters, waiting, and a ledger of what was acked.

mod cluster;
mod ledger;
mod tools;

pub use cluster::TestCluster;
pub use ledger::{Ledger, Writer};
pub use tools::{altair, altair_cli, commit, eventually, run};
