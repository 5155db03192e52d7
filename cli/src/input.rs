//! Records out of a stream of bytes: cut at a delimiter, keys taken from the text.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use wire::error_code::ErrorCode;
use wire::limits::BATCH_BYTES_MAX;

use crate::exit::Failure;

/// Bytes asked from the file or pipe at a time.
const CHUNK: usize = 256 << 10;
/// Chunks' worth of records that wait for the producer; with one record at its largest, below 16 MiB.
const QUEUE: usize = 8;

/// Cuts bytes at every delimiter. The delimiter ends a record and belongs to none; what follows the last one is a record
/// too.
#[derive(Debug)]
pub(crate) struct Splitter {
    delimiter: Vec<u8>,
    rest: BytesMut,
    /// Bytes of `rest` in which no delimiter begins.
    searched: usize,
    keep_empty: bool,
    record_max: usize,
}

/// A record without an end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecordTooLong(usize);

impl Splitter {
    pub(crate) fn new(delimiter: Vec<u8>, keep_empty: bool) -> Self {
        Self { delimiter, rest: BytesMut::new(), searched: 0, keep_empty, record_max: BATCH_BYTES_MAX }
    }

    /// Takes the next bytes and appends the records that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<Bytes>) -> Result<(), RecordTooLong> {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = find(&self.rest, &self.delimiter, self.searched) {
            let record = self.rest.split_to(at).freeze();
            let _delimiter = self.rest.split_to(self.delimiter.len());
            self.searched = 0;
            if record.len() > self.record_max {
                return Err(RecordTooLong(self.record_max));
            }
            self.take(record, out);
        }
        // A delimiter may have begun in the last bytes.
        self.searched = (self.rest.len() + 1).saturating_sub(self.delimiter.len());
        if self.rest.len() > self.record_max + self.delimiter.len() {
            return Err(RecordTooLong(self.record_max));
        }
        Ok(())
    }

    /// The record after the last delimiter, if there is one.
    pub(crate) fn finish(mut self, out: &mut Vec<Bytes>) {
        let record = self.rest.split().freeze();
        if !record.is_empty() {
            out.push(record);
        }
    }

    fn take(&self, record: Bytes, out: &mut Vec<Bytes>) {
        if self.keep_empty || !record.is_empty() {
            out.push(record);
        }
    }
}

fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == first)?;
        if bytes.get(at..at + needle.len())? == needle {
            return Some(at);
        }
        at += 1;
    }
}

/// Where a record's key comes from.
#[derive(Debug, Clone)]
pub(crate) enum KeyRule {
    /// No key.
    None,
    /// The same for all.
    Fixed(Bytes),
    /// What stands before the separator; the value is what follows it.
    Separator(Vec<u8>),
    /// What follows `NAME:` at the beginning of a line; the record stays whole.
    Field(String),
}

impl KeyRule {
    /// Key and value of a record; the message says what is missing.
    pub(crate) fn apply(&self, record: Bytes) -> Result<(Option<Bytes>, Bytes), String> {
        match self {
            Self::None => Ok((None, record)),
            Self::Fixed(key) => Ok((Some(key.clone()), record)),
            Self::Separator(separator) => match find(&record, separator, 0) {
                Some(at) => Ok((Some(record.slice(..at)), record.slice(at + separator.len()..))),
                None => Err("has no key separator".to_owned()),
            },
            Self::Field(name) => match field(&record, name) {
                Some(key) => Ok((Some(record.slice_ref(key)), record)),
                None => Err(format!("has no line that begins with {name}:")),
            },
        }
    }
}

/// The value of `name:` in a text of `Name: value` lines, blanks around it removed.
fn field<'a>(record: &'a [u8], name: &str) -> Option<&'a [u8]> {
    record
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))
        .map(<[u8]>::trim_ascii)
        .filter(|value| !value.is_empty())
}

/// Records read by a thread of their own: standard input has no other way not to block everything else.
#[derive(Debug)]
pub(crate) struct Records {
    queue: mpsc::Receiver<Result<Vec<Bytes>, Failure>>,
    /// Bytes read so far, and how many there are if that is known.
    pub(crate) read: Arc<AtomicU64>,
    pub(crate) total: Option<u64>,
}

impl Records {
    /// Reads a file, or standard input for `None` and `-`.
    pub(crate) fn open(file: Option<&Path>, splitter: Splitter) -> Result<Self, Failure> {
        let (source, total): (Box<dyn Read + Send>, _) = match file {
            Some(path) if path != Path::new("-") => open_file(path)?,
            _ => (Box::new(io::stdin()), None),
        };
        let (sender, queue) = mpsc::channel(QUEUE);
        let read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&read);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || pump(source, splitter, &counter, &sender))?;
        Ok(Self { queue, read, total })
    }

    /// The next records; `None` at the end.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Bytes>, Failure>> {
        self.queue.recv().await
    }
}

