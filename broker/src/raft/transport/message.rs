//! Bodies of the frames that openraft's messages travel in. The encodings are ours: openraft's types never reach a
//! disk or a wire by their own serialisation.
//!
//! Integers are little endian.
//!
//! ```text
//! vote request      vote, last log id?, leadership transfer u8
//! vote reply        vote, last log id?, granted u8
//! append request    vote, prev log id?, leader commit log id?, count u32,
//!                   count × (term u64, index u64, kind u8, length u32, payload of that length)
//! append reply      0 u8 success | 1 u8, log id? partial | 2 u8 conflict | 3 u8, vote: higher vote
//! transfer request  vote of the leader, replica u64, last log id?
//! transfer reply    0 u8 accepted | 1 u8 refused
//! snapshot offer    vote, last log id?, log id? of the membership, membership, offer
//! snapshot reply    vote
//! error             code u8, UTF-8 text
//! ```
//!
//! In a request the id of the replica that it is meant for, u64, goes before all of this, and before a snapshot range's
//! own bytes: see [`super::frame::Kind::names_replica`].
//!
//! Votes, log ids (`?`: optional), payloads and memberships are encoded as in the WAL: see [`raft_store::entry`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{AppendEntriesResponse, StreamAppendError};
use raft_store::entry::{self, EntryError};

use raft_store::{Entry, LogId, StoredMembership, Vote};

pub(crate) use super::super::types::Payload;

use super::super::types::{GroupKind, SnapshotMeta, Types};

/// Why a body is not the message that its frame says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message is malformed: {0}")]
pub(crate) struct MessageError(pub(crate) &'static str);

type Result<T> = std::result::Result<T, MessageError>;

/// Bytes of an entry before its payload.
const ENTRY_HEADER_LEN: usize = 21;

/// A request for a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VoteAsk {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
    pub(crate) transfer: bool,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VoteTell {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
    pub(crate) granted: bool,
}

/// AppendEntries.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) prev: Option<LogId>,
    pub(crate) commit: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
}

/// The leader's wish that a replica takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) from: Vote,
    pub(crate) to: u64,
    pub(crate) last: Option<LogId>,
}

/// A snapshot that the leader offers.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offer: Bytes,
}

fn put_log_id_option(out: &mut BytesMut, id: Option<&LogId>) {
    entry::encode_optional_log_id(id, out);
}

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    entry::encode_vote(vote, out);
}

fn need(body: &Bytes, len: usize) -> Result<()> {
    if body.len() < len { Err(MessageError("cut off")) } else { Ok(()) }
}

/// Takes what `read` understands off the front of the body.
fn get<T>(
    body: &mut Bytes,
    read: impl FnOnce(&mut &[u8]) -> std::result::Result<T, EntryError>,
) -> Result<T> {
    let mut rest = &body[..];
    let value = read(&mut rest).map_err(|_| MessageError("a vote, log id or membership"))?;
    let used = body.len() - rest.len();
    body.advance(used);
    Ok(value)
}

fn get_flag(body: &mut Bytes) -> Result<bool> {
    need(body, 1)?;
    match body.get_u8() {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(MessageError("a flag is neither 0 nor 1")),
    }
}

fn get_log_id_option(body: &mut Bytes) -> Result<Option<LogId>> {
    get(body, entry::decode_optional_log_id)
}

fn get_vote(body: &mut Bytes) -> Result<Vote> {
    get(body, entry::decode_vote)
}

/// Takes the replica that a request is meant for off the front of its body.
pub(crate) fn take_addressee(body: &mut Bytes) -> Result<u64> {
    need(body, 8)?;
    Ok(body.get_u64_le())
}

fn get_piece(body: &mut Bytes, len: u32) -> Result<Bytes> {
    let len = usize::try_from(len).map_err(|_| MessageError("too long"))?;
    need(body, len)?;
    Ok(body.split_to(len))
}

fn finish<T>(body: &Bytes, message: T) -> Result<T> {
    if body.is_empty() { Ok(message) } else { Err(MessageError("bytes after the end")) }
}

impl VoteAsk {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(40);
        put_vote(&mut out, &self.vote);
        put_log_id_option(&mut out, self.last.as_ref());
        out.put_u8(u8::from(self.transfer));
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self> {
        let vote = get_vote(&mut body)?;
        let last = get_log_id_option(&mut body)?;
        let transfer = get_flag(&mut body)?;
        finish(&body, Self { vote, last, transfer })
    }
}

impl VoteTell {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(40);
        put_vote(&mut out, &self.vote);
        put_log_id_option(&mut out, self.last.as_ref());
        out.put_u8(u8::from(self.granted));
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self> {
        let vote = get_vote(&mut body)?;
        let last = get_log_id_option(&mut body)?;
        let granted = get_flag(&mut body)?;
        finish(&body, Self { vote, last, granted })
    }
}

