//! A cluster without Raft: one world of partitions behind several gRPC servers, with faults to order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::{ByteStream, ClientConfig, Connect};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::api_error::{ApiError, LeaderHint};
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, LeaderEpoch, Offset, ProducerId};
use wire::pb;
use wire::record::{BatchHeader, decode_records, stamp, validate_batch};

use crate::fake_groups::{FakeGroups, SharedGroup};

/// What a broker does with one batch instead of the right thing.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The leadership moves to another broker; this one answers `NotLeader`, with or without a hint.
    Move { hint: bool },
    /// Writes the batch, then breaks the stream.
    DropAfterAppend,
    /// Breaks the stream without writing.
    DropBeforeAppend,
    /// Writes, and the leadership moves before the answer, which is lost.
    AppendMoveDrop,
    /// Writes, but says that the outcome is unknown.
    AppendThenUnknown,
    /// Writes nothing and says that the outcome is unknown.
    LoseThenUnknown,
    /// Refuses.
    Refuse(ErrorCode),
    /// Answers late.
    Delay(Duration),
    /// Never answers and writes nothing.
    Swallow,
    /// Forgets all producers first.
    Forget,
}

#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) leader: u32,
    pub(crate) epoch: u32,
    pub(crate) log_start: u64,
    pub(crate) batches: Vec<Bytes>,
    pub(crate) next: u64,
    producers: BTreeMap<u64, VecDeque<(u32, u32, u64)>>,
    pub(crate) faults: VecDeque<Fault>,
    /// Highest offset that a reader asked for.
    pub(crate) asked: u64,
    pub(crate) unknown_read: VecDeque<ErrorCode>,
}

impl Partition {
    /// Values of all records, in log order.
    pub(crate) fn values(&self) -> Vec<String> {
        let records = self.batches.iter().flat_map(|batch| decode_records(batch, 16 << 20).unwrap());
        records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
    }

    /// Appends as `apply` would: duplicates are recognised, gaps refused.
    pub(crate) fn append(&mut self, batch: &Bytes) -> Result<(u64, bool), ErrorCode> {
        let header = validate_batch(batch).map_err(|_| ErrorCode::CorruptBatch)?;
        if let Some(producer) = header.producer() {
            let known = self.producers.get(&producer.id.0);
            let (first, last) = (producer.first_sequence, producer.last_sequence);
            if let Some(found) =
                known.and_then(|known| known.iter().find(|seen| (seen.0, seen.1) == (first, last)))
            {
                return Ok((found.2, true));
            }
            match known.and_then(|known| known.back()) {
                None if first != 0 => return Err(ErrorCode::UnknownProducer),
                Some(seen) if first != seen.1 + 1 => return Err(ErrorCode::OutOfOrderSequence),
                _ => {}
            }
            let seen = self.producers.entry(producer.id.0).or_default();
            seen.push_back((first, last, self.next));
            if seen.len() > 5 {
                seen.pop_front();
            }
        }
        let base = self.next;
        let mut bytes = BytesMut::from(batch.as_ref());
        stamp(&mut bytes, Offset(base), LeaderEpoch(self.epoch));
        self.next += u64::from(header.record_count.unsigned_abs());
        self.batches.push(bytes.freeze());
        Ok((base, false))
    }

    /// Brokers forget a producer after long silence only: never while its first batch, or a repetition, is under way.
    fn is_first_or_known(&self, batch: &Bytes) -> bool {
        let stamp = validate_batch(batch).unwrap().producer();
        stamp.is_none_or(|stamp| {
            let known = self.producers.get(&stamp.id.0).is_some_and(|known| {
                known.iter().any(|seen| (seen.0, seen.1) == (stamp.first_sequence, stamp.last_sequence))
            });
            stamp.first_sequence == 0 || known
        })
    }

    pub(crate) fn move_leader(&mut self, brokers: u32) {
        self.leader = self.leader % brokers + 1;
        self.epoch += 1;
    }
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) brokers: u32,
    pub(crate) topics: BTreeMap<String, Vec<Partition>>,
    next_producer: u64,
    version: u64,
    pub(crate) produce_requests: u64,
    pub(crate) metadata_requests: u64,
}

pub(crate) type SharedWorld = Arc<Mutex<World>>;

/// The brokers and the network to them.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) world: SharedWorld,
    pub(crate) group: SharedGroup,
    network: Arc<Network>,
    _servers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Network {
    doors: Mutex<BTreeMap<String, mpsc::Sender<io::Result<DuplexStream>>>>,
    down: Mutex<BTreeSet<String>>,
    relays: Mutex<Relays>,
}

