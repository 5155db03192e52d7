//! Frames: what travels on a link, whatever carries it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest frame, header included.
pub(crate) const FRAME_MAX: usize = 16 << 20;
/// Bytes before the body.
pub(crate) const HEADER_LEN: usize = 24;
const VERSION: u8 = 1;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A newer [`crate::raft::Hello`] of the sender, and its answer.
    Hello = 1,
    /// Sign of life.
    Beat = 2,
    /// RequestVote, or a pre-vote with [`PRE_VOTE`].
    Vote = 3,
    /// AppendEntries.
    Append = 4,
    /// The leader asks the receiver to stand for election.
    Transfer = 5,
    /// A snapshot is on offer.
    Snapshot = 6,
    /// A range of a snapshot is wanted.
    Range = 7,
    /// A call of another part of the broker; the group field holds the service number.
    Call = 8,
}

impl Kind {
    /// True if the body of a request begins with the id of the replica that it is meant for, 8 bytes little endian: what
    /// is said to one replica of a group must never be answered by another one on the same broker (I4).
    pub(crate) fn names_replica(self) -> bool {
        match self {
            Self::Vote | Self::Append | Self::Transfer | Self::Snapshot | Self::Range => true,
            Self::Hello | Self::Beat | Self::Call => false,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 8] = [
            Kind::Hello,
            Kind::Beat,
            Kind::Vote,
            Kind::Append,
            Kind::Transfer,
            Kind::Snapshot,
            Kind::Range,
            Kind::Call,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Flag: answer to the call of the same number.
pub(crate) const REPLY: u8 = 1;
/// Flag of a reply: the body is an error.
pub(crate) const FAILED: u8 = 1 << 1;
/// Flag of an append: a heartbeat, which need not wait behind entries.
pub(crate) const HEARTBEAT: u8 = 1 << 2;
/// Flag of a vote: asked in advance, nothing is granted yet.
pub(crate) const PRE_VOTE: u8 = 1 << 3;

/// One frame.
///
/// | offset | bytes | field                                                    |
/// |-------:|------:|----------------------------------------------------------|
/// |      0 |     4 | length of all that follows: 20 + body                    |
/// |      4 |     1 | version of the frame, 1                                  |
/// |      5 |     1 | kind                                                     |
/// |      6 |     1 | flags: 1 reply, 2 failed, 4 heartbeat, 8 pre-vote        |
/// |      7 |     1 | reserved, 0                                              |
/// |      8 |     8 | Raft group, or service of a call                         |
/// |     16 |     8 | number of the call, which its reply repeats              |
/// |     24 |     … | body; a request to a group begins with the replica meant |
///
/// Integers are little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) group: u64,
    pub(crate) call: u64,
    /// Pieces that together are the body, so that entries need not be copied to be joined.
    pub(crate) body: Vec<Bytes>,
}

/// Why bytes are not frames; the link that brought them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is cut off: {there} bytes of {wanted}")]
    Cut { there: usize, wanted: usize },
    #[error("a frame of {len} bytes is outside {HEADER_LEN}..={FRAME_MAX}")]
    Length { len: usize },
    #[error("a frame has version {0}, this broker speaks {VERSION}")]
    Version(u8),
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    #[error("a frame has unknown flags")]
    Flags,
}

impl Frame {
    pub(crate) fn new(kind: Kind, group: u64, body: Vec<Bytes>) -> Self {
        Self { kind, flags: 0, group, call: 0, body }
    }

    /// A request to one replica of a group, whose id goes before the body.
    pub(crate) fn to_replica(kind: Kind, group: u64, replica: u64, mut body: Vec<Bytes>) -> Self {
        debug_assert!(kind.names_replica(), "the receiver would read the id as a part of the body");
        body.insert(0, Bytes::copy_from_slice(&replica.to_le_bytes()));
        Self::new(kind, group, body)
    }

    pub(crate) fn with_flags(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// The answer to a request: same kind, group and number.
    pub(crate) fn reply(kind: Kind, group: u64, call: u64, body: Vec<Bytes>) -> Self {
        Self { kind, flags: REPLY, group, call, body }
    }

    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        HEADER_LEN + self.body.iter().map(Bytes::len).sum::<usize>()
    }

    /// The bytes before the body.
    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
        let len = self.len();
        debug_assert!(len <= FRAME_MAX, "the sender bounds its frames");
        let mut header = [0; HEADER_LEN];
        let mut out = &mut header[..];
        out.put_u32_le(u32::try_from(len - 4).unwrap_or(u32::MAX));
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags);
        out.put_u8(0);
        out.put_u64_le(self.group);
        out.put_u64_le(self.call);
        header
    }

    /// Takes the next frame off the bytes; `None` at their end. The body is a slice of the input.
    pub(crate) fn decode(bytes: &mut Bytes) -> Result<Option<Self>, FrameError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() < HEADER_LEN {
            return Err(FrameError::Cut { there: bytes.len(), wanted: HEADER_LEN });
        }
        let declared = usize::try_from(bytes.get_u32_le()).unwrap_or(usize::MAX);
        let len = declared.saturating_add(4);
        if !(HEADER_LEN..=FRAME_MAX).contains(&len) {
            return Err(FrameError::Length { len });
        }
        if bytes.len() < declared {
            return Err(FrameError::Cut { there: bytes.len() + 4, wanted: len });
        }
        let version = bytes.get_u8();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind_byte = bytes.get_u8();
        let kind = Kind::from_byte(kind_byte).ok_or(FrameError::Kind(kind_byte))?;
        let flags = bytes.get_u8();
        let reserved = bytes.get_u8();
        if flags & !(REPLY | FAILED | HEARTBEAT | PRE_VOTE) != 0 || reserved != 0 {
            return Err(FrameError::Flags);
        }
        let group = bytes.get_u64_le();
        let call = bytes.get_u64_le();
        let body = vec![bytes.split_to(len - HEADER_LEN)];
        Ok(Some(Self { kind, flags, group, call, body }))
    }

    /// The body as one piece; a decoded frame has just one.
    pub(crate) fn into_body(mut self) -> Bytes {
        match self.body.len() {
            0 => Bytes::new(),
            1 => self.body.swap_remove(0),
            _ => {
                let mut joined = BytesMut::with_capacity(self.len());
                self.body.iter().for_each(|piece| joined.put_slice(piece));
                joined.freeze()
            }
        }
    }
}