impl Append {
    /// The last entry that the request leaves behind on a follower that accepts it.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.prev)
    }

    /// The body in pieces: one for the numbers up to each payload, and the payloads as they are.
    pub(crate) fn encode(&self) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(1 + 2 * self.entries.len());
        let mut out = BytesMut::with_capacity(64 + self.entries.len() * ENTRY_HEADER_LEN);
        put_vote(&mut out, &self.vote);
        put_log_id_option(&mut out, self.prev.as_ref());
        put_log_id_option(&mut out, self.commit.as_ref());
        out.put_u32_le(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        for item in &self.entries {
            let (kind, payload) = entry::encode_payload(&item.payload);
            entry::encode_log_id(&item.log_id, &mut out);
            out.put_u8(kind);
            out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
            pieces.push(out.split().freeze());
            pieces.push(payload);
        }
        if !out.is_empty() {
            pieces.push(out.freeze());
        }
        pieces
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self> {
        let whole = body.len();
        let vote = get_vote(&mut body)?;
        let prev = get_log_id_option(&mut body)?;
        let commit = get_log_id_option(&mut body)?;
        need(&body, 4)?;
        let count = usize::try_from(body.get_u32_le()).unwrap_or(usize::MAX);
        // The count must be there before it is believed.
        if count > body.len() / ENTRY_HEADER_LEN {
            return Err(MessageError("more entries are declared than can be there"));
        }
        let mut entries = Vec::with_capacity(count);
        let mut before = prev;
        for _ in 0..count {
            let item = get_entry(&mut body, whole)?;
            let follows = before.is_none_or(|b| b.index.checked_add(1) == Some(item.log_id.index));
            if !follows || before.is_some_and(|b| b.leader_id > item.log_id.leader_id) {
                return Err(MessageError("entries do not follow each other"));
            }
            before = Some(item.log_id);
            entries.push(item);
        }
        finish(&body, Self { vote, prev, commit, entries })
    }
}

/// Reads an entry. A payload that is only a small part of the body is copied, so that it does not keep a whole message
/// alive in the log's cache.
fn get_entry(body: &mut Bytes, whole: usize) -> Result<Entry> {
    let log_id = get(body, entry::decode_log_id)?;
    need(body, 5)?;
    let kind = body.get_u8();
    let len = body.get_u32_le();
    let slice = get_piece(body, len)?;
    let owned = if slice.len() < whole / 4 { Bytes::copy_from_slice(&slice) } else { slice };
    let payload = entry::decode_payload(kind, owned).map_err(|_| MessageError("an entry's payload"))?;
    Ok(Entry { log_id, payload })
}