/// What carries the bytes, and which of it belongs to which address.
type Relays = (JoinSet<()>, BTreeMap<String, Vec<AbortHandle>>);

#[derive(Debug, Clone)]
struct FakeConnect(Arc<Network>);

impl Connect for FakeConnect {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn ByteStream>>> {
        let network = Arc::clone(&self.0);
        let address = address.to_owned();
        async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            if network.down.lock().unwrap().contains(&address) {
                return Err(refused());
            }
            let door = network.doors.lock().unwrap().get(&address).cloned().ok_or_else(refused)?;
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let (mut relay, server) = tokio::io::duplex(64 << 10);
            {
                let mut relays = network.relays.lock().unwrap();
                let handle = relays.0.spawn(async move {
                    let _ended = tokio::io::copy_bidirectional(&mut far, &mut relay).await;
                });
                relays.1.entry(address).or_default().push(handle);
            }
            door.send(Ok(server)).await.map_err(|_| refused())?;
            Ok(Box::new(near) as Box<dyn ByteStream>)
        }
        .boxed()
    }
}

impl Cluster {
    pub(crate) fn start(brokers: u32, topic: &str, partitions: u32) -> Self {
        let partitions = (0..partitions)
            .map(|index| Partition { leader: index % brokers + 1, epoch: 1, ..Partition::default() })
            .collect();
        let world: SharedWorld = Arc::new(Mutex::new(World {
            brokers,
            topics: BTreeMap::from([(topic.to_owned(), partitions)]),
            ..World::default()
        }));
        let group = SharedGroup::default();
        let network = Arc::new(Network::default());
        let mut servers = JoinSet::new();
        for id in 1..=brokers {
            let (door, incoming) = mpsc::channel(16);
            network.doors.lock().unwrap().insert(address(id), door);
            let service = pb::broker_server::BrokerServer::new(FakeBroker { id, world: Arc::clone(&world) })
                .max_decoding_message_size(16 << 20)
                .max_encoding_message_size(16 << 20);
            let groups = FakeGroups { id, group: Arc::clone(&group) };
            servers.spawn(async move {
                let _ended = tonic::transport::Server::builder()
                    .add_service(service)
                    .add_service(pb::groups_server::GroupsServer::new(groups))
                    .serve_with_incoming(ReceiverStream::new(incoming))
                    .await;
            });
        }
        Self { world, group, network, _servers: servers }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let brokers = self.world.lock().unwrap().brokers;
        ClientConfig {
            connect: Arc::new(FakeConnect(Arc::clone(&self.network))),
            random_seed: Some(1),
            ..ClientConfig::new((1..=brokers).map(address))
        }
    }

    pub(crate) fn fault(&self, topic: &str, partition: usize, fault: Fault) {
        self.with(topic, partition, |partition| partition.faults.push_back(fault));
    }

    pub(crate) fn with<T>(&self, topic: &str, partition: usize, f: impl FnOnce(&mut Partition) -> T) -> T {
        f(&mut self.world.lock().unwrap().topics.get_mut(topic).unwrap()[partition])
    }

    /// Cuts all connections to a broker and refuses new ones; its partitions move to the others.
    pub(crate) fn kill(&self, id: u32) {
        self.network.down.lock().unwrap().insert(address(id));
        let cut = self.network.relays.lock().unwrap().1.remove(&address(id));
        cut.into_iter().flatten().for_each(|relay| relay.abort());
    }

    pub(crate) fn revive(&self, id: u32) {
        self.network.down.lock().unwrap().remove(&address(id));
    }

    pub(crate) fn move_leaders_off(&self, id: u32) {
        let mut world = self.world.lock().unwrap();
        let brokers = world.brokers;
        for partition in world.topics.values_mut().flatten() {
            if partition.leader == id {
                partition.move_leader(brokers);
            }
        }
    }
}

fn address(id: u32) -> String {
    format!("broker{id}:7400")
}

#[derive(Debug, Clone)]
struct FakeBroker {
    id: u32,
    world: SharedWorld,
}

enum Answer {
    Result(Box<pb::ProduceResult>),
    Break,
    Silence,
}

