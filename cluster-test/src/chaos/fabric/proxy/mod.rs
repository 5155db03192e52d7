//! Fabric `proxy`: brokers on loopback with a proxy of our own between each two of them. It needs no rights, and it is
//! the only fabric that can hold packets and let them go later.

mod conduct;
mod connection;
mod dialler;
mod doors;
mod fabric;
#[cfg(test)]
mod tests;

pub use conduct::{Conduct, Flow, Pace};
pub use dialler::owner;
pub use doors::{Dialler, Doors};
pub use fabric::ProxyFabric;
