//! The end of a run: the whole content of every partition, from every replica.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use client::{Client, ClientConfig, ClientError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::pb;

use super::spec::TopicTarget;
use super::{Place, replica};
use crate::history::{Answer, FinalRead, Op, Recorder};

/// Between two looks at replicas that have not caught up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Replicas read at the same time: enough to keep three brokers busy, few enough to hold in memory.
const READS_MAX: usize = 3;

/// What is read at the end, and how long that may take.
#[derive(Debug, Clone)]
pub struct FinalReadSpec {
    /// How the cluster is reached.
    pub client: ClientConfig,
    /// The topics of the workload.
    pub topics: Vec<TopicTarget>,
    /// Worker that makes the calls in the history; one that the workload does not use.
    pub worker: u32,
    /// Time for all replicas to agree on their end with the leader, from the beginning of the read.
    pub catch_up: Duration,
    /// Time for one replica's content, failed attempts included.
    pub read: Duration,
}

impl FinalReadSpec {
    /// 30 s to catch up and 60 s a replica, read as the last possible worker.
    pub fn new(client: ClientConfig, topics: Vec<TopicTarget>) -> Self {
        Self {
            client,
            topics,
            worker: (1 << 24) - 2,
            catch_up: Duration::from_secs(30),
            read: Duration::from_secs(60),
        }
    }
}

