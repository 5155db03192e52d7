//! Bit rot in a replica's files: found by a read, healed from the others, and never answered with somebody's loss.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::faulty::FaultyDisk;
use disk::{Disk, OpenOptions};
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, Offset, PartitionIndex};

use super::harness::{
    Broker, Plan, TOPIC, batch, expected, leader, plans, produce_somewhere, read_all, soon, start, start_all,
    until, values,
};
use crate::metadata::topic_config::TopicConfig;
use crate::partition::{FetchArgs, Replica};

/// Three brokers, each with a simulated disk that the test can damage.
async fn three() -> (Vec<Plan>, Vec<Arc<FaultyDisk>>) {
    let mut plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let disks: Vec<Arc<FaultyDisk>> = plans.iter().map(|_| Arc::new(FaultyDisk::quiet())).collect();
    plans.iter_mut().zip(&disks).for_each(|(plan, disk)| plan.disk = disk.clone());
    (plans, disks)
}

/// Directory of a replica.
fn dir_of(plan: &Plan, replica: &Replica) -> PathBuf {
    raft_store::layout::group_dir(&plan.root, replica.group().0, replica.id().0)
}

/// Files in `dir` whose names end in `suffix`.
fn files_in(plan: &Plan, dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = plan.disk.list(dir).unwrap();
    entries.iter().filter(|entry| entry.name.ends_with(suffix)).map(|entry| dir.join(&entry.name)).collect()
}

async fn produce_all(brokers: &[Broker], records: std::ops::Range<u32>) {
    for n in records {
        produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(u64::from(n), 1, Some((7, n)))).await;
    }
}

