//! Bytes of openraft's types: our own fixed layouts, little endian, used in the WAL, in checkpoints and between brokers.
//!
//! openraft's serde forms change between its releases, so nothing of them is stored or sent.
//!
//! | type | layout |
//! |---|---|
//! | log id | term u64, index u64 |
//! | optional log id | present u8 (0 or 1), term u64, index u64 (both 0 if absent) |
//! | vote | term u64, node u64, committed u8 |
//! | membership | version u8 = 1, configs u16, nodes u32, then configs × (count u32, count × node u64), then nodes × (node u64, broker u32) |
//! | payload | kind u8 (0 blank, 1 normal, 2 membership), then the body: nothing, the entry's own bytes, or a membership |

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};

use crate::types::{BrokerRef, EntryData, LeaderId, LogId, LogPosition, Membership, Payload, Vote};

/// Kind byte of a blank payload.
pub const KIND_BLANK: u8 = 0;
/// Kind byte of a payload of the state machine.
pub const KIND_NORMAL: u8 = 1;
/// Kind byte of a membership change.
pub const KIND_MEMBERSHIP: u8 = 2;

/// Length in bytes of an encoded vote.
pub const VOTE_LEN: usize = 17;
/// Length in bytes of an encoded log id.
pub const LOG_ID_LEN: usize = 16;
/// Length in bytes of an encoded optional log id.
pub const OPTIONAL_LOG_ID_LEN: usize = 17;

const MEMBERSHIP_VERSION: u8 = 1;

/// Bytes that are none of the layouts of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The bytes end before the layout does.
    #[error("{what} ends early")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// Bytes are left after the end of the layout.
    #[error("{left} bytes after the end of {what}")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// Bytes left.
        left: usize,
    },
    /// A payload kind that this version does not know.
    #[error("unknown payload kind {0}")]
    UnknownKind(u8),
    /// A version that this build does not know.
    #[error("unknown version {version} of {what}")]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// Its version byte.
        version: u8,
    },
    /// A flag byte that is neither 0 nor 1, or a membership whose parts contradict each other.
    #[error("{what} contradicts itself")]
    Invalid {
        /// What was being read.
        what: &'static str,
    },
}

/// Kind and body of a payload. The body of a normal payload is the entry's own bytes, shared and not copied.
#[must_use]
pub fn encode_payload(payload: &Payload) -> (u8, Bytes) {
    match payload {
        Payload::Blank => (KIND_BLANK, Bytes::new()),
        Payload::Normal(data) => (KIND_NORMAL, data.body.clone()),
        Payload::Membership(membership) => {
            let mut body = Vec::new();
            encode_membership(membership, &mut body);
            (KIND_MEMBERSHIP, Bytes::from(body))
        }
    }
}

/// Digest of an entry: its kind, and the CRC-32C of the body that [`encode_payload`] gives it. Two entries at one
/// position must have the same.
#[must_use]
pub const fn digest(kind: u8, body_crc: u32) -> u32 {
    body_crc.rotate_left(8) ^ kind as u32
}

/// As [`digest`], of a payload that is not encoded yet.
#[must_use]
pub fn digest_of(payload: &Payload) -> u32 {
    let (kind, body) = encode_payload(payload);
    digest(kind, crc32c::crc32c(&body))
}

/// The payload of a kind and a body; a normal body is kept as it is.
///
/// # Errors
/// [`EntryError::UnknownKind`], or what is wrong with a blank or membership body.
pub fn decode_payload(kind: u8, body: Bytes) -> Result<Payload, EntryError> {
    match kind {
        KIND_BLANK if body.is_empty() => Ok(Payload::Blank),
        KIND_BLANK => Err(EntryError::Trailing { what: "blank payload", left: body.len() }),
        KIND_NORMAL => Ok(Payload::Normal(EntryData::new(body))),
        KIND_MEMBERSHIP => {
            let mut rest = &body[..];
            let membership = decode_membership(&mut rest)?;
            if rest.is_empty() {
                Ok(Payload::Membership(membership))
            } else {
                Err(EntryError::Trailing { what: "membership", left: rest.len() })
            }
        }
        other => Err(EntryError::UnknownKind(other)),
    }
}

