//! Where partitions stand by the word of their leaders: log start, high watermark, age of a record, offset at a time.

use std::collections::BTreeMap;

use futures::future::join_all;
use prost::Message;
use tokio::time::Instant;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{BrokerId, Offset, PartitionIndex, TopicIdPartition};
use wire::internal::{Bounds, BoundsQuery, BoundsRequest, BoundsResponse};
use wire::pb;
use wire::record::BatchHeader;

use super::assignment;
use crate::api::{Api, route};
use crate::metadata::image::MetadataImage;
use crate::partition::{FetchArgs, OffsetSpec, Replica};

/// What is asked of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) at: TopicIdPartition,
    /// Offset of the record whose age is wanted.
    pub(super) age_of: Option<Offset>,
    /// Time whose first record is wanted.
    pub(super) timestamp_ms: Option<i64>,
}

/// Partitions that one broker is asked about in one message.
const ASKED_AT_ONCE: usize = 2_000;

impl Api {
    /// Asks the leaders; one answer for each question, in their order.
    pub(super) async fn bounds(
        &self,
        image: &MetadataImage,
        queries: &[Query],
        linearizable: bool,
        deadline: Instant,
    ) -> Vec<Result<Bounds, ApiError>> {
        let mut answers: Vec<Result<Bounds, ApiError>> = Vec::with_capacity(queries.len());
        let mut by_leader: BTreeMap<BrokerId, Vec<(usize, BoundsQuery)>> = BTreeMap::new();
        for (place, query) in queries.iter().enumerate() {
            answers.push(Err(ApiError::new(ErrorCode::Unavailable, "the partition's leader did not answer")));
            match self.leader_and_question(image, query) {
                Ok((leader, question)) => by_leader.entry(leader).or_default().push((place, question)),
                Err(error) => answers[place] = Err(error),
            }
        }
        let asked = by_leader.iter().flat_map(|(leader, questions)| {
            questions.chunks(ASKED_AT_ONCE).map(move |part| async move {
                let partitions = part.iter().map(|(_, question)| question.clone()).collect();
                let request = BoundsRequest { partitions, linearizable };
                let answer = if *leader == self.0.me {
                    Ok(answer(self, request, deadline).await)
                } else {
                    self.ask_bounds(*leader, &request, deadline).await
                };
                (part, answer)
            })
        });
        for (part, answer) in join_all(asked).await {
            match answer {
                Ok(found) => {
                    for ((place, _), bounds) in part.iter().zip(found.partitions) {
                        answers[*place] = checked(bounds);
                    }
                }
                Err(error) => part.iter().for_each(|(place, _)| answers[*place] = Err(error.clone())),
            }
        }
        answers
    }

    fn leader_and_question(
        &self,
        image: &MetadataImage,
        query: &Query,
    ) -> Result<(BrokerId, BoundsQuery), ApiError> {
        let at = query.at;
        let topic = image.topic_by_id(at.topic).ok_or_else(|| route::unknown_topic("?"))?;
        let partition = route::partition(topic, at.partition)?;
        let leader = partition.leader_broker().ok_or_else(|| route::elsewhere(image, topic, partition))?;
        let question = BoundsQuery {
            topic: assignment::name(image, at.topic).unwrap_or_default(),
            partition: at.partition.0,
            age_of: query.age_of.map(|offset| offset.0),
            timestamp_ms: query.timestamp_ms,
        };
        Ok((leader, question))
    }
}

fn checked(bounds: Bounds) -> Result<Bounds, ApiError> {
    if bounds.error.is_empty() {
        return Ok(bounds);
    }
    let detail = pb::ErrorDetail::decode(bounds.error)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "another broker's answer cannot be read"))?;
    Err(detail.into())
}

/// Answers for the partitions that this broker leads.
pub(in crate::api) async fn answer(api: &Api, request: BoundsRequest, deadline: Instant) -> BoundsResponse {
    let image = api.parts().metadata.image();
    let answers = request.partitions.iter().map(|query| {
        let image = &image;
        async move {
            let bounds = bounds_here(api, image, query, request.linearizable, deadline).await;
            bounds.unwrap_or_else(|error| Bounds {
                error: pb::ErrorDetail::from(error).encode_to_vec().into(),
                ..Bounds::default()
            })
        }
    });
    BoundsResponse { partitions: join_all(answers).await }
}

async fn bounds_here(
    api: &Api,
    image: &MetadataImage,
    query: &BoundsQuery,
    linearizable: bool,
    deadline: Instant,
) -> Result<Bounds, ApiError> {
    let topic = route::topic(image, &query.topic)?;
    let replica = api.replica(image, topic, PartitionIndex(query.partition))?;
    if !replica.is_leader() {
        return Err(replica.not_leader());
    }
    let high_watermark =
        if linearizable { replica.read_index(deadline).await? } else { replica.high_watermark() };
    let age_ms = match query.age_of {
        Some(offset) => age(api, &replica, Offset(offset).max(replica.log_start()), high_watermark).await?,
        None => None,
    };
    let offset_at_time = match query.timestamp_ms {
        Some(ms) => replica.list_offset(OffsetSpec::Timestamp(ms), deadline).await?.offset,
        None => None,
    };
    Ok(Bounds {
        log_start_offset: replica.log_start().0,
        high_watermark: high_watermark.0,
        age_ms,
        offset_at_time: offset_at_time.map(|offset| offset.0),
        ..Bounds::default()
    })
}

/// Age of the batch that holds a record; `None` if there is no such record yet.
pub(super) async fn age(
    api: &Api,
    replica: &Replica,
    offset: Offset,
    high_watermark: Offset,
) -> Result<Option<u64>, ApiError> {
    if offset >= high_watermark {
        return Ok(None);
    }
    let args = FetchArgs { offset, max_bytes: 1, min_bytes: 0, deadline: Instant::now(), leader_only: false };
    let fetched = replica.fetch(args).await?;
    let Some(batch) = fetched.batches.first() else { return Ok(None) };
    let written_ms = BatchHeader::parse(batch)?.base_timestamp;
    let age = api.parts().seams.clock.now_ms().saturating_sub(written_ms);
    // A producer's clock may be ahead of this one.
    Ok(Some(u64::try_from(age).unwrap_or(0)))
}