/// Encodes the answer of a follower.
pub(crate) fn encode_append_reply(reply: &std::result::Result<(), AppendRefusal>) -> Bytes {
    let mut out = BytesMut::with_capacity(20);
    match reply {
        Ok(()) => out.put_u8(0),
        Err(AppendRefusal::Conflict) => out.put_u8(2),
        Err(AppendRefusal::HigherVote(vote)) => {
            out.put_u8(3);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

/// Why a follower did not append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendRefusal {
    /// The entry before does not match.
    Conflict,
    /// The follower saw a newer vote.
    HigherVote(Vote),
}

impl<K: GroupKind> From<StreamAppendError<Types<K>>> for AppendRefusal {
    fn from(error: StreamAppendError<Types<K>>) -> Self {
        match error {
            StreamAppendError::Conflict(_) => Self::Conflict,
            StreamAppendError::HigherVote(vote) => Self::HigherVote(vote),
        }
    }
}

/// Reads the answer of a follower.
pub(crate) fn decode_append_reply<K: GroupKind>(mut body: Bytes) -> Result<AppendEntriesResponse<Types<K>>> {
    need(&body, 1)?;
    let reply = match body.get_u8() {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(get_log_id_option(&mut body)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(get_vote(&mut body)?),
        _ => return Err(MessageError("an append reply of unknown kind")),
    };
    finish(&body, reply)
}

impl Transfer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        put_vote(&mut out, &self.from);
        out.put_u64_le(self.to);
        put_log_id_option(&mut out, self.last.as_ref());
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self> {
        let from = get_vote(&mut body)?;
        need(&body, 8)?;
        let to = body.get_u64_le();
        let last = get_log_id_option(&mut body)?;
        finish(&body, Self { from, to, last })
    }
}

impl Offer {
    pub(crate) fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::with_capacity(256);
        put_vote(&mut out, &self.vote);
        put_log_id_option(&mut out, self.meta.last_log_id.as_ref());
        put_log_id_option(&mut out, self.meta.last_membership.log_id().as_ref());
        entry::encode_membership(self.meta.last_membership.membership(), &mut out);
        vec![out.freeze(), self.offer.clone()]
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self> {
        let vote = get_vote(&mut body)?;
        let last_log_id = get_log_id_option(&mut body)?;
        let set_by = get_log_id_option(&mut body)?;
        let membership = get(&mut body, entry::decode_membership)?;
        let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::new(set_by, membership) };
        Ok(Self { vote, meta, offer: body })
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn decode_vote(mut body: Bytes) -> Result<Vote> {
    let vote = get_vote(&mut body)?;
    finish(&body, vote)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::EntryPayload;
    use proptest::prelude::*;
    use raft_store::{BrokerRef, EntryData, LogPosition, Membership};

    use super::*;

    fn at(term: u64, index: u64) -> LogId {
        LogPosition { term, index }.log_id()
    }

    fn joined(pieces: &[Bytes]) -> Bytes {
        Bytes::from(pieces.concat())
    }

    fn append() -> Append {
        let membership = Membership::from(BTreeMap::from([(8, BrokerRef { broker: 2 })]));
        let entries = vec![
            Entry { log_id: at(2, 5), payload: EntryPayload::Blank },
            Entry {
                log_id: at(3, 6),
                payload: EntryPayload::Normal(EntryData::new(Bytes::from_static(b"hi"))),
            },
            Entry { log_id: at(3, 7), payload: EntryPayload::Membership(membership) },
        ];
        Append { vote: Vote::new_committed(3, 8), prev: Some(at(2, 4)), commit: None, entries }
    }

    #[test]
    fn a_vote_request_has_these_bytes() {
        let ask = VoteAsk { vote: Vote::new(1, 2), last: Some(at(3, 4)), transfer: true };
        let golden = [
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(ask.encode(), golden);
        assert_eq!(VoteAsk::decode(Bytes::from(golden)), Ok(ask));
    }

    #[test]
    fn an_append_has_these_bytes_and_shares_the_payload() {
        let mut one = append();
        one.entries.truncate(2);
        let pieces = one.encode();
        let golden = [
            // vote, previous entry, no commit, two entries
            &[3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            &[0; 17],
            &[2, 0, 0, 0],
            // 2.5 blank
            &[2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            // 3.6 normal, two bytes
            &[3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, b'h', b'i'],
        ]
        .concat();
        assert_eq!(joined(&pieces), golden);
        let EntryPayload::Normal(data) = &one.entries[1].payload else { panic!("the second is normal") };
        assert!(pieces.iter().any(|piece| piece.as_ptr() == data.body.as_ptr()), "the payload was copied");
    }

    #[test]
    fn an_append_survives_the_wire() {
        let sent = append();
        let read = Append::decode(joined(&sent.encode())).unwrap();
        assert_eq!((read.vote, read.prev, read.commit), (sent.vote, sent.prev, sent.commit));
        assert_eq!(read.entries, sent.entries);
        assert_eq!(sent.last(), Some(at(3, 7)));
    }

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        let mut gap = append();
        gap.entries.remove(1);
        assert!(Append::decode(joined(&gap.encode())).is_err());
        let mut backwards = append();
        backwards.entries[2].log_id = at(1, 7);
        assert!(Append::decode(joined(&backwards.encode())).is_err());
    }

    #[test]
    fn a_count_that_cannot_be_there_allocates_nothing() {
        let mut lying = append();
        lying.entries.clear();
        let mut bytes = joined(&lying.encode()).to_vec();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = Append::decode(Bytes::from(bytes)).unwrap_err();
        assert_eq!(refused, MessageError("more entries are declared than can be there"));
    }

    #[test]
    fn transfers_offers_and_replies_survive_the_wire() {
        let transfer = Transfer { from: Vote::new_committed(3, 8), to: 9, last: None };
        assert_eq!(Transfer::decode(transfer.encode()), Ok(transfer));
        let last_membership = StoredMembership::new(Some(at(1, 1)), Membership::default());
        let meta = SnapshotMeta { last_log_id: Some(at(2, 2)), last_membership };
        let offer = Offer { vote: Vote::new(1, 1), meta, offer: Bytes::from_static(b"manifest") };
        let read = Offer::decode(joined(&offer.encode())).unwrap();
        assert_eq!((read.vote, read.meta, read.offer), (offer.vote, offer.meta, offer.offer));
        let higher = encode_append_reply(&Err(AppendRefusal::HigherVote(Vote::new(4, 2))));
        assert_eq!(&higher[..], [3, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&encode_append_reply(&Ok(()))[..], [0]);
        assert_eq!(&encode_append_reply(&Err(AppendRefusal::Conflict))[..], [2]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Append::decode(bytes.clone());
            let _ = VoteAsk::decode(bytes.clone());
            let _ = VoteTell::decode(bytes.clone());
            let _ = Transfer::decode(bytes.clone());
            let _ = Offer::decode(bytes.clone());
            let _ = decode_vote(bytes);
        }

        #[test]
        fn a_damaged_append_never_panics(at in 0_usize..200, byte: u8) {
            let mut bytes = joined(&append().encode()).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Append::decode(Bytes::from(bytes));
        }
    }
}