fn everything() -> FetchArgs {
    FetchArgs { offset: Offset(0), max_bytes: 1 << 20, min_bytes: 1, deadline: soon(), leader_only: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_records_rot_gives_way_to_a_fresh_replica_that_has_them_all() {
    let (plans, disks) = three().await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    produce_all(&brokers, 0..20).await;
    let image = brokers[0].metadata.image();
    let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
    let preferred = partition.replica(partition.preferred).unwrap().broker;
    let rotten = brokers.iter().position(|broker| broker.metadata.me() == preferred).unwrap();
    let old = brokers[rotten].replica().unwrap();
    let (old_id, logs) = (old.id(), files_in(&plans[rotten], &dir_of(&plans[rotten], &old), ".log"));
    drop(old);
    brokers.remove(rotten).stop().await;
    // The middle of the only segment, which no open replica has in its cache now.
    let (log, disk) = (&logs[0], &disks[rotten]);
    let middle = disk.open(log, OpenOptions::default()).unwrap().len().unwrap() / 2;
    assert!(disk.flip_bit(log, middle, 3));

    let back = start(&plans[rotten]).await;
    back.joined().await;
    until("the preferred replica leads again", || back.leads()).await;
    assert_eq!(back.replica().unwrap().id(), old_id, "nothing is wrong with it yet");
    let good = values(&read_until_damage(&back.replica().unwrap()).await);
    assert!(!good.is_empty() && good.len() < 20, "what stands before the damage is still served: {good:?}");
    until("a fresh replica took its place and is in sync", || {
        let image = back.metadata.image();
        let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
        let here = partition.replicas.iter().find(|replica| replica.broker == preferred).unwrap().id;
        here != old_id && partition.adding.is_none() && partition.isr.contains(&here)
    })
    .await;
    brokers.push(back);
    produce_all(&brokers, 20..25).await;
    until("all have all", || {
        brokers.iter().all(|b| b.replica().is_some_and(|replica| replica.high_watermark() == Offset(25)))
    })
    .await;
    for broker in &brokers {
        assert_eq!(values(&read_all(&broker.replica().unwrap()).await), expected(0..25));
        assert!(broker.fatal.reason().is_none());
    }
    until("the files of the damaged one are gone", || !disks[rotten].exists(log)).await;
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_leader_that_cannot_be_given_up_yet_lets_a_sound_one_lead() {
    let (plans, disks) = three().await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    produce_all(&brokers, 0..20).await;
    let image = brokers[0].metadata.image();
    let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
    let preferred = partition.replica(partition.preferred).unwrap().broker;
    let at = |brokers: &[Broker], id: BrokerId| brokers.iter().position(|b| b.metadata.me() == id).unwrap();
    let rotten = at(&brokers, preferred);
    let (absent, sound) = ((rotten + 1) % 3, (rotten + 2) % 3);
    let (absent_id, sound_id) = (brokers[absent].metadata.me(), brokers[sound].metadata.me());
    let old = brokers[rotten].replica().unwrap();
    let (old_id, logs) = (old.id(), files_in(&plans[rotten], &dir_of(&plans[rotten], &old), ".log"));
    drop(old);

    // With one broker away, the damaged replica and one more are all that is in sync: neither may be given up.
    brokers.remove(at(&brokers, absent_id)).stop().await;
    until("two are in sync", || {
        let image = brokers[0].metadata.image();
        image.partition(TOPIC, PartitionIndex(0)).unwrap().isr.len() == 2
    })
    .await;
    brokers.remove(at(&brokers, preferred)).stop().await;
    let middle = disks[rotten].open(&logs[0], OpenOptions::default()).unwrap().len().unwrap() / 2;
    assert!(disks[rotten].flip_bit(&logs[0], middle, 3));
    brokers.push(start(&plans[rotten]).await);
    let back = at(&brokers, preferred);
    until("the preferred replica leads again", || brokers[back].leads()).await;
    read_until_damage(&brokers[back].replica().unwrap()).await;
    let sound_at = at(&brokers, sound_id);
    until("the sound one leads", || brokers[sound_at].leads()).await;
    assert_eq!(brokers[back].replica().unwrap().id(), old_id, "it may be the last but one copy");

    brokers.push(start(&plans[absent]).await);
    until("all are in sync and none is damaged", || {
        let image = brokers[sound_at].metadata.image();
        let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
        partition.replica(old_id).is_none() && partition.adding.is_none() && partition.isr.len() == 3
    })
    .await;
    for broker in &brokers {
        until("it has all", || {
            broker.replica().is_some_and(|replica| replica.high_watermark() == Offset(20))
        })
        .await;
        assert_eq!(values(&read_all(&broker.replica().unwrap()).await), expected(0..20));
    }
    for broker in brokers {
        broker.stop().await;
    }
}

/// What can be read before the damage; the read that meets it must say so.
async fn read_until_damage(replica: &Replica) -> Vec<wire::record::OwnedRecord> {
    let fetched = replica.fetch(everything()).await.unwrap();
    let decoded: Vec<_> = fetched
        .batches
        .iter()
        .flat_map(|batch| wire::record::decode_records(batch, 16 << 20).unwrap())
        .collect();
    let next = Offset(decoded.last().unwrap().offset.0 + 1);
    let error = replica.fetch(FetchArgs { offset: next, ..everything() }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StorageFault, "{error}");
    decoded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_of_a_partition_is_kept_whatever_is_wrong_with_it() {
    let (plans, disks) = three().await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 1, TopicConfig::default()).await;
    let lead: BrokerId = leader(&brokers).await.metadata.me();
    produce_all(&brokers, 0..20).await;
    let at = brokers.iter().position(|broker| broker.metadata.me() == lead).unwrap();
    let replica = brokers[at].replica().unwrap();
    let (group, id, dir) = (replica.group(), replica.id(), dir_of(&plans[at], &replica));
    drop(replica);
    brokers.remove(at).stop().await;
    let states = files_in(&plans[at], &dir, ".snap");
    assert!(!states.is_empty() && states.iter().all(|state| disks[at].flip_bit(state, 20, 1)));

    let back = start(&plans[at]).await;
    back.joined().await;
    until("it is told", || {
        back.partitions.failures().get(&group).is_some_and(|why| why.contains("only replica"))
    })
    .await;
    let image = back.metadata.image();
    let partition = image.partition(TOPIC, PartitionIndex(0)).unwrap();
    assert!(partition.adding.is_none() && partition.replicas[0].id == id);
    assert!(!files_in(&plans[at], &dir, ".log").is_empty());
    brokers.push(back);
    for broker in brokers {
        broker.stop().await;
    }
}
