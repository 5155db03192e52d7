//! Walking a segment file of a partition log.

use disk::DiskFile;
use wire::limits::MESSAGE_BYTES_MAX;
use wire::record::{BATCH_HEADER_LEN, BatchHeader, RecordError, validate_batch};

/// First offset in the name of a segment's log file.
pub(super) fn segment_base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Walks the batches of one segment file and stops at the first that is not whole.
pub(super) struct Scan<'a> {
    file: &'a dyn DiskFile,
    pub(super) length: u64,
    position: u64,
    pub(super) next: Option<u64>,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) latest: Option<i64>,
    pub(super) damage: Option<String>,
    buffer: Vec<u8>,
    base: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, base: u64) -> disk::Result<Self> {
        Ok(Self {
            length: file.len()?,
            file,
            position: 0,
            next: None,
            batches: 0,
            records: 0,
            latest: None,
            damage: None,
            buffer: Vec::new(),
            base,
        })
    }

    pub(super) fn next_batch(&mut self) -> disk::Result<Option<(u64, BatchHeader)>> {
        if self.damage.is_some() || self.position >= self.length {
            return Ok(None);
        }
        let position = self.position;
        let header = match self.read()? {
            Ok(header) => header,
            Err(reason) => {
                self.damage = Some(format!("not whole from byte {position}: {reason}"));
                return Ok(None);
            }
        };
        let expected = self.next.unwrap_or(self.base);
        if header.base_offset != expected {
            self.damage =
                Some(format!("offset {} at byte {position}, expected {expected}", header.base_offset));
            return Ok(None);
        }
        self.position += header.total_len() as u64;
        self.next = Some(header.next_offset().0);
        self.batches += 1;
        self.records += u64::from(header.record_count.unsigned_abs());
        self.latest = Some(self.latest.map_or(header.max_timestamp, |t| t.max(header.max_timestamp)));
        Ok(Some((position, header)))
    }

    /// Reads and checks the batch at the position; the length it declares is believed only within the file.
    fn read(&mut self) -> disk::Result<Result<BatchHeader, String>> {
        let rest = self.length - self.position;
        self.fill(rest.min(BATCH_HEADER_LEN as u64))?;
        let header = match BatchHeader::parse(&self.buffer) {
            Ok(header) => header,
            Err(_) if self.buffer.iter().all(|byte| *byte == 0) => {
                return Ok(Err("zeros that nothing was written to".to_owned()));
            }
            Err(error) => return Ok(Err(error.to_string())),
        };
        let total = header.total_len();
        if total > MESSAGE_BYTES_MAX || total as u64 > rest {
            let have = usize::try_from(rest).unwrap_or(usize::MAX);
            return Ok(Err(RecordError::Truncated { needed: total, have }.to_string()));
        }
        self.fill(total as u64)?;
        Ok(validate_batch(&self.buffer).map_err(|error| error.to_string()))
    }

    fn fill(&mut self, bytes: u64) -> disk::Result<()> {
        // At most one batch, see above.
        self.buffer.resize(usize::try_from(bytes).unwrap_or(MESSAGE_BYTES_MAX), 0);
        self.file.read_exact_at(&mut self.buffer, self.position)
    }
}
