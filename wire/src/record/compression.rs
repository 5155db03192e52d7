//! The five codecs, with inflation bounded in bytes and in ratio.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use super::RecordError;
use crate::limits::{INFLATE_FLOOR_BYTES, INFLATE_RATIO_MAX};

/// How the records of a batch are compressed. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952, level 6.
    Gzip,
    /// Snappy in xerial framing as Java clients write it; raw snappy is read too.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard, level 3, window at most 8 MiB.
    Zstd,
}

/// A zstd frame that wants a larger window is refused: the window is memory that a sender chooses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_LEVEL: i32 = 3;
/// First bytes of xerial's framing; then version and least compatible version, 4 bytes each.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = 16;
/// Bytes of one block before compression; the Java library's default.
const XERIAL_BLOCK: usize = 32 << 10;
/// A snappy element of 3 bytes makes 64 at most, so no honest block inflates further than this.
const SNAPPY_RATIO_MAX: usize = 22;
/// Output grows by this much at a time: by what is there, not by what is declared.
const CHUNK: usize = 16 << 10;

impl Compression {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The other way round.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompressionName(String);

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|c| c.name().eq_ignore_ascii_case(word))
            .ok_or_else(|| UnknownCompressionName(word.to_owned()))
    }
}

/// Most bytes that `compressed_len` bytes may inflate to: `max`, and beyond [`INFLATE_FLOOR_BYTES`] no more than
/// [`INFLATE_RATIO_MAX`] a byte.
#[must_use]
pub fn inflate_limit(compressed_len: usize, max: usize) -> usize {
    max.min(INFLATE_FLOOR_BYTES.max(compressed_len.saturating_mul(INFLATE_RATIO_MAX)))
}

pub(crate) fn deflate(compression: Compression, raw: &[u8]) -> Result<Vec<u8>, RecordError> {
    let result = match compression {
        Compression::None => Ok(raw.to_vec()),
        Compression::Gzip => gzip(raw),
        Compression::Snappy => xerial(raw),
        Compression::Lz4 => lz4(raw),
        Compression::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL),
    };
    result.map_err(|source| RecordError::Deflate { compression, source })
}

fn gzip(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(raw)?;
    encoder.finish()
}

fn lz4(raw: &[u8]) -> io::Result<Vec<u8>> {
    // Independent 64 KiB blocks: what Kafka's own reader takes.
    let info = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(raw)?;
    encoder.finish().map_err(io::Error::other)
}

fn xerial(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_LEN + raw.len() / 2);
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&1_u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in raw.chunks(XERIAL_BLOCK) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = u32::try_from(compressed.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

/// Inflates a block to at most [`inflate_limit`] bytes.
pub(crate) fn inflate(compression: Compression, block: &[u8], max: usize) -> Result<Vec<u8>, RecordError> {
    let limit = inflate_limit(block.len(), max);
    let failed = |source| RecordError::Inflate { compression, source };
    match compression {
        Compression::None if block.len() > limit => Err(RecordError::InflatedTooLarge { limit }),
        Compression::None => Ok(block.to_vec()),
        Compression::Gzip => drain(compression, flate2::read::MultiGzDecoder::new(block), limit),
        Compression::Snappy => snappy(block, limit),
        Compression::Lz4 => drain(compression, lz4_flex::frame::FrameDecoder::new(block), limit),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(block).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            drain(compression, decoder, limit)
        }
    }
}

fn drain(compression: Compression, mut from: impl Read, limit: usize) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let n = from.read(&mut chunk).map_err(|source| RecordError::Inflate { compression, source })?;
        if n == 0 {
            return Ok(out);
        }
        if out.len() + n > limit {
            return Err(RecordError::InflatedTooLarge { limit });
        }
        out.extend_from_slice(&chunk[..n]);
    }
}

fn snappy(block: &[u8], limit: usize) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    if !block.starts_with(XERIAL_MAGIC) {
        snappy_block(block, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest =
        block.get(XERIAL_HEADER_LEN..).ok_or_else(|| snappy_error("the framing header is cut short"))?;
    while !rest.is_empty() {
        let (length, tail) =
            rest.split_first_chunk().ok_or_else(|| snappy_error("a block length is cut short"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (head, tail) =
            tail.split_at_checked(length).ok_or_else(|| snappy_error("a block reaches past the end"))?;
        snappy_block(head, limit, &mut out)?;
        rest = tail;
    }
    Ok(out)
}

/// Appends one raw snappy block, whose declared length is believed only as far as its bytes can make it true.
fn snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), RecordError> {
    let failed = |e: snap::Error| RecordError::Inflate {
        compression: Compression::Snappy,
        source: io::Error::new(io::ErrorKind::InvalidData, e),
    };
    let declared = snap::raw::decompress_len(block).map_err(failed)?;
    if declared > limit.saturating_sub(out.len()) {
        return Err(RecordError::InflatedTooLarge { limit });
    }
    if declared > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(snappy_error("a block declares more than its bytes can inflate to"));
    }
    let start = out.len();
    out.resize(start + declared, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(failed)?;
    out.truncate(start + written);
    Ok(())
}

fn snappy_error(reason: &'static str) -> RecordError {
    RecordError::Inflate {
        compression: Compression::Snappy,
        source: io::Error::new(io::ErrorKind::InvalidData, reason),
    }
}
