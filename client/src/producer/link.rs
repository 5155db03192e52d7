//! One produce stream to one broker. It only moves messages; what they mean is the sender's business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::pb;

use super::lane::Attempt;
use crate::connection::{Connections, failure_of};

/// Requests of one stream that wait for their answer. Enough to keep a broker busy over a disk sync; what comes meanwhile
/// is joined into fewer, larger requests.
pub(crate) const LINK_WINDOW: usize = 8;

/// What happens on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// An answer; boxed because events are moved around.
    Answer(Box<pb::ProduceResponse>),
    /// The stream ended. `opened` is false if nothing can have been sent on it.
    Down { error: ApiError, opened: bool },
}

/// A batch inside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) lane: usize,
    pub(crate) attempt: Attempt,
}

/// The sender's end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) address: String,
    requests: mpsc::Sender<pb::ProduceRequest>,
    /// Not handed to the stream yet. Bounded: lanes take nothing new while it is not empty.
    outbox: VecDeque<(pb::ProduceRequest, Vec<Item>)>,
    in_flight: BTreeMap<u64, Vec<Item>>,
    /// Lanes to look at when there is room again.
    pub(crate) waiting: BTreeSet<usize>,
    task: AbortHandle,
}

impl Link {
    pub(crate) fn new(
        number: u64,
        address: String,
        requests: mpsc::Sender<pb::ProduceRequest>,
        task: AbortHandle,
    ) -> Self {
        Self {
            number,
            address,
            requests,
            outbox: VecDeque::new(),
            in_flight: BTreeMap::new(),
            waiting: BTreeSet::new(),
            task,
        }
    }

    /// True if lanes may add batches.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.is_empty() && self.in_flight.len() < LINK_WINDOW
    }

    pub(crate) fn push(&mut self, request: pb::ProduceRequest, items: Vec<Item>) {
        self.outbox.push_back((request, items));
        self.pump();
    }

    /// The batches that an answer is about; the next request goes out.
    pub(crate) fn answered(&mut self, correlation_id: u64) -> Option<Vec<Item>> {
        let items = self.in_flight.remove(&correlation_id);
        self.pump();
        items
    }

    /// Ends the stream: batches that may have been sent, and batches that certainly were not.
    pub(crate) fn close(self) -> (Vec<Item>, Vec<Item>) {
        self.task.abort();
        let sent = self.in_flight.into_values().flatten().collect();
        let kept = self.outbox.into_iter().flat_map(|(_, items)| items).collect();
        (sent, kept)
    }

    fn pump(&mut self) {
        while self.in_flight.len() < LINK_WINDOW
            && let Some((request, items)) = self.outbox.pop_front()
        {
            let correlation_id = request.correlation_id;
            match self.requests.try_send(request) {
                Ok(()) => {
                    self.in_flight.insert(correlation_id, items);
                }
                // Full cannot be: the channel holds a whole window. Closed: the end of the stream is about to be told.
                Err(
                    mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request),
                ) => {
                    self.outbox.push_front((request, items));
                    return;
                }
            }
        }
    }
}

/// Runs a stream until it ends; `events` takes what happens on it.
pub(crate) async fn run<E: Send + 'static>(
    connections: Arc<Connections>,
    address: String,
    requests: mpsc::Receiver<pb::ProduceRequest>,
    events: mpsc::Sender<E>,
    wrap: impl Fn(LinkEvent) -> E + Send,
) {
    let down = match connections.get(&address).await {
        Err(failure) => LinkEvent::Down { error: failure.error, opened: false },
        Ok(connection) => {
            let error = exchange(&connection, &address, requests, &events, &wrap).await;
            // Whatever ended the stream, the next one proves its connection first.
            connections.forget(&connection);
            LinkEvent::Down { error, opened: true }
        }
    };
    // Nobody listens when the producer is gone.
    let _ignored = events.send(wrap(down)).await;
}

async fn exchange<E>(
    connection: &crate::connection::Connection,
    address: &str,
    requests: mpsc::Receiver<pb::ProduceRequest>,
    events: &mpsc::Sender<E>,
    wrap: &impl Fn(LinkEvent) -> E,
) -> ApiError {
    let mut client = connection.broker();
    let mut answers = match client.produce_stream(ReceiverStream::new(requests)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return failure_of(&status, address).error,
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if events.send(wrap(LinkEvent::Answer(Box::new(answer)))).await.is_err() {
                    return ApiError::new(ErrorCode::ClientClosed, "the producer is closed");
                }
            }
            Ok(None) => {
                return ApiError::new(
                    ErrorCode::ConnectionLost,
                    format!("broker {address} ended the stream"),
                );
            }
            Err(status) => return failure_of(&status, address).error,
        }
    }
}
