//! `altair dev`: brokers on this machine without Docker, and a console to them. The same words work at its prompt and as
//! one-shot commands from another terminal, which reach it through a Unix socket in its directory.

mod session;
mod socket;
mod traffic;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::{ClusterSpec, LocalCluster, PortChoice};
use clap::Args;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::print::{note, say};
use session::{Next, Session};
use socket::Request;

/// Commands that may wait while one is carried out; a person types one at a time.
const QUEUE: usize = 16;
/// How often the console looks whether a broker ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Brokers on this machine, and a console to them.
///
/// Without WORDS it starts the brokers and reads commands: status, broker list|start|stop|kill|restart N, restart all,
/// producer start|stop|restart, consumer start|stop|restart, quit. With WORDS it sends that one command to the console
/// that runs in the same directory: `altair dev broker kill 2`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Brokers to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    brokers: u32,
    /// Directory that holds each broker's config, log and data; kept between runs.
    #[arg(long, value_name = "DIR", default_value = ".altair-dev", env = "ALTAIR_DEV_DIR")]
    dir: PathBuf,
    /// Settings for every broker, over the defaults.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    settings: Vec<String>,
    /// Use free ports from the start instead of 7400, 8080, 7500 and the numbers after them.
    #[arg(long)]
    free_ports: bool,
    /// One command for the console that runs in DIR.
    #[arg(value_name = "WORDS", trailing_var_arg = true)]
    words: Vec<String>,
}

/// Runs the console, or one command of it.
///
/// # Errors
/// If brokers do not start, or no console runs for a one-shot command.
pub(crate) async fn run(args: DevArgs) -> Result<ExitCode> {
    if !args.words.is_empty() {
        return one_shot(&args).await;
    }
    std::fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
    let dir = args.dir.canonicalize().with_context(|| format!("finding {}", args.dir.display()))?;
    let listener = socket::bind(&dir).await?;
    let cluster = LocalCluster::prepare(ClusterSpec {
        brokers: args.brokers,
        dir: dir.clone(),
        binary: std::env::current_exe().context("finding this binary")?,
        ports: if args.free_ports { PortChoice::Free } else { PortChoice::Standard },
        settings: settings(&args.settings)?,
        own: BTreeMap::new(),
    })?;
    if cluster.ports_moved() {
        note("some of the ports 7400.., 8080.., 7500.. are taken: using free ones");
    }
    let started = Instant::now();
    let session = Session::start(cluster).await?;
    say(&greeting(&args, &session, started));
    let (sender, requests) = mpsc::channel(QUEUE);
    let mut doors = JoinSet::new();
    doors.spawn(socket::serve(listener, sender.clone()));
    read_stdin(sender)?;
    converse(session, requests).await;
    doors.abort_all();
    let _ = std::fs::remove_file(socket::path(&dir));
    Ok(ExitCode::SUCCESS)
}

async fn one_shot(args: &DevArgs) -> Result<ExitCode> {
    let line = args.words.join(" ");
    if let Err(what) = words::parse(&line) {
        note(&format!("error: {what}"));
        return Ok(ExitCode::from(2));
    }
    Ok(match socket::ask(&args.dir, &line).await? {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            note(&format!("error: {text}"));
            ExitCode::FAILURE
        }
    })
}

fn settings(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for setting in given {
        let (key, value) = setting
            .split_once('=')
            .filter(|(key, _)| key.contains('.'))
            .with_context(|| format!("\"{setting}\" is not of the form SECTION.KEY=VALUE"))?;
        settings.insert(key.to_owned(), value.to_owned());
    }
    Ok(settings)
}

fn greeting(args: &DevArgs, session: &Session, started: Instant) -> String {
    let bootstrap = session.bootstrap();
    let first = bootstrap.split(',').next().unwrap_or_default().to_owned();
    let addr = if first == "127.0.0.1:7400" { String::new() } else { format!("--addr {first} ") };
    format!(
        "{} brokers ready in {} ms: {bootstrap}\ndata, configs and logs: {}\n\
         next: altair-cli {addr}topic create orders --rf {}   |   help   |   quit",
        args.brokers,
        started.elapsed().as_millis(),
        args.dir.display(),
        args.brokers.min(3)
    )
}

/// Reads commands from standard input on a thread of its own; its end is not the console's, so that a script may start
/// `altair dev` in the background.
fn read_stdin(requests: mpsc::Sender<Request>) -> Result<()> {
    let interactive = std::io::stdin().is_terminal();
    std::thread::Builder::new().name("console".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if line.trim().is_empty() {
                continue;
            }
            let (sender, answer) = oneshot::channel();
            if requests.blocking_send(Request { line, answer: sender }).is_err() {
                return;
            }
            match answer.blocking_recv() {
                Ok(Ok(text)) => say(&text),
                Ok(Err(text)) => note(&format!("error: {text}")),
                Err(_) => return,
            }
            if interactive {
                say("");
            }
        }
    })?;
    Ok(())
}

/// Carries out commands until one says quit, or a signal comes.
async fn converse(mut session: Session, mut requests: mpsc::Receiver<Request>) {
    let mut ended = BTreeSet::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::pin!(terminated);
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { break };
                let outcome = match words::parse(&request.line) {
                    Ok(word) => session.obey(word).await.map_err(|error| format!("{error:#}")),
                    Err(what) => Err(what),
                };
                let next = outcome.as_ref().map_or(Next::GoOn, |(_, next)| *next);
                let _ = request.answer.send(outcome.map(|(text, _)| text));
                if next == Next::Stop {
                    break;
                }
            }
            _ = tokio::signal::ctrl_c() => break,
            () = &mut terminated => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for news in session.surprises(&mut ended) {
            note(&news);
        }
    }
    note("stopping the brokers");
    session.stop().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_need_a_section_a_key_and_a_value() {
        let good = settings(&["storage.segment_bytes=1MiB".to_owned()]).unwrap();
        assert_eq!(good.get("storage.segment_bytes").map(String::as_str), Some("1MiB"));
        assert!(settings(&["segment_bytes=1".to_owned()]).is_err());
        assert!(settings(&["storage.segment_bytes".to_owned()]).is_err());
    }
}
