//! How a broker becomes part of a cluster: it founds one with others, joins one, or comes back to its own.
//!
//! Founding is safe without any agreement beforehand: the broker with the lowest id among `bootstrap_expect` fresh ones
//! draws a cluster id and asks every other founder to adopt it. Each adopts one id only, durably, before it answers; the
//! metadata group is initialised after all have answered. A founder that dies in between goes on with the same id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use raft_store::BrokerRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::command::{BrokerRegistration, Command};
use super::core::{Core, SERVICE};
use super::message::{Answer, Known, Request};
use super::proposer::{Attempt, Pending, propose_here};
use super::service::whereabouts;
use crate::raft::PeerError;

/// Pause between two looks around.
const PACE: Duration = Duration::from_millis(50);
/// Pause between two greetings of the seeds.
const GREET_EVERY: Duration = Duration::from_millis(100);
/// A seed has this long to answer a greeting.
const GREETING: Duration = Duration::from_millis(800);
/// A founder has this long to adopt the cluster: it syncs a file first.
const CLAIM: Duration = Duration::from_secs(5);
/// A broker that comes back waits this long for somebody else's election before it stands itself; each place in the
/// order of ids adds one step, so that the voters do not stand all at once.
const STAND_AFTER: Duration = Duration::from_millis(300);
/// Every seed refuses this broker for so long: it cannot be right.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// One attempt to register.
const REGISTER: Duration = Duration::from_secs(5);

/// Where the way into the cluster stands.
struct Journey {
    core: Arc<Core>,
    began: Instant,
    greeted: Option<Instant>,
    stood: Option<Instant>,
    refused_since: Option<Instant>,
    /// Entry that registered this start of the broker: an image that has it is not an old one from the disk.
    registered_at: Option<u64>,
    /// What the last round of greetings brought.
    seen: Vec<Known>,
}

