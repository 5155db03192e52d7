//! What a peer port does with those it should not listen to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;
use wire::ids::BrokerId;

use super::harness::{Broker, identity, introduce, three, until};
use crate::raft::{Hello, PeerError, PeerService, Verdict};
use crate::runtime::{Net, Random, TcpNet};

struct Echo;

impl PeerService for Echo {
    fn handle(&self, from: Arc<Hello>, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        async move {
            if body.is_empty() {
                return Err(format!("broker {} said nothing", from.broker_id));
            }
            Ok(body)
        }
        .boxed()
    }
}

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_answer_refuse_and_are_missed() {
    let brokers = three().await;
    brokers[1].groups.peers().serve(1, Arc::new(Echo));
    let peers = brokers[0].groups.peers();
    until("they are linked", || peers.health().values().filter(|health| health.connected).count() == 2).await;
    let large = Bytes::from(vec![7; 3 << 20]);
    assert_eq!(peers.call(BrokerId(2), 1, large.clone(), WAIT).await, Ok(large));
    let refused = peers.call(BrokerId(2), 1, Bytes::new(), WAIT).await;
    assert_eq!(refused, Err(PeerError::Refused("broker 1 said nothing".into())));
    assert!(matches!(peers.call(BrokerId(2), 9, Bytes::new(), WAIT).await, Err(PeerError::Refused(_))));
    let unknown = peers.call(BrokerId(77), 1, Bytes::from_static(b"x"), WAIT).await;
    assert!(matches!(unknown, Err(PeerError::Unreachable(_))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_is_called_by_address_and_both_sides_learn_each_other() {
    let (one, two) = (Broker::start(1).await, Broker::start(2).await);
    two.groups.peers().serve(1, Arc::new(Echo));
    let answer = one.groups.peers().call_addr(&two.addr, 1, Bytes::from_static(b"hi"), WAIT).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"hi")));
    until("each holds a link to the other", || {
        let linked = |broker: &Broker, to| {
            broker.groups.peers().health().get(&BrokerId(to)).is_some_and(|health| health.connected)
        };
        linked(&one, 2) && linked(&two, 1)
    })
    .await;
    assert_eq!(one.groups.peers().hello(BrokerId(2)).unwrap().peer, two.addr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_and_a_second_broker_of_one_number_are_refused() {
    let (one, two) = (Broker::start(1).await, Broker::start(2).await);
    let mut foreign = identity(2, &two.addr);
    foreign.cluster_id = Some(Uuid::from_u128(0xBAD));
    two.identity.send_replace(Arc::new(foreign));
    two.groups.peers().serve(1, Arc::new(Echo));
    let short = Duration::from_millis(500);
    let refused = one.groups.peers().call_addr(&two.addr, 1, Bytes::from_static(b"hi"), short).await;
    assert!(matches!(refused, Err(PeerError::Refused(_))), "{refused:?}");
    assert_eq!(one.groups.peers().verdict(BrokerId(2)), Verdict::Dead, "it never greeted");

    let twin = Broker::start(1).await;
    let mut other = identity(1, &twin.addr);
    other.incarnation = Uuid::from_u128(0xBAD);
    twin.identity.send_replace(Arc::new(other));
    let refused = twin.groups.peers().call_addr(&one.addr, 1, Bytes::from_static(b"hi"), short).await;
    assert!(matches!(refused, Err(PeerError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_id_that_changes_under_a_link_ends_it() {
    let (one, two) = (Broker::start(1).await, Broker::start(2).await);
    introduce(&[&one, &two]);
    let connected = |health: &Broker, to| {
        health.groups.peers().health().get(&BrokerId(to)).is_some_and(|health| health.connected)
    };
    until("they are linked", || connected(&one, 2) && connected(&two, 1)).await;
    let mut foreign = identity(2, &two.addr);
    foreign.cluster_id = Some(Uuid::from_u128(0xBAD));
    two.identity.send_replace(Arc::new(foreign));
    until("neither holds the other for alive", || {
        one.groups.peers().verdict(BrokerId(2)) != Verdict::Alive && !connected(&two, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_the_peer_port_closes_its_own_connection_and_nothing_else() {
    let brokers = three().await;
    let random = Random::from_seed(1);
    for round in 0..40_u64 {
        let mut stream = TcpNet.connect(&brokers[0].addr, WAIT).await.unwrap();
        let mut noise: Vec<u8> = (0..64).flat_map(|_| random.u64().to_le_bytes()).collect();
        if round % 2 == 0 {
            // Past the head, so that the greeting itself has to be refused.
            noise.splice(0..0, *b"ALTPEER\x01\x01\0\0\0\x80\0\0\0");
        }
        let _ = stream.write_all(&noise).await;
        let mut sink = Vec::new();
        let closed = tokio::time::timeout(WAIT, stream.read_to_end(&mut sink)).await;
        drop(stream);
        assert!(closed.is_ok(), "the connection stays open after garbage");
    }
    let peers = brokers[0].groups.peers();
    until("the peers are still there", || {
        peers.health().values().filter(|health| health.connected).count() == 2
    })
    .await;
    assert!(brokers.iter().all(|broker| broker.fatal.reason().is_none()));
}
