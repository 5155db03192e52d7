//! What cannot be done is said plainly, with what to do.

use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::run::{Turn, told};

fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let told = told(output);
    ensure!(output.status.code() == Some(2), "{told}");
    for words in words {
        ensure!(told.contains(words), "{words:?} is not in:\n{told}");
    }
    Ok(())
}

#[test]
fn arguments_that_make_no_sense_are_refused() -> Result<()> {
    let turn = Turn::take()?;
    refused(&turn.run("--fabric cloud")?, &["fabrics are netns, proxy, docker"])?;
    refused(&turn.run("--nodes 4")?, &["3 or 5 brokers"])?;
    refused(&turn.run("--faults help")?, &["families are kill,", "power-cut", "bit-flip"])?;
    refused(&turn.run("--fabric proxy --binary /nowhere/altair")?, &["/nowhere/altair is not a file"])
}

/// Programs that a fabric takes are not on the path of this run.
#[test]
fn a_fabric_that_this_machine_cannot_make_is_refused_with_what_to_install() -> Result<()> {
    let turn = Turn::take()?;
    let empty = turn.dir.path().join("bin");
    std::fs::create_dir(&empty)?;
    let run = |line: &str| turn.command(line).env("PATH", &empty).output().context("running chaos");
    refused(&run("--fabric docker")?, &["docker is not installed", "docker.io", "docker-compose"])?;
    refused(&run("--fabric netns")?, &["util-linux", "install the packages", "--fabric proxy"])
}

/// The engine's client is there, and no engine behind it.
#[test]
fn an_engine_that_does_not_answer_is_told() -> Result<()> {
    let turn = Turn::take()?;
    if !cluster_test::chaos::tool::installed("docker") {
        return Ok(());
    }
    let host = format!("unix://{}/none.sock", turn.dir.path().display());
    let output = turn.command("--fabric docker").env("DOCKER_HOST", host).output()?;
    refused(&output, &["no Docker engine answers", "start it", "--fabric netns or proxy"])
}