/// Length of the whole frames that bytes begin with, and what the first one needs if there is none whole (0: not known yet).
///
/// # Errors
/// If the first one has an impossible length.
pub(crate) fn whole(bytes: &[u8]) -> Result<(usize, usize), FrameError> {
    let mut end = 0;
    while let Some(declared) = bytes.get(end..).and_then(|rest| rest.first_chunk::<4>()) {
        let len = usize::try_from(u32::from_le_bytes(*declared)).unwrap_or(usize::MAX).saturating_add(4);
        if !(HEADER_LEN..=FRAME_MAX).contains(&len) {
            // What comes before it is served; then it stands at the front.
            return if end == 0 { Err(FrameError::Length { len }) } else { Ok((end, 0)) };
        }
        if bytes.len() - end < len {
            return Ok((end, len));
        }
        end += len;
    }
    Ok((end, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> Frame {
        let body = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        Frame { call: 7, ..Frame::new(Kind::Append, 5, body).with_flags(HEARTBEAT) }
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::from(&frame.header()[..]);
        frame.body.iter().for_each(|piece| out.put_slice(piece));
        out
    }

    #[test]
    fn frame_has_these_bytes() {
        let out = encoded(&frame());
        let golden = b"\x17\0\0\0\x01\x04\x04\0\x05\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0abc";
        assert_eq!(&out[..], golden);
        let mut bytes = out.freeze();
        let read = Frame::decode(&mut bytes).unwrap().unwrap();
        assert_eq!(read.clone().into_body(), "abc");
        assert_eq!((read.kind, read.flags, read.group, read.call), (Kind::Append, HEARTBEAT, 5, 7));
        assert_eq!(Frame::decode(&mut bytes), Ok(None));
    }

    #[test]
    fn every_request_to_a_group_has_the_replica_before_its_body() {
        for kind in [Kind::Vote, Kind::Append, Kind::Transfer, Kind::Snapshot, Kind::Range] {
            assert!(kind.names_replica());
            let out = encoded(&Frame::to_replica(kind, 5, 0x0102, vec![Bytes::from_static(b"ab")]));
            let golden = [
                &b"\x1e\0\0\0\x01"[..],
                &[kind as u8],
                b"\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0ab",
            ]
            .concat();
            assert_eq!(&out[..], golden);
        }
        assert!([Kind::Hello, Kind::Beat, Kind::Call].iter().all(|kind| !kind.names_replica()));
    }

    #[test]
    fn lying_frames_are_refused_by_name() {
        let out = encoded(&frame());
        let with = |at: usize, byte: u8| {
            let mut bad = out.clone();
            bad[at] = byte;
            Frame::decode(&mut bad.freeze()).unwrap_err()
        };
        assert_eq!(with(3, 0xff), FrameError::Length { len: 0xff00_001b });
        assert_eq!(with(1, 1), FrameError::Cut { there: 27, wanted: 283 });
        assert_eq!(with(0, 3), FrameError::Length { len: 7 });
        assert_eq!(with(4, 9), FrameError::Version(9));
        assert_eq!(with(5, 99), FrameError::Kind(99));
        assert_eq!(with(6, 0x80), FrameError::Flags);
        assert_eq!(with(7, 1), FrameError::Flags);
    }

    #[test]
    fn an_impossible_length_is_refused_once_the_frames_before_it_are_served() {
        let mut out = encoded(&frame());
        let len = out.len();
        out.put_u32_le(3);
        assert_eq!(whole(&out), Ok((len, 0)));
        assert_eq!(whole(&out[len..]), Err(FrameError::Length { len: 7 }));
        out.truncate(len);
        out.put_u32_le(u32::MAX);
        assert!(matches!(whole(&out[len..]), Err(FrameError::Length { .. })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = Bytes::from(bytes);
            while let Ok(Some(_)) = Frame::decode(&mut bytes) {}
        }

        #[test]
        fn frames_survive_the_wire(group: u64, call: u64, body in proptest::collection::vec(any::<u8>(), 0..50)) {
            let sent = Frame { call, ..Frame::new(Kind::Call, group, vec![Bytes::from(body)]) };
            let mut out = encoded(&sent);
            out.unsplit(encoded(&sent));
            let all = out.len();
            for cut in 0..all {
                let (end, wanted) = whole(&out[..cut]).unwrap();
                prop_assert_eq!(end, if cut < all / 2 { 0 } else { all / 2 });
                prop_assert_eq!(wanted, if cut - end < 4 { 0 } else { all / 2 });
            }
            prop_assert_eq!(whole(&out), Ok((all, 0)));
            let mut bytes = out.freeze();
            prop_assert_eq!(Frame::decode(&mut bytes), Ok(Some(sent.clone())));
            prop_assert_eq!(Frame::decode(&mut bytes), Ok(Some(sent)));
        }
    }
}