/// Appends a membership.
///
/// # Panics
/// If a membership has more than 65,535 configs or 4 billion nodes: openraft makes two configs at most.
pub fn encode_membership(membership: &Membership, out: &mut impl BufMut) {
    let configs = membership.get_joint_config();
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u8(MEMBERSHIP_VERSION);
    out.put_u16_le(u16::try_from(configs.len()).unwrap_or_else(|_| unreachable_size("configs")));
    out.put_u32_le(u32::try_from(nodes.len()).unwrap_or_else(|_| unreachable_size("nodes")));
    for config in configs {
        out.put_u32_le(u32::try_from(config.len()).unwrap_or_else(|_| unreachable_size("voters")));
        for voter in config {
            out.put_u64_le(*voter);
        }
    }
    for (id, node) in nodes {
        out.put_u64_le(*id);
        out.put_u32_le(node.broker);
    }
}

/// A count that cannot occur: our own state is broken, and a stopped replica is better than a wrong one.
fn unreachable_size<T>(what: &str) -> T {
    panic!("a membership has too many {what} to be encoded")
}

/// Takes a membership off the front of `bytes`.
///
/// # Errors
/// [`EntryError`] if the bytes are no membership. Nothing is allocated for counts that the bytes cannot hold.
pub fn decode_membership(bytes: &mut &[u8]) -> Result<Membership, EntryError> {
    let what = "membership";
    let short = |_| EntryError::Short { what };
    let version = bytes.try_get_u8().map_err(short)?;
    if version != MEMBERSHIP_VERSION {
        return Err(EntryError::UnknownVersion { what, version });
    }
    let config_count = bytes.try_get_u16_le().map_err(short)?;
    let node_count = bytes.try_get_u32_le().map_err(short)?;
    let mut configs = Vec::new();
    for _ in 0..config_count {
        let voters = bytes.try_get_u32_le().map_err(short)?;
        let mut config = BTreeSet::new();
        for _ in 0..voters {
            if !config.insert(bytes.try_get_u64_le().map_err(short)?) {
                return Err(EntryError::Invalid { what });
            }
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..node_count {
        let id = bytes.try_get_u64_le().map_err(short)?;
        let broker = bytes.try_get_u32_le().map_err(short)?;
        if nodes.insert(id, BrokerRef { broker }).is_some() {
            return Err(EntryError::Invalid { what });
        }
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| EntryError::Invalid { what })
}

/// Appends a log id.
pub fn encode_log_id(log_id: &LogId, out: &mut impl BufMut) {
    let position = LogPosition::of(log_id);
    out.put_u64_le(position.term);
    out.put_u64_le(position.index);
}

/// Takes a log id off the front of `bytes`.
///
/// # Errors
/// [`EntryError::Short`].
pub fn decode_log_id(bytes: &mut &[u8]) -> Result<LogId, EntryError> {
    let short = |_| EntryError::Short { what: "log id" };
    let term = bytes.try_get_u64_le().map_err(short)?;
    let index = bytes.try_get_u64_le().map_err(short)?;
    Ok(LogPosition { term, index }.log_id())
}

/// Appends an optional log id.
pub fn encode_optional_log_id(log_id: Option<&LogId>, out: &mut impl BufMut) {
    let position = log_id.map(LogPosition::of);
    out.put_u8(u8::from(position.is_some()));
    let position = position.unwrap_or_default();
    out.put_u64_le(position.term);
    out.put_u64_le(position.index);
}

/// Takes an optional log id off the front of `bytes`.
///
/// # Errors
/// [`EntryError::Short`], or [`EntryError::Invalid`] for a presence byte that is neither 0 nor 1.
pub fn decode_optional_log_id(bytes: &mut &[u8]) -> Result<Option<LogId>, EntryError> {
    let what = "optional log id";
    let present = flag(bytes, what)?;
    let log_id = decode_log_id(bytes)?;
    match (present, LogPosition::of(&log_id) == LogPosition::default()) {
        (true, _) => Ok(Some(log_id)),
        (false, true) => Ok(None),
        (false, false) => Err(EntryError::Invalid { what }),
    }
}

/// Appends a vote.
pub fn encode_vote(vote: &Vote, out: &mut impl BufMut) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

/// Takes a vote off the front of `bytes`.
///
/// # Errors
/// [`EntryError::Short`], or [`EntryError::Invalid`] for a committed byte that is neither 0 nor 1.
pub fn decode_vote(bytes: &mut &[u8]) -> Result<Vote, EntryError> {
    let short = |_| EntryError::Short { what: "vote" };
    let term = bytes.try_get_u64_le().map_err(short)?;
    let voted_for = bytes.try_get_u64_le().map_err(short)?;
    let committed = flag(bytes, "vote")?;
    Ok(Vote { leader_id: LeaderId { term, voted_for }, committed })
}

fn flag(bytes: &mut &[u8], what: &'static str) -> Result<bool, EntryError> {
    match bytes.try_get_u8().map_err(|_| EntryError::Short { what })? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(EntryError::Invalid { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn membership() -> Membership {
        let nodes = BTreeMap::from([
            (11, BrokerRef { broker: 1 }),
            (12, BrokerRef { broker: 2 }),
            (13, BrokerRef { broker: 3 }),
        ]);
        Membership::new(vec![BTreeSet::from([11, 12]), BTreeSet::from([12, 13])], nodes).unwrap()
    }

    #[test]
    fn golden_bytes_of_a_membership() {
        let (kind, body) = encode_payload(&Payload::Membership(membership()));
        assert_eq!(kind, KIND_MEMBERSHIP);
        let golden: Vec<u8> = [
            &[1, 2, 0, 3, 0, 0, 0][..],
            &[2, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0],
            &[11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[12, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
            &[13, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
        ]
        .concat();
        assert_eq!(&body[..], &golden[..]);
        assert_eq!(decode_payload(kind, body), Ok(Payload::Membership(membership())));
    }

    #[test]
    fn golden_bytes_of_votes_and_log_ids() {
        let mut out = Vec::new();
        encode_vote(&Vote::new_committed(0x0102, 0x0304), &mut out);
        assert_eq!(out, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(out.len(), VOTE_LEN);
        out.clear();
        encode_log_id(&LogPosition { term: 5, index: 6 }.log_id(), &mut out);
        assert_eq!(out, [5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out.len(), LOG_ID_LEN);
        out.clear();
        encode_optional_log_id(None, &mut out);
        assert_eq!(out, [0; OPTIONAL_LOG_ID_LEN]);
    }

    #[test]
    fn a_normal_body_is_shared_and_not_copied() {
        let body = Bytes::from(vec![7; 100]);
        let (kind, encoded) = encode_payload(&Payload::Normal(EntryData::new(body.clone())));
        assert_eq!(encoded.as_ptr(), body.as_ptr());
        assert_eq!(decode_payload(kind, encoded), Ok(Payload::Normal(EntryData::new(body))));
    }

    #[test]
    fn counts_that_are_not_there_are_refused() {
        const BYTES: [u8; 11] = [1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(
            decode_payload(KIND_MEMBERSHIP, Bytes::from_static(&BYTES)),
            Err(EntryError::Short { what: "membership" })
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(kind: u8, bytes: Vec<u8>) {
            let _ = decode_payload(kind, Bytes::from(bytes.clone()));
            let _ = decode_vote(&mut &bytes[..]);
            let _ = decode_optional_log_id(&mut &bytes[..]);
            let _ = decode_membership(&mut &bytes[..]);
        }

        #[test]
        fn votes_round_trip(term: u64, node: u64, committed: bool) {
            let vote = Vote { leader_id: LeaderId { term, voted_for: node }, committed };
            let mut out = Vec::new();
            encode_vote(&vote, &mut out);
            prop_assert_eq!(decode_vote(&mut &out[..]), Ok(vote));
        }

        #[test]
        fn optional_log_ids_round_trip(id: Option<(u64, u64)>) {
            let id = id.map(|(term, index)| LogPosition { term, index }.log_id());
            let mut out = Vec::new();
            encode_optional_log_id(id.as_ref(), &mut out);
            prop_assert_eq!(decode_optional_log_id(&mut &out[..]), Ok(id));
        }
    }
}
