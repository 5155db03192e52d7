//! What is kept of a round for somebody who wants to know more.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cluster_test::chaos::RoundReport;
use cluster_test::chaos::round::RoundSpec;

use super::args::Args;

/// Copies a round's history, logs, plan and report to a folder of their own, if they are to be kept; says where.
pub(crate) fn keep(args: &Args, spec: &RoundSpec, round: &RoundReport) -> Result<Option<PathBuf>> {
    if args.keep.is_none() && round.is_clean() {
        return Ok(None);
    }
    let root = args.keep.clone().unwrap_or_else(default_folder);
    let name = format!("{}-{}-round-{}", args.fabric.name(), args.seed.unwrap_or_default(), round.number);
    let into = root.join(name);
    copy(spec, round, &into).with_context(|| format!("keeping files in {}", into.display()))?;
    Ok(Some(into))
}

/// Beside the build's output.
fn default_folder() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map_or_else(std::env::temp_dir, Path::to_owned).join("chaos")
}

fn copy(spec: &RoundSpec, round: &RoundReport, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    std::fs::write(into.join("report.json"), serde_json::to_string_pretty(round)?)?;
    std::fs::write(into.join("plan.txt"), format!("{:#?}\n", spec.plan))?;
    let logs = std::fs::read_dir(spec.logs()).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in logs.chain([spec.history()]).filter(|file| file.is_file()) {
        let name = file.file_name().unwrap_or_default();
        std::fs::copy(&file, into.join(name))?;
    }
    Ok(())
}
