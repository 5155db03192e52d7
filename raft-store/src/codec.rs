//! Versioned envelope around bincode: commands and snapshots of state machines, nothing that a client sees and no
//! records. The only file that names bincode.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic `AC` |
//! | 2 | 1 | version of the payload's type |
//! | 3 | 1 | kind of the payload |
//! | 4 | 4 | length of the payload, little endian, at most 16 MiB |
//! | 8 | 4 | CRC-32C of bytes 0..8 and the payload, little endian |
//! | 12 | length | payload: bincode 2, standard configuration (little endian, variable-length integers) |

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest payload in bytes, at encoding and at decoding.
pub const PAYLOAD_MAX: usize = 16 << 20;

const MAGIC: [u8; 2] = *b"AC";
const HEADER: usize = 12;

/// Why bytes could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the envelope does, or go on after it.
    #[error("the envelope says {declared} bytes, {there} are there")]
    Length {
        /// Bytes that the envelope declares, with its header.
        declared: usize,
        /// Bytes that are there.
        there: usize,
    },
    /// The magic bytes are wrong.
    #[error("not an envelope")]
    Magic,
    /// The checksum is wrong.
    #[error("the envelope fails its checksum")]
    Checksum,
    /// Another kind of payload.
    #[error("the envelope holds kind {found}, wanted {wanted}")]
    Kind {
        /// Kind found.
        found: u8,
        /// Kind wanted.
        wanted: u8,
    },
    /// The payload is longer than [`PAYLOAD_MAX`].
    #[error("the payload is longer than 16 MiB")]
    TooLong,
    /// The value cannot be encoded.
    #[error("the value cannot be encoded")]
    Encode(#[source] bincode::error::EncodeError),
    /// The payload is no value of the wanted type.
    #[error("the payload cannot be decoded")]
    Decode(#[source] bincode::error::DecodeError),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<PAYLOAD_MAX>()
}

/// A value in its envelope.
///
/// # Errors
/// [`CodecError::TooLong`], or [`CodecError::Encode`] for a value that serde cannot write (a sequence of unknown length).
pub fn encode<T: Serialize>(kind: u8, version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0; HEADER];
    bincode::serde::encode_into_std_write(value, &mut out, config()).map_err(CodecError::Encode)?;
    let length = out.len() - HEADER;
    if length > PAYLOAD_MAX {
        return Err(CodecError::TooLong);
    }
    let length = u32::try_from(length).map_err(|_| CodecError::TooLong)?;
    out[..2].copy_from_slice(&MAGIC);
    out[2] = version;
    out[3] = kind;
    out[4..8].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Version and value of an envelope that holds `kind`.
///
/// # Errors
/// [`CodecError`]; nothing is allocated for lengths that the bytes cannot hold.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], kind: u8) -> Result<(u8, T), CodecError> {
    let envelope = open(bytes, kind)?;
    let value = envelope.decode()?;
    Ok((envelope.version, value))
}

/// A checked envelope whose payload is not decoded yet: for kinds whose type depends on the version.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Version of the payload's type.
    pub version: u8,
    payload: &'a [u8],
}

impl Envelope<'_> {
    /// The payload as a `T`.
    ///
    /// # Errors
    /// [`CodecError::Decode`], also when bytes are left over.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        let (value, used) =
            bincode::serde::decode_from_slice(self.payload, config()).map_err(CodecError::Decode)?;
        if used == self.payload.len() {
            Ok(value)
        } else {
            Err(CodecError::Length { declared: HEADER + used, there: HEADER + self.payload.len() })
        }
    }
}

/// The first of several envelopes that stand one after the other, by its own length, and what follows it. Nothing else
/// is checked.
///
/// # Errors
/// [`CodecError::Length`] or [`CodecError::TooLong`].
pub fn split_first(bytes: &[u8]) -> Result<(&[u8], &[u8]), CodecError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(CodecError::Length { declared: HEADER, there: bytes.len() });
    };
    let length = declared(header)?;
    let (declared, there) = (HEADER + length, bytes.len());
    if length > payload.len() {
        return Err(CodecError::Length { declared, there });
    }
    Ok(bytes.split_at(declared))
}

