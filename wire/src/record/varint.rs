//! Zigzag base-128 integers and a cursor that never reads past its bytes.

use super::RecordError;

/// Appends a zigzag varlong; a varint is the same for every value that fits in 32 bits.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(low_seven(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_seven(rest));
}

/// Bytes that [`put`] writes for `value`.
pub(crate) fn len(value: i64) -> usize {
    let significant = 64 - (zigzag(value) | 1).leading_zeros();
    significant.div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn low_seven(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Reads from the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self
            .rest
            .split_at_checked(n)
            .ok_or(RecordError::Malformed("a length reaches past the end of the records"))?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, RecordError> {
        let (&first, tail) =
            self.rest.split_first().ok_or(RecordError::Malformed("the records end within a record"))?;
        self.rest = tail;
        Ok(first)
    }

    /// A varlong of at most ten bytes.
    pub(crate) fn varlong(&mut self) -> Result<i64, RecordError> {
        let mut value: u64 = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the last bit only.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(RecordError::Malformed("a variable-length integer does not end"))
    }

    /// A varint: a varlong that fits in 32 bits.
    pub(crate) fn varint(&mut self) -> Result<i32, RecordError> {
        i32::try_from(self.varlong()?)
            .map_err(|_| RecordError::Malformed("a variable-length integer exceeds 32 bits"))
    }

    /// A byte string after its varint length; −1 is null.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint()? {
            -1 => Ok(None),
            n => {
                let n = usize::try_from(n).map_err(|_| RecordError::Malformed("a length is negative"))?;
                self.take(n).map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_have_their_protobuf_bytes() {
        let golden: [(i64, &[u8]); 8] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in golden {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(len(value), bytes.len(), "{value}");
            assert_eq!(Cursor::new(bytes).varlong().unwrap(), value);
        }
    }

    #[test]
    fn an_endless_varlong_is_refused() {
        assert!(Cursor::new(&[0xff; 11]).varlong().is_err());
        assert!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varlong().is_err()
        );
    }

    #[test]
    fn a_varint_above_32_bits_is_refused() {
        let mut out = Vec::new();
        put(&mut out, i64::from(i32::MAX) + 1);
        assert!(Cursor::new(&out).varint().is_err());
    }
}
