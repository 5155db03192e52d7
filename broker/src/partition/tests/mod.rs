//! Replicas with everything below them real: WAL, Raft, metadata, sockets. The disk is simulated, so that it can crash.

mod damaged;
mod harness;
mod lost_disk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::faulty::FaultyDisk;
use harness::{
    Broker, Plan, TOPIC, batch, expected, leader, plans, produce, produce_somewhere, read_all, soon, start,
    start_all, until, values,
};
use tokio::time::Instant;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, Offset};

use super::{Acks, FetchArgs, OffsetSpec, Room};
use crate::metadata::command::Command;
use crate::metadata::topic_config::TopicConfig;

async fn single(disk: &FaultyDisk) -> Broker {
    let plan = Plan {
        id: 1,
        seeds: Vec::new(),
        addr: "127.0.0.1:0".into(),
        disk: Arc::new(disk.clone()),
        root: PathBuf::from("/data"),
    };
    let broker = start(&plan).await;
    broker.joined().await;
    broker
}

async fn single_with_topic(disk: &FaultyDisk) -> Broker {
    let broker = single(disk).await;
    broker.create(1, 1, TopicConfig::default()).await;
    until("the partition has a leader", || broker.leads()).await;
    broker
}

fn at(offset: u64, deadline: Instant) -> FetchArgs {
    FetchArgs { offset: Offset(offset), max_bytes: 1 << 20, min_bytes: 1, deadline, leader_only: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_of_acks_gives_its_own_receipt() {
    let broker = single_with_topic(&FaultyDisk::quiet()).await;
    let replica = broker.replica().unwrap();
    let all = produce(&replica, batch(0, 3, None), Acks::All).await.unwrap();
    assert_eq!((all.base_offset, all.provisional, all.record_count), (Some(Offset(0)), false, 3));
    assert_eq!(all.on_disk, [BrokerId(1)]);
    let leader = produce(&replica, batch(3, 2, None), Acks::Leader).await.unwrap();
    assert_eq!((leader.base_offset, leader.provisional), (None, true));
    assert!(leader.raft_index > all.raft_index && leader.leader_epoch == all.leader_epoch);
    let none = produce(&replica, batch(5, 1, None), Acks::None).await.unwrap();
    assert_eq!((none.base_offset, none.raft_index, none.provisional), (None, None, true));
    let last = produce(&replica, batch(6, 1, None), Acks::All).await.unwrap();
    assert_eq!(last.base_offset, Some(Offset(6)));
    assert_eq!(values(&read_all(&replica).await), expected(0..7));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_answered_with_the_first_offset_and_a_gap_is_refused() {
    let broker = single_with_topic(&FaultyDisk::quiet()).await;
    let replica = broker.replica().unwrap();
    let first = produce(&replica, batch(0, 2, Some((7, 0))), Acks::All).await.unwrap();
    let second = produce(&replica, batch(2, 2, Some((7, 2))), Acks::All).await.unwrap();
    assert_eq!((first.base_offset, second.base_offset), (Some(Offset(0)), Some(Offset(2))));
    let again = produce(&replica, batch(0, 2, Some((7, 0))), Acks::All).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (Some(Offset(0)), true));
    let gap = produce(&replica, batch(9, 1, Some((7, 9))), Acks::All).await.unwrap_err();
    assert_eq!(gap.code, ErrorCode::OutOfOrderSequence);
    let stranger = produce(&replica, batch(9, 1, Some((8, 5))), Acks::All).await.unwrap_err();
    assert_eq!(stranger.code, ErrorCode::UnknownProducer);
    assert_eq!(values(&read_all(&replica).await), expected(0..4));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_waits_for_records_and_refuses_offsets_beyond_the_watermark() {
    let broker = single_with_topic(&FaultyDisk::quiet()).await;
    let replica = broker.replica().unwrap();
    let empty = replica.fetch(at(0, Instant::now() + Duration::from_millis(30))).await.unwrap();
    assert!(empty.batches.is_empty());
    let (fetched, _) =
        tokio::join!(replica.fetch(at(0, soon())), produce(&replica, batch(0, 1, None), Acks::All));
    assert_eq!(fetched.unwrap().batches.len(), 1);
    let beyond = replica.fetch(at(2, soon())).await.unwrap_err();
    assert_eq!(beyond.code, ErrorCode::OffsetOutOfRange);
    let latest = replica.list_offset(OffsetSpec::Latest, soon()).await.unwrap();
    assert_eq!(latest.offset, Some(Offset(1)));
    let by_time = replica.list_offset(OffsetSpec::Timestamp(500), soon()).await.unwrap();
    assert_eq!((by_time.offset, by_time.timestamp_ms), (Some(Offset(0)), Some(1_000)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_comes_back_with_exactly_what_it_had() {
    let disk = FaultyDisk::quiet();
    let broker = single_with_topic(&disk).await;
    let replica = broker.replica().unwrap();
    for n in 0..50u32 {
        produce(&replica, batch(u64::from(n) * 2, 2, Some((7, n * 2))), Acks::All).await.unwrap();
        if n == 25 {
            let before = replica.core().log.durable();
            until("a flush", || {
                replica
                    .core()
                    .log
                    .durable()
                    .is_some_and(|now| before.as_ref().is_none_or(|then| then.last != now.last))
            })
            .await;
        }
    }
    let before = read_all(&replica).await;
    drop(replica);
    broker.kill().await;
    let broker = single(&disk).await;
    until("the partition has a leader again", || broker.leads()).await;
    let replica = broker.replica().unwrap();
    until("all is applied again", || replica.high_watermark() == Offset(100)).await;
    assert_eq!(read_all(&replica).await, before);
    let again = produce(&replica, batch(98, 2, Some((7, 98))), Acks::All).await.unwrap();
    assert!(again.duplicate, "producer state came back too");
    assert_eq!(again.base_offset, Some(Offset(98)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    for seed in 0..4 {
        let disk = FaultyDisk::new(seed);
        let broker = single_with_topic(&disk).await;
        let replica = broker.replica().unwrap();
        for n in 0..40 {
            produce(&replica, batch(n, 1, None), Acks::All).await.unwrap();
        }
        drop(replica);
        broker.kill().await;
        disk.crash();
        let broker = single(&disk).await;
        until("the partition has a leader again", || {
            assert_eq!(broker.partitions.failures(), Default::default(), "seed {seed}");
            broker.leads()
        })
        .await;
        let replica = broker.replica().unwrap();
        until("all is applied again", || replica.high_watermark() >= Offset(40)).await;
        assert_eq!(values(&read_all(&replica).await), expected(0..40), "seed {seed}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_right_after_the_first_flush_finds_every_directory_again() {
    for seed in 0..8 {
        let disk = FaultyDisk::new(seed);
        let broker = single_with_topic(&disk).await;
        let replica = broker.replica().unwrap();
        produce(&replica, batch(0, 1, None), Acks::All).await.unwrap();
        drop(replica);
        broker.partitions.flush_now(false).await.unwrap();
        broker.kill().await;
        disk.crash();
        let broker = single(&disk).await;
        until("the partition has a leader again", || {
            assert_eq!(broker.partitions.failures(), Default::default(), "seed {seed}");
            broker.leads()
        })
        .await;
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_almost_full_refuses_produces_and_serves_reads() {
    let broker = single_with_topic(&FaultyDisk::quiet()).await;
    let replica = broker.replica().unwrap();
    produce(&replica, batch(0, 1, None), Acks::All).await.unwrap();
    broker.partitions.gate().set(Room::Refusing);
    let refused = produce(&replica, batch(1, 1, None), Acks::All).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFull);
    assert!(refused.retriable() && refused.definite());
    assert_eq!(replica.fetch(at(0, soon())).await.unwrap().batches.len(), 1);
    broker.partitions.gate().set(Room::Ample);
    produce(&replica, batch(1, 1, None), Acks::All).await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_topic_leaves_no_files() {
    let disk = FaultyDisk::quiet();
    let broker = single_with_topic(&disk).await;
    let replica = broker.replica().unwrap();
    let dir = replica.core().log.identity().dir.clone();
    produce(&replica, batch(0, 1, None), Acks::All).await.unwrap();
    broker
        .metadata
        .propose(Command::DeleteTopic { id: TOPIC, time_ms: 1 }, Duration::from_secs(5))
        .await
        .unwrap();
    until("produces are refused", || replica.core().deleted.load(std::sync::atomic::Ordering::Relaxed)).await;
    let refused = produce(&replica, batch(1, 1, None), Acks::All).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownTopic);
    assert!(disk::Disk::exists(&disk, &dir), "the data stays until it is purged");
    broker.metadata.propose(Command::PurgeTopic { id: TOPIC }, Duration::from_secs(5)).await.unwrap();
    until("the files are gone", || !disk::Disk::exists(&disk, &dir)).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_s_partition_goes_on_without_loss_or_duplicates() {
    let plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    for n in 0..20u32 {
        let all: Vec<&Broker> = brokers.iter().collect();
        let receipt = produce_somewhere(&all, batch(u64::from(n), 1, Some((7, n)))).await;
        assert!(receipt.on_disk.len() >= 2, "a majority had it: {:?}", receipt.on_disk);
    }
    let dead = brokers.iter().position(Broker::leads).unwrap();
    brokers.remove(dead).kill().await;
    let began = Instant::now();
    for n in 20..40u32 {
        let all: Vec<&Broker> = brokers.iter().collect();
        produce_somewhere(&all, batch(u64::from(n), 1, Some((7, n)))).await;
        if n == 20 {
            println!("writes went on after {:?}", began.elapsed());
        }
    }
    let back = start(&plans[dead]).await;
    back.joined().await;
    brokers.push(back);
    for broker in &brokers {
        until("every replica has everything", || {
            broker.replica().is_some_and(|replica| replica.high_watermark() == Offset(40))
        })
        .await;
        assert_eq!(values(&read_all(&broker.replica().unwrap()).await), expected(0..40));
    }
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_missed_purged_entries_pulls_segments() {
    let plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let mut brokers = start_all(&plans).await;
    let config = TopicConfig { segment_bytes: 64 << 10, ..TopicConfig::default() };
    brokers[0].create(1, 3, config).await;
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(0, 10, Some((7, 0)))).await;
    leader(&brokers).await;
    let away = brokers.iter().position(|broker| !broker.leads()).unwrap();
    brokers.remove(away).kill().await;
    for n in 1..60u32 {
        let all: Vec<&Broker> = brokers.iter().collect();
        produce_somewhere(&all, batch(u64::from(n) * 500 - 490, 500, Some((7, n * 500 - 490)))).await;
    }
    let total = 59 * 500 + 10;
    let led = leader(&brokers).await;
    led.partitions.flush_now(true).await.unwrap();
    let group = led.replica().unwrap().group();
    until("the entries are purged", || {
        led.groups.status(group).is_some_and(|status| status.purged > Some(10))
    })
    .await;
    let back = start(&plans[away]).await;
    back.joined().await;
    until("the replica has caught up", || {
        back.replica().is_some_and(|replica| replica.high_watermark() == Offset(total))
    })
    .await;
    assert_eq!(values(&read_all(&back.replica().unwrap()).await), expected(0..total));
    back.kill().await;
    let back = start(&plans[away]).await;
    until("what was pulled is there after a restart", || {
        back.replica().is_some_and(|replica| replica.high_watermark() == Offset(total))
    })
    .await;
    back.stop().await;
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_in_sync_refuse_before_the_append() {
    let plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let mut brokers = start_all(&plans).await;
    let config = TopicConfig { min_insync_replicas: 3, ..TopicConfig::default() };
    brokers[0].create(1, 3, config).await;
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(0, 1, Some((7, 0)))).await;
    leader(&brokers).await;
    let away = brokers.iter().position(|broker| !broker.leads()).unwrap();
    brokers.remove(away).kill().await;
    let led = leader(&brokers).await;
    let replica = led.replica().unwrap();
    until("the ISR shrinks", || replica.status().in_sync == 2).await;
    let refused = produce(&replica, batch(1, 1, Some((7, 1))), Acks::All).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotEnoughReplicas);
    assert!(refused.definite());
    until("the image shows it", || {
        led.metadata.image().group(replica.group()).is_some_and(|(_, partition)| partition.isr.len() == 2)
    })
    .await;
    drop(replica);
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_back_to_the_preferred_replica() {
    let plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(0, 1, Some((7, 0)))).await;
    let group = leader(&brokers).await.replica().unwrap().group();
    let image = brokers[0].metadata.image();
    let (_, partition) = image.group(group).unwrap();
    let preferred = partition.replica(partition.preferred).unwrap().broker;
    let away = brokers.iter().position(|broker| broker.metadata.me() == preferred).unwrap();
    until("the preferred replica leads", || brokers[away].leads()).await;
    brokers.remove(away).kill().await;
    leader(&brokers).await;
    let back = start(&plans[away]).await;
    back.joined().await;
    until("the preferred replica leads again", || back.leads()).await;
    brokers.push(back);
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(1, 1, Some((7, 1)))).await;
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_to_another_broker_and_its_old_files_go() {
    let plans = plans(|| Arc::new(FaultyDisk::quiet())).await;
    let brokers = start_all(&plans).await;
    brokers[0].create(1, 2, TopicConfig::default()).await;
    for n in 0..30u32 {
        produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(u64::from(n), 1, Some((7, n)))).await;
    }
    let group = leader(&brokers).await.replica().unwrap().group();
    let from = brokers.iter().find(|broker| broker.replica().is_some() && !broker.leads()).unwrap();
    let to = brokers.iter().find(|broker| broker.replica().is_none()).unwrap();
    let dir = from.replica().unwrap().core().log.identity().dir.clone();
    let (old, target) = (from.replica().unwrap().id(), to.metadata.me());
    let replace = Command::ReplaceReplica { group, old, to: target };
    brokers[0].metadata.propose(replace, Duration::from_secs(10)).await.unwrap();
    until("the new replica has everything", || {
        to.replica().is_some_and(|replica| replica.high_watermark() == Offset(30))
    })
    .await;
    assert_eq!(values(&read_all(&to.replica().unwrap()).await), expected(0..30));
    until("the replacement is complete", || {
        let image = to.metadata.image();
        let (_, partition) = image.group(group).unwrap();
        partition.adding.is_none() && partition.replica(old).is_none()
    })
    .await;
    let disk = &plans[usize::try_from(from.metadata.me().0).unwrap() - 1].disk;
    until("the old replica's files are gone", || from.replica().is_none() && !disk.exists(&dir)).await;
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(30, 1, Some((7, 30)))).await;
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_batches_at_once_share_entries_and_keep_their_order() {
    let broker = single_with_topic(&FaultyDisk::quiet()).await;
    let replica = broker.replica().unwrap();
    let first = produce(&replica, batch(0, 1, None), Acks::All).await.unwrap();
    let began = Instant::now();
    let all = (1..1001).map(|n| produce(&replica, batch(n, 1, None), Acks::All));
    let receipts = futures::future::join_all(all).await;
    println!("1000 batches in {:?}", began.elapsed());
    for (n, receipt) in (1u64..).zip(receipts) {
        assert_eq!(receipt.unwrap().base_offset, Some(Offset(n)));
    }
    let last = produce(&replica, batch(1001, 1, None), Acks::All).await.unwrap();
    let entries = last.raft_index.unwrap().0 - first.raft_index.unwrap().0;
    assert!(entries < 500, "{entries} entries for 1000 batches");
    assert_eq!(values(&read_all(&replica).await), expected(0..1002));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_that_lose_power_at_once_serve_all_that_was_acknowledged() {
    let disks = [FaultyDisk::new(11), FaultyDisk::new(12), FaultyDisk::new(13)];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let plans =
        plans(|| Arc::new(disks[next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)].clone())).await;
    let brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    for n in 0..50u32 {
        produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(u64::from(n), 1, Some((7, n)))).await;
    }
    for broker in brokers {
        broker.kill().await;
    }
    disks.iter().for_each(FaultyDisk::crash);
    let mut brokers = Vec::new();
    for plan in &plans {
        brokers.push(start(plan).await);
    }
    for broker in &brokers {
        until("every replica has everything", || {
            broker.replica().is_some_and(|replica| replica.high_watermark() == Offset(50))
        })
        .await;
        assert_eq!(values(&read_all(&broker.replica().unwrap()).await), expected(0..50));
    }
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(50, 1, Some((7, 50)))).await;
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_state_file_is_replaced_by_a_fresh_one() {
    let disks = [FaultyDisk::quiet(), FaultyDisk::quiet(), FaultyDisk::quiet()];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let plans =
        plans(|| Arc::new(disks[next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)].clone())).await;
    let mut brokers = start_all(&plans).await;
    brokers[0].create(1, 3, TopicConfig::default()).await;
    for n in 0..20u32 {
        produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(u64::from(n), 1, Some((7, n)))).await;
    }
    leader(&brokers).await;
    let away = brokers.iter().position(|broker| !broker.leads()).unwrap();
    let replica = brokers[away].replica().unwrap();
    until("its state is on disk", || replica.core().log.durable().is_some()).await;
    let (old, dir) = (replica.id(), replica.core().log.identity().dir.clone());
    drop(replica);
    brokers.remove(away).kill().await;
    for entry in disk::Disk::list(&disks[away], &dir).unwrap() {
        if entry.name.ends_with(".snap") {
            assert!(disks[away].flip_bit(&dir.join(&entry.name), 30, 1));
        }
    }
    let back = start(&plans[away]).await;
    back.joined().await;
    until("a fresh replica has everything", || {
        back.replica().is_some_and(|replica| replica.id() != old && replica.high_watermark() == Offset(20))
    })
    .await;
    assert_eq!(values(&read_all(&back.replica().unwrap()).await), expected(0..20));
    brokers.push(back);
    produce_somewhere(&brokers.iter().collect::<Vec<_>>(), batch(20, 1, Some((7, 20)))).await;
    for broker in brokers {
        broker.stop().await;
    }
}
