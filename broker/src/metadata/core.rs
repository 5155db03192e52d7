//! What the parts of metadata share: the group, the image, who this broker is, and where the others live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft_store::{NodeIdentity, Wal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::bells::Bells;
use super::command::BrokerRegistration;
use super::image::MetadataImage;
use super::machine::{MetadataKind, MetadataMachine, Shared};
use super::message::{Whereabouts, registration};
use super::proposer::Pending;
use super::sessions::Sessions;
use super::touches::Touch;
use crate::raft::{Group, GroupStatus, Groups, LocalIdentity, PeerAddress, Role};
use crate::runtime::{KeyedKind, Seams};

/// Number of the metadata service on the peer links.
pub(crate) const SERVICE: u8 = 1;
/// A fresh broker that was not heard of for this long is not counted any more.
const FRESH_FOR: Duration = Duration::from_secs(3);

/// What metadata takes from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataConfig {
    /// `cluster.name`.
    pub cluster_name: String,
    /// `cluster.seeds`: peer addresses to ask.
    pub seeds: Vec<String>,
    /// Fresh brokers that must see each other before a cluster is founded.
    pub bootstrap_expect: u32,
    /// `cluster.metadata_voters`.
    pub metadata_voters: u32,
    /// How long the data of a deleted topic is kept.
    pub delete_retention: Duration,
    /// Where the rebuildable keyed state stands.
    pub keyed: KeyedKind,
    /// How long the offsets of a group are kept that nobody uses.
    pub offset_retention: Duration,
}

/// Shared by every part of metadata; one a broker.
pub(crate) struct Core {
    pub(crate) seams: Seams,
    pub(crate) wal: Wal,
    pub(crate) groups: Groups,
    pub(crate) group: Group<MetadataKind, MetadataMachine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) image: watch::Receiver<Arc<MetadataImage>>,
    pub(crate) config: MetadataConfig,
    pub(crate) queue: mpsc::Sender<Pending>,
    pub(crate) commits: mpsc::Sender<Pending>,
    /// Bytes of commits that may wait.
    pub(crate) commit_room: Arc<Semaphore>,
    pub(crate) touches: mpsc::Sender<Touch>,
    pub(crate) bells: Bells,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) root: PathBuf,
    pub(crate) identity: watch::Sender<Arc<LocalIdentity>>,
    pub(crate) node: tokio::sync::Mutex<NodeIdentity>,
    pub(crate) met: Mutex<Met>,
    /// True once this start of the broker is registered and the image shows it.
    pub(crate) arrived: watch::Sender<bool>,
}

/// Brokers met through greetings.
#[derive(Default)]
pub(crate) struct Met {
    fresh: BTreeMap<BrokerId, (BrokerRegistration, Instant)>,
    addresses: BTreeMap<BrokerId, Located>,
}

/// Where a broker says that it lives.
#[derive(PartialEq)]
struct Located {
    address: PeerAddress,
    /// Where the image saw it then: once the image says something else, the image is newer.
    image_said: Option<String>,
}

impl Core {
    /// This broker.
    pub(crate) fn me(&self) -> BrokerId {
        self.identity.borrow().broker_id
    }

    /// What this broker says of itself.
    pub(crate) fn registration(&self) -> BrokerRegistration {
        registration(&self.identity.borrow())
    }

    /// The present image.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// State of the metadata group on this broker.
    pub(crate) fn status(&self) -> Option<GroupStatus> {
        self.groups.status(RaftGroupId::METADATA)
    }