/// The length that a header declares.
fn declared(header: &[u8; HEADER]) -> Result<usize, CodecError> {
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    usize::try_from(length).ok().filter(|length| *length <= PAYLOAD_MAX).ok_or(CodecError::TooLong)
}

/// Checks an envelope that must hold `kind`.
///
/// # Errors
/// All of [`CodecError`] but `Encode` and `Decode`.
pub fn open(bytes: &[u8], kind: u8) -> Result<Envelope<'_>, CodecError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(CodecError::Length { declared: HEADER, there: bytes.len() });
    };
    if header[..2] != MAGIC {
        return Err(CodecError::Magic);
    }
    let length = declared(header)?;
    if length != payload.len() {
        return Err(CodecError::Length { declared: HEADER + length, there: bytes.len() });
    }
    if u32::from_le_bytes([header[8], header[9], header[10], header[11]]) != checksum(bytes) {
        return Err(CodecError::Checksum);
    }
    if header[3] != kind {
        return Err(CodecError::Kind { found: header[3], wanted: kind });
    }
    Ok(Envelope { version: header[2], payload })
}

/// Checksum of an envelope of at least [`HEADER`] bytes: all but its own field.
fn checksum(envelope: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&envelope[..8]), &envelope[HEADER..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Unit,
        Named { name: String, numbers: Vec<u64> },
    }

    fn sample() -> Sample {
        Sample::Named { name: "orders".into(), numbers: vec![1, 300] }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(7, 2, &sample()).unwrap();
        assert_eq!(&bytes[..8], &[b'A', b'C', 2, 7, 13, 0, 0, 0]);
        assert_eq!(&bytes[12..], &[1, 6, b'o', b'r', b'd', b'e', b'r', b's', 2, 1, 251, 44, 1]);
        assert_eq!(decode::<Sample>(&bytes, 7).unwrap(), (2, sample()));
    }

    #[test]
    fn a_huge_declared_length_is_refused_before_it_is_allocated() {
        // A vector that declares 2^62 numbers in a payload of ten bytes.
        let mut payload = vec![1, 0, 253];
        payload.extend_from_slice(&(1_u64 << 62).to_le_bytes());
        let mut bytes = vec![b'A', b'C', 1, 7, 11, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&payload);
        let crc = checksum(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode::<Sample>(&bytes, 7), Err(CodecError::Decode(_))));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = encode(7, 2, &sample()).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Sample>(&bad, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_kind_is_refused() {
        let bytes = encode(7, 2, &sample()).unwrap();
        assert!(matches!(decode::<Sample>(&bytes, 8), Err(CodecError::Kind { found: 7, wanted: 8 })));
    }

    #[test]
    fn envelopes_in_a_row_are_told_apart() {
        let (one, two) = (encode(7, 1, &sample()).unwrap(), encode(8, 1, &Sample::Unit).unwrap());
        let row = [one.clone(), two.clone()].concat();
        let (first, rest) = split_first(&row).unwrap();
        assert_eq!((first, rest), (one.as_slice(), two.as_slice()));
        assert_eq!(split_first(rest).unwrap(), (two.as_slice(), &[][..]));
        assert!(split_first(&one[..one.len() - 1]).is_err());
        assert!(split_first(&[]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode::<Sample>(&bytes, 7);
            let _ = split_first(&bytes);
        }

        #[test]
        fn garbage_payloads_never_panic(payload: Vec<u8>) {
            let mut bytes = vec![b'A', b'C', 1, 7];
            bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&payload);
            let crc = checksum(&bytes);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            let _ = decode::<Sample>(&bytes, 7);
        }
    }
}
