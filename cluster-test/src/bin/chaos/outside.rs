//! The process that people start: it looks at the machine, prepares what needs the world as it is, and waits for a second
//! process that plays. Each of the two cleans up when the other one is killed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use cluster_test::chaos::fabric::docker;
use cluster_test::chaos::sandbox::{self, Walls};
use cluster_test::chaos::workdir::WorkDir;
use cluster_test::chaos::{FabricKind, leftovers};
use cluster_test::harness;

use super::EXIT_FOUND;
use super::args::Args;
use super::tell::say;

/// The image that is built from this tree.
const OWN_IMAGE: &str = "altair:chaos";
/// The image that `just image` builds.
const USUAL_IMAGE: &str = "altair:dev";

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    for what in leftovers::clear()? {
        say(&format!("removed {what}, which a killed run had left"));
    }
    if args.clean {
        return Ok(ExitCode::SUCCESS);
    }
    let walls = match args.fabric {
        FabricKind::Netns => sandbox::check().map(|()| Walls::Namespaces)?,
        // Not needed, but then nothing can be left behind, and disks can be made.
        FabricKind::Proxy if sandbox::possible() => Walls::Namespaces,
        FabricKind::Proxy => Walls::None,
        FabricKind::Docker => docker::check().map(|()| Walls::None)?,
    };
    match args.fabric {
        FabricKind::Docker => args.image = Some(image(args.image.as_deref())?),
        FabricKind::Netns | FabricKind::Proxy => args.binary = Some(binary(args.binary.as_deref())?),
    }
    args.seed = Some(match args.seed {
        Some(seed) => seed,
        None => broker::runtime::Random::from_os()?.range(1..1 << 32),
    });
    let work = WorkDir::make()?;
    let status = sandbox::rerun(&inner(&args, work.path()), work.path(), walls)?;
    // Nothing, unless the other process was killed.
    docker::remove(work.path());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    if code.is_none() {
        say(&format!("chaos: the process that played was ended from outside ({status})"));
    }
    Ok(ExitCode::from(code.unwrap_or(EXIT_FOUND)))
}

/// The arguments of the process that plays.
fn inner(args: &Args, work: &Path) -> Vec<String> {
    let mut words = args.flags();
    words.extend(["--rounds".to_owned(), args.rounds.to_string()]);
    if let Some(round) = args.round {
        words.extend(["--round".to_owned(), round.to_string()]);
    }
    if let Some(image) = &args.image {
        words.extend(["--image".to_owned(), image.clone()]);
    }
    let inside = Some(work.to_owned());
    for (name, path) in [("--keep", &args.keep), ("--binary", &args.binary), ("--inside", &inside)] {
        words.extend(path.iter().flat_map(|path| [name.to_owned(), path.display().to_string()]));
    }
    words
}

/// The server binary. Started by cargo, this program has it built first: it must be of the same tree.
fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "{} is not a file; name the server's binary", path.display());
        return std::path::absolute(path).context("finding the binary");
    }
    if std::env::var_os("ALTAIR_BIN").is_none()
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let built = Command::new(cargo)
            // With this package beside it, so that it shares the dependencies that were built for this program.
            .args(["build", "--quiet", "--locked", "-p", "broker", "-p", "cluster-test", "--bin", "altair"])
            .args(["--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .status();
        ensure!(built.context("building altair")?.success(), "altair does not build");
    }
    let path = harness::altair();
    ensure!(path.is_file(), "{} is not a file; build altair, or name it with --binary", path.display());
    std::path::absolute(&path).context("finding the binary")
}

/// The image of the brokers; the same rule.
fn image(given: Option<&str>) -> Result<String> {
    let name = given.unwrap_or(USUAL_IMAGE);
    if given.is_none() && std::env::var_os("CARGO").is_some() {
        let built = Command::new("bash")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/image.sh"))
            .env("ALTAIR_IMAGE", OWN_IMAGE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        ensure!(built.context("starting deploy/image.sh")?.success(), "the image {OWN_IMAGE} does not build");
        return Ok(OWN_IMAGE.to_owned());
    }
    ensure!(
        docker::has_image(name),
        "there is no image {name}; build it with `bash deploy/image.sh`, or name one with --image"
    );
    Ok(name.to_owned())
}
