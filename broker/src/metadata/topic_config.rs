//! Settings of a topic: their values, their names and how text becomes a value.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Smallest segment that a topic may ask for; below it a broker would spend its time on file headers.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// Largest segment: positions within one are 32 bits wide.
pub const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Smallest bound on a record batch.
pub const BATCH_BYTES_MIN: u32 = 1024;
/// Largest bound on a record batch: with its envelope it must fit one Raft entry and one 16 MiB message.
pub const BATCH_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1000;
/// Highest replication factor, so also the highest `min_insync_replicas`.
pub const REPLICATION_FACTOR_MAX: u32 = 7;

/// What a topic's partitions do with their data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Age after which records may go. Unit: ms. `None` = no limit.
    pub retention_ms: Option<u64>,
    /// Size of a partition above which its oldest segments go. Unit: bytes. `None` = no limit.
    pub retention_bytes: Option<u64>,
    /// Size at which a new segment is begun. Unit: bytes.
    pub segment_bytes: u64,
    /// Largest record batch. Unit: bytes.
    pub max_batch_bytes: u32,
    /// Replicas that must be in sync before `acks=all` is accepted.
    pub min_insync_replicas: u32,
    /// Free text for people.
    pub description: String,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            segment_bytes: 1024 * 1024 * 1024,
            max_batch_bytes: 1024 * 1024,
            min_insync_replicas: 1,
            description: String::new(),
        }
    }
}

/// Canonical names of the settings, in the order in which they are shown.
pub const KEYS: [&str; 6] = [
    "retention_ms",
    "retention_bytes",
    "segment_bytes",
    "max_batch_bytes",
    "min_insync_replicas",
    "description",
];

/// Names that other systems and the documents use, and ours for them.
const ALIASES: [(&str, &str); 14] = [
    ("retention", "retention_ms"),
    ("retention.ms", "retention_ms"),
    ("retention.bytes", "retention_bytes"),
    ("segment.bytes", "segment_bytes"),
    ("max.batch.bytes", "max_batch_bytes"),
    ("max.message.bytes", "max_batch_bytes"),
    ("max_message_bytes", "max_batch_bytes"),
    ("message.max.bytes", "max_batch_bytes"),
    ("batch.max.bytes", "max_batch_bytes"),
    ("min.insync.replicas", "min_insync_replicas"),
    ("min_isr", "min_insync_replicas"),
    ("min.isr", "min_insync_replicas"),
    ("desc", "description"),
    ("comment", "description"),
];

/// One setting with its value, checked. Variants are only ever appended: the order is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicSetting {
    /// See [`TopicConfig::retention_ms`].
    RetentionMs(Option<u64>),
    /// See [`TopicConfig::retention_bytes`].
    RetentionBytes(Option<u64>),
    /// See [`TopicConfig::segment_bytes`].
    SegmentBytes(u64),
    /// See [`TopicConfig::max_batch_bytes`].
    MaxBatchBytes(u32),
    /// See [`TopicConfig::min_insync_replicas`].
    MinInsyncReplicas(u32),
    /// See [`TopicConfig::description`].
    Description(String),
}

/// Why text is no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("unknown topic setting {key:?}")]
    UnknownKey {
        /// The name given.
        key: String,
        /// The known name nearest to it.
        nearest: &'static str,
    },
    /// The value does not fit the setting.
    #[error("{key} cannot be {value:?}: {expected}")]
    BadValue {
        /// Canonical name of the setting.
        key: &'static str,
        /// The value given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

impl SettingError {
    /// What the user could write instead.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownKey { nearest, .. } => format!("did you mean {nearest}? known: {}", KEYS.join(", ")),
            Self::BadValue { key, expected, .. } => format!("{key} takes {expected}"),
        }
    }
}

/// The canonical name of a setting, whatever it was called.
///
/// # Errors
/// [`SettingError::UnknownKey`] with the nearest known name.
pub fn canonical_key(key: &str) -> Result<&'static str, SettingError> {
    let wanted = key.trim().to_ascii_lowercase().replace('-', "_");
    if let Some(known) = KEYS.iter().find(|known| **known == wanted) {
        return Ok(known);
    }
    if let Some((_, known)) = ALIASES.iter().find(|(alias, _)| *alias == wanted) {
        return Ok(known);
    }
    let folded = wanted.replace('.', "_");
    let nearest = KEYS
        .iter()
        .copied()
        .max_by(|a, b| strsim::jaro_winkler(&folded, a).total_cmp(&strsim::jaro_winkler(&folded, b)))
        .unwrap_or("retention_ms");
    Err(SettingError::UnknownKey { key: key.to_owned(), nearest })
}

