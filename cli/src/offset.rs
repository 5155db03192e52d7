//! The one grammar for places in a log: `earliest | latest | 4711 | -100 | @2026-11-20T10:00Z | @-15m`, ranges `a..b`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

/// A place in every partition that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first record there is.
    Earliest,
    /// After the last record.
    Latest,
    /// This offset.
    Offset(u64),
    /// This many records before the end.
    Before(u64),
    /// The first record at or after this time, ms since the Unix epoch.
    Time(i64),
    /// The first record at or after this long before now, ms.
    Ago(u64),
}

/// From a place up to another, which is not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<Place>,
    pub(crate) to: Option<Place>,
}

/// What a place may look like; the hint of every error here.
pub(crate) const GRAMMAR: &str = "earliest, latest, an offset (4711), -100 for the last hundred, @2026-11-20T10:00Z, @-15m, or a range a..b";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no place in a log: {reason}; it may be {GRAMMAR}")]
pub(crate) struct PlaceError {
    word: String,
    reason: &'static str,
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let failed = |reason| PlaceError { word: word.chars().take(80).collect(), reason };
        match word {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            "" => return Err(failed("it is empty")),
            _ => {}
        }
        if let Some(time) = word.strip_prefix('@') {
            return parse_time(time).map_err(failed);
        }
        if let Some(count) = word.strip_prefix('-') {
            return digits(count).map(Self::Before).ok_or_else(|| failed("a number must follow the minus"));
        }
        digits(word).map(Self::Offset).ok_or_else(|| failed("neither a word, a number nor a time"))
    }
}

/// An offset: digits only (a sign or a space would be a typing error), in the range of offsets.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| *n <= i64::MAX.cast_unsigned())
}

fn parse_time(text: &str) -> Result<Place, &'static str> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago =
            humantime::parse_duration(ago).map_err(|_| "the duration after @- is not like 15m or 1h30m")?;
        return u64::try_from(ago.as_millis()).map(Place::Ago).map_err(|_| "the duration is too long");
    }
    let time = humantime::parse_rfc3339_weak(&full_time(text))
        .map_err(|_| "the time after @ is not like 2026-11-20T10:00Z (UTC)")?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).map(Place::Time).map_err(|_| "the time is too far away")
}

/// Completes a date or a time without seconds; all times are UTC.
fn full_time(text: &str) -> String {
    let plain = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    match plain.len() {
        10 => format!("{plain}T00:00:00Z"),
        16 => format!("{plain}:00Z"),
        _ => format!("{plain}Z"),
    }
}

impl FromStr for Range {
    type Err = PlaceError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let Some((from, to)) = word.split_once("..") else {
            return Ok(Self { from: Some(word.parse()?), to: None });
        };
        let side = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        Ok(Self { from: side(from)?, to: side(to)? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(n) => write!(f, "{n}"),
            Self::Before(n) => write!(f, "-{n}"),
            Self::Time(ms) => write!(f, "@{}", crate::convert::time_text(*ms)),
            Self::Ago(ms) => write!(f, "@-{}", humantime::format_duration(Duration::from_millis(*ms))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_grammar_is_understood() {
        for (word, place) in [
            ("earliest", Place::Earliest),
            ("latest", Place::Latest),
            ("4711", Place::Offset(4_711)),
            ("0", Place::Offset(0)),
            ("-100", Place::Before(100)),
            ("@2026-11-20T10:00Z", Place::Time(1_795_168_800_000)),
            ("@2026-11-20T10:00:00Z", Place::Time(1_795_168_800_000)),
            ("@2026-11-20T10:00:00.250Z", Place::Time(1_795_168_800_250)),
            ("@2026-11-20T10:00", Place::Time(1_795_168_800_000)),
            ("@2026-11-20", Place::Time(1_795_132_800_000)),
            ("@-15m", Place::Ago(900_000)),
            ("@-1h30m", Place::Ago(5_400_000)),
        ] {
            assert_eq!(word.parse(), Ok(place), "{word}");
        }
    }

    #[test]
    fn a_range_has_two_sides_and_either_may_be_open() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        assert_eq!(range("10..20"), Range { from: Some(Place::Offset(10)), to: Some(Place::Offset(20)) });
        assert_eq!(range("..-5"), Range { from: None, to: Some(Place::Before(5)) });
        assert_eq!(
            range("@-1h..latest"),
            Range { from: Some(Place::Ago(3_600_000)), to: Some(Place::Latest) }
        );
        assert_eq!(range("latest"), Range { from: Some(Place::Latest), to: None });
        assert_eq!(range(".."), Range { from: None, to: None });
    }

    #[test]
    fn what_is_none_of_them_is_refused_with_the_grammar() {
        for word in [
            "",
            "last",
            "--5",
            "-",
            "+5",
            "5 ",
            "1e3",
            "@",
            "@yesterday",
            "@-",
            "@-x",
            "@2026-13-01",
            "9223372036854775808",
            "18446744073709551616",
            "0x10",
            "Earliest",
        ] {
            let error = word.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains("earliest"), "{word}: {error}");
        }
        assert!("1..2..3".parse::<Range>().is_err());
    }

    #[test]
    fn a_place_prints_as_it_is_written() {
        for word in ["earliest", "latest", "4711", "-100", "@2026-11-20T10:00:00.000Z", "@-15m"] {
            assert_eq!(word.parse::<Place>().unwrap().to_string(), word);
        }
    }
}
