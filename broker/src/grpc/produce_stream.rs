//! Produce as a stream: requests are handed over in the order sent and answered as they finish.
//!
//! One request is taken off the stream, handed to its replicas' queues (which is where the order is fixed), and only
//! then the next one. What is in progress is bounded in requests and bytes; at the bound nothing more is read, and
//! HTTP/2 flow control slows the client down.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use wire::pb;

use super::convert;
use crate::api::Api;

/// Requests of one stream in progress.
const REQUESTS_MAX: usize = 64;
/// Bytes of one stream in progress; one request more may be on top.
const BYTES_MAX: usize = 16 << 20;
/// Answers that the client has not read yet; behind them the stream stops reading.
const ANSWERS_MAX: usize = REQUESTS_MAX;
/// Time of a request that names none.
pub(super) const PRODUCE_WITHIN: Duration = Duration::from_secs(30);
/// The longest time a request may name.
const PRODUCE_WITHIN_MAX: Duration = Duration::from_secs(120);

/// How long a produce may take.
pub(super) fn within(timeout_ms: u32) -> Duration {
    match timeout_ms {
        0 => PRODUCE_WITHIN,
        ms => Duration::from_millis(u64::from(ms)).min(PRODUCE_WITHIN_MAX),
    }
}

/// One request's answer and the bytes it frees.
type Finished = (pb::ProduceResponse, usize);

/// Answers as the client reads them.
pub(super) type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<pb::ProduceResponse, Status>> + Send>>;

/// The pump of one stream and the answers that it fills.
pub(super) fn open(
    api: Api,
    requests: Streaming<pb::ProduceRequest>,
) -> (impl Future<Output = ()> + Send, Answers) {
    let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
    (pump(api, requests, sender), Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

async fn pump(
    api: Api,
    mut requests: Streaming<pb::ProduceRequest>,
    answers: mpsc::Sender<Result<pb::ProduceResponse, Status>>,
) {
    let mut in_progress: FuturesUnordered<BoxFuture<'static, Finished>> = FuturesUnordered::new();
    let mut bytes = 0_usize;
    let mut open = true;
    while open || !in_progress.is_empty() {
        let room = open && in_progress.len() < REQUESTS_MAX && bytes < BYTES_MAX;
        tokio::select! {
            biased;
            // The client has gone: what was handed over is written all the same.
            () = answers.closed() => return,
            // Nothing new is taken; what is in progress is answered, then the stream ends.
            () = api.stopping(), if open => open = false,
            Some((response, freed)) = in_progress.next() => {
                bytes = bytes.saturating_sub(freed);
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            request = requests.next(), if room => match request {
                Some(Ok(request)) => {
                    let size = request.encoded_len();
                    bytes = bytes.saturating_add(size);
                    in_progress.push(hand_over(&api, request, size));
                }
                Some(Err(status)) => {
                    // A broken stream: answers of what is in progress are still tried.
                    open = false;
                    if answers.send(Err(status)).await.is_err() {
                        return;
                    }
                }
                None => open = false,
            },
        }
    }
}

/// Hands a request to its replicas' queues before it returns; the rest is waiting.
fn hand_over(api: &Api, request: pb::ProduceRequest, size: usize) -> BoxFuture<'static, Finished> {
    let correlation_id = request.correlation_id;
    let api = api.clone();
    let mut produce = async move {
        let deadline = Instant::now() + within(request.timeout_ms);
        let names: Vec<_> = request
            .partitions
            .iter()
            .map(|item| (item.topic.clone(), item.partition.unwrap_or_default()))
            .collect();
        let results = match convert::produce_in(request, deadline) {
            Ok(request) => api.produce(request).await.into_iter().map(convert::produce_out).collect(),
            Err(error) => refused(names, &error),
        };
        (pb::ProduceResponse { correlation_id, results }, size)
    }
    .boxed();
    // The first poll runs as far as the queues: two requests polled in order are in order there.
    match (&mut produce).now_or_never() {
        Some(finished) => std::future::ready(finished).boxed(),
        None => produce,
    }
}

/// A request of wrong shape fails in each of its partitions, and the stream lives on.
fn refused(names: Vec<(String, u32)>, error: &wire::api_error::ApiError) -> Vec<pb::ProduceResult> {
    let names = if names.is_empty() { vec![(String::new(), 0)] } else { names };
    let result = |(topic, partition)| pb::ProduceResult {
        topic,
        partition,
        error: Some(error.clone().into()),
        ..Default::default()
    };
    names.into_iter().map(result).collect()
}