#[expect(clippy::disallowed_types, reason = "the user's own file, not a broker's data: Disk is not for it")]
fn open_file(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((metadata, _)) if metadata.is_dir() => {
            Err(Failure::new(ErrorCode::LocalIo, format!("{} is a directory", path.display())))
        }
        Ok((metadata, file)) => Ok((Box::new(file), metadata.is_file().then_some(metadata.len()))),
        Err(error) => {
            Err(Failure::new(ErrorCode::LocalIo, format!("cannot open {}: {error}", path.display())))
        }
    }
}

fn pump(
    mut source: Box<dyn Read + Send>,
    mut splitter: Splitter,
    counter: &AtomicU64,
    sender: &mpsc::Sender<Result<Vec<Bytes>, Failure>>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match source.read(&mut chunk) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let failure = Failure::new(ErrorCode::LocalIo, format!("cannot read the input: {error}"));
                let _ = sender.blocking_send(Err(failure));
                return;
            }
        };
        counter.fetch_add(n as u64, Ordering::Relaxed);
        let mut records = Vec::new();
        if n == 0 {
            splitter.finish(&mut records);
            let _ = sender.blocking_send(Ok(records));
            return;
        }
        let pushed = splitter.push(chunk.get(..n).unwrap_or_default(), &mut records);
        // A closed queue means that nobody wants more.
        if !records.is_empty() && sender.blocking_send(Ok(records)).is_err() {
            return;
        }
        if let Err(RecordTooLong(max)) = pushed {
            let _ = sender.blocking_send(Err(too_long(max)));
            return;
        }
    }
}

fn too_long(max: usize) -> Failure {
    let message = format!("a record of the input is larger than {max} bytes");
    Failure::Api(
        wire::api_error::ApiError::new(ErrorCode::RecordTooLarge, message)
            .hint("check --delimiter: it ends a record, and no end was found"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8], delimiter: &[u8], step: usize, keep_empty: bool) -> Vec<Bytes> {
        let mut splitter = Splitter::new(delimiter.to_vec(), keep_empty);
        let mut out = Vec::new();
        for chunk in input.chunks(step) {
            splitter.push(chunk, &mut out).unwrap();
        }
        splitter.finish(&mut out);
        out
    }

    #[test]
    fn records_are_the_same_however_the_bytes_arrive() {
        let input = b"a\n\nbb\nb\n\n\n\nccc\n\n";
        for step in 1..=input.len() {
            assert_eq!(split(input, b"\n\n", step, false), ["a", "bb\nb", "ccc"], "step {step}");
            assert_eq!(split(input, b"\n\n", step, true), ["a", "bb\nb", "", "ccc"], "step {step}");
        }
    }

    #[test]
    fn the_last_record_needs_no_delimiter() {
        assert_eq!(split(b"a\nb", b"\n", 100, false), ["a", "b"]);
        assert_eq!(split(b"a\nb\n", b"\n", 100, false), ["a", "b"]);
        assert_eq!(split(b"", b"\n", 100, true), [""; 0]);
    }

    #[test]
    fn a_delimiter_that_repeats_itself_is_found() {
        assert_eq!(split(b"xaaab", b"aab", 1, false), ["xa"]);
        assert_eq!(split(b"aaaa", b"aa", 3, true), ["", ""]);
    }

    #[test]
    fn a_record_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut splitter = Splitter { record_max: 10, ..Splitter::new(b"\n".to_vec(), false) };
        let mut out = Vec::new();
        splitter.push(b"0123456789", &mut out).unwrap();
        assert_eq!(splitter.push(b"0123456789", &mut out), Err(RecordTooLong(10)));
        assert!(out.is_empty());
    }

    #[test]
    fn keys_come_from_where_the_rule_says() {
        let record = Bytes::from_static(b"Package: zlib \nSize: 5\nPackages: no");
        let (key, value) = KeyRule::Field("Package".into()).apply(record.clone()).unwrap();
        assert_eq!((key.as_deref(), &value), (Some(&b"zlib"[..]), &record));
        let size = KeyRule::Field("Size".into()).apply(record.clone()).unwrap().0;
        assert_eq!(size.as_deref(), Some(&b"5"[..]));
        assert!(KeyRule::Field("Missing".into()).apply(record.clone()).is_err());
        let (key, value) = KeyRule::Separator(b": ".to_vec()).apply(record.clone()).unwrap();
        assert_eq!((key.as_deref(), &value[..4]), (Some(&b"Package"[..]), &b"zlib"[..]));
        assert!(KeyRule::Separator(b"|".to_vec()).apply(record.clone()).is_err());
        assert_eq!(KeyRule::None.apply(record.clone()).unwrap(), (None, record));
    }
}