impl FakeBroker {
    /// One partition of a produce request, and how long to wait before the answer.
    fn produce_one(&self, part: &pb::PartitionProduce, acks: i32) -> (Answer, Duration) {
        let mut world = self.world.lock().unwrap();
        let brokers = world.brokers;
        let refuse = |error: ApiError| {
            let mut result = self.result(part);
            result.error = Some(error.into());
            Answer::Result(Box::new(result))
        };
        let code = |code| ApiError::new(code, "as ordered");
        let index = part.partition.unwrap() as usize;
        let Some(partition) = world.topics.get_mut(&part.topic).and_then(|topic| topic.get_mut(index)) else {
            return (refuse(code(ErrorCode::UnknownTopic)), Duration::ZERO);
        };
        if partition.leader != self.id {
            return (refuse(not_leader(partition)), Duration::ZERO);
        }
        let mut delay = Duration::ZERO;
        let answer = match partition.faults.pop_front() {
            Some(Fault::Move { hint }) => {
                partition.move_leader(brokers);
                refuse(if hint { not_leader(partition) } else { code(ErrorCode::NotLeader) })
            }
            Some(Fault::DropBeforeAppend) => Answer::Break,
            Some(Fault::DropAfterAppend) => {
                let _written = partition.append(&part.batches);
                Answer::Break
            }
            Some(Fault::AppendMoveDrop) => {
                let _written = partition.append(&part.batches);
                partition.move_leader(brokers);
                Answer::Break
            }
            Some(Fault::AppendThenUnknown) => {
                let _written = partition.append(&part.batches);
                refuse(code(ErrorCode::OutcomeUnknown))
            }
            Some(Fault::LoseThenUnknown) => refuse(code(ErrorCode::OutcomeUnknown)),
            Some(Fault::Refuse(refused)) => refuse(code(refused).retry_after_ms(5)),
            Some(Fault::Swallow) => Answer::Silence,
            other => {
                match other {
                    Some(Fault::Delay(wait)) => delay = wait,
                    Some(Fault::Forget) if !partition.is_first_or_known(&part.batches) => {
                        partition.producers.clear();
                    }
                    _ => {}
                }
                match partition.append(&part.batches) {
                    Ok((base, duplicate)) => {
                        let all = acks == i32::from(pb::Acks::All);
                        Answer::Result(Box::new(pb::ProduceResult {
                            level: acks,
                            base_offset: all.then_some(base),
                            leader_epoch: partition.epoch,
                            provisional: !all,
                            duplicate,
                            ..self.result(part)
                        }))
                    }
                    Err(refused) => refuse(code(refused)),
                }
            }
        };
        (answer, delay)
    }

    fn result(&self, part: &pb::PartitionProduce) -> pb::ProduceResult {
        pb::ProduceResult {
            topic: part.topic.clone(),
            partition: part.partition.unwrap(),
            ..Default::default()
        }
    }

    /// Answers a request; `None` breaks the stream.
    async fn produce_all(&self, request: pb::ProduceRequest) -> Option<pb::ProduceResponse> {
        self.world.lock().unwrap().produce_requests += 1;
        let mut response =
            pb::ProduceResponse { correlation_id: request.correlation_id, results: Vec::new() };
        for part in &request.partitions {
            let (answer, delay) = self.produce_one(part, request.acks);
            tokio::time::sleep(delay).await;
            match answer {
                Answer::Result(result) => response.results.push(*result),
                Answer::Break => return None,
                Answer::Silence => std::future::pending().await,
            }
        }
        Some(response)
    }
}

