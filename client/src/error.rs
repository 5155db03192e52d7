//! What a caller can be told, and how certain it is.

use std::fmt;

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

/// A call of the client failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The call certainly had no effect.
    #[error("{0}")]
    Failed(ApiError),
    /// The call may or may not have had its effect: the answer was lost.
    #[error("{0}")]
    Unknown(ApiError),
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigProblems),
    /// The client, producer or consumer was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// The code that names this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Failed(error) | Self::Unknown(error) => error.code,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::Closed => ErrorCode::ClientClosed,
        }
    }

    /// True if the same call may succeed later.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Failed(error) | Self::Unknown(error) => error.code.retriable(),
            Self::Config(_) | Self::Closed => false,
        }
    }

    /// The error in the one form that people see.
    pub fn into_api(self) -> ApiError {
        match self {
            Self::Failed(error) | Self::Unknown(error) => error,
            Self::Config(problems) => ApiError::new(ErrorCode::InvalidConfig, problems.to_string()),
            Self::Closed => ApiError::new(ErrorCode::ClientClosed, "the client is closed"),
        }
    }
}

/// A record was not taken into the producer; it was certainly not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The buffer had no room within `max_block_ms`: the cluster takes records slower than they are sent.
    #[error("the producer's buffer was full for {waited_ms} ms")]
    BufferFull {
        /// How long the call waited. Unit: ms.
        waited_ms: u64,
    },
    /// The record alone exceeds what a request may hold.
    #[error("the record takes {bytes} bytes, the limit is {limit}")]
    RecordTooLarge {
        /// Size of the record as encoded, at most.
        bytes: usize,
        /// The limit (`max_request_bytes`, `buffer_bytes`).
        limit: usize,
    },
    /// The record cannot be placed: unknown topic or partition, no broker answered, or it cannot be encoded.
    #[error("{0}")]
    Refused(ApiError),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl SendError {
    /// The error in the one form that people see.
    pub fn into_api(self) -> ApiError {
        let message = self.to_string();
        match self {
            Self::BufferFull { .. } => ApiError::new(ErrorCode::BufferFull, message)
                .hint("raise buffer_bytes or max_block_ms, or send less"),
            Self::RecordTooLarge { .. } => ApiError::new(ErrorCode::RecordTooLarge, message),
            Self::Refused(error) => error,
            Self::Closed => ApiError::new(ErrorCode::ClientClosed, message),
        }
    }
}

/// An accepted record has no receipt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliveryError {
    /// The record was certainly not written and never will be; sending it again cannot duplicate it.
    #[error("{0}")]
    Failed(ApiError),
    /// The record may have been written, or may still be; sending it again may duplicate it.
    #[error("{0}")]
    Unknown(ApiError),
}

impl DeliveryError {
    /// The broker's or the client's error behind the outcome.
    pub fn api(&self) -> &ApiError {
        match self {
            Self::Failed(error) | Self::Unknown(error) => error,
        }
    }

    /// True if the record was certainly not written.
    pub fn definite(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, as written by the user or as documented.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything that is wrong with a configuration, not only the first thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A request without a usable answer, inside the client.
#[derive(Debug, Clone)]
pub(crate) struct CallFailure {
    pub(crate) error: ApiError,
    /// True if the request certainly had no effect.
    pub(crate) definite: bool,
}

impl CallFailure {
    pub(crate) fn definite(error: ApiError) -> Self {
        Self { error, definite: true }
    }

    pub(crate) fn unknown(error: ApiError) -> Self {
        Self { error, definite: false }
    }
}

impl From<CallFailure> for ClientError {
    fn from(failure: CallFailure) -> Self {
        if failure.definite { Self::Failed(failure.error) } else { Self::Unknown(failure.error) }
    }
}
