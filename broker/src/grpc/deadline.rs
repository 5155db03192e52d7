//! Until when a call may take: the client's `grpc-timeout`, the request's own field, and a bound.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// Part of the client's time that is kept for the way back, so that it gets our answer and not its own timeout.
const WAY_BACK: Duration = Duration::from_millis(20);

/// The moment by which a call must be answered: the earliest of `asked` and the client's own timeout.
pub(super) fn deadline(metadata: &MetadataMap, asked: Duration) -> Instant {
    Instant::now() + allowed(metadata, asked)
}

fn allowed(metadata: &MetadataMap, asked: Duration) -> Duration {
    match of_client(metadata.as_ref()) {
        Some(patience) => asked.min(patience.saturating_sub(WAY_BACK.min(patience / 4))),
        None => asked,
    }
}

/// How long a call may take as a whole: the client's own timeout, at most `bound`.
pub(super) fn patience(headers: &http::HeaderMap, bound: Duration) -> Duration {
    of_client(headers).map_or(bound, |patience| patience.min(bound))
}

fn of_client(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse)
}

/// Parses `TimeoutValue TimeoutUnit` of the gRPC protocol: at most 8 digits and one of `HMSmun`.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3_600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood_and_garbage_is_not() {
        let cases = [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1x", None),
            ("1\u{fc}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_earlier_of_both_bounds_holds() {
        let mut metadata = MetadataMap::new();
        assert_eq!(allowed(&metadata, Duration::from_secs(5)), Duration::from_secs(5));
        metadata.insert("grpc-timeout", "1S".parse().expect("a value"));
        assert_eq!(allowed(&metadata, Duration::from_secs(5)), Duration::from_millis(980));
        assert_eq!(allowed(&metadata, Duration::from_millis(10)), Duration::from_millis(10));
        assert_eq!(patience(metadata.as_ref(), Duration::from_secs(150)), Duration::from_secs(1));
        assert_eq!(patience(metadata.as_ref(), Duration::from_millis(10)), Duration::from_millis(10));
        assert_eq!(patience(&http::HeaderMap::new(), Duration::from_secs(150)), Duration::from_secs(150));
    }
}
