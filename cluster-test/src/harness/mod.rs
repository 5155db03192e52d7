//! What the cluster tests share: binaries, clusters, waiting, members of groups, a ledger of what was acked, and what
//! processes use.

mod cluster;
mod ledger;
mod member;
mod tools;
mod usage;

pub use cluster::TestCluster;
pub use ledger::{Ledger, Writer};
pub use member::{Member, Notes};
pub use tools::{altair, altair_cli, commit, eventually, run};
pub use usage::{Usage, cpu_seconds, rss_bytes};
