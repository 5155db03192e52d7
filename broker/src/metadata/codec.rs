//! Bytes of the metadata group: entries, snapshots, keyed state and forwarded requests, each an envelope of its own kind.

use bytes::Bytes;
use raft_store::codec::{self, CodecError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::Command;

/// Version of every payload below; a new one gets a number of its own and is gated by the feature level.
pub(crate) const VERSION: u8 = 1;

/// Kind of an entry: a list of commands.
pub(crate) const COMMANDS: u8 = 1;
/// Kind of a snapshot.
pub(crate) const SNAPSHOT: u8 = 2;
/// Kind of a value of the keyed state.
pub(crate) const KEYED: u8 = 3;
/// Kind of a request between brokers.
pub(crate) const REQUEST: u8 = 4;
/// Kind of the answer to one.
pub(crate) const ANSWER: u8 = 5;
/// Kind of a part of a snapshot that holds consumer groups.
pub(crate) const GROUPS: u8 = 6;

/// Encodes a value as `kind`.
///
/// # Errors
/// [`CodecError::TooLong`] above 16 MiB.
pub(crate) fn encode<T: Serialize>(kind: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    codec::encode(kind, VERSION, value)
}

/// Decodes a value of `kind`.
///
/// # Errors
/// [`DecodeError`]; a version that this build does not know is not guessed at.
pub(crate) fn decode<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let envelope = codec::open(bytes, kind)?;
    if envelope.version != VERSION {
        return Err(DecodeError::Version { found: envelope.version });
    }
    Ok(envelope.decode()?)
}

/// Why bytes were not understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Damaged, or something else.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Written by a newer version of the software.
    #[error("version {found} is newer than this build knows ({VERSION})")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Well-formed, but its parts contradict each other.
    #[error("the parts contradict each other: {0}")]
    Contradiction(&'static str),
    /// The membership in it is damaged.
    #[error("the membership in it is damaged")]
    Membership(#[source] raft_store::entry::EntryError),
}

/// The body of an entry.
///
/// # Errors
/// As `encode`.
pub fn encode_commands(commands: &[Command]) -> Result<Bytes, CodecError> {
    encode(COMMANDS, &commands).map(Bytes::from)
}

/// Commands of an entry.
///
/// # Errors
/// As `decode`.
pub fn decode_commands(body: &[u8]) -> Result<Vec<Command>, DecodeError> {
    decode(COMMANDS, body)
}
