//! Chaos on real processes: rounds of faults under load, and a verdict on what clients saw.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cluster_test::chaos::plan::families;
use cluster_test::chaos::round::{self, RoundSpec};
use cluster_test::chaos::workdir::{self, WorkDir};
use cluster_test::chaos::{FabricKind, Plan, RoundReport, RunReport, power, sandbox};
use cluster_test::harness;

/// Something is wrong with the cluster, or the harness broke.
const EXIT_FOUND: u8 = 1;
/// Something is wrong with the command, or this machine cannot do what it asks for.
const EXIT_USAGE: u8 = 2;

/// Runs clusters of real `altair` processes through faults, and judges what their clients saw.
///
/// Each round is a cluster of its own: start, load, faults, heal, writes again everywhere, a final read of every replica, the
/// verdict. The seed decides everything that is drawn. The last line is one JSON object; the exit code is 1 if anything is
/// wrong with the cluster, 2 if the command cannot be done.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  chaos --fabric netns --nodes 3 --rounds 10 --secs 30\n  chaos --fabric proxy --rounds 5 --faults kill,pause\n  chaos --fabric netns --seed 17 --round 4\n\nEvery failure prints the line that replays its round."
)]
struct Args {
    /// What carries the cluster: network namespaces (root), or TCP proxies (anybody).
    #[arg(long, default_value = "netns", value_parser = fabric)]
    fabric: FabricKind,
    /// Brokers of each cluster: 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = size)]
    nodes: u32,
    /// Rounds to play.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Time of each round in which things go wrong. Unit: s.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    secs: u64,
    /// Decides everything that is drawn. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Plays this round of the seed only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    round: Option<u32>,
    /// Draws from these families of faults only; `--faults help` names them.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = family)]
    faults: Vec<String>,
    /// Keeps histories, logs and reports of all rounds here. Those of failed rounds are always kept.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The `altair` binary. Default: that of this build.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Runs inside the harness's own namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn fabric(text: &str) -> Result<FabricKind, String> {
    let names: Vec<&str> = FabricKind::ALL.iter().map(|kind| kind.name()).collect();
    let found = FabricKind::ALL.iter().find(|kind| kind.name() == text).copied();
    found.ok_or_else(|| format!("fabrics are {}", names.join(", ")))
}

fn size(text: &str) -> Result<u32, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(format!("a cluster has 3 or 5 brokers, not {text}")),
    }
}

fn family(text: &str) -> Result<String, String> {
    let names: Vec<&str> = families().collect();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("families are {}", names.join(", "))),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = if args.inside { inside(args) } else { outside(args) };
    outcome.unwrap_or_else(|error| {
        say(&format!("chaos: {error:#}"));
        ExitCode::from(EXIT_USAGE)
    })
}

/// Prepares what needs the world as it is, and goes on in namespaces where the fabric has them.
fn outside(mut args: Args) -> Result<ExitCode> {
    args.binary = Some(binary(args.binary.as_deref())?);
    args.seed = Some(match args.seed {
        Some(seed) => seed,
        None => broker::runtime::Random::from_os()?.range(1..1 << 32),
    });
    for stale in workdir::clear_stale()? {
        say(&format!("removed {}, which a killed run had left", stale.display()));
    }
    let apart = match args.fabric {
        FabricKind::Netns => sandbox::check().map(|()| true)?,
        // Not needed, but then nothing can be left behind, and disks can be made.
        FabricKind::Proxy => sandbox::possible(),
    };
    if !apart {
        return play(&args);
    }
    let status = sandbox::rerun(&inner(&args))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(EXIT_FOUND)))
}

fn inside(args: Args) -> Result<ExitCode> {
    sandbox::furnish()?;
    play(&args)
}

/// The arguments of the same command inside.
fn inner(args: &Args) -> Vec<String> {
    let mut words = flags(args);
    words.extend(["--inside".to_owned(), "--rounds".to_owned(), args.rounds.to_string()]);
    if let Some(round) = args.round {
        words.extend(["--round".to_owned(), round.to_string()]);
    }
    for (name, path) in [("--keep", &args.keep), ("--binary", &args.binary)] {
        words.extend(path.iter().flat_map(|path| [name.to_owned(), path.display().to_string()]));
    }
    words
}

