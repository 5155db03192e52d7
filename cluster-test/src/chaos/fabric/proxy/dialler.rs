//! Which of several processes opened a connection, from what the kernel says about sockets: exact, and it needs neither
//! rights nor anything of the program that dials.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The process that holds the socket `from` of a TCP connection to `to` on this machine, if it is one of `candidates`.
///
/// `None` as well when the connection is gone already.
#[must_use]
pub fn owner(from: SocketAddr, to: SocketAddr, candidates: &[u32]) -> Option<u32> {
    let inode = inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, from, to)?;
    let socket = format!("socket:[{inode}]");
    candidates.iter().copied().find(|pid| sockets(*pid).contains(&socket))
}

/// Inode of a connection's socket in the text of `/proc/net/tcp`.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (kernel_form(from)?, kernel_form(to)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next()? == from && fields.next()? == to;
        // State, queues, timer, retransmissions, user and timeout stand before the inode.
        let inode = fields.nth(6)?.parse().ok()?;
        (found && inode != 0).then_some(inode)
    })
}

/// An IPv4 address as the kernel prints it: bytes of the address in the machine's order, then the port.
fn kernel_form(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

fn sockets(pid: u32) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| link.to_str().map(str::to_owned))
        .filter(|link| link.starts_with("socket:"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_told_from_those_of_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (from, to) = (stream.local_addr().unwrap(), listener.local_addr().unwrap());
        let me = std::process::id();
        assert_eq!(owner(from, to, &[1, me]), Some(me));
        assert_eq!(owner(from, to, &[u32::MAX]), None);
    }

    #[test]
    fn the_kernels_table_is_read_by_both_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100\n   \
            1: 0100007F:A000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0 20\n   \
            2: 0100007F:A001 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(inode(table, at(0xa000), at(8080)), Some(22));
        assert_eq!(inode(table, at(0xa000), at(8081)), None);
        assert_eq!(inode(table, at(0xa001), at(8080)), None, "a closed socket has no inode");
    }
}
