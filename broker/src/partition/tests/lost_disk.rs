//! A broker whose whole data directory is gone comes back under its number and becomes whole again without help.

use std::collections::BTreeSet;
use std::sync::Arc;

use disk::faulty::FaultyDisk;
use wire::ids::{BrokerId, Offset, PartitionIndex, ReplicaId};

use super::harness::{
    Broker, TOPIC, batch, expected, leader, plans, produce_somewhere, read_all, start, start_all, until,
    values,
};
use crate::metadata::image::{MetadataImage, MetadataMember, Partition};
use crate::metadata::topic_config::TopicConfig;

/// Partitions of the topic; the records are in the first.
const PARTITIONS: u32 = 3;

fn partitions(image: &MetadataImage) -> Vec<&Partition> {
    (0..PARTITIONS)
        .filter_map(|index| image.partition(TOPIC, PartitionIndex(index)).map(AsRef::as_ref))
        .collect()
}

fn replica_on(partition: &Partition, broker: BrokerId) -> Option<ReplicaId> {
    partition.replicas.iter().find(|replica| replica.broker == broker).map(|replica| replica.id)
}

/// True if the image and the group of a partition agree that exactly its replicas are members, all of them in sync.
fn is_whole(brokers: &[Broker], partition: &Partition) -> bool {
    let listed: BTreeSet<ReplicaId> = partition.replicas.iter().map(|replica| replica.id).collect();
    let in_sync: BTreeSet<ReplicaId> = partition.isr.iter().copied().collect();
    let statuses = brokers.iter().filter_map(|broker| broker.groups.status(partition.group));
    let Some(led) = statuses.into_iter().find(|status| status.is_leader()) else { return false };
    let votes: BTreeSet<ReplicaId> =
        led.members.iter().filter(|member| member.votes).map(|member| member.replica).collect();
    partition.adding.is_none()
        && listed == in_sync
        && listed == votes
        && led.members.len() == listed.len()
        && !led.changing
}

async fn produce_all(brokers: &[Broker], records: std::ops::Range<u32>) {
    for n in records {
        produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(u64::from(n), 1, Some((7, n)))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_disk_is_rebuilt_under_fresh_ids_and_then_carries_its_part() {
    let mut plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(PARTITIONS, 3, TopicConfig::default()).await;
    produce_all(&brokers, 0..20).await;
    // The worst one to lose: it leads the partition with the records.
    leader(&brokers).await;
    let away = brokers.iter().position(Broker::leads).unwrap();
    let id = brokers[away].metadata.me();
    until("three vote in the metadata group", || brokers[away].metadata.image().metadata_voters.len() == 3)
        .await;
    let before = brokers[away].metadata.image();
    let old: Vec<ReplicaId> =
        partitions(&before).iter().map(|partition| replica_on(partition, id).unwrap()).collect();
    let old_voter = before.broker(id).unwrap().metadata_replica;
    brokers.remove(away).kill().await;

    plans[away].disk = Arc::new(FaultyDisk::quiet());
    let back = start(&plans[away]).await;
    back.joined().await;
    brokers.push(back);
    until("each lost replica is replaced by a fresh one and gone", || {
        let image = brokers[0].metadata.image();
        let all = partitions(&image);
        all.len() == old.len()
            && all.iter().zip(&old).all(|(partition, old)| {
                replica_on(partition, id).is_some_and(|new| new != *old) && is_whole(&brokers, partition)
            })
    })
    .await;
    until("the metadata voter is replaced and gone", || {
        let image = brokers[0].metadata.image();
        let fresh = image.broker(id).map(|broker| broker.metadata_replica);
        let votes = |member: &MetadataMember| Some(member.replica) == fresh;
        image.metadata_voters.len() == 3
            && image.metadata_voters.iter().any(votes)
            && image.metadata_learners.is_empty()
            && fresh != Some(old_voter)
            && image.metadata_voters.iter().all(|member| member.replica != old_voter)
    })
    .await;
    until("the fresh replica has every record", || {
        brokers[2].replica().is_some_and(|replica| replica.high_watermark() == Offset(20))
    })
    .await;
    assert_eq!(values(&read_all(&brokers[2].replica().unwrap()).await), expected(0..20));

    // Without the rebuilt broker there is no majority now, neither of the partition nor of the metadata.
    brokers.remove(0).kill().await;
    produce_all(&brokers, 20..25).await;
    until("the two that are left have the same", || {
        brokers.iter().all(|b| b.replica().is_some_and(|replica| replica.high_watermark() == Offset(25)))
    })
    .await;
    for broker in brokers {
        assert_eq!(values(&read_all(&broker.replica().unwrap()).await), expected(0..25));
        assert!(broker.fatal.reason().is_none());
        broker.stop().await;
    }
}
