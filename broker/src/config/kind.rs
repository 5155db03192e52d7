//! What a config value may look like, and how it is read from a file, the environment or a flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tree::Raw;

/// One kind of config value. The macro `section!` ties each key to a kind.
pub(super) trait Kind {
    /// What the broker's code sees.
    type Value: Clone;
    /// Name of the kind in docs and messages.
    const NAME: &'static str;

    /// Reads a value as a person wrote it.
    fn read(raw: &Raw) -> Result<Self::Value, String>;
    /// Prints a value so that [`Kind::read`] understands it again.
    fn show(value: &Self::Value) -> String;
    /// The number that a key's range is about; `None` where there is none.
    fn magnitude(_value: &Self::Value) -> Option<u64> {
        None
    }
}

/// What a key's number may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Any value of the kind.
    Any,
    /// This or more.
    AtLeast(u64),
    /// Both ends included.
    Between(u64, u64),
}

impl Range {
    /// True if the number is allowed.
    pub fn holds(self, number: u64) -> bool {
        match self {
            Self::Any => true,
            Self::AtLeast(low) => number >= low,
            Self::Between(low, high) => (low..=high).contains(&number),
        }
    }

    /// The range in words, its ends printed by `show`.
    pub(super) fn words(self, show: impl Fn(u64) -> String) -> String {
        match self {
            Self::Any => String::new(),
            Self::AtLeast(low) => format!("{} or more", show(low)),
            Self::Between(low, high) => format!("{} to {}", show(low), show(high)),
        }
    }
}

fn wrong(expected: &str, raw: &Raw) -> String {
    format!("expected {expected}, found {}", raw.describe())
}

fn whole_number(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Int(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A whole number.
pub(super) struct Number;

impl Kind for Number {
    type Value = u32;
    const NAME: &'static str = "number";

    fn read(raw: &Raw) -> Result<u32, String> {
        whole_number(raw)
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong("a whole number from 0 to 4294967295", raw))
    }

    fn show(value: &u32) -> String {
        value.to_string()
    }

    fn magnitude(value: &u32) -> Option<u64> {
        Some(u64::from(*value))
    }
}

/// A whole number that may be left open.
pub(super) struct OptionalNumber;

impl Kind for OptionalNumber {
    type Value = Option<u32>;
    const NAME: &'static str = "number or none";

    fn read(raw: &Raw) -> Result<Option<u32>, String> {
        if raw.is_none() {
            return Ok(None);
        }
        Number::read(raw).map(Some)
    }

    fn show(value: &Option<u32>) -> String {
        value.map_or_else(|| "none".to_owned(), |number| number.to_string())
    }

    fn magnitude(value: &Option<u32>) -> Option<u64> {
        value.map(u64::from)
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;
    const NAME: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Raw::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            other => Err(wrong("true or false", other)),
        }
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// Any text.
pub(super) struct Text;

impl Kind for Text {
    type Value = String;
    const NAME: &'static str = "text";

    fn read(raw: &Raw) -> Result<String, String> {
        match raw {
            Raw::Text(text) => Ok(text.clone()),
            Raw::Null => Ok(String::new()),
            other => Err(format!("{} (put it in quotes)", wrong("text", other))),
        }
    }

    fn show(value: &String) -> String {
        value.clone()
    }
}

/// Several texts: a list, or one text with commas.
pub(super) struct TextList;

impl Kind for TextList {
    type Value = Vec<String>;
    const NAME: &'static str = "list of text";

    fn read(raw: &Raw) -> Result<Vec<String>, String> {
        match raw {
            Raw::Null => Ok(Vec::new()),
            Raw::Text(text) => Ok(text
                .split(',')
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect()),
            Raw::List(items) => items.iter().map(Text::read).collect(),
            other => Err(wrong("a list", other)),
        }
    }

    fn show(value: &Vec<String>) -> String {
        value.join(",")
    }
}

/// A span of time, kept in milliseconds.
pub(super) struct Millis;

impl Kind for Millis {
    type Value = u64;
    const NAME: &'static str = "duration";

    fn read(raw: &Raw) -> Result<u64, String> {
        if let Some(number) = whole_number(raw) {
            return Ok(number);
        }
        let expected = "a duration such as 500ms, 30s or 7d, or a number of milliseconds";
        let Raw::Text(text) = raw else {
            return Err(wrong(expected, raw));
        };
        humantime::parse_duration(text)
            .ok()
            .and_then(|duration| u64::try_from(duration.as_millis()).ok())
            .ok_or_else(|| wrong(expected, raw))
    }

    fn show(value: &u64) -> String {
        if value.is_multiple_of(86_400_000) && *value > 0 {
            return format!("{}d", value / 86_400_000);
        }
        humantime::format_duration(Duration::from_millis(*value)).to_string().replace(' ', "")
    }

    fn magnitude(value: &u64) -> Option<u64> {
        Some(*value)
    }
}

/// A span of time, or none.
pub(super) struct OptionalMillis;

impl Kind for OptionalMillis {
    type Value = Option<u64>;
    const NAME: &'static str = "duration or none";

    fn read(raw: &Raw) -> Result<Option<u64>, String> {
        if raw.is_none() {
            return Ok(None);
        }
        Millis::read(raw).map(Some)
    }

    fn show(value: &Option<u64>) -> String {
        value.map_or_else(|| "none".to_owned(), |ms| Millis::show(&ms))
    }

    fn magnitude(value: &Option<u64>) -> Option<u64> {
        *value
    }
}

/// A number of bytes.
pub(super) struct Size;

impl Kind for Size {
    type Value = u64;
    const NAME: &'static str = "size";

    fn read(raw: &Raw) -> Result<u64, String> {
        if let Some(number) = whole_number(raw) {
            return Ok(number);
        }
        let expected = "a size such as 64KiB, 16MiB or 1GiB, or a number of bytes";
        let Raw::Text(text) = raw else {
            return Err(wrong(expected, raw));
        };
        text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| wrong(expected, raw))
    }

    fn show(value: &u64) -> String {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            if *value > 0 && value.trailing_zeros() >= shift {
                return format!("{}{unit}", value >> shift);
            }
        }
        value.to_string()
    }

    fn magnitude(value: &u64) -> Option<u64> {
        Some(*value)
    }
}

