//! The rules inside a broker's container that cut links to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::super::{End, LinkState};

/// Where brokers listen for each other, as the compose files say.
const PEER_PORT: u16 = 7500;
/// Where broker 1 listens for clients; each further one takes the next number.
const GRPC_PORT: u16 = 7400;

/// The port on which a broker takes calls of clients.
pub(super) fn grpc_port(id: u32) -> u16 {
    GRPC_PORT + u16::try_from(id.saturating_sub(1)).unwrap_or(0)
}

/// Input of `nft -f -` in the namespace of broker `id`: replaces all cuts of links to it by these. `addresses` are those of
/// all brokers that run. Nobody but clients uses the gRPC port, so whoever comes to it is one.
pub(super) fn nft(
    id: u32,
    links: &BTreeMap<(End, End), LinkState>,
    addresses: &BTreeMap<u32, Vec<Ipv4Addr>>,
) -> String {
    let (mut input, mut output) = (String::new(), String::new());
    for ((from, _), state) in links.iter().filter(|((_, to), _)| *to == End::Broker(id)) {
        let verdict = match state {
            LinkState::BlackHole => "drop",
            LinkState::Reset => "reject with tcp reset",
            LinkState::Whole | LinkState::Shaped(_) | LinkState::Held => continue,
        };
        match from {
            End::Clients => {
                let port = grpc_port(id);
                let _ = writeln!(input, "    tcp dport {port} counter {verdict}");
                let _ = writeln!(output, "    tcp sport {port} counter {verdict}");
            }
            End::Broker(caller) => {
                for ip in addresses.get(caller).into_iter().flatten() {
                    let _ = writeln!(input, "    ip saddr {ip} tcp dport {PEER_PORT} counter {verdict}");
                    let _ = writeln!(output, "    ip daddr {ip} tcp sport {PEER_PORT} counter {verdict}");
                }
            }
        }
    }
    // Declared before it is deleted: deleting a table that is not there fails.
    let mut text = "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n".to_owned();
    for (chain, rules) in [("input", input), ("output", output)] {
        let head = format!("type filter hook {chain} priority -300; policy accept;");
        let _ = writeln!(text, "  chain {chain} {{\n    {head}\n{rules}  }}");
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(from: End, state: LinkState) -> String {
        let ip = |last| vec![Ipv4Addr::new(172, 18, 0, last), Ipv4Addr::new(172, 19, 0, last)];
        let addresses = BTreeMap::from([(1, ip(2)), (2, ip(3))]);
        nft(2, &[((from, End::Broker(2)), state)].into(), &addresses)
    }

    #[test]
    fn a_broker_is_cut_by_all_of_its_addresses_and_only_where_it_calls() {
        let text = rules(End::Broker(1), LinkState::BlackHole);
        assert!(text.contains("ip saddr 172.18.0.2 tcp dport 7500 counter drop"), "{text}");
        assert!(text.contains("ip daddr 172.19.0.2 tcp sport 7500 counter drop"), "{text}");
        assert_eq!(text.matches("counter").count(), 4, "{text}");
        let other: BTreeMap<_, _> = [((End::Broker(2), End::Broker(1)), LinkState::BlackHole)].into();
        assert!(!nft(2, &other, &BTreeMap::new()).contains("counter"), "that is broker 1's to do");
    }

    #[test]
    fn clients_are_told_by_the_port_that_they_use() {
        let text = rules(End::Clients, LinkState::Reset);
        assert!(text.contains("tcp dport 7401 counter reject with tcp reset"), "{text}");
        assert!(!text.contains("7500") && !text.contains("808"), "{text}");
    }
}
