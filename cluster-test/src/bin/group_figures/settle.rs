//! One of 50 members over 500 partitions comes, and goes: how soon everybody has what it shall have, and whether those who keep
//! their partitions notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, GroupConfig, ProducerConfig, ProducerRecord, TopicPartition};
use cluster_test::harness::{Member, TestCluster, eventually};
use tokio::time::{Instant, MissedTickBehavior};
use wire::pb;

use super::{Bound, Figure};

const PARTITIONS: u32 = 500;
const MEMBERS: usize = 50;
/// Records a second and partition, so that a member with ten of them has a record every few milliseconds.
const RATE: u64 = 5;
/// From one record's partition to the next one's, so that neighbours, which are one member's, have theirs at different
/// times: in order, each member would have all of its records at once and a pause of 100 ms after them.
const STRIDE: u32 = 211;
/// Time for anything to come about.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure() -> Result<Vec<Figure>> {
    let cluster = TestCluster::start(3).await?;
    let client = cluster.client().await?;
    cluster.topic(&client, "orders", PARTITIONS, 1).await?;
    let mut members = Vec::new();
    for _ in 0..MEMBERS - 1 {
        members.push(join(&cluster).await?);
    }
    settled(&client, MEMBERS - 1).await?;
    let writer = Load::start(&client)?;
    eventually("records at every member", PATIENCE, || async {
        members.iter().all(|member| member.notes().read.len() > 50).then_some(())
    })
    .await?;

    let mut kept = keeping(&members);
    let joined = Instant::now();
    members.push(join(&cluster).await?);
    settled(&client, MEMBERS).await?;
    let join_time = joined.elapsed();
    let left = Instant::now();
    let last = members.pop().context("a member")?;
    // What it had has not stayed, even if it comes back to the same member.
    let moved = last.notes().assigned.clone();
    kept.iter_mut().for_each(|kept| kept.retain(|at| !moved.contains(at)));
    last.close().await?;
    settled(&client, MEMBERS - 1).await?;
    let leave_time = left.elapsed();
    // Some of what the change does comes a little behind it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let window = joined.elapsed();
    let pause = longest_wait(&members, &kept, &writer, joined);
    // What the machine does to them without any change: the measure of the pause before.
    let quiet = Instant::now();
    tokio::time::sleep(window).await;
    let pause_without = longest_wait(&members, &keeping(&members), &writer, quiet);
    writer.stop().await?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(vec![
        Figure {
            name: "one of 50 members over 500 partitions joins: settled after",
            measured: seconds(join_time),
            unit: "s",
            bound: Bound::AtMost(2.0),
        },
        Figure {
            name: "one of 50 members over 500 partitions leaves: settled after",
            measured: seconds(leave_time),
            unit: "s",
            bound: Bound::AtMost(2.0),
        },
        Figure {
            name: "longest wait of a record in a partition that its member kept meanwhile",
            measured: seconds(pause) * 1e3,
            unit: "ms",
            bound: Bound::AtMost(100.0),
        },
        Figure {
            name: "... in a like time without a change",
            measured: seconds(pause_without) * 1e3,
            unit: "ms",
            bound: Bound::None,
        },
    ])
}

async fn join(cluster: &TestCluster) -> Result<Member> {
    Member::start(cluster.brokers.bootstrap(), GroupConfig::new("billing"), "orders").await
}

/// Waits until the group has so many members and nothing is on its way.
async fn settled(client: &Client, members: usize) -> Result<()> {
    eventually("a settled group", PATIENCE, || async {
        let request = pb::DescribeGroupsRequest { group_ids: vec!["billing".into()], lag: false };
        let group = client.groups().describe_groups(request).await.ok()?.groups.pop()?.summary?;
        (group.members as usize == members && group.state == "stable" && group.partitions == PARTITIONS)
            .then_some(())
    })
    .await
}

/// What each member has.
fn keeping(members: &[Member]) -> Vec<Vec<TopicPartition>> {
    members.iter().map(|member| member.notes().assigned.iter().cloned().collect()).collect()
}

/// The longest time that a record of a partition which its member kept waited from its send to its arrival: who makes a
/// pause lets the first record in it wait as long.
fn longest_wait(members: &[Member], before: &[Vec<TopicPartition>], load: &Load, since: Instant) -> Duration {
    let (sent, now) = (load.sent(), Instant::now());
    let mut longest = Duration::ZERO;
    for (member, before) in members.iter().zip(before) {
        let notes = member.notes();
        let kept = before.iter().filter(|at| notes.assigned.contains(at)).map(|at| at.partition.0);
        let came: BTreeMap<(u32, u64), Instant> =
            notes.read.iter().map(|(partition, offset, at)| ((*partition, *offset), *at)).collect();
        for partition in kept {
            let all = sent.get(partition as usize).into_iter().flatten();
            for (offset, sent) in (0..).zip(all).filter(|(_, sent)| **sent >= since) {
                let came = came.get(&(partition, offset)).copied().unwrap_or(now);
                longest = longest.max(came.saturating_duration_since(*sent));
            }
        }
    }
    longest
}

/// A steady load over all partitions.
struct Load {
    /// When each record of each partition was sent, by its offset: nobody else writes.
    sent: Arc<Mutex<Vec<Vec<Instant>>>>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Load {
    fn start(client: &Client) -> Result<Self> {
        let producer = client.producer(ProducerConfig::default())?;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let sent = Arc::new(Mutex::new(vec![Vec::new(); PARTITIONS as usize]));
        let times = Arc::clone(&sent);
        #[expect(clippy::disallowed_methods, reason = "a task of this tool, joined by stop")]
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut next = 0;
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    _ = ticks.tick() => {}
                }
                for _ in 0..u64::from(PARTITIONS) * RATE / 100 {
                    next = (next + STRIDE) % PARTITIONS;
                    let record = ProducerRecord::new("orders", "x").partition(next);
                    if let Some(times) = lock(&times).get_mut(next as usize) {
                        times.push(Instant::now());
                    }
                    // What is not acked does not come, and shows as a pause.
                    drop(producer.send(record).await?);
                }
            }
            Ok(producer.close().await?)
        });
        Ok(Self { sent, stop, task })
    }

    fn sent(&self) -> MutexGuard<'_, Vec<Vec<Instant>>> {
        lock(&self.sent)
    }

    async fn stop(self) -> Result<()> {
        let _ = self.stop.send(());
        self.task.await?
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
