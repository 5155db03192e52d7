//! Records handed to a function, one after the other.

use std::future::Future;
use std::time::Duration;

use super::rebalance::{is_of, place};
use super::{GroupConsumer, PATIENCE};
use crate::consumer::{ConsumedRecord, Position};
use crate::error::ClientError;

/// What went wrong in [`GroupConsumer::on_message`].
#[derive(Debug)]
pub enum Problem<'a, E> {
    /// The handler failed for a record.
    Record {
        /// The record.
        record: &'a ConsumedRecord,
        /// What the handler said.
        error: &'a E,
        /// How often it was tried.
        attempts: u32,
    },
    /// No record can be had: see [`GroupConsumer::poll`].
    Consumer(&'a ClientError),
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterError {
    /// Try again after this time. Other records wait; the partition may go to another member meanwhile.
    Retry(Duration),
    /// Go on with the next record. This one counts as done: it is lost if nobody else keeps it.
    Skip,
    /// End. The record does not count as done: whoever reads the partition next gets it again.
    Stop,
}

/// Why [`GroupConsumer::on_message`] ended.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError<E> {
    /// A record was not processed.
    #[error("a record was not processed")]
    Record(#[source] E),
    /// No record could be had.
    #[error(transparent)]
    Consumer(ClientError),
}

impl GroupConsumer {
    /// Calls `handler` with each record, one after the other, until `until` is ready; a record that is being processed then is
    /// finished first. `on_error` decides what happens after a failure.
    ///
    /// With [`Guarantee::AtLeastOnce`](crate::Guarantee::AtLeastOnce) a record counts as done when its handler succeeded or it was
    /// skipped. A record whose partition went to another member between two attempts is dropped: the other one has it.
    ///
    /// # Errors
    /// What `on_error` answered with [`AfterError::Stop`].
    pub async fn on_message<E, F>(
        &mut self,
        mut handler: impl FnMut(ConsumedRecord) -> F,
        mut on_error: impl FnMut(Problem<'_, E>) -> AfterError,
        until: impl Future<Output = ()>,
    ) -> Result<(), HandlerError<E>>
    where
        F: Future<Output = Result<(), E>>,
    {
        let mut until = std::pin::pin!(until);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut until => return Ok(()),
                next = self.next(PATIENCE) => next,
            };
            let record = match next {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => match on_error(Problem::Consumer(&error)) {
                    AfterError::Stop => return Err(HandlerError::Consumer(error)),
                    AfterError::Skip => continue,
                    AfterError::Retry(pause) => {
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                },
            };
            let mut attempts = 0;
            while let Err(error) = handler(record.clone()).await {
                attempts += 1;
                match on_error(Problem::Record { record: &record, error: &error, attempts }) {
                    AfterError::Skip => break,
                    AfterError::Stop => {
                        self.put_back(&record);
                        return Err(HandlerError::Record(error));
                    }
                    AfterError::Retry(pause) => {
                        let ended = tokio::select! {
                            biased;
                            () = &mut until => true,
                            () = tokio::time::sleep(pause) => false,
                        };
                        if ended {
                            self.put_back(&record);
                            return Ok(());
                        }
                        if !self.is_still_ours(&record).await {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Lets the group go on between two attempts.
    async fn is_still_ours(&mut self, record: &ConsumedRecord) -> bool {
        let at = place(&record.topic, record.partition);
        let since = self.parts.get(&at).map(|part| part.since);
        // The session lives while the handler tries.
        self.membership.set_busy(true);
        // What keeps it from being a member comes up again.
        let _ = self.tend().await;
        let part = self.parts.get(&at).filter(|part| !part.is_revoked);
        since.is_some() && part.map(|part| part.since) == since
    }

    /// A record that was returned is not done, and comes again.
    fn put_back(&mut self, record: &ConsumedRecord) {
        let at = place(&record.topic, record.partition);
        self.handed.remove(&at);
        self.ready.retain(|waiting| !is_of(waiting, &at));
        self.ledger.returned(&at, Some(record.offset));
        if self.parts.contains_key(&at) {
            // It is assigned.
            let _ = self.reader.seek(&at.topic, at.partition.0, Position::Offset(record.offset));
        }
    }
}