/// Reads one setting from text: `retention_ms` takes `604800000`, `7d` or `none`; sizes take `64MiB`.
///
/// # Errors
/// [`SettingError`] with what would be accepted.
pub fn parse_setting(key: &str, value: &str) -> Result<TopicSetting, SettingError> {
    let key = canonical_key(key)?;
    let bad = |expected| SettingError::BadValue { key, value: clip(value), expected };
    let text = value.trim();
    Ok(match key {
        "retention_ms" => {
            let expected = "milliseconds, a duration as 7d or 12h, or none";
            TopicSetting::RetentionMs(limit(text, duration_ms).ok_or_else(|| bad(expected))?)
        }
        "retention_bytes" => {
            let expected = "bytes, a size as 10GiB, or none";
            TopicSetting::RetentionBytes(limit(text, size_bytes).ok_or_else(|| bad(expected))?)
        }
        "segment_bytes" => {
            let size = size_bytes(text).filter(|n| (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(n));
            TopicSetting::SegmentBytes(size.ok_or_else(|| bad("a size from 64KiB to below 2GiB"))?)
        }
        "max_batch_bytes" => {
            let size = size_bytes(text).and_then(|n| u32::try_from(n).ok());
            let size = size.filter(|n| (BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(n));
            TopicSetting::MaxBatchBytes(size.ok_or_else(|| bad("a size from 1KiB to 8MiB"))?)
        }
        "min_insync_replicas" => {
            let count = text.parse().ok().filter(|n| (1..=REPLICATION_FACTOR_MAX).contains(n));
            TopicSetting::MinInsyncReplicas(count.ok_or_else(|| bad("a number from 1 to 7"))?)
        }
        _ => {
            let fits = value.len() <= DESCRIPTION_BYTES_MAX && !value.chars().any(char::is_control);
            let fits = fits.then(|| value.to_owned());
            TopicSetting::Description(fits.ok_or_else(|| bad("up to 1000 bytes of text on one line"))?)
        }
    })
}

impl TopicSetting {
    /// Canonical name of the setting.
    pub fn key(&self) -> &'static str {
        match self {
            Self::RetentionMs(_) => "retention_ms",
            Self::RetentionBytes(_) => "retention_bytes",
            Self::SegmentBytes(_) => "segment_bytes",
            Self::MaxBatchBytes(_) => "max_batch_bytes",
            Self::MinInsyncReplicas(_) => "min_insync_replicas",
            Self::Description(_) => "description",
        }
    }
}

impl TopicConfig {
    /// Puts one setting in place.
    pub fn set(&mut self, setting: &TopicSetting) {
        match setting {
            TopicSetting::RetentionMs(value) => self.retention_ms = *value,
            TopicSetting::RetentionBytes(value) => self.retention_bytes = *value,
            TopicSetting::SegmentBytes(value) => self.segment_bytes = *value,
            TopicSetting::MaxBatchBytes(value) => self.max_batch_bytes = *value,
            TopicSetting::MinInsyncReplicas(value) => self.min_insync_replicas = *value,
            TopicSetting::Description(value) => self.description.clone_from(value),
        }
    }

    /// The setting of a canonical name as it stands here; used to go back to a default.
    pub fn get(&self, key: &str) -> Option<TopicSetting> {
        Some(match key {
            "retention_ms" => TopicSetting::RetentionMs(self.retention_ms),
            "retention_bytes" => TopicSetting::RetentionBytes(self.retention_bytes),
            "segment_bytes" => TopicSetting::SegmentBytes(self.segment_bytes),
            "max_batch_bytes" => TopicSetting::MaxBatchBytes(self.max_batch_bytes),
            "min_insync_replicas" => TopicSetting::MinInsyncReplicas(self.min_insync_replicas),
            "description" => TopicSetting::Description(self.description.clone()),
            _ => return None,
        })
    }

    /// Names and values as shown to people and read back by [`parse_setting`].
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let or_none = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
        vec![
            ("retention_ms", or_none(self.retention_ms)),
            ("retention_bytes", or_none(self.retention_bytes)),
            ("segment_bytes", self.segment_bytes.to_string()),
            ("max_batch_bytes", self.max_batch_bytes.to_string()),
            ("min_insync_replicas", self.min_insync_replicas.to_string()),
            ("description", self.description.clone()),
        ]
    }

    /// Lays settings given as text over `self` and says which were given; the first bad one ends it.
    ///
    /// # Errors
    /// [`SettingError`] of the first setting that does not fit.
    pub fn overlaid<'a>(
        mut self,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, BTreeSet<String>), SettingError> {
        let mut overridden = BTreeSet::new();
        for (key, value) in settings {
            let setting = parse_setting(key, value)?;
            overridden.insert(setting.key().to_owned());
            self.set(&setting);
        }
        Ok((self, overridden))
    }
}

