//! `altair serve`: one broker, from flags to exit code.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker::config::{BrokerConfig, LogFormat, StorageMode};
use broker::node::Node;
use broker::runtime::{
    Clock, Fatal, KeyedKind, Probe, Random, Seams, Tasks, TcpNet, WalDriver, disk_io, telemetry,
};
use clap::Args;
use disk::Disk;
use disk::faulty::FaultyDisk;
use rustix::process::{Resource, Rlimit, getrlimit, set_parent_process_death_signal, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config_args::ConfigArgs;
use super::{EXIT_USAGE, report};

/// A stop that takes longer is cut short; containers are given 30 s.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);
/// Threads for blocking disk work; each group's flush and each cold read takes one for a moment.
const BLOCKING_THREADS_MAX: usize = 16;
/// Idle blocking threads go after this long.
const BLOCKING_KEPT: Duration = Duration::from_secs(5);
/// File descriptors wanted: connections, and two files of each open segment.
const FILES_WANTED: u64 = 1 << 20;

/// How long the allocator keeps freed memory before it gives it back, in ms. With its default of one second a loaded broker
/// gives back and asks for the same memory all the time, which costs it an eighth of its speed (docs/performance.md).
const MEMORY_KEPT: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10000");

/// Set by a supervisor on the same machine (`altair dev`, `altair demo`, tests): a broker must not outlive it.
const DIE_WITH_PARENT: &str = "ALTAIR_DIE_WITH_PARENT";

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs a broker until it is told to stop.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            report(&error.into());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(config: BrokerConfig) -> anyhow::Result<()> {
    if std::env::var_os(DIE_WITH_PARENT).is_some() {
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("asking to end with the parent process")?;
    }
    let format = match config.telemetry.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init(format, &config.telemetry.log_level)?;
    keep_memory();
    small_pages();
    raise_file_limit();
    let threads = usize::try_from(config.node.worker_threads).context("node.worker_threads")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_KEPT)
        .thread_name("altair")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(live(config));
    // What is still blocked in the disk after the shutdown's own deadline is left to the end of the process.
    runtime.shutdown_background();
    outcome
}

/// From start to stop of one broker.
async fn live(config: BrokerConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let fatal = Fatal::new();
    let disk: Arc<dyn Disk> = match config.storage.mode {
        StorageMode::Disk => Arc::new(disk::OsDisk::new()),
        StorageMode::Memory => Arc::new(FaultyDisk::quiet()),
    };
    let seams = Seams {
        disk,
        io: disk_io(),
        net: Arc::new(TcpNet),
        clock: Clock::system(),
        random: Random::from_os().context("asking the operating system for randomness")?,
        tasks: Tasks::root(fatal.clone()),
        fatal: fatal.clone(),
        wal: WalDriver::Thread,
        keyed: KeyedKind::Disk,
        probe: Probe::default(),
    };
    let node = tokio::select! {
        started = Node::start(config, seams) => started?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped during the start");
            return Ok(());
        }
    };
    tokio::select! {
        reason = fatal.stopped() => {
            // A broker that must not go on does not hand anything over: what it knows may be wrong. It ends here. The
            // lock stays taken, so that the reason is its last line: other threads may have something to say still.
            let _silence = std::io::stderr().lock();
            report(&anyhow::anyhow!("the broker stopped: {reason}"));
            std::process::exit(1);
        }
        name = signals.next() => tracing::info!(signal = name, "shutting down; once more to stop at once"),
    }
    tokio::select! {
        clean = node.shutdown(SHUTDOWN_WITHIN) => {
            if let Some(reason) = fatal.reason() {
                anyhow::bail!("the broker stopped: {reason}");
            }
            tracing::info!(clean, "the broker has stopped");
            Ok(())
        }
        name = signals.next() => {
            let _ = writeln!(std::io::stderr(), "{name} again: stopping at once");
            Ok(())
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The allocator reads its settings from the environment before `main`, so the program starts itself once more with them.
/// Whoever has set one of his own keeps it.
fn keep_memory() {
    let (name, value) = MEMORY_KEPT;
    if std::env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only if it could not be done.
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(name, value).exec();
    tracing::debug!(%error, "freed memory goes back at once");
}

/// Huge pages double what an idle broker occupies: a few used bytes hold two MiB each. Reads and writes of records go
/// through the page cache, which does not gain from them.
fn small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages could not be turned off");
    }
}

/// The soft limit is often 1,024 where the hard one would do.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(FILES_WANTED, |most| most.min(FILES_WANTED));
    if limit.current.is_some_and(|now| now < most) {
        let raised = Rlimit { current: Some(most), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}
