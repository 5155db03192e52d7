use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// The first line of every history.
const BEGIN: &str = "{\"t\":0,\"w\":0,\"e\":\"begin\",\"version\":1}\n";

/// A clock that goes on by 10 ns with each look.
fn ticking() -> Clock {
    let now = AtomicU64::new(0);
    Arc::new(move || now.fetch_add(10, Ordering::Relaxed))
}

fn send(vals: Vec<u64>) -> Op {
    let seq = vals[0];
    Op::Send(Send { topic: "t".into(), part: 3, producer: 7, idem: true, acks: AckLevel::All, seq, vals })
}

fn receipt(off: Vec<u64>) -> Answer {
    Answer::Send(SendAnswer { off, epoch: 9, index: 40, dup: false })
}

/// One of every line there is.
fn record_all(recorder: &Recorder) {
    let id = recorder.invoke(7, send(vec![value(7, 0), value(7, 1)]));
    recorder.ok(id, receipt(vec![5, 6]));
    let id = recorder.invoke(7, send(vec![value(7, 2)]));
    recorder.fail(id, "NotEnoughReplicas");
    let id = recorder.invoke(8, Op::Poll(Poll { consumer: 8 }));
    let polled = PolledPartition {
        topic: "t".into(),
        part: 3,
        recs: vec![(5, value(7, 0)), (6, FOREIGN)],
        hw: Some(7),
        start: None,
    };
    recorder.ok(id, Answer::Poll(PollAnswer { parts: vec![polled] }));
    for to in [SeekTo::Earliest, SeekTo::Latest, SeekTo::Offset(5)] {
        let id = recorder.invoke(8, Op::Seek(Seek { consumer: 8, topic: "t".into(), part: 3, to }));
        recorder.ok(id, Answer::Seek);
    }
    for what in [OffsetKind::Start, OffsetKind::End] {
        let ask = ListOffsets { topic: "t".into(), part: 3, what, linearizable: true };
        let id = recorder.invoke(8, Op::ListOffsets(ask));
        recorder.ok(id, Answer::ListOffsets(ListOffsetsAnswer { off: 7 }));
    }
    recorder.fault("kill", "broker 2", FaultOutcome::Indeterminate, "pid 17");
    let id = recorder.invoke(9, Op::Metadata(Metadata { broker: 2 }));
    let topic = TopicView {
        topic: "t".into(),
        id: "1f".into(),
        parts: vec![PartitionLeader { leader: Some(1), epoch: 4 }, PartitionLeader::default()],
    };
    recorder.ok(id, Answer::Metadata(MetadataAnswer { topics: vec![topic] }));
    let id = recorder.invoke(9, Op::FinalRead(FinalRead { topic: "t".into(), part: 3, replica: 2 }));
    let recs = vec![FinalRecord { off: 5, val: value(7, 0), epoch: 9, sum: 77 }];
    recorder.ok(id, Answer::FinalRead(FinalReadAnswer { start: 5, hw: 6, recs }));
    record_group(recorder);
    let id = recorder.invoke(7, send(vec![value(7, 3)]));
    recorder.info(id, "RequestTimedOut");
    recorder.invoke(7, send(vec![value(7, 4)]));
}

fn record_group(recorder: &Recorder) {
    let (group, topic): (Arc<str>, Arc<str>) = ("g".into(), "t".into());
    for from in [None, Some(5)] {
        let (group, topic) = (group.clone(), topic.clone());
        let op = Op::Assign(Assign { consumer: 8, group, topic, part: 3, since: 12, from });
        let id = recorder.invoke(8, op);
        recorder.ok(id, Answer::Assign);
    }
    let parts = vec![CommitPart { topic: topic.clone(), part: 3, off: 6 }];
    let id = recorder.invoke(8, Op::Commit(Commit { consumer: 8, group: group.clone(), parts }));
    recorder.ok(id, Answer::Commit);
    let op = Op::Release(Release { consumer: 8, group: group.clone(), topic: topic.clone(), part: 3 });
    let id = recorder.invoke(8, op);
    recorder.ok(id, Answer::Release);
    for off in [None, Some(6)] {
        let ask = Committed { group: group.clone(), topic: topic.clone(), part: 3 };
        let id = recorder.invoke(8, Op::Committed(ask));
        recorder.ok(id, Answer::Committed(CommittedAnswer { off }));
    }
    let id = recorder.invoke(8, Op::Drain(Drain { group, topics: vec![topic] }));
    recorder.ok(id, Answer::Drain);
}

