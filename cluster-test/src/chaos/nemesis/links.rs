//! Which links a network fault breaks: pure functions of the fault, its victim and the number of brokers.

use std::collections::BTreeSet;

use crate::chaos::fabric::{End, LinkState};
use crate::chaos::fault::Fault;

/// A link and what it does from now on.
pub(super) type Link = (End, End, LinkState);

/// The links that a fault breaks; none for faults that are not of the network.
pub(super) fn broken(fault: &Fault, victim: u32, brokers: u32) -> Vec<Link> {
    let others: Vec<u32> = (1..=brokers).filter(|id| *id != victim).collect();
    let to_victim = |state| others.iter().map(move |id| (End::Broker(*id), End::Broker(victim), state));
    let from_victim = |state| others.iter().map(move |id| (End::Broker(victim), End::Broker(*id), state));
    let from_clients = |state| std::iter::once((End::Clients, End::Broker(victim), state));
    match fault {
        Fault::Isolate { kind, clients, .. } => {
            let state = kind.state();
            let shut = from_clients(state).filter(|_| !clients);
            to_victim(state).chain(from_victim(state)).chain(shut).collect()
        }
        Fault::Minority { kind, .. } => {
            let side = minority(victim, brokers);
            let rest = (1..=brokers).filter(|id| !side.contains(id)).collect();
            between(&side, &rest, kind.state())
        }
        Fault::Unheard { kind, .. } => to_victim(kind.state()).collect(),
        Fault::Mute { kind, .. } => from_victim(kind.state()).collect(),
        Fault::Bridge { kind, .. } => {
            let (one, other) = others.split_at(others.len() / 2);
            let side = |ids: &[u32]| ids.iter().copied().collect();
            between(&side(one), &side(other), kind.state())
        }
        Fault::Slow { shape, .. } => {
            let state = LinkState::Shaped(*shape);
            to_victim(state).chain(from_victim(state)).chain(from_clients(state)).collect()
        }
        Fault::Hold(_) => to_victim(LinkState::Held).collect(),
        Fault::NoClients { kind, .. } => from_clients(kind.state()).collect(),
        _ => Vec::new(),
    }
}

/// Brokers that a fault keeps from a majority of all brokers while clients still reach them; empty if there are none. What a
/// cable that is out cuts off is out of reach of clients as well.
pub(super) fn lonely(fault: &Fault, victim: u32, brokers: u32) -> BTreeSet<u32> {
    match fault {
        Fault::Isolate { clients: true, .. } | Fault::Mute { .. } => [victim].into(),
        Fault::Minority { .. } => minority(victim, brokers),
        _ => BTreeSet::new(),
    }
}

/// The largest minority with the victim in it: the ids after the victim join.
fn minority(victim: u32, brokers: u32) -> BTreeSet<u32> {
    let size = brokers.saturating_sub(1) / 2;
    (0..size).map(|step| (victim - 1 + step) % brokers + 1).collect()
}

/// Every link between two sides, in both directions.
fn between(one: &BTreeSet<u32>, other: &BTreeSet<u32>, state: LinkState) -> Vec<Link> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (End::Broker(*a), End::Broker(*b))));
    pairs.flat_map(|(a, b)| [(a, b, state), (b, a, state)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::fabric::Shape;
    use crate::chaos::fault::{CutKind, Victim};

    const KIND: CutKind = CutKind::BlackHole;

    fn pairs(fault: &Fault, victim: u32, brokers: u32) -> Vec<(u32, u32)> {
        let id = |end| if let End::Broker(id) = end { id } else { 0 };
        let mut pairs: Vec<_> =
            broken(fault, victim, brokers).iter().map(|(from, to, _)| (id(*from), id(*to))).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn an_isolated_broker_is_cut_from_brokers_and_as_asked_from_clients() {
        let isolate = |clients| Fault::Isolate { victim: Victim::Broker(2), kind: KIND, clients };
        assert_eq!(pairs(&isolate(true), 2, 3), [(1, 2), (2, 1), (2, 3), (3, 2)]);
        assert_eq!(pairs(&isolate(false), 2, 3), [(0, 2), (1, 2), (2, 1), (2, 3), (3, 2)]);
        assert_eq!(lonely(&isolate(true), 2, 3), [2].into());
        assert!(lonely(&isolate(false), 2, 3).is_empty());
    }

    #[test]
    fn the_largest_minority_is_cut_from_the_rest() {
        let fault = Fault::Minority { victim: Victim::Broker(5), kind: KIND };
        assert_eq!(lonely(&fault, 5, 5), [1, 5].into());
        let cut = pairs(&fault, 5, 5);
        assert_eq!(cut.len(), 12);
        assert!(cut.contains(&(1, 2)) && cut.contains(&(4, 5)) && !cut.contains(&(1, 5)));
        assert_eq!(lonely(&fault, 3, 3), [3].into());
    }

    #[test]
    fn one_way_faults_break_one_direction() {
        let victim = Victim::Broker(1);
        assert_eq!(pairs(&Fault::Unheard { victim: victim.clone(), kind: KIND }, 1, 3), [(2, 1), (3, 1)]);
        assert_eq!(pairs(&Fault::Mute { victim: victim.clone(), kind: KIND }, 1, 3), [(1, 2), (1, 3)]);
        assert_eq!(pairs(&Fault::Hold(victim), 1, 3), [(2, 1), (3, 1)]);
    }

    #[test]
    fn a_bridge_is_reached_by_both_halves() {
        let fault = Fault::Bridge { victim: Victim::Broker(3), kind: KIND };
        let cut = pairs(&fault, 3, 5);
        assert_eq!(cut.len(), 8);
        assert!(cut.iter().all(|(from, to)| *from != 3 && *to != 3), "{cut:?}");
        assert_eq!(pairs(&fault, 3, 3), [(1, 2), (2, 1)]);
    }

    #[test]
    fn a_slow_broker_is_slow_for_everybody() {
        let shape = Shape { delay_ms: 5, ..Shape::default() };
        let fault = Fault::Slow { victim: Victim::Broker(1), shape };
        assert_eq!(pairs(&fault, 1, 3), [(0, 1), (1, 2), (1, 3), (2, 1), (3, 1)]);
        assert!(broken(&Fault::Kill(Victim::Broker(1)), 1, 3).is_empty());
    }
}
