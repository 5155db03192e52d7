//! Requests are answered by the replica that they are meant for, and by no other of its group on the same broker.

use std::time::Duration;

use bytes::Bytes;
use raft_store::Vote;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::harness::{Broker, form, introduce, leader, members, replica, three, until, write_somewhere};
use crate::raft::transport::carrier::Road;
use crate::raft::transport::frame::{Frame, HEARTBEAT, Kind, PRE_VOTE};
use crate::raft::transport::message::{Append, Offer, Transfer, VoteAsk};
use crate::raft::types::SnapshotMeta;
use crate::raft::{PeerError, Profile};

const WAIT: Duration = Duration::from_secs(5);

/// One of each request that a leader or a candidate of a high term makes, to a replica.
fn requests(group: u64, to: u64) -> Vec<Frame> {
    let (vote, leads) = (Vote::new(99, 1), Vote::new_committed(99, 1));
    let ask = || vec![VoteAsk { vote, last: None, transfer: true }.encode()];
    let append = || Append { vote: leads, prev: None, commit: None, entries: vec![] }.encode();
    let offer = Offer { vote: leads, meta: SnapshotMeta::default(), offer: Bytes::new() };
    let transfer = Transfer { from: leads, to, last: None };
    let frame = |kind, body| Frame::to_replica(kind, group, to, body);
    vec![
        frame(Kind::Vote, ask()),
        frame(Kind::Vote, ask()).with_flags(PRE_VOTE),
        frame(Kind::Append, append()),
        frame(Kind::Append, append()).with_flags(HEARTBEAT),
        frame(Kind::Transfer, vec![transfer.encode()]),
        frame(Kind::Snapshot, offer.encode()),
        frame(Kind::Range, vec![Bytes::from_static(b"range")]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_another_replica_is_refused_by_name_and_changes_nothing() {
    let one = Broker::start(1).await;
    let mut two = Broker::start(2).await;
    introduce(&[&one, &two]);
    two.open(7, 72, Profile::Partition).await;
    let link = one.groups.peers().0.link(BrokerId(2));
    until("they are linked", || one.groups.peers().health().values().any(|health| health.connected)).await;
    for frame in requests(7, 79) {
        let (kind, flags) = (frame.kind, frame.flags);
        let answer = link.call(Road::Control, frame, WAIT).await;
        let refusal = PeerError::Refused("this broker carries replica 72 of raft group 7, not 79".into());
        assert_eq!(answer, Err(refusal), "{kind:?} with flags {flags}");
    }
    let status = two.groups.status(RaftGroupId(7)).unwrap();
    assert_eq!((status.term, status.last_index), (0, None), "nobody voted and nothing was appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_replica_in_the_place_of_a_voter_neither_counts_for_it_nor_waits_for_its_streams() {
    let mut brokers = three().await;
    form(&mut brokers, 7, Profile::Partition).await;
    write_somewhere(&brokers.iter().collect::<Vec<_>>(), 7, "before").await;
    let lead = leader(&brokers, 7).await.id;
    let others: Vec<usize> = (0..3).filter(|at| brokers[*at].id != lead).collect();
    let (fresh, silent) = (others[0], others[1]);
    let group = RaftGroupId(7);
    until("both followers have it", || others.iter().all(|at| brokers[*at].values(7).len() == 1)).await;

    // The old replica leaves an idle stream behind on a link that stays.
    let old = ReplicaId(replica(7, brokers[fresh].id));
    brokers[fresh].groups.delete(group, old).await.unwrap();
    let new = replica(8, brokers[fresh].id);
    brokers[fresh].open(7, new, Profile::Partition).await;
    let status = |at: usize| brokers[at].groups.status(group).unwrap();
    brokers[silent].groups.close(group).await;
    let at = brokers.iter().position(|broker| broker.id == lead).unwrap();
    // The leader has nobody but the fresh replica to ask: with its help it would commit.
    let alone = tokio::time::timeout(Duration::from_secs(2), brokers[at].write(7, "alone")).await;
    assert!(!matches!(alone, Ok(Ok(_))), "a replica that is no member made a majority");
    assert_eq!((status(fresh).term, status(fresh).last_index), (0, None));

    let silent_id = replica(7, brokers[silent].id);
    brokers[silent].open(7, silent_id, Profile::Partition).await;
    write_somewhere(&brokers.iter().collect::<Vec<_>>(), 7, "again").await;
    let learner = members(8, [brokers[fresh].id]);
    let begun = tokio::time::Instant::now();
    let raft = leader(&brokers, 7).await.raft(7).clone();
    for (id, node) in learner {
        raft.add_learner(id, node, false).await.unwrap();
    }
    until("the fresh replica has everything under its own name", || brokers[fresh].values(7).len() >= 2)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for an idle stream to end");
    assert!(brokers.iter().all(|broker| broker.fatal.reason().is_none()));
}