#[test]
fn a_file_reads_back_as_what_was_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let memory = Recorder::memory(ticking());
    let file = Recorder::file(ticking(), &path).unwrap();
    record_all(&memory);
    record_all(&file);
    file.finish().unwrap();
    let read = History::read(&[&path]).unwrap();
    let mut kept = memory.history().unwrap();
    assert_eq!(kept.calls.len(), 19);
    assert_eq!(kept.faults.len(), 1);
    assert_eq!(kept.calls[18].completed, None, "the last send has no outcome");
    assert_eq!(kept.calls[18].outcome, Outcome::Info(String::new()));
    kept.files.clone_from(&read.files);
    assert_eq!(kept, read);
}

#[test]
fn a_history_in_memory_is_written_as_the_files_it_could_have_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let recorders = [Recorder::memory(ticking()), Recorder::memory(ticking())];
    recorders[0].expect(Expectations { replicas: 2, ..Expectations::default() });
    recorders.iter().for_each(record_all);
    let events = recorders.iter().enumerate().map(|(file, recorder)| {
        recorder.finish().unwrap();
        // Values must differ: the second recorder's worker is another.
        let mut events = recorder.take_events();
        for event in &mut events {
            if let EventKind::Invoke { op: Op::Send(send), .. } = &mut event.kind {
                send.vals.iter_mut().for_each(|value| *value += (file as u64) << 50);
            }
        }
        (format!("w{file}.jsonl"), events)
    });
    let mut history = History::from_events(events.collect()).unwrap();
    let paths = history.write(dir.path()).unwrap();
    let read = History::read(&paths).unwrap();
    assert_eq!(read.expectations.unwrap().replicas, 2);
    history.files.clone_from(&read.files);
    assert_eq!(history, read);
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = dir.path().join(name);
        let recorder = Recorder::file(ticking(), &path).unwrap();
        record_all(&recorder);
        recorder.finish().unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(write("a"), write("b"));
}

#[test]
fn the_lines_shown_in_the_doc_are_what_is_read() {
    let doc = include_str!("../history.rs");
    let lines: String = doc
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with("{\"t\""))
        .map(|line| format!("{line}\n"))
        .collect();
    let history = History::from_bytes("doc", lines.as_bytes()).unwrap();
    assert_eq!((history.calls.len(), history.faults.len(), history.end), (5, 1, 999));
    assert_eq!(history.expectations, Some(Expectations { replicas: 3, ..Expectations::default() }));
    // And written again they are the same bytes.
    for line in lines.lines() {
        let event = Event::parse(line.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}

#[test]
fn files_are_merged_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let line = |t: u64, id: u64| {
        format!("{{\"t\":{t},\"w\":1,\"e\":\"invoke\",\"id\":{id},\"op\":\"poll\",\"consumer\":1}}\n")
    };
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, BEGIN.to_owned() + &line(10, 1) + &line(30, 2)).unwrap();
    std::fs::write(&b, BEGIN.to_owned() + &line(10, 1) + &line(20, 2)).unwrap();
    let history = History::read(&[&a, &b]).unwrap();
    let order: Vec<_> = history.calls.iter().map(|call| (call.invoked.t, call.invoked.file)).collect();
    assert_eq!(order, [(10, 0), (10, 1), (20, 1), (30, 0)]);
    let (first, second) = (history.calls[0].invoked, history.calls[1].invoked);
    assert!(!first.before(second) && !second.before(first), "the same time in two files is no order");
    assert!(first.before(history.calls[2].invoked));
    assert!(
        history.call_name(&history.calls[2]).ends_with("b#2"),
        "{}",
        history.call_name(&history.calls[2])
    );
}