/// Runs until this broker stands in the image as it is now. A reason to refuse the start stops the broker.
pub(crate) async fn run(core: Arc<Core>, token: CancellationToken) {
    let mut image = core.image.clone();
    let began = Instant::now();
    let fatal = core.seams.fatal.clone();
    let mut journey = Journey::new(core, began);
    loop {
        match journey.step().await {
            Ok(true) => {
                journey.core.arrived.send_replace(true);
                return;
            }
            Ok(false) => {}
            Err(reason) => return fatal.stop(reason),
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            changed = image.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

impl Journey {
    fn new(core: Arc<Core>, began: Instant) -> Self {
        Self {
            core,
            began,
            greeted: None,
            stood: None,
            refused_since: None,
            registered_at: None,
            seen: Vec::new(),
        }
    }

    /// True if the image has the entry that registered this start of the broker.
    fn has_arrived(&self) -> bool {
        self.registered_at.is_some_and(|at| self.core.image().version >= at)
    }

    /// One step; true when the broker has arrived.
    async fn step(&mut self) -> Result<bool, String> {
        self.check_cluster().await?;
        if self.registered_at.is_some() {
            return Ok(self.has_arrived());
        }
        if self.core.is_initialized().await {
            self.come_back().await?;
        } else {
            self.come_in().await?;
        }
        Ok(self.has_arrived())
    }

    async fn check_cluster(&self) -> Result<(), String> {
        let image = self.core.image();
        if !image.is_formed() {
            return Ok(());
        }
        if self.core.adopt(image.cluster_id).await? {
            return Ok(());
        }
        let own = self.core.cluster_id().await.unwrap_or_default();
        Err(other_cluster(own, image.cluster_id))
    }

    /// The metadata group has a log here: find its leader, and register if anything changed.
    async fn come_back(&mut self) -> Result<(), String> {
        let core = self.core.clone();
        let Some(leader) = core.leader() else {
            self.stand().await;
            self.greet().await?;
            return Ok(());
        };
        if leader == core.me() && !core.image().is_formed() {
            return self.form().await;
        }
        self.greet_rarely().await?;
        let (time_ms, broker) = (core.seams.clock.now_ms(), core.registration());
        let register = Command::RegisterBroker { broker, time_ms };
        let (pending, reply) = Pending::new(register, Instant::now() + REGISTER);
        if core.queue.send(pending).await.is_err() {
            return Ok(());
        }
        match reply.await {
            Ok(Err(error)) if error.code == wire::error_code::ErrorCode::Conflict => Err(error.to_string()),
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "registering did not work yet");
                Ok(())
            }
            Ok(Ok(done)) => {
                self.registered_at = Some(done.index);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Stands for election if nobody else does: at once as the only voter, else after a while in the order of ids.
    async fn stand(&mut self) {
        let Some(status) = self.core.status() else { return };
        let me = self.core.replica();
        let voters: Vec<_> = status.members.iter().filter(|member| member.votes).collect();
        if !voters.iter().any(|voter| voter.replica == me) {
            return;
        }
        let alone = voters.len() == 1;
        let place = voters.iter().filter(|voter| voter.broker < self.core.me()).count();
        let steps = u32::try_from(place).unwrap_or(0) + 1;
        let since = self.stood.unwrap_or(self.began);
        if (alone && self.stood.is_none()) || since.elapsed() >= STAND_AFTER * steps {
            self.stood = Some(Instant::now());
            // A pre-vote first, unless there is nobody to ask: terms must not rise while no quorum is there.
            if let Err(error) = self.core.group.trigger().elect(!alone).await {
                tracing::warn!(error = %error, "the metadata group did not stand for election");
            }
        }
    }

    /// First command of a cluster, by whoever leads it first.
    async fn form(&mut self) -> Result<(), String> {
        let core = self.core.clone();
        let Some(cluster_id) = core.cluster_id().await else { return Ok(()) };
        let name = core.config.cluster_name.clone();
        let time_ms = core.seams.clock.now_ms();
        let broker = core.registration();
        let commands =
            vec![Command::FormCluster { cluster_id, name }, Command::RegisterBroker { broker, time_ms }];
        match propose_here(&core, commands, REGISTER).await {
            Attempt::Applied(replies) if replies.results.iter().all(Result::is_ok) => {
                tracing::info!(cluster_id = %cluster_id, "cluster formed");
                self.registered_at = Some(replies.index);
            }
            other => tracing::debug!(attempt = ?other, "the cluster is not formed yet"),
        }
        Ok(())
    }

    /// No log here: found a cluster, or join one.
    async fn come_in(&mut self) -> Result<(), String> {
        let core = self.core.clone();
        if core.config.seeds.is_empty() && core.config.bootstrap_expect <= 1 {
            return self.found(vec![core.registration()]).await;
        }
        self.greet().await?;
        let own = core.cluster_id().await;
        if let Some(host) = self.seen.iter().find(|known| known.formed) {
            if let (Some(own), Some(other)) = (own, host.cluster_id)
                && own != other
            {
                return Err(other_cluster(own, other));
            }
            let addr = host.broker.peer.clone();
            return self.join(&addr).await;
        }
        if let Some(founders) = self.founders(own)
            && founders.first().is_some_and(|first| first.id == core.me())
        {
            return self.found(founders).await;
        }
        Ok(())
    }

    /// The brokers that found a cluster, by id, once enough see each other. A founder that comes back in the middle
    /// counts those that adopted its cluster already.
    fn founders(&self, own: Option<Uuid>) -> Option<Vec<BrokerRegistration>> {
        let me = self.core.registration();
        let mut all: BTreeMap<_, _> =
            self.core.fresh_seen().into_iter().map(|broker| (broker.id, broker)).collect();
        for known in &self.seen {
            if known.fresh || (own.is_some() && known.cluster_id == own) {
                all.insert(known.broker.id, known.broker.clone());
            }
            for broker in &known.fresh_seen {
                all.entry(broker.id).or_insert_with(|| broker.clone());
            }
        }
        all.insert(me.id, me);
        let expected = usize::try_from(self.core.config.bootstrap_expect.max(1)).unwrap_or(usize::MAX);
        (all.len() >= expected).then(|| all.into_values().take(expected).collect())
    }

    /// Founds a cluster: all founders adopt its id, then the metadata group is initialised with exactly these voters.
    async fn found(&mut self, founders: Vec<BrokerRegistration>) -> Result<(), String> {
        let core = &self.core;
        let cluster_id = match core.cluster_id().await {
            Some(known) => known,
            None => core.seams.random.uuid(),
        };
        core.adopt(cluster_id).await?;
        core.located(founders.iter().map(whereabouts));
        let request = Request::Claim { cluster_id, members: founders.clone() };
        let body = request.encode().map_err(|error| error.to_string())?;
        let others = founders.iter().filter(|founder| founder.id != core.me());
        let claims = others.map(|founder| {
            let body = body.clone();
            async move {
                let answer = core.groups.peers().call_addr(&founder.peer, SERVICE, body, CLAIM).await;
                let decoded = answer.map(|answer| Answer::decode(&answer));
                matches!(decoded, Ok(Ok(Answer::Claimed)))
                    .then_some(())
                    .ok_or_else(|| format!("broker {}: {decoded:?}", founder.id))
            }
        });
        if let Some(Err(reason)) = join_all(claims).await.into_iter().find(Result::is_err) {
            tracing::info!(reason, "not every founder has adopted the cluster yet");
            return Ok(());
        }
        let members: BTreeMap<u64, BrokerRef> =
            founders.iter().map(|f| (f.metadata_replica.0, BrokerRef { broker: f.id.0 })).collect();
        tracing::info!(cluster_id = %cluster_id, founders = members.len(), "founding a cluster");
        if let Err(error) = core.group.initialize(members).await {
            tracing::warn!(error = %error, "the metadata group was initialised by somebody else");
        }
        Ok(())
    }

    /// Asks a member to register this broker.
    async fn join(&mut self, addr: &str) -> Result<(), String> {
        let core = &self.core;
        let request = Request::Join { broker: core.registration(), forwarded: false };
        let body = request.encode().map_err(|error| error.to_string())?;
        let Ok(answer) = core.groups.peers().call_addr(addr, SERVICE, body, REGISTER * 2).await else {
            return Ok(());
        };
        match Answer::decode(&answer) {
            Ok(Answer::Joined { cluster_id, brokers }) => {
                if !core.adopt(cluster_id).await? {
                    let own = core.cluster_id().await.unwrap_or_default();
                    return Err(other_cluster(own, cluster_id));
                }
                core.located(brokers);
                Ok(())
            }
            Ok(Answer::Refused { retriable: false, reason }) => {
                Err(format!("the cluster refuses this broker: {reason}"))
            }
            other => {
                tracing::debug!(answer = ?other, "joining did not work yet");
                Ok(())
            }
        }
    }

    async fn greet_rarely(&mut self) -> Result<(), String> {
        if self.greeted.is_none_or(|at| at.elapsed() >= GREET_EVERY * 10) {
            self.greet().await?;
        }
        Ok(())
    }

    /// Greets every seed at once and keeps what they know.
    async fn greet(&mut self) -> Result<(), String> {
        if self.greeted.is_some_and(|at| at.elapsed() < GREET_EVERY) || self.core.config.seeds.is_empty() {
            return Ok(());
        }
        self.greeted = Some(Instant::now());
        let core = self.core.clone();
        let fresh = core.is_fresh().await;
        let body = (Request::Hello { fresh }).encode().map_err(|error| error.to_string())?;
        let me = core.registration();
        let mut addresses: Vec<String> = core.config.seeds.clone();
        addresses.extend(core.fresh_seen().into_iter().map(|broker| broker.peer));
        addresses.sort_unstable();
        addresses.dedup();
        addresses.retain(|addr| *addr != me.peer);
        let greetings = addresses.iter().map(|addr| {
            let body = body.clone();
            let core = &core;
            async move { core.groups.peers().call_addr(addr, SERVICE, body, GREETING).await }
        });
        let answers = join_all(greetings).await;
        self.note_refusals(&answers)?;
        self.seen.clear();
        for answer in answers.into_iter().flatten() {
            if let Ok(Answer::Known(known)) = Answer::decode(&answer)
                && known.broker.id != me.id
            {
                self.note(known);
            }
        }
        Ok(())
    }

    fn note(&mut self, known: Known) {
        self.core.located(std::iter::once(whereabouts(&known.broker)).chain(known.brokers.iter().cloned()));
        if known.fresh {
            self.core.saw_fresh(known.broker.clone());
        } else {
            self.core.saw_member(known.broker.id);
        }
        self.seen.push(known);
    }

    /// Nobody who answers wants this broker, and that for a while: starting is no use, and its reason is told.
    fn note_refusals(&mut self, answers: &[Result<bytes::Bytes, PeerError>]) -> Result<(), String> {
        let refusal = answers.iter().find_map(|answer| match answer {
            Err(PeerError::Refused(reason)) => Some(reason.clone()),
            _ => None,
        });
        let welcome = answers.iter().any(Result::is_ok);
        match refusal.filter(|_| !welcome) {
            None => self.refused_since = None,
            Some(reason) => {
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= REFUSED_FOR {
                    return Err(format!("every seed that answers refuses this broker: {reason}"));
                }
            }
        }
        Ok(())
    }
}

fn other_cluster(own: Uuid, other: Uuid) -> String {
    format!(
        "wrong cluster: this data directory belongs to cluster {own}, the brokers that it finds to cluster {other}; \
         give it the seeds of its own cluster, or an empty data directory to join the other"
    )
}
