//! Values between people and machines: sizes, durations, times, topic settings.

use std::time::{Duration, UNIX_EPOCH};

use crate::exit::Failure;

/// `7d`, `90s`, `1h30m`; in ms.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let duration = duration(text)?;
    u64::try_from(duration.as_millis()).map_err(|_| "too long".to_owned())
}

/// `7d`, `90s`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no duration such as 500ms, 30s, 12h or 7d"))
}

/// `64MiB`, `1GB`, `4096`; in bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("{text:?} is no size such as 4096, 64MiB or 1GB"))
}

/// One `key=value` of a topic setting as the broker takes it: sizes and durations become numbers, and `retention.ms`,
/// `retention-ms` and `retention` mean `retention_ms`.
pub(crate) fn topic_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not key=value"))?;
    let key = setting_key(key);
    let value = value.trim();
    let unlimited = ["none", "-1", "unlimited"].contains(&value);
    let value = if unlimited {
        "none".to_owned()
    } else if key.ends_with("_ms") && value.parse::<u64>().is_err() {
        duration_ms(value)?.to_string()
    } else if key.ends_with("_bytes") {
        size(value)?.to_string()
    } else {
        value.to_owned()
    };
    Ok((key, value))
}

/// The broker's spelling of a topic setting.
pub(crate) fn setting_key(key: &str) -> String {
    let key = key.trim().replace(['.', '-'], "_");
    match key.as_str() {
        "retention" => "retention_ms".to_owned(),
        "min_isr" => "min_insync_replicas".to_owned(),
        "max_message_bytes" => "max_batch_bytes".to_owned(),
        _ => key,
    }
}

/// A header on the command line.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not key=value")),
    }
}

/// `orders/3`.
pub(crate) fn partition_name(text: &str) -> Result<(String, u32), Failure> {
    text.rsplit_once('/').and_then(|(topic, index)| Some((topic.to_owned(), index.parse().ok()?))).ok_or_else(
        || Failure::usage(format!("{text:?} is no partition"), "write topic/number, for example orders/3"),
    )
}

/// Bytes for people.
pub(crate) fn size_text(bytes: u64) -> String {
    if bytes < 1 << 10 { format!("{bytes} B") } else { bytesize::ByteSize(bytes).display().iec().to_string() }
}

/// A duration in ms for people, to at most two units.
pub(crate) fn duration_text(ms: u64) -> String {
    const DAY: u64 = 86_400_000;
    if ms >= DAY && ms.is_multiple_of(DAY) {
        return format!("{}d", ms / DAY);
    }
    let text = humantime::format_duration(Duration::from_millis(ms)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A count with thousands separated.
pub(crate) fn count_text(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Ms since the Unix epoch as RFC 3339; what lies before it or after the year 9999 as the number.
pub(crate) fn time_text(ms: i64) -> String {
    const YEAR_10000: u64 = 253_402_300_800_000;
    match u64::try_from(ms) {
        Ok(ms) if ms < YEAR_10000 => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => ms.to_string(),
    }
}

/// Base64 (RFC 4648, padded), for keys and values in JSON that are no text.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let letter = ALPHABET[((bits >> shift) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_take_sizes_durations_and_foreign_spellings() {
        for (text, key, value) in [
            ("retention_ms=7d", "retention_ms", "604800000"),
            ("retention.ms=1000", "retention_ms", "1000"),
            ("retention=12h", "retention_ms", "43200000"),
            ("retention-bytes=1GiB", "retention_bytes", "1073741824"),
            ("retention_bytes=-1", "retention_bytes", "none"),
            ("min.insync.replicas=2", "min_insync_replicas", "2"),
            ("description=a=b", "description", "a=b"),
        ] {
            assert_eq!(topic_setting(text).unwrap(), (key.into(), value.into()), "{text}");
        }
        for text in ["x", "retention_ms=soon", "segment_bytes=much"] {
            assert!(topic_setting(text).is_err(), "{text}");
        }
    }

    #[test]
    fn partitions_are_named_by_topic_and_number() {
        assert_eq!(partition_name("orders/3").unwrap(), ("orders".into(), 3));
        for wrong in ["orders", "orders/", "orders/x", "orders/-1", ""] {
            assert!(partition_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count_text(0), "0");
        assert_eq!(count_text(999), "999");
        assert_eq!(count_text(1_234_567), "1,234,567");
        assert_eq!(size_text(500), "500 B");
        assert_eq!(size_text(1_536), "1.5 KiB");
        assert_eq!(duration_text(604_800_000), "7d");
        assert_eq!(duration_text(90_500), "1m 30s");
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(-1), "-1");
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn base64_has_the_vectors_of_its_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
