//! `altair.v1.Broker`: the data path.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use wire::ids::Offset;
use wire::limits::FETCH_WAIT_MS_MAX;
use wire::pb;
use wire::pb::broker_server::Broker;
use wire::record::split_batches;

use super::{convert, deadline::deadline, produce_stream};
use crate::api::{Api, FetchItem, FetchRequest, METADATA_DEADLINE};
use crate::runtime::Tasks;

/// Bound of an answer whose client named none.
const ANSWER_BYTES_DEFAULT: usize = 8 << 20;
/// Largest bound that a client may name: with one batch on top the answer stays below the message limit.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A stream without new records says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Time to answer a question about offsets.
const OFFSETS_WITHIN: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct BrokerService {
    api: Api,
    tasks: Tasks,
}

impl BrokerService {
    pub(super) fn new(api: Api, tasks: Tasks) -> Self {
        Self { api, tasks }
    }
}

/// Items of a streamed answer.
type Stored<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Broker for BrokerService {
    async fn produce(
        &self,
        request: Request<pb::ProduceRequest>,
    ) -> Result<Response<pb::ProduceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let deadline = deadline(&metadata, produce_stream::within(message.timeout_ms));
        let correlation_id = message.correlation_id;
        let outcomes = self.api.produce(convert::produce_in(message, deadline)?).await;
        let results = outcomes.into_iter().map(convert::produce_out).collect();
        Ok(Response::new(pb::ProduceResponse { correlation_id, results }))
    }

    type ProduceStreamStream = produce_stream::Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<pb::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (pump, answers) = produce_stream::open(self.api.clone(), request.into_inner());
        self.tasks.spawn("produce-stream", 0, pump);
        Ok(Response::new(answers))
    }

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let wait = Duration::from_millis(u64::from(message.max_wait_ms.min(FETCH_WAIT_MS_MAX)));
        let reader = Reader::new(self.api.clone(), message)?;
        Ok(Response::new(reader.read(deadline(&metadata, wait)).await))
    }

    type FetchStreamStream = Stored<pb::FetchResponse>;

    async fn fetch_stream(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let reader = Reader::new(self.api.clone(), request.into_inner())?;
        let answers = futures::stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            if reader.api.is_stopping() {
                return None;
            }
            let response = reader.read(Instant::now() + HEARTBEAT_EVERY).await;
            // An error ends the stream behind its answer: the client decides where to go on.
            let goes_on = reader.advance(&response);
            Some((Ok(response), goes_on.then_some(reader)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_offsets(
        &self,
        request: Request<pb::ListOffsetsRequest>,
    ) -> Result<Response<pb::ListOffsetsResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let queries = convert::offsets_in(message.partitions)?;
        let deadline = deadline(&metadata, OFFSETS_WITHIN);
        let offsets = self.api.list_offsets(queries, message.linearizable, deadline).await;
        let partitions = offsets.into_iter().map(convert::offset_out).collect();
        Ok(Response::new(pb::ListOffsetsResponse { partitions }))
    }

    async fn get_metadata(
        &self,
        request: Request<pb::GetMetadataRequest>,
    ) -> Result<Response<pb::GetMetadataResponse>, Status> {
        Ok(Response::new(self.api.metadata(&request.into_inner().topics)))
    }

    async fn init_producer(
        &self,
        request: Request<pb::InitProducerRequest>,
    ) -> Result<Response<pb::InitProducerResponse>, Status> {
        let deadline = deadline(request.metadata(), METADATA_DEADLINE);
        let id = self.api.init_producer(deadline).await?;
        Ok(Response::new(pb::InitProducerResponse { producer_id: id.0, epoch: 0 }))
    }
}

/// One client's place in the partitions that it reads.
struct Reader {
    api: Api,
    items: Vec<FetchItem>,
    min_bytes: usize,
    max_bytes: usize,
    plain: bool,
}

impl Reader {
    fn new(api: Api, request: pb::FetchRequest) -> Result<Self, Status> {
        let bytes = |asked: u32| usize::try_from(asked).unwrap_or(usize::MAX);
        let max_bytes = match request.max_bytes {
            0 => ANSWER_BYTES_DEFAULT,
            asked => bytes(asked).min(ANSWER_BYTES_MAX),
        };
        Ok(Self {
            api,
            items: convert::fetch_in(request.partitions)?,
            min_bytes: bytes(request.min_bytes).min(max_bytes),
            max_bytes,
            plain: request.plain,
        })
    }

    async fn read(&self, deadline: Instant) -> pb::FetchResponse {
        let request = FetchRequest {
            items: self.items.clone(),
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            deadline,
        };
        let fetched = self.api.fetch(&request).await;
        let mut budget = self.max_bytes;
        let partitions = fetched
            .into_iter()
            .zip(&self.items)
            .map(|(fetched, asked)| convert::fetched_out(fetched, asked.offset, self.plain, &mut budget))
            .collect();
        pb::FetchResponse { partitions }
    }

    /// Moves behind what was read; false if a partition failed.
    fn advance(&mut self, response: &pb::FetchResponse) -> bool {
        for (item, read) in self.items.iter_mut().zip(&response.partitions) {
            if read.error.is_some() {
                return false;
            }
            if let Some(last) = read.records.last() {
                item.offset = Offset(last.offset.saturating_add(1));
            }
            if let Some(Ok((header, _))) = split_batches(read.batches.clone()).last() {
                item.offset = header.next_offset();
            }
        }
        true
    }
}
