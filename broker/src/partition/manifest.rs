//! What a replica's state is at one applied entry: the state file beside its segments, and the snapshot that a lagging
//! or new replica is built from. It names segments; it does not contain them.

use bytes::BufMut;
use partition_log::StateSnapshot;
use raft_store::entry::{
    EntryError, decode_membership, decode_optional_log_id, encode_membership, encode_optional_log_id,
};
use raft_store::{LogId, LogPosition, StoredMembership};

/// Format version that this build writes.
const VERSION: u8 = 1;

/// State of a replica after one entry.
///
/// | offset | size | field, little endian |
/// |---|---|---|
/// | 0 | 1 | version = 1 |
/// | 1 | 17 | log id of the last applied entry, optional |
/// | 18 | 17 | log id of the entry that set the membership, optional |
/// | 35 | 4 | length m of the membership |
/// | 39 | m | membership, as in a Raft entry |
/// | 39 + m | … | partition log state, in its own layout, to the end |
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The last applied entry.
    pub last: Option<LogId>,
    /// Members at that entry.
    pub membership: StoredMembership,
    /// Segments, offsets, producers and epochs at that entry.
    pub state: StateSnapshot,
}

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Written by a newer version.
    #[error("manifest has version {0}, this build reads {VERSION}")]
    Version(u8),
    /// It ends too early.
    #[error("manifest is too short")]
    Short,
    /// A Raft part does not decode.
    #[error("raft part of the manifest")]
    Raft(#[from] EntryError),
    /// The partition log's part does not decode.
    #[error("partition log part of the manifest: {0}")]
    Log(String),
}

impl Manifest {
    /// Position of the last applied entry.
    #[must_use]
    pub fn position(&self) -> Option<LogPosition> {
        self.last.as_ref().map(LogPosition::of)
    }

    /// Encodes the manifest.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut members = Vec::new();
        encode_membership(self.membership.membership(), &mut members);
        let mut out = Vec::with_capacity(64 + members.len());
        out.put_u8(VERSION);
        encode_optional_log_id(self.last.as_ref(), &mut out);
        encode_optional_log_id(self.membership.log_id().as_ref(), &mut out);
        out.put_u32_le(u32::try_from(members.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&members);
        out.extend_from_slice(&self.state.encode());
        out
    }

    /// Decodes a manifest.
    ///
    /// # Errors
    /// [`ManifestError`]; never allocates by a declared length that is not there.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (version, mut rest) = bytes.split_first().ok_or(ManifestError::Short)?;
        if *version != VERSION {
            return Err(ManifestError::Version(*version));
        }
        let last = decode_optional_log_id(&mut rest)?;
        let set_by = decode_optional_log_id(&mut rest)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(ManifestError::Short)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (mut members, state) = rest.split_at_checked(length).ok_or(ManifestError::Short)?;
        let membership = StoredMembership::new(set_by, decode_membership(&mut members)?);
        let state = StateSnapshot::decode(state).map_err(|error| ManifestError::Log(error.to_string()))?;
        Ok(Self { last, membership, state })
    }
}
