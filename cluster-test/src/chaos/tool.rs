//! Programs of the operating system, run to their end.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program that ends soon, with `input` on its standard input, and gives what it printed.
///
/// # Errors
/// If it cannot be started or ends with a failure; its own words are in the error.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    run_command(Command::new(program).args(args), input)
}

/// As [`run`], of a command with more than arguments.
///
/// # Errors
/// The same.
pub fn run_command(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading says why in its own words.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is installed.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Network tools stand in sbin, which is not on every user's path.
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file())
}

/// Whether processes can be traced.
///
/// # Errors
/// What is missing, in words that end up in the report.
pub fn strace() -> Result<(), String> {
    if installed("strace") { Ok(()) } else { Err("strace is not installed (package strace)".to_owned()) }
}