fn not_leader(partition: &Partition) -> ApiError {
    ApiError::new(ErrorCode::NotLeader, "not here").leader(LeaderHint {
        broker: BrokerId(partition.leader),
        address: address(partition.leader),
        epoch: LeaderEpoch(partition.epoch),
    })
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::broker_server::Broker for FakeBroker {
    async fn produce(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        let answer = self.produce_all(request.into_inner()).await;
        answer.map(Response::new).ok_or_else(|| Status::unavailable("broken"))
    }

    type ProduceStreamStream = Answers<pb::ProduceResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let broker = self.clone();
        let answers = futures::stream::unfold(Some(request.into_inner()), move |requests| {
            let broker = broker.clone();
            async move {
                let mut requests = requests?;
                let request = requests.next().await?.ok()?;
                match broker.produce_all(request).await {
                    Some(answer) => Some((Ok(answer), Some(requests))),
                    None => Some((Err(Status::unavailable("broken")), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        let request = request.into_inner();
        let until = tokio::time::Instant::now() + Duration::from_millis(u64::from(request.max_wait_ms));
        loop {
            let answer: Vec<_> = request.partitions.iter().map(|wanted| self.fetch_one(wanted)).collect();
            let any = answer.iter().any(|part| part.error.is_some() || !part.batches.is_empty());
            if any || tokio::time::Instant::now() >= until {
                return Ok(Response::new(pb::FetchResponse { partitions: answer }));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    type FetchStreamStream = Answers<pb::FetchResponse>;

    async fn fetch_stream(
        &self,
        _request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_offsets(
        &self,
        request: Request<pb::ListOffsetsRequest>,
    ) -> Result<Response<pb::ListOffsetsResponse>, Status> {
        let world = self.world.lock().unwrap();
        let queries = request.into_inner().partitions;
        let answers = queries.into_iter().map(|query| {
            let partition = &world.topics[&query.topic][query.partition as usize];
            let mut answer =
                pb::PartitionOffset { topic: query.topic, partition: query.partition, ..Default::default() };
            if partition.leader == self.id {
                answer.offset = match query.at {
                    Some(pb::partition_offset_query::At::Earliest(_)) => partition.log_start,
                    _ => partition.next,
                };
            } else {
                answer.error = Some(not_leader(partition).into());
            }
            answer
        });
        Ok(Response::new(pb::ListOffsetsResponse { partitions: answers.collect() }))
    }

    async fn get_metadata(
        &self,
        request: Request<pb::GetMetadataRequest>,
    ) -> Result<Response<pb::GetMetadataResponse>, Status> {
        let mut world = self.world.lock().unwrap();
        world.metadata_requests += 1;
        world.version += 1;
        let asked = request.into_inner().topics;
        let names: Vec<String> =
            if asked.is_empty() { world.topics.keys().cloned().collect() } else { asked };
        let topics = names.into_iter().map(|name| {
            let mut info = pb::TopicInfo { name: name.clone(), topic_id: name.clone(), ..Default::default() };
            match world.topics.get(&name) {
                None => info.error = Some(ApiError::new(ErrorCode::UnknownTopic, "none").into()),
                Some(topic) => {
                    info.partitions = (0..)
                        .zip(topic)
                        .map(|(partition, state)| pb::PartitionInfo {
                            partition,
                            leader: Some(state.leader),
                            leader_epoch: state.epoch,
                            ..Default::default()
                        })
                        .collect();
                }
            }
            info
        });
        let topics = topics.collect();
        let broker = |id| pb::BrokerInfo { id, grpc_address: address(id), ..Default::default() };
        Ok(Response::new(pb::GetMetadataResponse {
            cluster_id: "fake".into(),
            version: world.version,
            brokers: (1..=world.brokers).map(broker).collect(),
            topics,
            ..Default::default()
        }))
    }

    async fn init_producer(
        &self,
        _request: Request<pb::InitProducerRequest>,
    ) -> Result<Response<pb::InitProducerResponse>, Status> {
        let mut world = self.world.lock().unwrap();
        world.next_producer += 1;
        let ProducerId(producer_id) = ProducerId(world.next_producer);
        Ok(Response::new(pb::InitProducerResponse { producer_id, epoch: 0 }))
    }
}

impl FakeBroker {
    fn fetch_one(&self, wanted: &pb::PartitionFetch) -> pb::PartitionFetched {
        let mut world = self.world.lock().unwrap();
        let mut answer = pb::PartitionFetched {
            topic: wanted.topic.clone(),
            partition: wanted.partition,
            ..Default::default()
        };
        let partition = &mut world.topics.get_mut(&wanted.topic).unwrap()[wanted.partition as usize];
        if partition.leader != self.id {
            answer.error = Some(not_leader(partition).into());
        } else if let Some(code) = partition.unknown_read.pop_front() {
            answer.error = Some(ApiError::new(code, "as ordered").into());
        } else if wanted.offset < partition.log_start || wanted.offset > partition.next {
            answer.error = Some(ApiError::new(ErrorCode::OffsetOutOfRange, "not there").into());
        } else {
            partition.asked = partition.asked.max(wanted.offset);
            answer.high_watermark = partition.next;
            let mut bytes = BytesMut::new();
            for batch in &partition.batches {
                // Served unchecked, as a broker serves what lies on its disk.
                let header = BatchHeader::parse(batch).unwrap();
                let fits = bytes.is_empty() || bytes.len() + batch.len() <= wanted.max_bytes as usize;
                if header.next_offset().0 > wanted.offset && fits {
                    bytes.extend_from_slice(batch);
                }
            }
            answer.batches = bytes.freeze();
        }
        answer
    }
}
