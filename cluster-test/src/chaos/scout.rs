//! Who leads what: looked up right before a fault strikes, so that it hits whom it is meant to hit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, ClientConfig};
use tokio::time::Instant;
use wire::pb;

use super::fault::Victim;

/// Time for one question. A healthy cluster answers in milliseconds.
const ANSWER_WITHIN_MS: u32 = 2_000;
/// Between two looks at a cluster that is not settled yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One partition's replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seat {
    /// Who leads; `None` if nobody is known to.
    pub leader: Option<u32>,
    /// Who holds a copy.
    pub replicas: BTreeSet<u32>,
    /// Who of them is in sync.
    pub in_sync: BTreeSet<u32>,
}

/// Who leads and holds what, as the cluster tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Partitions of the workload's topic.
    pub partitions: BTreeMap<u32, Seat>,
    /// Leader of the metadata group.
    pub metadata_leader: Option<u32>,
}

impl Layout {
    /// Whom a fault means.
    ///
    /// # Errors
    /// If there is nobody, in words that end up in the report.
    pub fn find(&self, victim: &Victim) -> Result<u32, String> {
        let seat = |part: &u32| self.partitions.get(part).ok_or(format!("there is no partition {part}"));
        match victim {
            Victim::Broker(id) => Ok(*id),
            Victim::MetadataLeader => {
                self.metadata_leader.ok_or_else(|| "the metadata group has no leader".to_owned())
            }
            Victim::Leader(part) => seat(part)?.leader.ok_or(format!("partition {part} has no leader")),
            Victim::Follower(part) => {
                let seat = seat(part)?;
                let follower = seat.replicas.iter().find(|id| Some(**id) != seat.leader);
                follower.copied().ok_or(format!("partition {part} has no follower"))
            }
        }
    }

    /// Partitions of which these brokers hold no majority: nobody among them may acknowledge `all` while they are alone.
    #[must_use]
    pub fn without_majority(&self, side: &BTreeSet<u32>) -> BTreeSet<u32> {
        let lacks = |seat: &Seat| seat.replicas.intersection(side).count() * 2 <= seat.replicas.len();
        self.partitions.iter().filter(|(_, seat)| lacks(seat)).map(|(part, _)| *part).collect()
    }

    /// Why this is not a cluster with every replica in sync; `None` if it is.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        let lacking = self.partitions.iter().find(|(_, seat)| {
            seat.leader.is_none() || seat.replicas.is_empty() || seat.in_sync != seat.replicas
        });
        match lacking {
            Some((part, seat)) => {
                let Seat { leader, replicas, in_sync } = seat;
                Some(format!(
                    "partition {part}: leader {leader:?}, replicas {replicas:?}, in sync {in_sync:?}"
                ))
            }
            None if self.partitions.is_empty() => Some("the topic is not known".to_owned()),
            None if self.metadata_leader.is_none() => Some("the metadata group has no leader".to_owned()),
            None => None,
        }
    }
}

/// Asks the cluster about one topic.
#[derive(Debug)]
pub struct Scout {
    client: Client,
    topic: String,
}

impl Scout {
    /// A scout with a client of its own; asks nothing yet.
    ///
    /// # Errors
    /// If the client's settings cannot work.
    pub fn new(client: ClientConfig, topic: &str) -> Result<Self> {
        let config = ClientConfig { request_timeout_ms: ANSWER_WITHIN_MS, ..client };
        Ok(Self { client: Client::start(config)?, topic: topic.to_owned() })
    }

    /// The scout's client, for whoever sets the cluster up.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the cluster says about itself now.
    ///
    /// # Errors
    /// If no broker answers.
    pub async fn look(&self) -> Result<Layout> {
        let answer =
            self.client.admin().metadata(vec![self.topic.clone()]).await.context("asking who leads")?;
        Ok(layout(&answer))
    }

    /// Waits until every replica is in sync and every group has a leader.
    ///
    /// # Errors
    /// What still lacks after `within`.
    pub async fn settled(&self, within: Duration) -> Result<Layout> {
        let until = Instant::now() + within;
        loop {
            let lacks = match self.look().await {
                Ok(layout) => match layout.unsettled() {
                    None => return Ok(layout),
                    Some(lacks) => lacks,
                },
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= until {
                bail!("the cluster is not settled after {within:?}: {lacks}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn layout(answer: &pb::GetMetadataResponse) -> Layout {
    let partitions =
        answer.topics.iter().filter(|topic| topic.error.is_none()).flat_map(|topic| &topic.partitions);
    let seat = |info: &pb::PartitionInfo| Seat {
        leader: info.leader,
        replicas: info.replicas.iter().copied().collect(),
        in_sync: info.isr.iter().copied().collect(),
    };
    Layout {
        partitions: partitions.map(|info| (info.partition, seat(info))).collect(),
        metadata_leader: answer.controller_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(leader: Option<u32>, replicas: &[u32], in_sync: &[u32]) -> Seat {
        let set = |ids: &[u32]| ids.iter().copied().collect();
        Seat { leader, replicas: set(replicas), in_sync: set(in_sync) }
    }

    fn five() -> Layout {
        let partitions = [(0, seat(Some(2), &[1, 2, 3], &[1, 2, 3])), (1, seat(None, &[3, 4, 5], &[4, 5]))];
        Layout { partitions: partitions.into(), metadata_leader: Some(4) }
    }

    #[test]
    fn victims_are_found_by_what_they_do() {
        let layout = five();
        assert_eq!(layout.find(&Victim::Leader(0)), Ok(2));
        assert_eq!(layout.find(&Victim::Follower(0)), Ok(1));
        assert_eq!(layout.find(&Victim::MetadataLeader), Ok(4));
        assert_eq!(layout.find(&Victim::Leader(1)).unwrap_err(), "partition 1 has no leader");
        assert_eq!(layout.find(&Victim::Leader(9)).unwrap_err(), "there is no partition 9");
    }

    #[test]
    fn a_minority_of_brokers_may_hold_a_majority_of_a_partition() {
        let layout = five();
        assert_eq!(layout.without_majority(&[1, 2].into()), [1].into());
        assert_eq!(layout.without_majority(&[3].into()), [0, 1].into());
    }

    #[test]
    fn a_cluster_is_settled_when_all_replicas_are_in_sync() {
        let mut layout = five();
        assert!(layout.unsettled().unwrap().starts_with("partition 1: leader None"));
        layout.partitions.remove(&1);
        assert_eq!(layout.unsettled(), None);
        layout.metadata_leader = None;
        assert!(layout.unsettled().is_some());
    }
}
