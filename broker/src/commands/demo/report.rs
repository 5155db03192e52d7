//! What the demo says at its end.

use serde::Serialize;

/// The report; its JSON form is one line, and its keys are a promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Brokers started.
    pub(super) brokers: u32,
    /// Records handed to the producer.
    pub(super) records: u64,
    /// Records whose receipt came.
    pub(super) acked: u64,
    /// Records read back.
    pub(super) read: u64,
    /// Acked, but not where their receipt says.
    pub(super) lost: u64,
    /// Read more than once.
    pub(super) duplicated: u64,
    /// Read behind a later record of the same writer in the same partition.
    pub(super) reordered: u64,
    /// Longest time without an ack on any partition around the kill, ms.
    pub(super) unavailable_ms: u64,
    /// Throughput of the first phase, as fast as it goes, MiB/s.
    pub(super) produce_mib_s: f64,
    /// Ack latency at the paced rate before the kill, ms.
    pub(super) ack_p50_ms: f64,
    /// Ack latency at the paced rate before the kill, ms.
    pub(super) ack_p99_ms: f64,
    /// The broker that was killed.
    pub(super) killed_broker: u32,
}

impl Report {
    /// True if no promise was broken.
    pub(super) fn clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.acked > 0
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let verdict = if self.clean() {
            "nothing lost, nothing duplicated, nothing reordered"
        } else if self.acked == 0 {
            "NO RECORD WAS ACKED"
        } else {
            "A PROMISE WAS BROKEN"
        };
        format!(
            "  brokers            {}
  records sent       {}
  acked              {}
  read back          {}
  lost               {}
  duplicated         {}
  reordered          {}
  broker killed      {} (SIGKILL, while it led partitions under load)
  unavailable        {} ms, the longest time without an ack on any partition
  throughput         {:.1} MiB/s, on disk on a majority before each ack
  ack latency        p50 {:.2} ms, p99 {:.2} ms, paced

{verdict}",
            self.brokers,
            self.records,
            self.acked,
            self.read,
            self.lost,
            self.duplicated,
            self.reordered,
            self.killed_broker,
            self.unavailable_ms,
            self.produce_mib_s,
            self.ack_p50_ms,
            self.ack_p99_ms,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            brokers: 3,
            records: 10,
            acked: 10,
            read: 10,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            unavailable_ms: 900,
            produce_mib_s: 12.5,
            ack_p50_ms: 1.5,
            ack_p99_ms: 9.0,
            killed_broker: 2,
        }
    }

    #[test]
    fn the_json_line_has_the_promised_keys_in_their_order() {
        let json = serde_json::to_string(&report()).unwrap();
        assert_eq!(
            json,
            "{\"brokers\":3,\"records\":10,\"acked\":10,\"read\":10,\"lost\":0,\"duplicated\":0,\"reordered\":0,\
             \"unavailable_ms\":900,\"produce_mib_s\":12.5,\"ack_p50_ms\":1.5,\"ack_p99_ms\":9.0,\"killed_broker\":2}"
        );
    }

    #[test]
    fn one_lost_record_is_a_broken_promise() {
        assert!(report().clean());
        let broken = Report { lost: 1, ..report() };
        assert!(!broken.clean());
        assert!(broken.text().contains("A PROMISE WAS BROKEN"));
    }

    #[test]
    fn a_run_without_an_ack_proves_nothing() {
        assert!(!Report { acked: 0, ..report() }.clean());
    }
}
