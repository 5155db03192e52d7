//! Links of the fabric `netns` as firewall rules: the rules are a function of the links, and replaced as a whole.
//!
//! A link from A to B is recognised by its ports: packets from A to a port of B, and packets from such a port back to A.
//! Cuts are rules of `nftables`; what is slow, lossy or held goes through an `iptables` queue to the [`Shaper`]: kernels
//! as small as those of some virtual machines have neither `netem` nor the queue statement of `nftables`.
//!
//! [`Shaper`]: super::shaper::Shaper

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{End, LinkState};

/// Where clients connect to.
pub(super) const GRPC_PORT: u16 = 7400;
/// Where the harness asks for health. Links never touch it.
pub(super) const HTTP_PORT: u16 = 8080;
/// Where brokers connect to.
pub(super) const PEER_PORT: u16 = 7500;
/// Queue number that the shaper listens to.
pub(super) const QUEUE: u16 = 1;

/// Address of an end as seen from a broker: every broker has a cable of its own to the router in the middle.
pub(super) fn address(end: End, beside: u32) -> Ipv4Addr {
    let (net, host) = match end {
        End::Broker(id) => (id, 2),
        End::Clients => (beside, 1),
    };
    Ipv4Addr::new(10, 231, u8::try_from(net).unwrap_or(u8::MAX), host)
}

/// The end that an address belongs to.
pub(super) fn end(address: Ipv4Addr) -> Option<End> {
    match address.octets() {
        [10, 231, id, 2] => Some(End::Broker(u32::from(id))),
        [10, 231, _, 1] => Some(End::Clients),
        _ => None,
    }
}

/// One link in one direction of its packets, as a match that both tools understand in their own words.
struct Flow {
    from: Ipv4Addr,
    to: Ipv4Addr,
    /// The callee's ports are the destination's.
    outbound: bool,
    port: u16,
    /// Chain of the router that these packets pass.
    chain: &'static str,
}

/// Both directions of a link's packets.
fn flows(from: End, to: End) -> Vec<Flow> {
    let End::Broker(id) = to else { return Vec::new() };
    let (caller, callee) = (address(from, id), address(to, id));
    let port = if from == End::Clients { GRPC_PORT } else { PEER_PORT };
    let (there, back) = if from == End::Clients { ("output", "input") } else { ("forward", "forward") };
    vec![
        Flow { from: caller, to: callee, outbound: true, port, chain: there },
        Flow { from: callee, to: caller, outbound: false, port, chain: back },
    ]
}

/// Input of `nft -f -`: replaces all cuts by these.
pub(super) fn nft(links: &BTreeMap<(End, End), LinkState>) -> String {
    let mut rules: BTreeMap<&str, String> =
        ["input", "output", "forward"].map(|chain| (chain, String::new())).into();
    for ((from, to), state) in links {
        let verdict = match state {
            LinkState::BlackHole => "drop",
            LinkState::Reset => "reject with tcp reset",
            LinkState::Whole | LinkState::Shaped(_) | LinkState::Held => continue,
        };
        for flow in flows(*from, *to) {
            let side = if flow.outbound { "dport" } else { "sport" };
            let Some(chain) = rules.get_mut(flow.chain) else { continue };
            let Flow { from, to, port, .. } = flow;
            let _ = writeln!(chain, "    ip saddr {from} ip daddr {to} tcp {side} {port} counter {verdict}");
        }
    }
    // Declared before it is deleted: deleting a table that is not there fails.
    let mut text = "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n".to_owned();
    for (chain, rules) in rules {
        let head = format!("type filter hook {chain} priority -300; policy accept;");
        let _ = writeln!(text, "  chain {chain} {{\n    {head}\n{rules}  }}");
    }
    text.push_str("}\n");
    text
}

/// Input of `iptables-restore`: replaces all queues by these.
pub(super) fn iptables(links: &BTreeMap<(End, End), LinkState>) -> String {
    let mut text = "*filter\n".to_owned();
    for ((from, to), state) in links {
        if !matches!(state, LinkState::Shaped(_) | LinkState::Held) {
            continue;
        }
        for flow in flows(*from, *to) {
            let side = if flow.outbound { "--dport" } else { "--sport" };
            let chain = flow.chain.to_uppercase();
            let Flow { from, to, port, .. } = flow;
            let target = format!("-j NFQUEUE --queue-num {QUEUE} --queue-bypass");
            let _ = writeln!(text, "-A {chain} -s {from} -d {to} -p tcp {side} {port} {target}");
        }
    }
    text.push_str("COMMIT\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_link_drops_both_directions_of_its_own_connections_only() {
        let links = BTreeMap::from([((End::Broker(1), End::Broker(2)), LinkState::BlackHole)]);
        let text = nft(&links);
        assert!(
            text.contains("ip saddr 10.231.1.2 ip daddr 10.231.2.2 tcp dport 7500 counter drop"),
            "{text}"
        );
        assert!(
            text.contains("ip saddr 10.231.2.2 ip daddr 10.231.1.2 tcp sport 7500 counter drop"),
            "{text}"
        );
        assert_eq!(text.matches("counter").count(), 2, "{text}");
        assert!(!iptables(&links).contains("NFQUEUE"));
    }

    #[test]
    fn clients_are_cut_at_the_router_itself() {
        let links = BTreeMap::from([((End::Clients, End::Broker(3)), LinkState::Reset)]);
        let text = nft(&links);
        let rule = "ip saddr 10.231.3.1 ip daddr 10.231.3.2 tcp dport 7400 counter reject with tcp reset";
        let output = text.split("chain output").nth(1).unwrap();
        assert!(output.contains(rule), "{text}");
        assert!(!text.contains("8080"), "health stays reachable: {text}");
    }

    #[test]
    fn addresses_lead_back_to_their_end() {
        for end_of in [End::Broker(1), End::Broker(9), End::Clients] {
            assert_eq!(end(address(end_of, 4)), Some(end_of));
        }
        assert_eq!(end(Ipv4Addr::LOCALHOST), None);
    }
}
