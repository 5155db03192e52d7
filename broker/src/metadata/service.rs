//! Answers what other brokers ask about metadata.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::command::{BrokerRegistration, Command, Replies};
use super::coordinator;
use super::core::{Core, SERVICE};
use super::error::MetaError;
use super::message::{Answer, Known, Request, Whereabouts, registration};
use super::proposer::{Attempt, propose_here};
use crate::raft::{Hello, PeerService};

/// A forwarded proposal is given this long; its broker waits a little longer.
const PROPOSAL: Duration = Duration::from_millis(1_800);
/// How long the registered holder of a broker id has to answer when another one asks for its id.
const PROBE: Duration = Duration::from_millis(1000);

/// The metadata service of this broker.
pub(crate) struct Service(pub(crate) Arc<Core>);

impl PeerService for Service {
    fn handle(&self, from: Arc<Hello>, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let core = self.0.clone();
        async move {
            let request = Request::decode(&body).map_err(|error| error.to_string())?;
            let answer = answer(&core, &from, request).await;
            answer.encode().map_err(|error| error.to_string())
        }
        .boxed()
    }
}

async fn answer(core: &Core, from: &Hello, request: Request) -> Answer {
    match request {
        Request::Hello { fresh } => {
            let asker = registration(&from.identity);
            core.located([whereabouts(&asker)]);
            if fresh && asker.id != core.me() {
                core.saw_fresh(asker);
            } else {
                core.saw_member(asker.id);
            }
            Answer::Known(known(core).await)
        }
        Request::Claim { cluster_id, members } => claim(core, cluster_id, members).await,
        Request::Join { broker, forwarded } => join(core, broker, forwarded).await,
        Request::Propose(commands) => {
            if !core.leads() {
                return Answer::NotLeader { leader: core.leader() };
            }
            match propose_here(core, commands, PROPOSAL).await {
                Attempt::Applied(replies) => Answer::Proposed(replies),
                Attempt::NotLeader => Answer::NotLeader { leader: core.leader() },
                Attempt::Refused(error) => Answer::Refused { retriable: false, reason: error.message },
                Attempt::Unknown(reason) => Answer::Unknown(reason),
            }
        }
        Request::Sessions(members) => match coordinator::hear(core, &members) {
            Some(heard) => {
                let ms = |lease: Duration| u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
                let leases_ms = heard.leases.into_iter().map(|lease| lease.map(ms)).collect();
                Answer::Sessions { index: heard.index, leases_ms }
            }
            None => Answer::NotLeader { leader: core.leader() },
        },
        Request::ReadIndex => match coordinator::read_index(core, PROPOSAL).await {
            Some(index) => Answer::ReadIndex(index),
            None => Answer::NotLeader { leader: core.leader() },
        },
    }
}

/// What this broker knows.
pub(crate) async fn known(core: &Core) -> Known {
    let image = core.image();
    Known {
        broker: core.registration(),
        cluster_id: core.cluster_id().await,
        formed: image.is_formed(),
        fresh: core.is_fresh().await,
        fresh_seen: core.fresh_seen(),
        brokers: core.whereabouts(),
    }
}

pub(crate) fn whereabouts(broker: &BrokerRegistration) -> Whereabouts {
    Whereabouts { broker: broker.id, incarnation: broker.incarnation, peer: broker.peer.clone() }
}

/// Becomes part of a cluster that is being founded. The answer is given once it is durable: a broker belongs to one
/// cluster, so two founders can never both have a majority of the same brokers.
async fn claim(core: &Core, cluster_id: Uuid, members: Vec<BrokerRegistration>) -> Answer {
    let refused = |reason: String| Answer::Refused { retriable: true, reason };
    let me = core.registration();
    let listed = members.iter().any(|member| {
        (member.id, member.incarnation, member.metadata_replica)
            == (me.id, me.incarnation, me.metadata_replica)
    });
    if !listed {
        return refused(format!("broker {} is not among the founders", me.id));
    }
    match core.adopt(cluster_id).await {
        Ok(true) => {
            core.located(members.iter().map(whereabouts));
            Answer::Claimed
        }
        Ok(false) => refused(format!("broker {} belongs to another cluster", me.id)),
        Err(reason) => refused(reason),
    }
}

