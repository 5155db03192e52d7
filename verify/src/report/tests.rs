use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::check::planted;
use crate::history::{
    AckLevel, Answer, CallId, FaultOutcome, FinalRead, FinalReadAnswer, FinalRecord, Op, Poll, PollAnswer,
    PolledPartition, Recorder, Send, SendAnswer, value,
};

/// A recorder and its clock, which the test sets. Unit: ms.
struct Tape {
    recorder: Recorder,
    now: Arc<AtomicU64>,
    sent: AtomicU64,
}

impl Tape {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let recorder = Recorder::memory(Arc::new(move || clock.load(Ordering::Relaxed) * 1_000_000));
        Self { recorder, now, sent: AtomicU64::new(0) }
    }

    fn at(&self, ms: u64) -> &Recorder {
        self.now.store(ms, Ordering::Relaxed);
        &self.recorder
    }

    /// The `n`-th send of worker 7, of one record with the value 7:n.
    fn send(&self, ms: u64, part: u32, acks: AckLevel) -> CallId {
        let n = self.sent.fetch_add(1, Ordering::Relaxed);
        let (topic, vals) = ("t".into(), vec![value(7, n)]);
        let send = Send { topic, part, producer: 7, idem: acks == AckLevel::All, acks, seq: n, vals };
        self.at(ms).invoke(7, Op::Send(send))
    }

    fn ack(&self, ms: u64, call: CallId, off: u64) {
        let receipt = SendAnswer { off: vec![off], ..SendAnswer::default() };
        self.at(ms).ok(call, Answer::Send(receipt));
    }

    fn final_read(&self, ms: u64, replica: u32, recs: Vec<(u64, u64)>) {
        let call = self.at(ms).invoke(9, Op::FinalRead(FinalRead { topic: "t".into(), part: 0, replica }));
        let hw = recs.last().map_or(0, |(off, _)| off + 1);
        let recs = recs.into_iter().map(|(off, val)| FinalRecord { off, val, epoch: 1, sum: 1 }).collect();
        self.recorder.ok(call, Answer::FinalRead(FinalReadAnswer { start: 0, hw, recs }));
    }

    fn report(&self, expectations: &Expectations) -> Report {
        Report::judge(&self.recorder.history().unwrap(), expectations)
    }
}

/// Three records acknowledged, a killed broker between the first and the second; `lost` of them gone at the end.
fn run(lost: usize) -> Report {
    let tape = Tape::new();
    let first = tape.send(100, 0, AckLevel::All);
    tape.ack(105, first, 0);
    tape.at(110).fault("kill", "broker 2", FaultOutcome::Installed, "");
    tape.at(110).fault("kill", "broker 3", FaultOutcome::Skipped, "");
    let second = tape.send(120, 0, AckLevel::All);
    let refused = tape.send(130, 0, AckLevel::All);
    tape.at(900).fail(refused, "NotLeader");
    tape.ack(1_620, second, 1);
    let third = tape.send(1_700, 0, AckLevel::All);
    tape.ack(1_710, third, 2);
    let weak = tape.send(1_720, 1, AckLevel::Leader);
    tape.at(1_730).info(weak, "RequestTimedOut");
    let poll = tape.at(1_800).invoke(8, Op::Poll(Poll { consumer: 8 }));
    let recs = vec![(0, value(7, 0))];
    let part = PolledPartition { topic: "t".into(), part: 0, recs, hw: None, start: None };
    tape.recorder.ok(poll, Answer::Poll(PollAnswer { parts: vec![part] }));
    let kept: Vec<(u64, u64)> = [(0, value(7, 0)), (1, value(7, 1)), (2, value(7, 3))][..3 - lost].to_vec();
    for replica in [1, 2] {
        tape.final_read(2_000, replica, kept.clone());
    }
    tape.report(&Expectations::default())
}

#[test]
fn a_clean_run_is_told_in_a_few_lines() {
    let expected = "\
verdict      clean: nothing that clients saw contradicts the cluster's promises
history      1 file, 20 lines, 2.0 s; 1 topic, 2 partitions
acks=all     4 records sent: 3 acknowledged, 1 failed, 0 unknown
acks=leader  1 records sent: 0 acknowledged, 0 failed, 1 unknown
read         1 records by polls: 1 ok, 0 failed, 0 unknown; 0 seeks
final reads  6 records of replicas: 2 ok, 0 failed, 0 unknown
asked        offsets: 0 ok, 0 failed, 0 unknown; metadata: 0 ok, 0 failed, 0 unknown
faults       kill 1 (and 1 skipped)
without ack  1 times for 0.5 s or more: p50 1.5 s, p90 1.5 s, p99 1.5 s, longest 1.5 s
             t/0: 1.5 s from 0.1 s on
note         1 partitions were not read at the end: a record lost without anyone having read past it cannot be seen
";
    assert_eq!(run(0).to_string(), expected);
    assert!(run(0).is_clean());
}

