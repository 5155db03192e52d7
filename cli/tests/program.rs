//! The program as a shell sees it, without a cluster: exit codes, where output goes, the shape of errors.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure there fails the test")]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// Nothing listens on the discard port of a test machine's loopback.
const NOBODY: &str = "127.0.0.1:9";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_altair-cli"));
    command.args(args).stdin(Stdio::null());
    for variable in ["ALTAIR_ADDR", "ALTAIR_OUTPUT", "COMPLETE", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_error_has_code_cause_and_next_step_on_standard_error() {
    let output = run(&["--addr", NOBODY, "topic", "list", "--timeout", "2s"]);
    assert_eq!(code(&output), 6);
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("error[ALT-7001]: "), "{said}");
    assert!(lines.last().unwrap().starts_with("  try: "), "{said}");
    assert!(lines[1..].iter().all(|line| line.starts_with("  ")), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours in a pipe: {said}");
}

#[test]
fn a_cluster_that_is_not_there_is_told_within_the_timeout() {
    for args in [
        &["cluster", "health"][..],
        &["produce", "orders", "x"],
        &["consume", "orders"],
        &["topic", "create", "orders"],
        &["verify", "run"],
    ] {
        let begun = Instant::now();
        let output = command(args).args(["--addr", NOBODY, "--timeout", "3s"]).output().unwrap();
        assert_eq!(code(&output), 6, "{args:?}: {}", text(&output.stderr));
        assert!(begun.elapsed() < Duration::from_secs(20), "{args:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [
        &["topic"][..],
        &["topic", "create"],
        &["nonsense"],
        &["topic", "list", "-o", "xml"],
        &["consume", "orders", "--from", "never"],
        &["consume", "orders", "--group", "g", "--partition", "3"],
        &["partition", "transfer-leader", "orders"],
        &["error", "ALT-0000"],
        &["topic", "create", "a b"],
        &["topic", "update", "orders"],
        &["topic", "delete", "orders"],
        &["verify", "run", "--with", "transfers"],
        &["verify", "run", "--topic-prefix", "a b"],
        &["verify", "report", "/nowhere/at/all.jsonl"],
        &["cluster", "health", "-o", "value", "--help-me"],
    ] {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in
        [&["--help"][..], &["topic", "create", "--help"], &["--version"], &["version"], &["help", "consume"]]
    {
        let output = run(args);
        assert_eq!(code(&output), 0, "{args:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn an_error_code_is_explained_in_every_form() {
    assert!(text(&run(&["error", "ALT-2107"]).stdout).contains("Next: "));
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["error", "2107", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["name"], &json["exit_code"]), (&"not_enough_brokers".into(), &4.into()));
    let names = text(&run(&["error", "-q"]).stdout);
    assert!(names.lines().all(|line| line.starts_with("ALT-")) && names.lines().count() > 40);
    let yaml = text(&run(&["error", "not_leader", "-o", "yaml"]).stdout);
    assert!(yaml.contains("code: ALT-5001\n"), "{yaml}");
    let lines = text(&run(&["error", "-o", "ndjson"]).stdout);
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().is_object()));
}

#[test]
fn output_form_comes_from_the_environment_and_a_flag_wins() {
    let output = command(&["version"]).env("ALTAIR_OUTPUT", "json").output().unwrap();
    assert!(text(&output.stdout).starts_with('{'));
    let output = command(&["version", "-o", "name"]).env("ALTAIR_OUTPUT", "json").output().unwrap();
    assert_eq!(text(&output.stdout).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_fields_of_the_json_are_listed_without_a_cluster() {
    for args in [
        &["topic", "list"][..],
        &["partition", "list"],
        &["broker", "list"],
        &["cluster", "status"],
        &["produce", "orders"],
        &["consume", "orders"],
        &["log", "dump", "nowhere"],
        &["verify", "run"],
        &["verify", "report", "nowhere"],
    ] {
        let output = command(args).args(["-o", "help", "--addr", NOBODY]).output().unwrap();
        assert_eq!(code(&output), 0, "{args:?}");
        assert!(text(&output.stdout).contains("MEANING"), "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // The pipe is closed before the first byte is written, or meanwhile: either way the write fails.
    let mut child =
        command(&["error", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
}

#[test]
fn destruction_is_confirmed_or_refused_but_never_asked_of_a_pipe() {
    let mut child = command(&["topic", "delete", "orders", "--addr", NOBODY])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"y\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
}

#[test]
fn every_shell_gets_its_script_and_candidates() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&run(&["completion", shell]).stdout);
        assert!(script.contains("COMPLETE"), "{shell}: {script}");
    }
    let output = command(&["--", "altair-cli", "topic", "desc"])
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout).trim(), "describe");
    // Topic names come from the cluster; without one there are none, soon.
    let begun = Instant::now();
    let output = command(&["--", "altair-cli", "consume", ""])
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .env("ALTAIR_ADDR", NOBODY)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_directory_that_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["log", "dump", dir.path().to_str().unwrap()]);
    assert_eq!(code(&output), 4);
    assert!(text(&output.stderr).starts_with("error[ALT-6004]: "), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing may be made in it");
}
