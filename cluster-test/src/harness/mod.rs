//! What the cluster tests share: binaries, clusters, waiting, members of groups, and a ledger of what was acked.

mod cluster;
mod ledger;
mod member;
mod tools;

pub use cluster::TestCluster;
pub use ledger::{Ledger, Writer};
pub use member::{Member, Notes};
pub use tools::{altair, altair_cli, commit, eventually, run};