#[test]
fn lost_records_are_told_with_the_lines_that_prove_it() {
    let report = run(2);
    let text = report.to_string();
    assert!(text.starts_with("verdict      VIOLATED, 2 findings: lost-write 2\n"), "{text}");
    let proof = "t/0: value 7:1 at offset 1 was acknowledged to send #2 by worker 7 (0.120000 s..1.620000 s, lines 6 and 9)";
    assert!(text.contains(proof), "{text}");
    assert_eq!((report.lost, report.duplicated, report.violations), (2, 0, 2));
}

#[test]
fn the_json_is_one_line_with_the_figures_that_scripts_want() {
    let line = run(1).json_line();
    assert!(!line.contains('\n'));
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = [
        ("/verdict", "violated".into()),
        ("/violations", 1.into()),
        ("/lost", 1.into()),
        ("/duplicated", 0.into()),
        ("/acked", 3.into()),
        ("/findings/lost-write", 1.into()),
        ("/evidence/0/anomaly", "lost-write".into()),
        ("/evidence/0/place", "t/0".into()),
        ("/sends/all/failed", 1.into()),
        ("/reads/final_reads/ok", 2.into()),
        ("/faults/kill/installed", 1.into()),
        ("/without_ack/windows", 1.into()),
        ("/without_ack/partitions/0/place", "t/0".into()),
        ("/expectations/dense", true.into()),
    ];
    for (pointer, value) in expected {
        assert_eq!(json.pointer(pointer), Some(&value), "{pointer} in {line}");
    }
}

#[test]
fn a_gap_begins_with_the_send_that_waits_and_ends_with_the_next_ack() {
    let tape = Tape::new();
    // Nobody waits from 10 to 5,000: that is no gap.
    let first = tape.send(0, 0, AckLevel::All);
    tape.ack(10, first, 0);
    let second = tape.send(5_000, 0, AckLevel::All);
    tape.ack(5_020, second, 1);
    // A send that fails does not end the gap.
    let failed = tape.send(6_000, 0, AckLevel::All);
    tape.at(6_300).fail(failed, "NotLeader");
    let third = tape.send(6_900, 0, AckLevel::All);
    tape.ack(7_000, third, 2);
    // In another partition one ack follows another while something waits; what never gets one lasts to its outcome.
    let (early, late) = (tape.send(8_000, 1, AckLevel::All), tape.send(8_000, 1, AckLevel::All));
    tape.ack(8_600, early, 0);
    tape.at(9_400).info(late, "RequestTimedOut");
    // Leaders and nobody promise nothing.
    let weak = tape.send(0, 2, AckLevel::Leader);
    tape.at(60_000).info(weak, "RequestTimedOut");
    let gaps = tape.report(&Expectations::default()).without_ack;
    let told: Vec<_> = gaps.partitions.iter().map(|g| (&*g.place, g.ms, g.from_ms, g.ended)).collect();
    assert_eq!(told, [("t/0", 1_000, 6_000, true), ("t/1", 800, 8_600, false)]);
    assert_eq!((gaps.windows, gaps.p50_ms, gaps.p90_ms, gaps.longest_ms), (3, 800, 1_000, 1_000));
}

#[test]
fn however_much_is_wrong_the_report_stays_short() {
    let (mut history, _) = planted::clean(5, 40_000);
    // Every replica loses all it has, and nothing may be retired: thousands of findings, of several kinds.
    for call in &mut history.calls {
        if let crate::history::Outcome::Ok(Answer::FinalRead(answer)) = &mut call.outcome {
            answer.recs.clear();
        }
    }
    let report = Report::judge(&history, &Expectations::default());
    assert!(report.violations > 1_000, "{}", report.violations);
    let text = report.to_string();
    assert!(text.lines().count() < 50, "{text}");
    assert!(text.contains("more\n"), "{text}");
    assert!(report.json_line().len() < 20_000, "{} bytes", report.json_line().len());
}
