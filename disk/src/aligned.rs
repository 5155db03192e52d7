//! A growable byte buffer whose first byte is aligned for direct I/O.

use crate::DIRECT_ALIGN;

/// A byte buffer that starts on a multiple of [`DIRECT_ALIGN`] in memory.
///
/// It is a `Vec` with slack before its first byte, so it needs no `unsafe`; growing it copies what it holds.
#[derive(Debug)]
pub struct AlignedBuf {
    /// Zeroed storage of `capacity + DIRECT_ALIGN` bytes; never resized in place, because that could move it.
    storage: Vec<u8>,
    /// Index of the first aligned byte in `storage`.
    start: usize,
    len: usize,
    capacity: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let storage = vec![0; capacity.saturating_add(DIRECT_ALIGN)];
        let start = storage.as_ptr().align_offset(DIRECT_ALIGN);
        assert!(start < DIRECT_ALIGN, "a byte pointer can always be aligned");
        Self { storage, start, len: 0, capacity }
    }

    /// A buffer of `len` zeros, for reads into it.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.len = len;
        buf
    }

    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Cuts the content to `len` bytes; nothing happens if it is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends bytes, growing if needed.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room_for(bytes.len());
        let at = self.start + self.len;
        self.storage[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends `count` zeros.
    pub fn extend_zeros(&mut self, count: usize) {
        self.room_for(count);
        let at = self.start + self.len;
        self.storage[at..at + count].fill(0);
        self.len += count;
    }

    /// Appends zeros up to the next multiple of `align`, which is not 0.
    pub fn pad_to(&mut self, align: usize) {
        let padded = self.len.next_multiple_of(align);
        self.extend_zeros(padded - self.len);
    }

    /// The content; its first byte is aligned.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }

    /// The content, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }

    fn room_for(&mut self, more: usize) {
        let wanted = self.len + more;
        if wanted <= self.capacity {
            return;
        }
        let mut grown = Self::with_capacity(wanted.max(self.capacity * 2));
        grown.storage[grown.start..grown.start + self.len].copy_from_slice(self.as_slice());
        grown.len = self.len;
        *self = grown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(buf: &AlignedBuf) -> bool {
        buf.as_slice().as_ptr().align_offset(DIRECT_ALIGN) == 0
    }

    #[test]
    fn content_survives_growth_and_stays_aligned() {
        let mut buf = AlignedBuf::with_capacity(8);
        let mut model = Vec::new();
        for i in 0..200_u8 {
            let piece = vec![i; usize::from(i)];
            buf.extend_from_slice(&piece);
            model.extend_from_slice(&piece);
            assert!(aligned(&buf));
            assert_eq!(buf.as_slice(), model);
        }
    }

    #[test]
    fn padding_is_zero_even_over_old_content() {
        let mut buf = AlignedBuf::with_capacity(64);
        buf.extend_from_slice(&[7; 64]);
        buf.clear();
        buf.extend_from_slice(b"abc");
        buf.pad_to(32);
        assert_eq!(buf.len(), 32);
        assert!(buf.as_slice()[3..].iter().all(|&byte| byte == 0));
        buf.pad_to(32);
        assert_eq!(buf.len(), 32);
    }
}
