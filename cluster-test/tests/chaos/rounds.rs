//! Short rounds on each fabric, and one that must fail.

use anyhow::{Result, ensure};

use super::run::{Turn, line, missing, told};

/// A round with a kill, a pause and a cut.
fn is_clean(fabric: &str) -> Result<()> {
    if missing(fabric) {
        return Ok(());
    }
    let turn = Turn::take()?;
    let faults = "--faults kill,pause,isolate-from-brokers";
    let output = turn.run(&format!("--fabric {fabric} --nodes 3 --rounds 1 --secs 15 --seed 5 {faults}"))?;
    ensure!(output.status.code() == Some(0), "{}", told(&output));
    let line = line(&output)?;
    for key in ["lost", "duplicated", "violations", "broken", "skipped"] {
        ensure!(line[key] == 0, "{key}: {line}");
    }
    for key in ["rounds", "acked", "unavailable_ms_p50", "unavailable_ms_p99", "lone_writes"] {
        ensure!(line[key].as_u64() > Some(0), "{key}: {line}");
    }
    ensure!(line["installed"] == 3, "{line}");
    // What was asked to be kept is there, and nothing else.
    let kept = turn.dir.path().join("kept").join(format!("{fabric}-5-round-1"));
    for file in ["history.jsonl", "report.json", "plan.txt", "broker-1.log"] {
        ensure!(kept.join(file).is_file(), "{file} is not in {}", kept.display());
    }
    let left: Vec<_> = std::fs::read_dir(turn.dir.path())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left == ["kept"], "{left:?}");
    Ok(())
}

#[test]
fn a_round_behind_proxies_is_clean() -> Result<()> {
    is_clean("proxy")
}

#[test]
fn a_round_in_namespaces_is_clean() -> Result<()> {
    is_clean("netns")
}

#[test]
fn a_round_in_containers_is_clean() -> Result<()> {
    is_clean("docker")
}

/// All disks are set back by some seconds: acknowledged records are gone, and the cluster itself cannot know.
#[test]
fn acknowledged_records_that_vanish_are_found() -> Result<()> {
    let turn = Turn::take()?;
    let output = turn.run("--fabric proxy --nodes 3 --rounds 1 --secs 5 --seed 3 --faults roll-back")?;
    let (told, line) = (told(&output), line(&output)?);
    ensure!(output.status.code() == Some(1), "{told}");
    ensure!(
        line["lost"].as_u64() > Some(0) && line["violations"].as_u64() >= line["lost"].as_u64(),
        "{line}"
    );
    ensure!(line["broken"] == 0, "{line}");
    for words in ["lost-write", "FAILED", "replay: cargo run", "--seed 3", "--round 1"] {
        ensure!(told.contains(words), "{words:?} is not in:\n{told}");
    }
    Ok(())
}
