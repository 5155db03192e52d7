//! Fetch, long poll, and offsets by name or time. Reads stay below the high watermark (I5).

use std::time::Duration;

use bytes::Bytes;
use disk::mutant::{self, Mutant};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use partition_log::{LogError, LogReader, ReadOutcome};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::Offset;

use super::fetch::{FetchArgs, Fetched, ListedOffset, OffsetSpec};
use super::replica::Replica;

/// Advice to a consumer whose replica has not caught up yet.
const RETRY_AFTER_MS: u32 = 100;
/// Time for a quorum to prove that an offset is not stored.
const PROOF_WITHIN: Duration = Duration::from_secs(1);

impl Replica {
    /// Reads whole batches from `offset` on, waiting for `min_bytes` until the deadline.
    ///
    /// # Errors
    /// [`ErrorCode::OffsetOutOfRange`], [`ErrorCode::NotReady`], [`ErrorCode::NotLeader`], [`ErrorCode::StorageFault`].
    ///
    /// # Cancel safety
    /// Nothing is changed; drop it at any time.
    pub async fn fetch(&self, args: FetchArgs) -> Result<Fetched, ApiError> {
        loop {
            if args.leader_only && !self.core().is_leader() {
                return Err(self.core().not_leader(None));
            }
            let high_watermark = self.core().log.high_watermark().get();
            if args.offset > high_watermark {
                self.check_beyond(args.offset, high_watermark).await?;
                continue;
            }
            self.check_start(args.offset, high_watermark)?;
            let batches = self.read(args.offset, high_watermark, args.max_bytes).await?;
            let bytes: usize = batches.iter().map(Bytes::len).sum();
            let enough = bytes >= args.min_bytes.clamp(1, args.max_bytes.max(1));
            let woken = enough
                || self.core().log.high_watermark().wait_past(high_watermark, args.deadline).await.is_err();
            if woken {
                return Ok(Fetched {
                    batches,
                    high_watermark,
                    log_start: self.core().log.log_start(),
                    leader_epoch: self.core().epoch(),
                });
            }
        }
    }

    /// Finds an offset; [`OffsetSpec::Latest`] is proven by a quorum.
    ///
    /// # Errors
    /// As [`Replica::read_index`] for the latest offset, else [`ErrorCode::StorageFault`].
    pub async fn list_offset(&self, spec: OffsetSpec, deadline: Instant) -> Result<ListedOffset, ApiError> {
        let core = self.core();
        let found = |offset, timestamp_ms| ListedOffset { offset, timestamp_ms, leader_epoch: core.epoch() };
        match spec {
            OffsetSpec::Earliest => Ok(found(Some(core.log.log_start()), None)),
            OffsetSpec::Latest => Ok(found(Some(self.read_index(deadline).await?), None)),
            OffsetSpec::Timestamp(at_ms) => {
                let reader = core.log.reader();
                let upto = core.log.high_watermark().get();
                let hit = core.io.run(move || reader.offset_for_time(at_ms, upto)).await;
                let hit = hit.map_err(|error| self.storage_fault(&error))?;
                Ok(found(hit.map(|(offset, _)| offset), hit.map(|(_, time_ms)| time_ms)))
            }
        }
    }

