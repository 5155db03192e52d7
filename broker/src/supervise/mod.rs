//! Brokers as child processes on this machine: what `altair dev`, `altair demo` and the cluster tests start, kill and
//! restart. It is not part of a broker: it runs beside them, with real processes, real ports and real files, and never
//! inside a simulation.

mod cluster;
mod ports;
mod probe;
mod process;

pub use cluster::{BrokerSpec, ClusterSpec, LocalCluster, SuperviseError};
pub use ports::{BrokerAddresses, PortChoice};
pub use probe::{HttpAnswer, http_get};
pub use process::ProcessState;
