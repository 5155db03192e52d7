//! Values as they stand in records: the number that makes them unique, in hex, and padding.

use bytes::{BufMut, Bytes, BytesMut};

use crate::history::FOREIGN;

/// Digits of the number. Unit: bytes.
pub(super) const DIGITS: u32 = 16;
const PADDING: u8 = b'.';

/// The bytes of a value, `size` of them but at least its digits.
pub(super) fn encode(value: u64, size: u32) -> Bytes {
    let size = size.max(DIGITS) as usize;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_slice(format!("{value:016x}").as_bytes());
    bytes.resize(size, PADDING);
    bytes.freeze()
}

/// The value in a record, or [`FOREIGN`] for anything that [`encode`] does not make: a changed byte of the padding is as
/// wrong as one of the digits.
pub(super) fn decode(bytes: Option<&[u8]>) -> u64 {
    let Some((digits, padding)) = bytes.and_then(|bytes| bytes.split_at_checked(DIGITS as usize)) else {
        return FOREIGN;
    };
    let lower = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    match number {
        Some(number) if lower && padding.iter().all(|byte| *byte == PADDING) => number,
        _ => FOREIGN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_whatever_its_padding() {
        for value in [0, 1, 7 << 40 | 3, FOREIGN - 1] {
            for size in [0, 16, 17, 4_096] {
                assert_eq!(decode(Some(&encode(value, size))), value);
            }
        }
    }

    #[test]
    fn a_byte_that_changed_makes_it_foreign() {
        let good = encode(0xabc, 20);
        for (at, wrong) in [(3, b'G'), (13, b'A'), (0, b'+'), (19, b'x')] {
            let mut bytes = good.to_vec();
            bytes[at] = wrong;
            assert_eq!(decode(Some(&bytes)), FOREIGN);
        }
        assert_eq!(decode(Some(&good[..15])), FOREIGN);
        assert_eq!(decode(None), FOREIGN);
    }
}
