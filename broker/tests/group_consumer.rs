//! The SDK's members of consumer groups against one broker: sharing, what each guarantee loses or repeats, bad input.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "helpers of tests fail the test that uses them"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{
    AfterError, Client, ClientConfig, ClientError, ConsumedRecord, ConsumerConfig, GroupConfig,
    GroupConsumer, Guarantee, HandlerError, OffsetCommit, OffsetReset, Position, Problem, ProducerConfig,
    ProducerRecord, Rebalance, TopicPartition,
};
use support::{PATIENCE, TestBroker, start};
use tokio::time::Instant;
use wire::error_code::ErrorCode;
use wire::ids::PartitionIndex;
use wire::pb;

/// Long enough for a record that is there, short enough to wait for one that must not come.
const SOON: Duration = Duration::from_millis(300);

async fn client(broker: &TestBroker) -> Client {
    Client::connect(ClientConfig::new([broker.node.addresses().grpc.to_string()])).await.expect("connects")
}

/// Quick to commit and quick to be missed.
fn config(group: &str) -> GroupConfig {
    GroupConfig { session_timeout_ms: 2_000, auto_commit_interval_ms: 50, ..GroupConfig::new(group) }
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: PartitionIndex(partition) }
}

/// Writes `from..to` to every partition of "t".
async fn produce(client: &Client, partitions: u32, from: u64, to: u64) {
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for partition in 0..partitions {
        for value in from..to {
            let record = ProducerRecord::new("t", value.to_string()).partition(partition);
            // Its outcome is that of the flush.
            drop(producer.send(record).await.unwrap());
        }
    }
    producer.flush().await.unwrap();
    producer.close().await.unwrap();
}

async fn member(client: &Client, config: GroupConfig) -> GroupConsumer {
    let mut consumer = client.group_consumer(config).unwrap();
    consumer.subscribe(["t"]).unwrap();
    consumer
}

/// Polls until `count` records have come.
async fn read(consumer: &mut GroupConsumer, count: usize) -> Vec<ConsumedRecord> {
    let until = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while out.len() < count {
        assert!(Instant::now() < until, "{} of {count} records", out.len());
        out.extend(consumer.poll(SOON).await.unwrap());
    }
    out
}

async fn nothing_comes(consumer: &mut GroupConsumer) {
    assert_eq!(consumer.poll(SOON).await.unwrap(), []);
}

/// Polls several members until each has this many partitions; what comes meanwhile is returned.
async fn settle(members: &mut [&mut GroupConsumer], wanted: &[usize]) -> Vec<ConsumedRecord> {
    let until = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    loop {
        for member in members.iter_mut() {
            out.extend(member.poll(Duration::from_millis(20)).await.unwrap());
        }
        let counts: Vec<usize> = members.iter().map(|member| member.assignment().len()).collect();
        if counts == wanted {
            return out;
        }
        assert!(Instant::now() < until, "{counts:?} instead of {wanted:?}");
    }
}

fn offsets(records: &[ConsumedRecord], partition: u32) -> Vec<u64> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect()
}

async fn committed(client: &Client, group: &str) -> BTreeMap<u32, u64> {
    let request =
        pb::FetchOffsetsRequest { group_id: group.into(), linearizable: true, ..Default::default() };
    let found = client.groups().fetch_offsets(request).await.unwrap();
    found.partitions.into_iter().filter_map(|at| Some((at.partition, at.offset?))).collect()
}

async fn describe(client: &Client, group: &str) -> pb::GroupDescription {
    let request = pb::DescribeGroupsRequest { group_ids: vec![group.into()], lag: false };
    client.groups().describe_groups(request).await.unwrap().groups.remove(0)
}