    /// The high watermark, proven by a quorum to be no older than this call (I9).
    ///
    /// # Errors
    /// [`ErrorCode::NotLeader`], [`ErrorCode::NotReady`] without a quorum, [`ErrorCode::Timeout`].
    pub async fn read_index(&self, deadline: Instant) -> Result<Offset, ApiError> {
        let core = self.core();
        if mutant::on(Mutant::StaleLeaderReads) && core.is_leader() {
            return Ok(core.log.high_watermark().get());
        }
        let asked = timeout_at(deadline, core.group.get_read_linearizer(ReadPolicy::ReadIndex)).await;
        let linearizer = match asked.map_err(|_| no_quorum())? {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(core.not_leader(forward.leader_id));
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => return Err(no_quorum()),
            Err(RaftError::Fatal(_)) => return Err(core.stopped()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match linearizer.try_await_ready(&core.group, Some(left)).await {
            Ok(Ok(_)) => Ok(core.log.high_watermark().get()),
            Ok(Err(_)) => Err(no_quorum()),
            Err(_) => Err(core.stopped()),
        }
    }

    /// Waits until something beyond `offset` is readable; false at the deadline.
    pub async fn wait_past(&self, offset: Offset, deadline: Instant) -> bool {
        self.core().log.high_watermark().wait_past(offset, deadline).await.is_ok()
    }

    /// An offset beyond this replica's watermark is out of range only if a quorum proves that the replica leads. A leader
    /// that was cut off may have missed what another one has committed since, and any other replica may just not have
    /// heard of it yet (architecture 14.17). Returns if the watermark has reached the offset meanwhile.
    async fn check_beyond(&self, offset: Offset, high_watermark: Offset) -> Result<(), ApiError> {
        if mutant::on(Mutant::LaggingOutOfRange) {
            return Err(self.out_of_range(offset, high_watermark));
        }
        if self.core().is_leader() {
            let proven = self.read_index(Instant::now() + PROOF_WITHIN).await?;
            return if offset <= proven { Ok(()) } else { Err(self.out_of_range(offset, proven)) };
        }
        Err(ApiError::new(ErrorCode::NotReady, format!("{} has not caught up yet", self.name()))
            .reason(format!("this replica is at offset {high_watermark}, offset {offset} was asked for"))
            .retry_after_ms(RETRY_AFTER_MS))
    }

    fn check_start(&self, offset: Offset, high_watermark: Offset) -> Result<(), ApiError> {
        if offset < self.core().log.log_start() {
            return Err(self.out_of_range(offset, high_watermark));
        }
        Ok(())
    }

    fn out_of_range(&self, offset: Offset, high_watermark: Offset) -> ApiError {
        let log_start = self.core().log.log_start();
        ApiError::new(ErrorCode::OffsetOutOfRange, format!("offset {offset} is not stored"))
            .reason(format!("{} holds offsets {log_start} to {high_watermark}", self.name()))
    }

    async fn read(&self, from: Offset, upto: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ApiError> {
        if from >= upto {
            return Ok(Vec::new());
        }
        let reader = self.core().log.reader();
        match reader.read(from, upto, max_bytes, true) {
            Ok(ReadOutcome::Data(batches)) => return Ok(batches),
            Ok(ReadOutcome::WouldBlock) => {}
            Err(error) => return Err(self.read_error(&error)),
        }
        match self.core().io.run(move || read_blocking(&reader, from, upto, max_bytes)).await {
            Ok(batches) => Ok(batches),
            Err(error) => Err(self.read_error(&error)),
        }
    }

    fn read_error(&self, error: &LogError) -> ApiError {
        match error {
            // The log start moved between the check and the read.
            LogError::OffsetOutOfRange { .. } => {
                ApiError::new(ErrorCode::OffsetOutOfRange, error.to_string())
            }
            other => self.storage_fault(other),
        }
    }

    fn storage_fault(&self, error: &LogError) -> ApiError {
        tracing::error!(partition = %self.name(), error = %error, "stored records cannot be read");
        self.core().log.damage().note(error);
        ApiError::new(ErrorCode::StorageFault, format!("{} cannot be read on this broker", self.name()))
            .reason(error.to_string())
    }
}

fn read_blocking(
    reader: &Arc<LogReader>,
    from: Offset,
    upto: Offset,
    max_bytes: usize,
) -> Result<Vec<Bytes>, LogError> {
    match reader.read(from, upto, max_bytes, false)? {
        ReadOutcome::Data(batches) => Ok(batches),
        // A blocking read never says so; nothing is the honest answer if it did.
        ReadOutcome::WouldBlock => Ok(Vec::new()),
    }
}

fn no_quorum() -> ApiError {
    ApiError::new(ErrorCode::NotReady, "the leader could not prove in time that it still leads")
        .reason("a majority of the partition's replicas did not answer")
        .retry_after_ms(u32::try_from(Duration::from_millis(200).as_millis()).unwrap_or(200))
}