/// A replica that did not catch up, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// The broker; `None` if the partition as a whole is in trouble, as without a leader.
    pub broker: Option<u32>,
    /// True if the cluster counted the broker as in sync, so that this is the cluster's fault and not an absence that it
    /// knows of.
    pub in_sync: bool,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)?;
        if let Some(broker) = self.broker {
            let sync = if self.in_sync { "in sync" } else { "not in sync" };
            write!(f, " on broker {broker} ({sync})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What came of a final read. The content stands in the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FinalReads {
    /// Replicas that were read.
    pub replicas: u32,
    /// Records in them, counted once for each replica.
    pub records: u64,
    /// Replicas that were not read, or not to the leader's end. Empty when all is well.
    pub troubles: Vec<Trouble>,
}

/// A partition and its replicas.
#[derive(Debug, Clone)]
struct Target {
    place: Place,
    leader: Option<u32>,
    /// Broker and whether it is in sync.
    replicas: Vec<(u32, bool)>,
}

/// What the cluster says about itself.
#[derive(Debug, Default)]
struct Layout {
    addresses: BTreeMap<u32, String>,
    targets: Vec<Target>,
    missing: Vec<Trouble>,
}

/// Waits until the replicas of every partition agree on their end with what the leader proves by a quorum, then reads
/// each replica, from its log start to its high watermark, from the broker that holds it. Replicas that lag or do not
/// answer within the bounds are named. One that lags although the cluster calls it in sync is read all the same; one that
/// the cluster knows to be behind is not, nor is a partition whose leader proves no end: what they have is not final.
///
/// Call it when faults are healed and the workload has ended: while records are written, ends never agree for long.
///
/// # Errors
/// If no broker tells who holds what within `catch_up`.
///
/// # Cancel safety
/// Dropping it leaves calls without an outcome in the history, which means unknown.
pub async fn final_read(spec: &FinalReadSpec, recorder: &Recorder) -> Result<FinalReads, ClientError> {
    let client = Client::start(spec.client.clone())?;
    let deadline = Instant::now() + spec.catch_up;
    let places = Place::all(&spec.topics);
    let (layout, Agreement { mut troubles, ends }) = loop {
        let (layout, agreement) = match layout(&client, spec, &places).await {
            Ok(layout) => {
                let agreement = agreement(&client, &layout).await;
                (Some(layout), agreement)
            }
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => (None, Agreement::default()),
        };
        match layout {
            Some(layout) if agreement.troubles.is_empty() || Instant::now() >= deadline => {
                break (layout, agreement);
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    let mut reads = FinalReads::default();
    let final_there = |(place, broker, in_sync): &(&Place, u32, bool)| {
        let of = |trouble: &&Trouble| *trouble.topic == *place.topic && trouble.partition == place.part;
        !troubles.iter().filter(of).any(|trouble| match trouble.broker {
            None => true,
            Some(behind) => behind == *broker && !in_sync,
        })
    };
    let replicas = layout.targets.iter().flat_map(|target| {
        target.replicas.iter().map(move |(broker, in_sync)| (&target.place, *broker, *in_sync))
    });
    let jobs: Vec<_> = replicas.filter(final_there).collect();
    let read = jobs.into_iter().map(|(place, broker, in_sync)| {
        let address = layout.addresses.get(&broker).cloned();
        let end = ends.get(place).copied().unwrap_or(0);
        read_one(&client, spec, recorder, Replica { place, broker, in_sync, address, end })
    });
    let mut read = futures::stream::iter(read).buffer_unordered(READS_MAX);
    while let Some(outcome) = read.next().await {
        match outcome {
            Ok(records) => {
                reads.replicas += 1;
                reads.records += records;
            }
            Err(trouble) => {
                // The more telling reason takes the place of the lag seen before.
                troubles.retain(|known| {
                    (&known.topic, known.partition, known.broker)
                        != (&trouble.topic, trouble.partition, trouble.broker)
                });
                troubles.push(trouble);
            }
        }
    }
    reads.troubles = troubles;
    Ok(reads)
}

async fn layout(client: &Client, spec: &FinalReadSpec, places: &[Place]) -> Result<Layout, ClientError> {
    let names = spec.topics.iter().map(|topic| topic.name.clone()).collect();
    let answer = client.admin().metadata(names).await?;
    let mut layout = Layout {
        addresses: answer.brokers.into_iter().map(|broker| (broker.id, broker.grpc_address)).collect(),
        ..Layout::default()
    };
    for place in places {
        let topic = answer.topics.iter().find(|topic| *topic.name == *place.topic && topic.error.is_none());
        let found =
            topic.and_then(|topic| topic.partitions.iter().find(|found| found.partition == place.part));
        match found {
            Some(found) => layout.targets.push(Target {
                place: place.clone(),
                leader: found.leader,
                replicas: found.replicas.iter().map(|id| (*id, found.isr.contains(id))).collect(),
            }),
            None => layout.missing.push(trouble(place, None, "the cluster does not know it")),
        }
    }
    Ok(layout)
}

/// What the replicas say of their ends.
#[derive(Debug, Default)]
struct Agreement {
    /// Replicas whose end is not the leader's.
    troubles: Vec<Trouble>,
    /// The ends that leaders proved.
    ends: BTreeMap<Place, u64>,
}

async fn agreement(client: &Client, layout: &Layout) -> Agreement {
    let mut looks: FuturesUnordered<_> = layout
        .targets
        .iter()
        .map(|target| async { (&target.place, lags_of(client, layout, target).await) })
        .collect();
    let mut agreed = Agreement { troubles: layout.missing.clone(), ends: BTreeMap::new() };
    while let Some((place, (end, found))) = looks.next().await {
        agreed.ends.extend(end.map(|end| (place.clone(), end)));
        agreed.troubles.extend(found);
    }
    agreed.troubles.sort_by(|a, b| (&a.topic, a.partition, a.broker).cmp(&(&b.topic, b.partition, b.broker)));
    agreed
}

/// The end that the leader proves, and the replicas that are elsewhere.
async fn lags_of(client: &Client, layout: &Layout, target: &Target) -> (Option<u64>, Vec<Trouble>) {
    const LATEST: pb::partition_offset_query::At = pb::partition_offset_query::At::Latest(true);
    let address = |broker: &u32| layout.addresses.get(broker).filter(|address| !address.is_empty());
    let place = &target.place;
    let Some(leader) = target.leader.as_ref().and_then(address) else {
        return (None, vec![trouble(place, None, "it has no leader")]);
    };
    let end = match replica::bound(&client.pinned(leader), place, LATEST, true).await {
        Ok(end) => end,
        Err(error) => {
            let what = format!("its leader does not prove its end: {error}");
            return (None, vec![trouble(place, None, &what)]);
        }
    };
    let mut troubles = Vec::new();
    for (broker, in_sync) in &target.replicas {
        let what = match address(broker) {
            None => "its address is not known".to_owned(),
            Some(address) => match replica::bound(&client.pinned(address), place, LATEST, false).await {
                Ok(own) if own == end => continue,
                Ok(own) => format!("its high watermark is {own}, the leader's is {end}"),
                Err(error) => error.to_string(),
            },
        };
        troubles.push(trouble(place, Some((*broker, *in_sync)), &what));
    }
    (Some(end), troubles)
}

/// One replica to read.
struct Replica<'a> {
    place: &'a Place,
    broker: u32,
    in_sync: bool,
    address: Option<String>,
    /// What its leader proved to be the end of the partition.
    end: u64,
}

/// Reads one replica into the history; the number of its records.
async fn read_one(
    client: &Client,
    spec: &FinalReadSpec,
    recorder: &Recorder,
    replica: Replica<'_>,
) -> Result<u64, Trouble> {
    let Replica { place, broker, in_sync, address, end } = replica;
    let in_trouble = |what: String| trouble(place, Some((broker, in_sync)), &what);
    let address = address.ok_or_else(|| in_trouble("its address is not known".to_owned()))?;
    let pinned = client.pinned(address);
    let deadline = Instant::now() + spec.read;
    loop {
        let op = FinalRead { topic: place.topic.clone(), part: place.part, replica: broker };
        let call = recorder.invoke(spec.worker, Op::FinalRead(op));
        let error = match tokio::time::timeout_at(deadline, replica::content(&pinned, place)).await {
            // It agreed a moment ago: a fresh replica has taken its place, say because this very read met damage. One
            // that stays behind is taken at its word in the end.
            Ok(Ok(content)) if content.hw < end && Instant::now() + LOOK_EVERY < deadline => {
                let what = format!("its high watermark fell back to {}, the leader's is {end}", content.hw);
                ApiError::new(ErrorCode::NotReady, what)
            }
            Ok(Ok(content)) => {
                let records = content.recs.len() as u64;
                recorder.ok(call, Answer::FinalRead(content));
                return Ok(records);
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                recorder.fail(call, "timeout");
                return Err(in_trouble(format!("reading it took longer than {:?}", spec.read)));
            }
        };
        recorder.fail(call, error.code.name());
        if !may_pass(&error) || Instant::now() + LOOK_EVERY >= deadline {
            return Err(in_trouble(error.to_string()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Errors that a second look may not meet: of connections, of replicas on the move, of a log start that moved.
fn may_pass(error: &ApiError) -> bool {
    error.code.retriable() || error.code == ErrorCode::OffsetOutOfRange
}

fn trouble(place: &Place, broker: Option<(u32, bool)>, what: &str) -> Trouble {
    Trouble {
        topic: place.topic.to_string(),
        partition: place.part,
        broker: broker.map(|(broker, _)| broker),
        in_sync: broker.is_none_or(|(_, in_sync)| in_sync),
        what: what.to_owned(),
    }
}
