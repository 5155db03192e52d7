//! How far the log start should move by time and size. Pure.

use wire::ids::Offset;

use crate::LogConfig;
use crate::state::SegmentInfo;

/// The offset below which whole segments may go: the end of the last of the oldest segments that are too old or too
/// much. By time the active segment counts too, by size it stays.
pub(crate) fn target(segments: &[SegmentInfo], config: &LogConfig, now_ms: i64) -> Option<Offset> {
    by_time(segments, config, now_ms).max(by_size(segments, config))
}

fn by_time(segments: &[SegmentInfo], config: &LogConfig, now_ms: i64) -> Option<Offset> {
    let retention = i64::try_from(config.retention_ms?).unwrap_or(i64::MAX);
    let oldest_kept = now_ms.saturating_sub(retention);
    let old = segments.iter().take_while(|segment| segment.len > 0 && segment.max_timestamp < oldest_kept);
    old.last().map(|segment| segment.next)
}

/// A segment goes if what stays is still as much as was asked for.
fn by_size(segments: &[SegmentInfo], config: &LogConfig) -> Option<Offset> {
    let wanted = config.retention_bytes?;
    let (_, sealed) = segments.split_last()?;
    let mut left: u64 = segments.iter().map(|segment| segment.len).sum();
    let mut found = None;
    for segment in sealed {
        left -= segment.len;
        if left < wanted {
            break;
        }
        found = Some(segment.next);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten records and 100 bytes with the given largest timestamps.
    fn segments(max_timestamps: &[i64]) -> Vec<SegmentInfo> {
        let one = |(n, &max_timestamp): (u64, &i64)| SegmentInfo {
            base: Offset(10 * n),
            next: Offset(10 * n + 10),
            len: 100,
            max_timestamp,
            crc: 0,
            index_entries: 0,
            index_crc: 0,
            time_index_crc: 0,
        };
        (0..).zip(max_timestamps).map(one).collect()
    }

    fn ask(retention_ms: Option<u64>, retention_bytes: Option<u64>, max_timestamps: &[i64]) -> Option<u64> {
        let config = LogConfig { retention_ms, retention_bytes, ..LogConfig::default() };
        target(&segments(max_timestamps), &config, 1000).map(|offset| offset.0)
    }

    #[test]
    fn only_the_oldest_run_of_old_segments_goes() {
        assert_eq!(ask(Some(100), None, &[800, 899, 950, 700]), Some(20));
        assert_eq!(ask(Some(100), None, &[900, 800]), None);
        assert_eq!(ask(Some(100), None, &[800, 850]), Some(20));
        assert_eq!(ask(Some(u64::MAX), None, &[800]), None);
    }

    #[test]
    fn size_keeps_at_least_what_was_asked_for() {
        assert_eq!(ask(None, Some(200), &[0, 0, 0, 0]), Some(20));
        assert_eq!(ask(None, Some(201), &[0, 0, 0, 0]), Some(10));
        assert_eq!(ask(None, Some(0), &[0, 0, 0, 0]), Some(30));
        assert_eq!(ask(None, Some(1000), &[0, 0]), None);
        assert_eq!(ask(None, Some(0), &[]), None);
    }

    #[test]
    fn the_stricter_of_both_holds() {
        assert_eq!(ask(Some(100), Some(100), &[800, 950, 950]), Some(20));
        assert_eq!(ask(None, None, &[0]), None);
    }
}