/// `Some(None)` = no limit, `Some(Some(n))` = the limit, `None` = no such text.
fn limit(text: &str, parse: fn(&str) -> Option<u64>) -> Option<Option<u64>> {
    if matches!(text, "-1" | "none" | "unlimited" | "infinite") {
        return Some(None);
    }
    parse(text).filter(|n| *n > 0).map(Some)
}

fn duration_ms(text: &str) -> Option<u64> {
    if let Ok(ms) = text.parse::<u64>() {
        return Some(ms);
    }
    let duration: Duration = humantime::parse_duration(text).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

fn size_bytes(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

/// A value as it stands in an error: whole if short, else its beginning.
fn clip(value: &str) -> String {
    const SHOWN: usize = 60;
    if value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    value.chars().take(SHOWN).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_is_read_and_shown_values_read_back() {
        for (alias, key) in ALIASES {
            assert_eq!(canonical_key(alias).unwrap(), key);
        }
        let config =
            TopicConfig { retention_bytes: Some(5), description: "a b".into(), ..Default::default() };
        for (key, value) in config.entries() {
            let setting = parse_setting(key, &value).unwrap();
            assert_eq!(setting.key(), key);
            assert_eq!(config.get(key), Some(setting));
        }
    }

    #[test]
    fn durations_sizes_and_no_limit_are_understood() {
        let cases = [
            ("retention.ms", "7d", TopicSetting::RetentionMs(Some(604_800_000))),
            ("retention", "90", TopicSetting::RetentionMs(Some(90))),
            ("retention-ms", "-1", TopicSetting::RetentionMs(None)),
            ("retention_bytes", "none", TopicSetting::RetentionBytes(None)),
            ("retention_bytes", "10GiB", TopicSetting::RetentionBytes(Some(10 << 30))),
            ("segment.bytes", "64MiB", TopicSetting::SegmentBytes(64 << 20)),
            ("max.message.bytes", "8MiB", TopicSetting::MaxBatchBytes(8 << 20)),
            ("min.insync.replicas", "2", TopicSetting::MinInsyncReplicas(2)),
            ("description", "orders of shops", TopicSetting::Description("orders of shops".into())),
        ];
        for (key, value, expected) in cases {
            assert_eq!(parse_setting(key, value), Ok(expected), "{key}={value}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_setting_named() {
        let long = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
        let cases = [
            ("retention_ms", "soon"),
            ("retention_ms", "0"),
            ("retention_ms", "-7"),
            ("retention_bytes", ""),
            ("segment_bytes", "1KiB"),
            ("segment_bytes", "none"),
            ("segment_bytes", "3GiB"),
            ("max_batch_bytes", "9MiB"),
            ("max_batch_bytes", "5GiB"),
            ("min_insync_replicas", "0"),
            ("min_insync_replicas", "8"),
            ("description", "two\nlines"),
            ("description", long.as_str()),
        ];
        for (key, value) in cases {
            let error = parse_setting(key, value).unwrap_err();
            assert!(
                matches!(&error, SettingError::BadValue { key: k, .. } if *k == key),
                "{key}={value}: {error}"
            );
            assert!(error.to_string().len() < 250);
        }
    }

    #[test]
    fn a_misspelt_key_names_the_nearest_one() {
        for (wrong, right) in [
            ("retention.msec", "retention_ms"),
            ("retention_byte", "retention_bytes"),
            ("min.insync", "min_insync_replicas"),
            ("segmentbytes", "segment_bytes"),
            ("max_batch", "max_batch_bytes"),
        ] {
            let error = parse_setting(wrong, "1").unwrap_err();
            assert_eq!(error, SettingError::UnknownKey { key: wrong.into(), nearest: right });
            assert!(error.hint().contains(right));
        }
    }
}
