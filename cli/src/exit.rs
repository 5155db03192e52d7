//! How a command ends: the exit codes that scripts act on.

use std::io;

use client::ClientError;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

/// The command failed in a way that no other code names.
pub const ERROR: u8 = 1;
/// The command line, or a value in it, is not valid.
pub const USAGE: u8 = 2;
/// A topic, partition or broker that was named does not exist.
pub const NOT_FOUND: u8 = 3;
/// The state of the cluster does not allow it: it exists already, something else came first, a precondition fails.
pub const CONFLICT: u8 = 4;
/// The caller may not do this.
pub const DENIED: u8 = 5;
/// No broker, leader or quorum now: the same command may succeed later.
pub const UNAVAILABLE: u8 = 6;
/// Time ran out, or it is not known whether the command took effect.
pub const TIMEOUT: u8 = 7;
/// `cluster health` found the cluster unhealthy.
pub const UNHEALTHY: u8 = 10;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error to tell.
    Api(ApiError),
    /// Told already, as the command's own output; only the exit code is left.
    Told(u8),
    /// Nobody reads the output any more (`altair-cli … | head`): not an error.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Api(ApiError::new(code, message))
    }

    /// A value on the command line is wrong.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Api(ApiError::new(ErrorCode::InvalidRequest, message).hint(hint))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Api(error) => exit_code(error.code),
            Self::Told(code) => *code,
            Self::BrokenPipe => 0,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Api(error.into_api())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::new(ErrorCode::LocalIo, error.to_string())
    }
}

/// The exit code of an error.
#[must_use]
pub fn exit_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Timeout
        | ErrorCode::OutcomeUnknown
        | ErrorCode::ConnectionLost
        | ErrorCode::DeliveryExpired => TIMEOUT,
        ErrorCode::InvalidRequest | ErrorCode::NotSupported => USAGE,
        _ => match code.http_status() {
            400 => USAGE,
            401 | 403 => DENIED,
            404 => NOT_FOUND,
            409 => CONFLICT,
            421 | 429 | 503 | 507 => UNAVAILABLE,
            _ => ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_end_with_the_code_that_scripts_expect() {
        for (error, expected) in [
            (ErrorCode::UnknownTopic, NOT_FOUND),
            (ErrorCode::TopicExists, CONFLICT),
            (ErrorCode::NotEnoughBrokers, CONFLICT),
            (ErrorCode::InvalidTopicName, USAGE),
            (ErrorCode::NoQuorum, UNAVAILABLE),
            (ErrorCode::NoLeader, UNAVAILABLE),
            (ErrorCode::ConnectionFailed, UNAVAILABLE),
            (ErrorCode::Overloaded, UNAVAILABLE),
            (ErrorCode::StorageFull, UNAVAILABLE),
            (ErrorCode::OutcomeUnknown, TIMEOUT),
            (ErrorCode::Timeout, TIMEOUT),
            (ErrorCode::Internal, ERROR),
            (ErrorCode::CorruptBatch, ERROR),
        ] {
            assert_eq!(exit_code(error), expected, "{error}");
        }
    }

    #[test]
    fn a_closed_pipe_is_success() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }
}
