//! The judge as people run it: histories of a model cluster in files, broken in every way that the judge knows, and files
//! that cannot be believed.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure there fails the test")]

use std::path::Path;
use std::process::{Command, Output};

use verify::check::planted;
use verify::history::{Expectations, History, HistoryError};

/// Histories that are tried until one has a place for an anomaly; most have.
const SEEDS: u64 = 40;
const STEPS: u64 = 600;

fn check(paths: &[&Path]) -> Output {
    check_with(paths, &[])
}

fn check_with(paths: &[&Path], flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_check")).args(paths).args(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The JSON of the last line.
fn json(output: &Output) -> serde_json::Value {
    let said = text(&output.stdout);
    serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// Writes a history with what may be expected of it.
fn keep((mut history, expectations): (History, Expectations), dir: &Path) -> Result<(), HistoryError> {
    history.expectations = Some(expectations);
    history.write(dir).map(drop)
}

/// A clean history in one file.
fn clean_file(dir: &Path) -> std::path::PathBuf {
    let one =
        (0..SEEDS).map(|seed| planted::clean(seed, STEPS)).find(|(history, _)| history.files.len() == 1);
    keep(one.unwrap(), dir).unwrap();
    dir.join("w0.jsonl")
}

#[test]
fn clean_histories_end_with_0_and_a_report() {
    let mut merged = 0;
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let (history, expectations) = planted::clean(seed, STEPS);
        merged += usize::from(history.files.len() > 1);
        let events = history.events;
        keep((history, expectations), dir.path()).unwrap();
        let output = check(&[dir.path()]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "seed {seed}: {said}{}", text(&output.stderr));
        assert!(said.starts_with("verdict      clean: nothing acknowledged is lost"), "{said}");
        let json = json(&output);
        assert_eq!((&json["verdict"], &json["violations"]), (&"clean".into(), &0.into()));
        assert!(json["lines"].as_u64().unwrap() >= events, "{json} of {events} lines");
    }
    assert!(merged > 5, "only {merged} of these runs had several files");
}

#[test]
fn every_planted_anomaly_is_found_in_files_too() {
    for (way, (name, anomaly)) in planted::ways().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let broken = (0..SEEDS).find_map(|seed| planted::broken(way, seed, STEPS));
        keep(broken.unwrap_or_else(|| panic!("no history has a place for: {name}")), dir.path()).unwrap();
        let output = check(&[dir.path()]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}{}", text(&output.stderr));
        let json = json(&output);
        assert!(json["findings"][anomaly.name()].as_u64() > Some(0), "{name}: {json}");
        assert!(said.starts_with("verdict      VIOLATED, "), "{name}: {said}");
        assert!(said.contains(&format!("\n{anomaly}: {}\n", anomaly.meaning())), "{name}: {said}");
        assert!(said.lines().count() < 60, "{name}: more than a screen: {said}");
    }
}

#[test]
fn files_of_one_run_may_be_given_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let several = (0..SEEDS).map(|seed| planted::clean(seed, STEPS)).find(|(h, _)| h.files.len() == 3);
    keep(several.unwrap(), dir.path()).unwrap();
    let paths = ["w2.jsonl", "w0.jsonl", "w1.jsonl"].map(|name| dir.path().join(name));
    let output = check(&[&paths[0], &paths[1], &paths[2]]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(json(&output)["files"], 3);
    // One of them alone has readers of what nobody sent.
    let alone = check(&[&paths[1]]);
    assert_eq!(alone.status.code(), Some(1), "{}", text(&alone.stdout));
}

#[test]
fn flags_say_more_than_the_history_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = clean_file(dir.path());
    assert_eq!(check_with(&[&path], &["--replicas", "3"]).status.code(), Some(0));
    let output = check_with(&[&path], &["--replicas", "4"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(json(&output)["findings"]["unseen"].as_u64() > Some(0));
}

/// One way to spoil a file: what is done to its lines, and what must be said of it.
type Spoilt = (&'static str, fn(Vec<String>) -> String, &'static str);

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Place of the first line that has all these parts.
fn first(lines: &[String], parts: &[&str]) -> usize {
    lines.iter().position(|line| parts.iter().all(|part| line.contains(part))).unwrap()
}

const SPOILT: &[Spoilt] = &[
    (
        "a call that never began",
        |mut all| {
            all.remove(first(&all, &["\"e\":\"invoke\""]));
            lines(&all)
        },
        "lines are missing",
    ),
    (
        "an outcome taken away",
        |mut all| {
            all.remove(first(&all, &["\"e\":\"ok\""]));
            lines(&all)
        },
        "lines are missing",
    ),
    (
        "a last line cut off",
        |all| {
            let whole = lines(&all);
            whole[..whole.len() - 5].to_owned()
        },
        "delete that line",
    ),
    ("the first lines cut off", |all| lines(&all[5..]), "the beginning is missing"),
    (
        "another version",
        |all| lines(&all).replacen("\"version\":1", "\"version\":99", 1),
        "check it with the version of Altair that recorded it",
    ),
    (
        "an operation that nobody knows",
        |all| lines(&all).replacen("\"op\":\"poll\"", "\"op\":\"dance\"", 1),
        "unknown variant `dance`",
    ),
    (
        "an id given twice",
        |mut all| {
            let at = first(&all, &["\"e\":\"invoke\"", "\"id\":3,"]);
            all[at] = all[at].replacen("\"id\":3,", "\"id\":2,", 1);
            lines(&all)
        },
        "call #2 begins where call #3 is due",
    ),
    (
        "a second outcome",
        |mut all| {
            let at = first(&all, &["\"e\":\"ok\""]);
            all.insert(at, all[at].clone());
            lines(&all)
        },
        "a second outcome",
    ),
    (
        "time that goes back",
        |mut all| {
            let (early, late) = (all[3].clone(), all.len() - 2);
            all[late] = early;
            lines(&all)
        },
        "time goes back",
    ),
    ("no history at all", |_| "hello\n".to_owned(), "expected value"),
    ("an empty file", |_| String::new(), "no line at all"),
];

#[test]
fn a_history_with_holes_is_refused_with_file_line_and_advice() {
    for (name, spoil, expected) in SPOILT {
        let dir = tempfile::tempdir().unwrap();
        let path = clean_file(dir.path());
        let all: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        std::fs::write(&path, spoil(all)).unwrap();
        let output = check(&[&path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}{}", text(&output.stdout));
        assert!(output.stdout.is_empty(), "{name}");
        assert!(said.starts_with(&format!("check: {}:", path.display())), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn what_cannot_be_read_and_wrong_usage_end_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let missing = check(&[&dir.path().join("none.jsonl")]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("cannot be opened; check the path"), "{}", text(&missing.stderr));
    let empty = check(&[dir.path()]);
    assert_eq!(empty.status.code(), Some(2));
    assert!(text(&empty.stderr).contains("no .jsonl file in it"), "{}", text(&empty.stderr));
    assert_eq!(check(&[]).status.code(), Some(2));
    assert_eq!(check_with(&[dir.path()], &["--replicas", "many"]).status.code(), Some(2));
}