/// Flags that decide what a round of the run is.
fn flags(args: &Args) -> Vec<String> {
    let mut words = vec!["--fabric".to_owned(), args.fabric.name().to_owned()];
    let numbers =
        [("--nodes", u64::from(args.nodes)), ("--secs", args.secs), ("--seed", args.seed.unwrap_or(0))];
    words.extend(numbers.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
    if !args.faults.is_empty() {
        words.extend(["--faults".to_owned(), args.faults.join(",")]);
    }
    words
}

/// The server binary. Started by cargo, this program has it built first: it must be of the same tree.
fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "{} is not a file", path.display());
        return std::path::absolute(path).context("finding the binary");
    }
    if std::env::var_os("ALTAIR_BIN").is_none()
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "-p", "broker", "--bin", "altair", "--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .status();
        ensure!(built.context("building altair")?.success(), "altair does not build");
    }
    let path = harness::altair();
    ensure!(path.is_file(), "{} is not a file; build altair, or name it with --binary", path.display());
    std::path::absolute(&path).context("finding the binary")
}

fn play(args: &Args) -> Result<ExitCode> {
    if let Ok(level) = std::env::var("RUST_LOG") {
        broker::runtime::telemetry::init(broker::runtime::telemetry::LogFormat::Text, &level)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(run(args))?;
    print(&report.text());
    print(&report.line(args.seed.unwrap_or(0), &harness::commit())?);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

async fn run(args: &Args) -> Result<RunReport> {
    power::clear_stale()?;
    let work = WorkDir::make()?;
    let seed = args.seed.unwrap_or(0);
    let length = Duration::from_secs(args.secs);
    let plan = Plan { seed, brokers: args.nodes, length, only: args.faults.clone() };
    let binary = args.binary.clone().context("no binary")?;
    let (fabric, nodes, secs) = (args.fabric.name(), args.nodes, args.secs);
    print(&format!(
        "chaos on {fabric}: {nodes} brokers, {secs} s a round, seed {seed}, commit {}\n",
        harness::commit()
    ));
    let mut report = RunReport::default();
    let numbers = args.round.map_or(1..=args.rounds, |number| number..=number);
    for number in numbers {
        let dir = work.path().join(format!("round-{number}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let spec = RoundSpec { fabric: args.fabric, plan: plan.round(number), binary: binary.clone(), dir };
        let round = round::run(&spec).await;
        tell(args, &spec, &round)?;
        // Data of a round that is over is of no use to the next one, whose disk it would fill.
        std::fs::remove_dir_all(&spec.dir).with_context(|| format!("removing {}", spec.dir.display()))?;
        report.rounds.push(round);
    }
    Ok(report)
}

/// Prints a round, and keeps what somebody needs who wants to know more.
fn tell(args: &Args, spec: &RoundSpec, round: &RoundReport) -> Result<()> {
    print(round.text().trim_end());
    if !round.is_clean() {
        let replay = format!("{} --round {}", flags(args).join(" "), round.number);
        print(&format!(
            "  seed {}, commit {}; replay: cargo run --release -p cluster-test --bin chaos -- {replay}",
            args.seed.unwrap_or(0),
            harness::commit()
        ));
    }
    if args.keep.is_none() && round.is_clean() {
        return Ok(());
    }
    let root = args.keep.clone().unwrap_or_else(default_keep);
    let into = root.join(format!("{}-{}-round-{}", args.fabric.name(), args.seed.unwrap_or(0), round.number));
    keep(spec, round, &into).with_context(|| format!("keeping files in {}", into.display()))?;
    print(&format!("  kept: {}", into.display()));
    Ok(())
}

/// Beside the build's output.
fn default_keep() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map_or_else(std::env::temp_dir, Path::to_owned).join("chaos")
}

fn keep(spec: &RoundSpec, round: &RoundReport, into: &Path) -> Result<()> {
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

// A closed pipe is no reason to fail.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
