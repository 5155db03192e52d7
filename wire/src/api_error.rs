//! The one error that crosses borders: from the broker's core to every frontend, over the wire, into the SDK and onto the
//! terminal.

use std::fmt;

use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch};
use crate::record::RecordError;

/// An error as a user sees it: what, why, and what to do.
///
/// [`fmt::Display`] prints the shape that every Altair tool prints; the alternate form (`{:#}`) is one line, for logs:
///
/// ```
/// use wire::{api_error::ApiError, error_code::ErrorCode};
/// let error = ApiError::new(ErrorCode::NotEnoughBrokers, r#"topic "orders" needs 3 brokers for --rf 3, but 2 are eligible"#)
///     .reason("broker 3 is draining since 10:02 (altair-cli broker describe 3)")
///     .hint("--rf 1, or: altair-cli broker undrain 3");
/// assert_eq!(error.to_string(), "\
/// error[ALT-2107]: topic \"orders\" needs 3 brokers for --rf 3, but 2 are eligible
///   broker 3 is draining since 10:02 (altair-cli broker describe 3)
///   try: --rf 1, or: altair-cli broker undrain 3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The row of the table.
    pub code: ErrorCode,
    /// What happened, one sentence, no full stop.
    pub message: String,
    /// Why, if there is more to say; may be empty.
    pub reason: String,
    /// What to do next; empty = the row's [`ErrorCode::next_step`].
    pub hint: String,
    /// Wait at least this long before a retry; 0 = no advice.
    pub retry_after_ms: u32,
    /// Where to go instead, with [`ErrorCode::NotLeader`].
    pub leader: Option<LeaderHint>,
}

/// Where the leader of a partition is, as far as the answering broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub broker: BrokerId,
    /// Its gRPC address for clients, `host:port`.
    pub address: String,
    /// Its epoch.
    pub epoch: LeaderEpoch,
}

impl ApiError {
    /// An error with a message and the table's own next step.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            reason: String::new(),
            hint: String::new(),
            retry_after_ms: 0,
            leader: None,
        }
    }

    /// Says why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Advises when to retry.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = ms;
        self
    }

    /// Says where the leader is.
    #[must_use]
    pub fn leader(mut self, leader: LeaderHint) -> Self {
        self.leader = Some(leader);
        self
    }

    /// True if the same request may succeed later or elsewhere.
    #[must_use]
    pub fn retriable(&self) -> bool {
        self.code.retriable()
    }

    /// True if the request certainly had no effect.
    #[must_use]
    pub fn definite(&self) -> bool {
        self.code.definite()
    }

    /// What to do next: the error's own hint or the table's.
    #[must_use]
    pub fn next_step(&self) -> &str {
        if self.hint.is_empty() { self.code.next_step() } else { &self.hint }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{}: {}", self.code, self.message)?;
            return if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) };
        }
        write!(f, "error[{}]: {}", self.code, self.message)?;
        if !self.reason.is_empty() {
            write!(f, "\n  {}", self.reason)?;
        }
        write!(f, "\n  try: {}", self.next_step())
    }
}

impl std::error::Error for ApiError {}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        let code = match &error {
            RecordError::UnknownCompression(_) => ErrorCode::UnsupportedCompression,
            RecordError::UnsupportedAttributes(_) | RecordError::Empty => ErrorCode::InvalidRecord,
            RecordError::Magic(_) => ErrorCode::UnsupportedVersion,
            RecordError::TooLarge => ErrorCode::RecordTooLarge,
            RecordError::Deflate { .. } => ErrorCode::Internal,
            RecordError::Truncated { .. }
            | RecordError::Trailing { .. }
            | RecordError::Crc { .. }
            | RecordError::Count { .. }
            | RecordError::Malformed(_)
            | RecordError::Inflate { .. }
            | RecordError::InflatedTooLarge { .. } => ErrorCode::CorruptBatch,
        };
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Self::new(code, error.to_string()).reason(reason)
    }
}