/// Waits until a condition of the group holds.
async fn until_committed(client: &Client, group: &str, wanted: &[(u32, u64)]) {
    let wanted: BTreeMap<u32, u64> = wanted.iter().copied().collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let now = committed(client, group).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < until, "{now:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Notes every change.
fn listen(consumer: &mut GroupConsumer) -> Arc<Mutex<Vec<Rebalance>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    consumer.on_rebalance(move |change| {
        notes.lock().unwrap().push(change);
        std::future::ready(())
    });
    heard
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    result.expect_err("an error").code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_every_record_is_read_once() {
    let broker = start().await;
    broker.topic("t", 4).await;
    let client = client(&broker).await;
    produce(&client, 4, 0, 100).await;
    let mut one = client.group_consumer(config("g")).unwrap();
    let heard = listen(&mut one);
    one.subscribe(["t"]).unwrap();
    let mut records = read(&mut one, 400).await;
    assert_eq!(*heard.lock().unwrap(), [Rebalance::Assigned((0..4).map(at).collect())]);

    let mut two = member(&client, config("g")).await;
    records.extend(settle(&mut [&mut one, &mut two], &[2, 2]).await);
    let (kept, given) = (one.assignment(), two.assignment());
    assert_eq!(heard.lock().unwrap()[1..], [Rebalance::Revoked(given)], "it keeps the others without a word");
    assert_eq!(kept.len(), 2);
    produce(&client, 4, 100, 200).await;
    records.extend(read(&mut one, 200).await);
    records.extend(read(&mut two, 200).await);

    let left = Instant::now();
    two.close().await.unwrap();
    settle(&mut [&mut one], &[4]).await;
    assert!(left.elapsed() < Duration::from_millis(1_500), "a clean leave: {:?}", left.elapsed());
    produce(&client, 4, 200, 210).await;
    records.extend(read(&mut one, 40).await);
    nothing_comes(&mut one).await;
    for partition in 0..4 {
        assert_eq!(offsets(&records, partition), (0..210).collect::<Vec<_>>(), "once, in order");
    }
    one.close().await.unwrap();
    assert_eq!(committed(&client, "g").await, (0..4).map(|partition| (partition, 210)).collect());
    assert_eq!(describe(&client, "g").await.members, []);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_repeats_what_was_not_committed_and_loses_nothing() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let client = client(&broker).await;
    produce(&client, 1, 0, 30).await;
    let ten = ConsumerConfig { max_poll_records: 10, ..ConsumerConfig::default() };
    let mut one = member(&client, GroupConfig { consumer: ten.clone(), ..config("g") }).await;
    assert_eq!(offsets(&read(&mut one, 10).await, 0).last(), Some(&9));
    assert_eq!(offsets(&read(&mut one, 10).await, 0).last(), Some(&19));
    // The second ten are being processed; the first ten are done and are committed by themselves.
    until_committed(&client, "g", &[(0, 10)]).await;
    let died = Instant::now();
    drop(one);
    let mut two = member(&client, config("g")).await;
    let records = read(&mut two, 20).await;
    assert_eq!(offsets(&records, 0), (10..30).collect::<Vec<_>>());
    assert!(died.elapsed() > Duration::from_millis(500), "its session had to end: {:?}", died.elapsed());
    assert!(died.elapsed() < Duration::from_millis(2_000 + 1_500), "{:?}", died.elapsed());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_loses_what_was_taken_and_repeats_nothing() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let client = client(&broker).await;
    produce(&client, 1, 0, 30).await;
    let ten = ConsumerConfig { max_poll_records: 10, ..ConsumerConfig::default() };
    let most = GroupConfig { consumer: ten, guarantee: Guarantee::AtMostOnce, ..config("g") };
    let mut one = member(&client, most.clone()).await;
    assert_eq!(read(&mut one, 10).await.len(), 10);
    assert_eq!(committed(&client, "g").await, BTreeMap::from([(0, 10)]), "before it was processed");
    drop(one);
    let mut two = member(&client, most).await;
    assert_eq!(offsets(&read(&mut two, 10).await, 0), (10..20).collect::<Vec<_>>());
    two.close().await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manual_commits_are_the_applications_own_and_a_reset_fences_what_was_read_before() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let client = client(&broker).await;
    produce(&client, 2, 0, 20).await;
    let mut one = member(&client, GroupConfig { guarantee: Guarantee::Manual, ..config("g") }).await;
    read(&mut one, 40).await;
    nothing_comes(&mut one).await;
    assert_eq!(committed(&client, "g").await, BTreeMap::new(), "nobody asked for it");
    let commit = |partition, offset| OffsetCommit { at: at(partition), offset, metadata: "mine".into() };
    let committer = one.committer();
    committer.commit([commit(0, 5)]).await.unwrap();
    assert_eq!(code(committer.commit([commit(0, 4)]).await), ErrorCode::CommitGoesBack);
    assert_eq!(code(committer.commit([commit(0, 21)]).await), ErrorCode::StaleGeneration);
    assert_eq!(code(committer.commit([commit(7, 1)]).await), ErrorCode::NotOwner);
    assert_eq!(describe(&client, "g").await.partitions[0].metadata, "mine");
    one.commit().await.unwrap();
    assert_eq!(committed(&client, "g").await, BTreeMap::from([(0, 20), (1, 20)]));

    let heard = listen(&mut one);
    let to = Some(pb::reset_offsets_request::To::Offset(7));
    let scope = vec![pb::ResetScope { topic: "t".into(), partitions: vec![0] }];
    let reset = pb::ResetOffsetsRequest { group_id: "g".into(), scope, to, dry_run: false };
    client.groups().reset_offsets(reset).await.unwrap();
    let stale = committer.commit([commit(0, 20)]).await;
    assert_eq!(code(stale), ErrorCode::StaleGeneration, "the consumer has not heard of the reset yet");
    let again = read(&mut one, 13).await;
    assert_eq!(offsets(&again, 0), (7..20).collect::<Vec<_>>());
    assert_eq!(*heard.lock().unwrap(), [Rebalance::Assigned(vec![at(0)])]);
    // A commit whose receipt is dropped is made all the same.
    drop(one.commit());
    until_committed(&client, "g", &[(0, 20), (1, 20)]).await;
    one.close().await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_committed_offset_follows_the_policy() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let client = client(&broker).await;
    produce(&client, 1, 0, 10).await;
    let with = |group: &str, offset_reset| {
        let consumer = ConsumerConfig { offset_reset, ..ConsumerConfig::default() };
        GroupConfig { consumer, ..config(group) }
    };
    let mut latest = member(&client, with("latest", OffsetReset::Latest)).await;
    settle(&mut [&mut latest], &[1]).await;
    // The end at which it began is committed: a successor does not jump over what comes now.
    while committed(&client, "latest").await.is_empty() {
        nothing_comes(&mut latest).await;
    }
    drop(latest);
    produce(&client, 1, 10, 15).await;
    let mut successor = member(&client, with("latest", OffsetReset::Latest)).await;
    assert_eq!(offsets(&read(&mut successor, 5).await, 0), (10..15).collect::<Vec<_>>());

    let mut none = member(&client, with("none", OffsetReset::Error)).await;
    let error = none.poll(PATIENCE).await;
    assert_eq!(code(error), ErrorCode::NoCommittedOffset);
    nothing_comes(&mut none).await;
    none.seek("t", 0, Position::Offset(12)).unwrap();
    assert_eq!(offsets(&read(&mut none, 3).await, 0), [12, 13, 14]);
    assert_eq!(code(none.seek("t", 5, Position::Earliest)), ErrorCode::NotOwner);
    none.close().await.unwrap();
    assert_eq!(committed(&client, "none").await, BTreeMap::from([(0, 15)]));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_or_the_whole_group_can_be_paused() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let client = client(&broker).await;
    produce(&client, 2, 0, 20).await;
    let mut one = member(&client, config("g")).await;
    // One by one, so that there is something at hand when the pause comes.
    let first = one.next(PATIENCE).await.unwrap().unwrap();
    assert!(one.pause("t", first.partition) && !one.pause("t", 9));
    let other = 1 - first.partition;
    assert_eq!(offsets(&read(&mut one, 20).await, other), (0..20).collect::<Vec<_>>());
    nothing_comes(&mut one).await;
    assert_eq!(one.position("t", first.partition), Some(1));
    assert!(one.resume("t", first.partition));
    assert_eq!(offsets(&read(&mut one, 19).await, first.partition), (1..20).collect::<Vec<_>>());

    let pause = |paused| pb::PauseGroupRequest { group_id: "g".into(), paused };
    client.groups().pause_group(pause(true)).await.unwrap();
    nothing_comes(&mut one).await;
    produce(&client, 2, 20, 25).await;
    nothing_comes(&mut one).await;
    assert_eq!(one.assignment().len(), 2, "it keeps what it has");
    client.groups().pause_group(pause(false)).await.unwrap();
    let records = read(&mut one, 10).await;
    assert_eq!((offsets(&records, 0), offsets(&records, 1)), ((20..25).collect(), (20..25).collect()));
    one.close().await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_fails_is_tried_again_skipped_or_stopped() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let client = client(&broker).await;
    produce(&client, 1, 0, 10).await;
    let mut one = member(&client, config("g")).await;
    let seen = Mutex::new(Vec::new());
    // 2 fails twice, 4 always, 7 for good.
    let handler = |record: ConsumedRecord| {
        let mut seen = seen.lock().unwrap();
        seen.push(record.offset);
        let tries = seen.iter().filter(|offset| **offset == record.offset).count();
        std::future::ready(match record.offset {
            2 if tries < 3 => Err("soon"),
            4 => Err("never"),
            7 => Err("fatal"),
            _ => Ok(()),
        })
    };
    let on_error = |problem: Problem<'_, &str>| match problem {
        Problem::Record { error: &"soon", .. } => AfterError::Retry(Duration::from_millis(1)),
        Problem::Record { error: &"never", attempts: 1, .. } => AfterError::Retry(Duration::ZERO),
        Problem::Record { error: &"never", .. } => AfterError::Skip,
        Problem::Record { .. } | Problem::Consumer(_) => AfterError::Stop,
    };
    let ended = one.on_message(handler, on_error, std::future::pending()).await;
    assert!(matches!(ended, Err(HandlerError::Record("fatal"))), "{ended:?}");
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7]);
    one.close().await.unwrap();
    assert_eq!(committed(&client, "g").await, BTreeMap::from([(0, 7)]), "the record that failed is not done");

    // A handler that ends in the middle of its records leaves the rest to the next one.
    let mut two = member(&client, config("g")).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut stop = Some(stop);
    let handler = |record: ConsumedRecord| {
        if record.offset == 8 {
            let _ = stop.take().unwrap().send(());
        }
        std::future::ready(Ok::<(), ()>(()))
    };
    let until = async {
        let _ = stopped.await;
    };
    two.on_message(handler, |_| AfterError::Stop, until).await.unwrap();
    two.close().await.unwrap();
    assert_eq!(committed(&client, "g").await, BTreeMap::from([(0, 9)]));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_that_restarts_goes_on_without_a_rebalance() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let client = client(&broker).await;
    let named = |name: &str| GroupConfig {
        instance_id: Some(name.into()),
        session_timeout_ms: 10_000,
        ..config("g")
    };
    let mut one = member(&client, named("pod-1")).await;
    let mut two = member(&client, named("pod-2")).await;
    settle(&mut [&mut one, &mut two], &[1, 1]).await;
    let (had, generation) = (one.assignment(), describe(&client, "g").await.summary.unwrap().generation);
    one.close().await.unwrap();
    let mut again = member(&client, named("pod-1")).await;
    settle(&mut [&mut again, &mut two], &[1, 1]).await;
    assert_eq!(again.assignment(), had);
    assert_eq!(describe(&client, "g").await.summary.unwrap().generation, generation);
    again.leave().await.unwrap();
    settle(&mut [&mut two], &[2]).await;
    two.leave().await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_stuck_loses_its_partitions_and_hears_of_it() {
    let broker = start().await;
    broker.topic("t", 2).await;
    let client = client(&broker).await;
    produce(&client, 2, 0, 5).await;
    let mut stuck = member(
        &client,
        GroupConfig { max_poll_interval_ms: 1_000, guarantee: Guarantee::Manual, ..config("g") },
    )
    .await;
    let heard = listen(&mut stuck);
    read(&mut stuck, 10).await;
    let mut other = member(&client, config("g")).await;
    // It does not poll any more, although its session lives.
    let records = read(&mut other, 10).await;
    assert_eq!(records.len(), 10, "nothing of it was done");
    settle(&mut [&mut stuck, &mut other], &[1, 1]).await;
    let heard = heard.lock().unwrap().clone();
    let lost = heard.iter().position(|one| *one == Rebalance::Lost(vec![at(0), at(1)]));
    let since = lost.map(|lost| &heard[lost + 1..]).unwrap_or_default();
    assert!(matches!(since, [Rebalance::Assigned(_), ..]), "{heard:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_can_change_and_patterns_find_topics_that_come_later() {
    let broker = start().await;
    broker.topic("pay.eu", 1).await;
    let client = client(&broker).await;
    let mut one = client.group_consumer(config("g")).unwrap();
    one.subscribe(["pay.>"]).unwrap();
    settle(&mut [&mut one], &[1]).await;
    let member = one.member().unwrap().0;
    broker.topic("pay.us", 2).await;
    settle(&mut [&mut one], &[3]).await;
    one.subscribe(["pay.us", "later"]).unwrap();
    settle(&mut [&mut one], &[2]).await;
    assert_eq!(one.subscription(), ["later", "pay.us"]);
    assert_eq!(one.member().unwrap().0, member, "it stays the same member");
    one.close().await.unwrap();
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_named() {
    let broker = start().await;
    broker.topic("t", 1).await;
    let client = client(&broker).await;
    assert_eq!(code(client.group_consumer(GroupConfig::default())), ErrorCode::InvalidConfig);
    let mut one = client.group_consumer(config("g")).unwrap();
    assert_eq!(code(one.subscribe([""; 0])), ErrorCode::InvalidRequest);
    assert_eq!(code(one.subscribe(["a*"])), ErrorCode::InvalidTopicPattern);
    assert_eq!(code(one.subscribe(["no spaces"])), ErrorCode::InvalidTopicName);
    nothing_comes(&mut one).await;
    assert_eq!(one.member(), None);
    one.close().await.unwrap();
    let mut odd = member(&client, config(" g ")).await;
    assert_eq!(code(odd.poll(PATIENCE).await), ErrorCode::InvalidGroupId);
    assert_eq!(code(odd.poll(PATIENCE).await), ErrorCode::InvalidGroupId, "each poll tries again");
    odd.close().await.unwrap();
    broker.stop().await;
}
