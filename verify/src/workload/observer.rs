//! Asks where partitions begin and end, and who leads them.

use std::sync::Arc;

use client::{Client, ClientError, Consumer, ConsumerConfig, TopicPartition};
use tokio_util::sync::CancellationToken;
use wire::pb;

use super::reader::pause;
use super::spec::ObserverSpec;
use super::{Place, STOPPED, Worker};
use crate::history::{
    Answer, CallId, ListOffsets, ListOffsetsAnswer, Metadata, MetadataAnswer, OffsetKind, Op,
    PartitionLeader, TopicView,
};

pub(super) struct Observer {
    worker: Worker,
    spec: ObserverSpec,
}

impl Observer {
    pub(super) fn new(worker: Worker, spec: ObserverSpec) -> Self {
        Self { worker, spec }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let made = Client::start(self.worker.config.clone())
            .and_then(|client| Ok((client.consumer(ConsumerConfig::default())?, client)));
        let (consumer, client) = match made {
            Ok(made) => made,
            Err(error) => {
                return tracing::error!(worker = self.worker.number, %error, "no client");
            }
        };
        while !stop.is_cancelled() {
            let places = Arc::clone(&self.worker.places);
            let Some(place) = self.worker.choices.one_of(&places) else { return };
            match self.worker.choices.below(10) {
                0..5 => self.bound(&consumer, place, OffsetKind::End, &stop).await,
                5..7 => self.bound(&consumer, place, OffsetKind::Start, &stop).await,
                _ => self.metadata(&client, &stop).await,
            }
            pause(self.spec.pace, &stop).await;
        }
    }

    async fn bound(&self, consumer: &Consumer, place: &Place, what: OffsetKind, stop: &CancellationToken) {
        let at = [TopicPartition { topic: place.topic.to_string(), partition: place.part.into() }];
        // The SDK takes a read index for the end, and asks the leader alone for the start.
        let linearizable = what == OffsetKind::End;
        let (topic, part) = (Arc::clone(&place.topic), place.part);
        let op = Op::ListOffsets(ListOffsets { topic, part, what, linearizable });
        let call = self.worker.recorder.invoke(self.worker.number, op);
        let asked = async {
            let offsets = match what {
                OffsetKind::End => consumer.end_offsets(&at).await?,
                OffsetKind::Start => consumer.beginning_offsets(&at).await?,
            };
            Ok(offsets.into_values().next())
        };
        let answer = self.until(stop, call, asked).await;
        if let Some(off) = answer.flatten() {
            self.ok(call, Answer::ListOffsets(ListOffsetsAnswer { off }));
        }
    }

    /// Asks one broker, drawn at random, for its own view.
    async fn metadata(&mut self, client: &Client, stop: &CancellationToken) {
        let brokers = client.brokers();
        let broker = self.worker.choices.one_of(&brokers);
        let op = Op::Metadata(Metadata { broker: broker.map_or(0, |broker| broker.id) });
        let call = self.worker.recorder.invoke(self.worker.number, op);
        let mut topics: Vec<String> =
            self.worker.places.iter().map(|place| place.topic.to_string()).collect();
        topics.dedup();
        let asked = async {
            match broker {
                Some(broker) => {
                    client.pinned(&*broker.address).metadata(pb::GetMetadataRequest { topics }).await
                }
                None => client.admin().metadata(topics).await,
            }
        };
        if let Some(answer) = self.until(stop, call, asked).await {
            let topics = answer.topics.into_iter().filter(|topic| topic.error.is_none()).map(view).collect();
            self.ok(call, Answer::Metadata(MetadataAnswer { topics }));
        }
    }

    /// The answer, or `None` with the failure recorded.
    async fn until<T>(
        &self,
        stop: &CancellationToken,
        call: CallId,
        asked: impl Future<Output = Result<T, ClientError>>,
    ) -> Option<T> {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.worker.recorder.fail(call, STOPPED);
                return None;
            }
            answer = asked => answer,
        };
        answer.inspect_err(|error| self.worker.note_error(call, error)).ok()
    }

    fn ok(&self, call: CallId, answer: Answer) {
        self.worker.recorder.ok(call, answer);
        self.worker.progress.of(self.worker.number, |worker| worker.answers += 1);
    }
}

/// A topic as a broker told it. Partitions are placed by their number, up to the first that is missing.
fn view(topic: pb::TopicInfo) -> TopicView {
    let mut partitions = topic.partitions;
    partitions.sort_by_key(|partition| partition.partition);
    let dense = partitions.iter().zip(0_u32..).take_while(|(partition, index)| partition.partition == *index);
    let leader = |(partition, _): (&pb::PartitionInfo, u32)| PartitionLeader {
        leader: partition.leader,
        epoch: partition.leader_epoch,
    };
    TopicView { topic: topic.name.into(), id: topic.topic_id, parts: dense.map(leader).collect() }
}
