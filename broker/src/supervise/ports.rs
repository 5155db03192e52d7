//! Which ports the brokers of one machine listen on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// First gRPC port of the standard layout; broker i of N takes the i-th number from here.
const GRPC_BASE: u16 = 7400;
/// First HTTP port of the standard layout.
const HTTP_BASE: u16 = 8080;
/// First broker-to-broker port of the standard layout.
const PEER_BASE: u16 = 7500;

/// How ports are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// 7400, 8080, 7500 and the numbers after them; free ports instead where one of them is taken.
    Standard,
    /// Free ports from the start, so that several clusters fit on one machine.
    Free,
}

/// Where one broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerAddresses {
    /// Clients.
    pub grpc: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// Other brokers.
    pub peer: SocketAddr,
}

/// Addresses for `brokers` brokers on loopback, and whether the standard ports had to be left.
///
/// The ports are free at the time of the call; another process may still take one before the broker binds it, which the
/// broker then reports.
///
/// # Errors
/// The operating system's, if not enough ports are free.
pub(super) fn choose(brokers: u32, choice: PortChoice) -> std::io::Result<(Vec<BrokerAddresses>, bool)> {
    if choice == PortChoice::Standard
        && let Some(standard) = standard(brokers)
    {
        return Ok((standard, false));
    }
    let mut held = Vec::new();
    let mut taken = BTreeSet::new();
    let mut free = || -> std::io::Result<SocketAddr> {
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            held.push(listener);
            if taken.insert(address.port()) {
                return Ok(address);
            }
        }
    };
    let mut all = Vec::new();
    for _ in 0..brokers {
        all.push(BrokerAddresses { grpc: free()?, http: free()?, peer: free()? });
    }
    Ok((all, choice == PortChoice::Standard))
}

/// The standard layout, if every port of it is free.
fn standard(brokers: u32) -> Option<Vec<BrokerAddresses>> {
    let mut all = Vec::new();
    for number in 0..u16::try_from(brokers).ok()? {
        let at = |base: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, base.saturating_add(number)));
        let addresses = BrokerAddresses { grpc: at(GRPC_BASE), http: at(HTTP_BASE), peer: at(PEER_BASE) };
        for address in [addresses.grpc, addresses.http, addresses.peer] {
            TcpListener::bind(address).ok()?;
        }
        all.push(addresses);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_all_different() {
        let (addresses, _) = choose(5, PortChoice::Free).unwrap();
        let ports: BTreeSet<u16> =
            addresses.iter().flat_map(|a| [a.grpc.port(), a.http.port(), a.peer.port()]).collect();
        assert_eq!(ports.len(), 15);
    }
}