    /// The metadata leader's broker, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<BrokerId> {
        self.status()?.leader.map(|(_, broker)| broker)
    }

    /// True if this broker leads the metadata group.
    pub(crate) fn leads(&self) -> bool {
        self.status().is_some_and(|status| status.role == Role::Leader)
    }

    /// The coordinator's sessions; for a few lines.
    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a fresh broker.
    pub(crate) fn saw_fresh(&self, broker: BrokerRegistration) {
        self.met().fresh.insert(broker.id, (broker, Instant::now()));
    }

    /// Notes that a broker is not fresh any more.
    pub(crate) fn saw_member(&self, broker: BrokerId) {
        self.met().fresh.remove(&broker);
    }

    /// Fresh brokers heard of lately, by id.
    pub(crate) fn fresh_seen(&self) -> Vec<BrokerRegistration> {
        let mut met = self.met();
        met.fresh.retain(|_, (_, seen)| seen.elapsed() < FRESH_FOR);
        met.fresh.values().map(|(broker, _)| broker.clone()).collect()
    }

    /// Notes where brokers live, by their own word: that is newer than what the image says.
    pub(crate) fn located(&self, found: impl IntoIterator<Item = Whereabouts>) {
        let (me, image) = (self.me(), self.image());
        let mut changed = false;
        {
            let mut met = self.met();
            for place in found.into_iter().filter(|place| place.broker != me && !place.peer.is_empty()) {
                let image_said = image.broker(place.broker).map(|known| known.peer.clone());
                let address = PeerAddress { addr: place.peer, incarnation: place.incarnation };
                let located = Located { address, image_said };
                changed |= met.addresses.get(&place.broker) != Some(&located);
                met.addresses.insert(place.broker, located);
            }
        }
        if changed {
            self.publish_directory();
        }
    }

    /// Tells the peer links where everybody lives: the image, and over it what was learned from greetings since.
    pub(crate) fn publish_directory(&self) {
        let image = self.image();
        let mut directory = BTreeMap::new();
        {
            let mut met = self.met();
            met.addresses.retain(|id, located| {
                image.broker(*id).map(|known| &known.peer) == located.image_said.as_ref()
            });
            directory.extend(met.addresses.iter().map(|(id, located)| (*id, located.address.clone())));
        }
        for broker in image.brokers.values() {
            let address = PeerAddress { addr: broker.peer.clone(), incarnation: broker.incarnation };
            directory.entry(broker.id).or_insert(address);
        }
        directory.remove(&self.me());
        self.groups.peers().set_directory(directory);
    }

    /// Where the brokers of the image live.
    pub(crate) fn whereabouts(&self) -> Vec<Whereabouts> {
        let image = self.image();
        let place = |broker: &Arc<super::image::BrokerEntry>| Whereabouts {
            broker: broker.id,
            incarnation: broker.incarnation,
            peer: broker.peer.clone(),
        };
        image.brokers.values().map(place).collect()
    }

    /// The cluster in the data directory.
    pub(crate) async fn cluster_id(&self) -> Option<Uuid> {
        self.node.lock().await.cluster_id
    }

    /// Makes the data directory part of a cluster, durably, and tells the peer links. True if it is (by now) part of
    /// this one; a directory never changes its cluster.
    pub(crate) async fn adopt(&self, cluster_id: Uuid) -> Result<bool, String> {
        let mut node = self.node.lock().await;
        if let Some(known) = node.cluster_id {
            return Ok(known == cluster_id);
        }
        let mut adopted = node.clone();
        adopted.cluster_id = Some(cluster_id);
        let (disk, root, saved) = (self.seams.disk.clone(), self.root.clone(), adopted.clone());
        let written = self.seams.io.run(move || saved.save(disk.as_ref(), &root)).await;
        written.map_err(|error| format!("cannot write meta.properties: {error}"))?;
        *node = adopted;
        self.identity.send_modify(|identity| {
            let mut changed = LocalIdentity::clone(identity);
            changed.cluster_id = Some(cluster_id);
            *identity = Arc::new(changed);
        });
        Ok(true)
    }

    /// True if this data directory has neither a cluster nor a log.
    pub(crate) async fn is_fresh(&self) -> bool {
        self.cluster_id().await.is_none() && !self.is_initialized().await
    }

    /// True if the metadata group on this broker has a vote or an entry.
    pub(crate) async fn is_initialized(&self) -> bool {
        self.group.is_initialized().await.unwrap_or(true)
    }

    /// This broker's replica in the metadata group.
    pub(crate) fn replica(&self) -> ReplicaId {
        self.identity.borrow().metadata_replica
    }
}
