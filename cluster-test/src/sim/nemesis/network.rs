//! Links: cut, held, slow.

use std::time::Duration;

use super::super::world::World;
use super::{Answer, Nemesis, Undo};

type Struck = Result<Answer, String>;
type Links = Vec<(String, String)>;

/// How long links stay cut. Unit: ms.
const CUT_MS: std::ops::Range<u64> = 200..8_000;

impl Nemesis {
    /// All other machines; with clients or without.
    pub(super) fn others(world: &World, name: &str, clients: bool) -> Vec<String> {
        let brokers = world.stations.iter().map(|station| station.name.clone());
        let clients = world.clients.iter().filter(|_| clients).cloned();
        brokers.chain(clients).filter(|other| other != name).collect()
    }

    fn coin(&self) -> bool {
        self.random.range(0..2) == 0
    }

    pub(super) fn free_network(&self) -> Result<(), String> {
        if self.network_busy { Err("links are cut or held already".to_owned()) } else { Ok(()) }
    }

    pub(super) fn cut(&mut self, world: &World, links: Links) -> String {
        for (from, to) in &links {
            world.cut(from, to);
        }
        self.network_busy = true;
        self.later(world, CUT_MS, Undo::Mend(links))
    }

    pub(super) fn isolate(&mut self, world: &World) -> Struck {
        self.free_network()?;
        let station = self.any(world)?;
        let clients = self.coin();
        let others = Self::others(world, &station.name, clients);
        let detail = self.cut(world, both_ways(std::slice::from_ref(&station.name), &others));
        let whom = if clients { "from all" } else { "from brokers" };
        Ok(Answer::installed(&station.name, format!("{whom} {detail}")))
    }

    pub(super) fn split(&mut self, world: &World) -> Struck {
        self.free_network()?;
        let mut sides: [Vec<String>; 2] = Default::default();
        for station in &world.stations {
            sides[usize::from(self.coin())].push(station.name.clone());
        }
        if sides.iter().any(Vec::is_empty) {
            return Err("all brokers were drawn to one side".to_owned());
        }
        for client in &world.clients {
            // A third of the clients sees both sides.
            match self.random.range(0..3) {
                0 => {}
                1 => sides[0].push(client.clone()),
                _ => sides[1].push(client.clone()),
            }
        }
        let [left, right] = sides;
        let detail = self.cut(world, both_ways(&left, &right));
        Ok(Answer::installed(format!("{} | {}", left.join(" "), right.join(" ")), detail))
    }

    pub(super) fn cut_pair(&mut self, world: &World) -> Struck {
        self.free_network()?;
        let (a, b) = (self.any(world)?, self.any(world)?);
        if a.id == b.id {
            return Err("drew one broker twice".to_owned());
        }
        let detail = self.cut(world, both_ways(std::slice::from_ref(&a.name), std::slice::from_ref(&b.name)));
        Ok(Answer::installed(format!("{} {}", a.name, b.name), detail))
    }

    pub(super) fn one_way(&mut self, world: &World) -> Struck {
        self.free_network()?;
        let station = self.any(world)?;
        let others = Self::others(world, &station.name, self.random.range(0..4) == 0);
        let deaf = self.coin();
        let link = |other: String| {
            if deaf { (other, station.name.clone()) } else { (station.name.clone(), other) }
        };
        let links = others.into_iter().map(link).collect();
        let detail = self.cut(world, links);
        Ok(Answer::installed(&station.name, format!("{} {detail}", if deaf { "deaf" } else { "mute" })))
    }

    pub(super) fn hold(&mut self, world: &World) -> Struck {
        self.free_network()?;
        let station = self.any(world)?;
        let others = Self::others(world, &station.name, self.coin());
        let links: Links = others.into_iter().map(|other| (station.name.clone(), other)).collect();
        links.iter().for_each(|(a, b)| world.hold(a, b));
        self.network_busy = true;
        let detail = self.later(world, 500..30_000, Undo::Release(links));
        Ok(Answer::installed(&station.name, detail))
    }

    pub(super) fn slow_link(&mut self, world: &World) -> Struck {
        if self.links_slow {
            return Err("links are slow already".to_owned());
        }
        let station = self.any(world)?;
        let latency = Duration::from_millis(self.random.range(30..500));
        let others = Self::others(world, &station.name, self.coin());
        let links: Links = others.into_iter().map(|other| (station.name.clone(), other)).collect();
        links.iter().for_each(|(a, b)| world.set_latency(a, b, Some(latency)));
        self.links_slow = true;
        let detail = self.later(world, 500..10_000, Undo::Quicken(links));
        Ok(Answer::installed(&station.name, format!("{latency:?} {detail}")))
    }
}

/// Every link between two groups, in both directions.
pub(super) fn both_ways(left: &[String], right: &[String]) -> Links {
    let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a.clone(), b.clone())));
    pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect()
}
