//! Frames on their way out, as pieces that one system call writes: what entries hold is not copied to be joined.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::Frame;

/// Shorter pieces are copied together: a piece of its own would cost the system call more.
const COPIED_BELOW: usize = 4 << 10;

/// Some frames, to be written from the front.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pieces: VecDeque<Bytes>,
    /// What was copied and is not a piece yet.
    tail: BytesMut,
    len: usize,
}

impl Chunk {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all frames.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.len += frame.len();
        self.tail.put_slice(&frame.header());
        for piece in frame.body {
            if piece.len() < COPIED_BELOW {
                self.tail.put_slice(&piece);
            } else {
                self.seal();
                self.pieces.push_back(piece);
            }
        }
    }

    /// The bytes of what was pushed, ready to be written.
    pub(crate) fn finish(mut self) -> impl Buf + Send {
        self.seal();
        Pieces { pieces: self.pieces, len: self.len }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

/// Pieces that are one run of bytes; none of them is empty.
struct Pieces {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let slices = into.iter_mut().zip(&self.pieces);
        slices.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "{count} bytes of {} were written", self.len);
        self.len -= count;
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else { return };
            let step = count.min(first.len());
            first.advance(step);
            count -= step;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::Kind;
    use super::*;

    proptest! {
        /// However the socket takes them, the same bytes come out as from one buffer.
        #[test]
        fn frames_are_written_whole_and_in_order(
            bodies in proptest::collection::vec(proptest::collection::vec(0_usize..9_000, 0..4), 0..6),
            steps in proptest::collection::vec(1_usize..7_000, 1..20),
        ) {
            let (mut chunk, mut wanted) = (Chunk::default(), Vec::new());
            for (group, lens) in (0..).zip(&bodies) {
                let body: Vec<Bytes> = lens.iter().map(|len| Bytes::from(vec![7; *len])).collect();
                let frame = Frame::new(Kind::Append, group, body);
                wanted.extend_from_slice(&frame.header());
                frame.body.iter().for_each(|piece| wanted.extend_from_slice(piece));
                chunk.push(frame);
            }
            prop_assert_eq!(chunk.len(), wanted.len());
            prop_assert_eq!(chunk.is_empty(), bodies.is_empty());
            let (mut bytes, mut written, mut steps) = (chunk.finish(), Vec::new(), steps.iter().cycle());
            while bytes.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = bytes.chunks_vectored(&mut slices);
                let offered: Vec<u8> = slices.iter().take(count).flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(offered.starts_with(bytes.chunk()) && !offered.is_empty());
                let step = offered.len().min(*steps.next().unwrap());
                written.extend_from_slice(&offered[..step]);
                drop(offered);
                bytes.advance(step);
            }
            prop_assert_eq!(written, wanted);
        }
    }
}