/// Registers a broker, here or at the metadata leader.
async fn join(core: &Core, broker: BrokerRegistration, forwarded: bool) -> Answer {
    core.located([whereabouts(&broker)]);
    if core.leads() {
        return join_here(core, broker).await;
    }
    let leader = core.leader();
    let Some(at) = leader.filter(|_| !forwarded) else {
        return Answer::NotLeader { leader };
    };
    let request = Request::Join { broker, forwarded: true };
    let body = match request.encode() {
        Ok(body) => body,
        Err(error) => return Answer::Refused { retriable: false, reason: error.to_string() },
    };
    match core.groups.peers().call(at, SERVICE, body, PROPOSAL + PROBE).await {
        Ok(answer) => Answer::decode(&answer).unwrap_or_else(|error| Answer::Unknown(error.to_string())),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

async fn join_here(core: &Core, broker: BrokerRegistration) -> Answer {
    let time_ms = core.seams.clock.now_ms();
    let register = Command::RegisterBroker { broker: broker.clone(), time_ms };
    let (result, retry) = match propose_one(core, register.clone()).await {
        Ok(Err(MetaError::DuplicateBroker { peer, .. })) => {
            if holds_id(core, &broker, &peer).await {
                let reason = MetaError::DuplicateBroker { broker: broker.id, peer }.to_string();
                return Answer::Refused { retriable: false, reason };
            }
            (Ok(Ok(())), true)
        }
        other => (other, false),
    };
    let result = if retry { take_over(core, &broker, register).await } else { result };
    match result {
        Ok(Ok(())) => Answer::Joined { cluster_id: core.image().cluster_id, brokers: core.whereabouts() },
        Ok(Err(refusal)) => {
            let retriable = matches!(refusal, MetaError::NotFormed | MetaError::StaleIncarnation { .. });
            Answer::Refused { retriable, reason: refusal.to_string() }
        }
        Err(answer) => answer,
    }
}

/// The old holder of the id is gone: it is fenced, and the new disk takes its place.
async fn take_over(
    core: &Core,
    broker: &BrokerRegistration,
    register: Command,
) -> Result<Result<(), MetaError>, Answer> {
    if let Some(old) = core.image().broker(broker.id).map(|known| known.incarnation) {
        let time_ms = core.seams.clock.now_ms();
        let fence = Command::FenceBroker { broker: broker.id, incarnation: old, time_ms };
        if let Err(refusal) = propose_one(core, fence).await? {
            return Ok(Err(refusal));
        }
    }
    propose_one(core, register).await
}

/// True if the registered holder of a broker id answers at its address.
async fn holds_id(core: &Core, broker: &BrokerRegistration, peer: &str) -> bool {
    let registered = core.image().broker(broker.id).map(|known| known.incarnation);
    let Ok(body) = (Request::Hello { fresh: false }).encode() else { return true };
    match core.groups.peers().call_addr(peer, SERVICE, body, PROBE).await {
        Ok(answer) => match Answer::decode(&answer) {
            Ok(Answer::Known(known)) => {
                known.broker.id == broker.id && Some(known.broker.incarnation) == registered
            }
            _ => true,
        },
        Err(_) => false,
    }
}

/// The refusal, if there is one; `Err` is the answer when nothing was decided.
async fn propose_one(core: &Core, command: Command) -> Result<Result<(), MetaError>, Answer> {
    match propose_here(core, vec![command], PROPOSAL).await {
        Attempt::Applied(Replies { mut results, .. }) => Ok(results.pop().unwrap_or(Ok(DONE)).map(|_| ())),
        Attempt::NotLeader => Err(Answer::NotLeader { leader: core.leader() }),
        Attempt::Refused(error) => Err(Answer::Refused { retriable: false, reason: error.message }),
        Attempt::Unknown(reason) => Err(Answer::Unknown(reason)),
    }
}

const DONE: super::command::CommandReply = super::command::CommandReply::Done;