/// A number of bytes, or none.
pub(super) struct OptionalSize;

impl Kind for OptionalSize {
    type Value = Option<u64>;
    const NAME: &'static str = "size or none";

    fn read(raw: &Raw) -> Result<Option<u64>, String> {
        if raw.is_none() {
            return Ok(None);
        }
        Size::read(raw).map(Some)
    }

    fn show(value: &Option<u64>) -> String {
        value.map_or_else(|| "none".to_owned(), |bytes| Size::show(&bytes))
    }

    fn magnitude(value: &Option<u64>) -> Option<u64> {
        *value
    }
}

/// Address to listen on.
pub(super) struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;
    const NAME: &'static str = "address";

    fn read(raw: &Raw) -> Result<SocketAddr, String> {
        let expected = "an address such as 127.0.0.1:7400 or 0.0.0.0:7400";
        let Raw::Text(text) = raw else {
            return Err(wrong(expected, raw));
        };
        text.trim().parse().map_err(|_| wrong(expected, raw))
    }

    fn show(value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// A directory.
pub(super) struct Directory;

impl Kind for Directory {
    type Value = PathBuf;
    const NAME: &'static str = "path";

    fn read(raw: &Raw) -> Result<PathBuf, String> {
        Text::read(raw).map(PathBuf::from)
    }

    fn show(value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// Where a broker keeps what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageMode {
    /// Files under `storage.data_dir`.
    Disk,
    /// Memory only: everything is gone when the process ends. For development and tests.
    Memory,
}

/// `disk` or `memory`.
pub(super) struct StorageModeKind;

impl Kind for StorageModeKind {
    type Value = StorageMode;
    const NAME: &'static str = "disk or memory";

    fn read(raw: &Raw) -> Result<StorageMode, String> {
        match raw {
            Raw::Text(text) if text == "disk" => Ok(StorageMode::Disk),
            Raw::Text(text) if text == "memory" => Ok(StorageMode::Memory),
            other => Err(wrong("disk or memory", other)),
        }
    }

    fn show(value: &StorageMode) -> String {
        match value {
            StorageMode::Disk => "disk".to_owned(),
            StorageMode::Memory => "memory".to_owned(),
        }
    }
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `text` or `json`.
pub(super) struct LogFormatKind;

impl Kind for LogFormatKind {
    type Value = LogFormat;
    const NAME: &'static str = "text or json";

    fn read(raw: &Raw) -> Result<LogFormat, String> {
        match raw {
            Raw::Text(text) if text == "text" => Ok(LogFormat::Text),
            Raw::Text(text) if text == "json" => Ok(LogFormat::Json),
            other => Err(wrong("text or json", other)),
        }
    }

    fn show(value: &LogFormat) -> String {
        match value {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        }
    }
}
