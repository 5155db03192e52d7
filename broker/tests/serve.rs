//! The binary `altair` as an operator meets it: exit codes, signals, last lines.

#![expect(clippy::expect_used, reason = "helpers of tests fail the test that uses them")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Half a minute of looks.
const LOOKS: u32 = 3_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

fn altair(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_altair"));
    command.args(args).env_remove("ALTAIR_CONFIG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    altair(args).output().expect("altair runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A broker on free ports that has said that it started, and what is left to read of its log.
fn serve(dir: &Path) -> (Child, BufReader<std::process::ChildStderr>, String) {
    let mut child = serve_command(dir).stderr(Stdio::piped()).spawn().expect("altair runs");
    let mut log = BufReader::new(child.stderr.take().expect("its log"));
    let mut line = String::new();
    while !line.contains("the broker has started") {
        line.clear();
        assert!(log.read_line(&mut line).expect("a line") > 0, "the broker ended instead of starting");
    }
    (child, log, line)
}

fn serve_command(dir: &Path) -> Command {
    let mut command = altair(&[
        "serve",
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
        "--peer-addr",
        "127.0.0.1:0",
    ]);
    command.arg("--data-dir").arg(dir).args(["--set", "telemetry.log_format=json"]);
    command
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("signalled");
}

/// Looks until there is something to see.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    panic!("{what} never happens");
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    wait_for("the end of the broker", || child.try_wait().expect("a status"))
}

#[test]
fn a_wrong_config_is_refused_with_exit_code_2_file_line_and_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("altair.yaml");
    std::fs::write(&file, "node:\n  id: 1\nstorage:\n  datadir: x\n").unwrap();
    for command in ["serve", "check-config"] {
        let refused = run(&[command, "--config", file.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(2), "{command}");
        let text = said(&refused);
        assert!(text.contains("altair.yaml:4:3: storage.datadir: unknown key"), "{text}");
        assert!(text.contains("try: storage.data_dir"), "{text}");
    }
    let missing = run(&["check-config", "--config", "/nonexistent.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn check_config_prints_values_and_origins() {
    let printed = run(&["check-config", "--id", "7", "-o", "json"]);
    assert_eq!(printed.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let id = &document["settings"]["node.id"];
    assert_eq!((id["value"].as_str(), id["origin"].as_str()), (Some("7"), Some("flag")));
    let table = run(&["check-config"]);
    assert!(String::from_utf8_lossy(&table.stdout).starts_with("KEY"));
}

#[test]
fn a_broker_stops_cleanly_on_sigterm_and_its_directory_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (mut child, mut log, _) = serve(dir.path());
        signal(&child, Signal::TERM);
        assert_eq!(wait(&mut child).code(), Some(0));
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("the rest of the log");
        assert!(rest.contains("the broker has stopped"), "{rest}");
    }
}

#[test]
fn a_second_broker_on_one_directory_is_refused_and_the_first_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _log, _) = serve(dir.path());
    let second = serve_command(dir.path()).output().expect("altair runs");
    assert_eq!(second.status.code(), Some(1));
    let last = said(&second).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("error: another broker runs in"), "{last}");
    assert!(child.try_wait().expect("a status").is_none());
    let mut other = serve_command(dir.path());
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(0));
    let wrong_id = other.args(["--id", "2"]).output().expect("altair runs");
    assert!(said(&wrong_id).contains("belongs to broker 1, but node.id is 2"), "{}", said(&wrong_id));
}

#[test]
fn a_taken_port_is_said_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let refused = serve_command(dir.path()).args(["--grpc-addr", &address]).output().expect("altair runs");
    // The flag stands twice: clap refuses that, so the environment says it.
    assert_eq!(refused.status.code(), Some(2));
    let refused = altair(&["serve", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir.path())
        .env("ALTAIR_GRPC__ADDR", &address)
        .output()
        .expect("altair runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains(&format!("cannot listen on {address} (grpc.addr)")),
        "{}",
        said(&refused)
    );
}

#[test]
fn health_tells_a_dead_broker_by_its_exit_code() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(run(&["health", "--addr", &closed]).status.code(), Some(1));
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _log, started) = serve(dir.path());
    let line: serde_json::Value = serde_json::from_str(&started).expect("a log line");
    let http = line["http"].as_str().expect("the address").to_owned();
    wait_for("readiness", || (run(&["health", "--addr", &http]).status.code() == Some(0)).then_some(()));
    signal(&child, Signal::TERM);
    wait(&mut child);
}

#[test]
fn a_bare_broker_works_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve_command(dir.path());
    let mut child =
        command.args(["--storage", "memory"]).stderr(Stdio::piped()).spawn().expect("altair runs");
    let mut log = BufReader::new(child.stderr.take().expect("its log"));
    let mut line = String::new();
    while !line.contains("cluster formed") {
        line.clear();
        assert!(log.read_line(&mut line).expect("a line") > 0, "the broker ended");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "memory leaves nothing on the disk");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(0));
}