#[test]
fn damaged_histories_are_refused_with_line_and_advice() {
    let invoke = |t: u64, id: u64| {
        format!("{{\"t\":{t},\"w\":1,\"e\":\"invoke\",\"id\":{id},\"op\":\"poll\",\"consumer\":1}}\n")
    };
    let ok = |t: u64, id: u64| {
        format!("{{\"t\":{t},\"w\":1,\"e\":\"ok\",\"id\":{id},\"op\":\"poll\",\"parts\":[]}}\n")
    };
    let two_values = "{\"t\":1,\"e\":\"invoke\",\"id\":1,\"op\":\"send\",\"topic\":\"t\",\"part\":0,\"producer\":1,\"idem\":true,\"acks\":\"all\",\"seq\":0,\"vals\":[1,2]}\n";
    let cases = [
        (invoke(1, 1) + "\n" + &ok(2, 1), "h:3: EOF"),
        (invoke(1, 1) + &ok(2, 2), "h:3: an outcome of call #2, which never began"),
        (invoke(1, 1) + &ok(2, 0), "h:3: an outcome of call #0, which never began"),
        (invoke(1, 1) + &ok(2, 1) + &ok(3, 1), "h:4: a second outcome of call #1, the first is in line 3"),
        (invoke(1, 2), "h:2: call #2 begins where call #1 is due"),
        (invoke(1, 1) + &invoke(2, 1), "h:3: call #1 begins where call #2 is due"),
        (invoke(5, 1) + &invoke(4, 2), "h:3: time goes back, from 5 ns to 4 ns"),
        (invoke(1, 1) + ok(2, 1).trim_end(), "h:3: the last line is cut off; the writer was killed"),
        (invoke(1, 1) + &ok(2, 1)[..30], "h:3: the last line is cut off"),
        (
            invoke(1, 1) + "{\"t\":2,\"e\":\"end\",\"events\":3}\n",
            "h:3: the recording had 3 lines before its end, here are 2",
        ),
        ("{\"t\":2,\"e\":\"end\",\"events\":1}\n".to_owned() + &invoke(3, 1), "h:3: a line after the end"),
        (
            "{\"t\":1,\"e\":\"invoke\",\"op\":\"poll\",\"consumer\":1}\n".to_owned(),
            "h:2: a call without \"id\"",
        ),
        ("{\"t\":1,\"e\":\"invoke\",\"id\":1,\"consumer\":1}\n".to_owned(), "h:2: a call without \"op\""),
        ("{\"t\":1,\"e\":\"invoke\",\"id\":1,\"op\":\"dance\"}\n".to_owned(), "h:2: unknown variant `dance`"),
        ("{\"t\":1,\"e\":\"invoke\",\"id\":1,\"op\":\"poll\"}\n".to_owned(), "h:2: missing field `consumer`"),
        ("{\"t\":-1,\"e\":\"end\",\"events\":0}\n".to_owned(), "h:2: invalid value"),
        (
            two_values.to_owned() + &two_values.replace("\"id\":1", "\"id\":2"),
            "h:3: call #2 sends value 1, and so did call #1",
        ),
        (two_values.to_owned() + &ok(2, 1), "h:3: call #1 is a Send and was answered as a Poll"),
        (
            two_values.to_owned() + "{\"t\":2,\"e\":\"ok\",\"id\":1,\"op\":\"send\",\"off\":[4]}\n",
            "h:3: call #1 sent 2 values and got 1 offsets",
        ),
    ];
    let cases = cases.map(|(text, expected)| (BEGIN.to_owned() + &text, expected));
    let expect = "{\"t\":0,\"e\":\"expect\",\"replicas\":3}\n";
    let beginnings = [
        (String::new(), "no line at all"),
        ("not json\n".to_owned(), "h:1: expected"),
        (invoke(1, 1), "h:1: the beginning is missing"),
        (BEGIN.repeat(2), "h:2: a second beginning"),
        (BEGIN.replace("\"version\":1", "\"version\":2"), "h:1: version 2 of the format, this is version 1"),
        (BEGIN.replace(",\"version\":1", ""), "h:1: missing field `version`"),
        (BEGIN.to_owned() + expect + expect, "h:3: expectations are told a second time"),
    ];
    for (text, expected) in beginnings.into_iter().chain(cases) {
        let error = History::from_bytes("h", text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\ngave {error}\ninstead of {expected}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = History::read(&["/nowhere/at/all.jsonl"]).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/at/all.jsonl: cannot be opened"), "{error}");
}

#[test]
fn what_is_recorded_after_the_end_is_dropped() {
    let recorder = Recorder::memory(ticking());
    let id = recorder.invoke(1, send(vec![1]));
    recorder.finish().unwrap();
    recorder.ok(id, receipt(vec![0]));
    let history = recorder.history().unwrap();
    assert_eq!(history.calls[0].outcome, Outcome::Info(String::new()));
}

#[test]
fn a_recording_that_could_not_be_written_says_so() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let recorder = Recorder::writer(ticking(), Box::new(Full));
    recorder.invoke(1, send(vec![1]));
    assert!(matches!(recorder.finish(), Err(HistoryError::Write { .. })));
}

#[test]
fn values_tell_their_worker() {
    assert_eq!(value(7, 981), 7 << 40 | 981);
    assert_eq!(value_parts(value(7, 981)), (7, 981));
}
