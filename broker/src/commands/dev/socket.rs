//! The console's other door: a Unix socket in the cluster's directory, through which one-shot commands reach the
//! process that supervises the brokers. One line in, a line "ok" or "error", then text until the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Longest command line; words of the console are far shorter.
const LINE_BYTES_MAX: u64 = 4096;
/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// How long a peer may take to say its line.
const LINE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a command may take: a restart of all brokers with their graceful stops.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);

/// A command on its way to the session, and where its answer goes.
pub(super) struct Request {
    pub(super) line: String,
    pub(super) answer: oneshot::Sender<Result<String, String>>,
}

/// Path of the socket in a cluster's directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("console.sock")
}

/// Binds the socket.
///
/// # Errors
/// If another `altair dev` answers on it, or the path does not fit into a socket address.
pub(super) async fn bind(dir: &Path) -> Result<UnixListener> {
    let path = path(dir);
    if UnixStream::connect(&path).await.is_ok() {
        bail!(
            "a cluster is already running in {}\n  try: altair dev --dir {} status, or another --dir",
            dir.display(),
            dir.display()
        );
    }
    // What is left of an earlier run that was killed.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| {
        format!("binding the console's socket {} (its path may have at most 107 bytes)", path.display())
    })
}

/// Serves one-shot commands until the listener fails or the session has gone.
pub(super) async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    while let Ok((stream, _)) = listener.accept().await {
        // One after the other: commands change the cluster, and a person at the console expects an order.
        if let Err(error) = answer_one(stream, &requests).await {
            tracing::debug!(%error, "one-shot command ended early");
        }
        if requests.is_closed() {
            return;
        }
    }
}

async fn answer_one(stream: UnixStream, requests: &mpsc::Sender<Request>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(LINE_BYTES_MAX));
    timeout(LINE_DEADLINE, reader.read_line(&mut line)).await.context("no command came")??;
    let (sender, receiver) = oneshot::channel();
    requests.send(Request { line, answer: sender }).await.context("the session has ended")?;
    let text = match receiver.await {
        Ok(Ok(text)) => format!("ok\n{text}"),
        Ok(Err(text)) => format!("error\n{text}"),
        Err(_) => "ok\nstopped".to_owned(),
    };
    write.write_all(text.as_bytes()).await?;
    write.shutdown().await?;
    Ok(())
}

/// Sends one command to the `altair dev` that runs in `dir`.
///
/// # Errors
/// If none runs there, or it does not answer. The command's own failure is the inner error.
pub(super) async fn ask(dir: &Path, line: &str) -> Result<Result<String, String>> {
    let path = path(dir);
    let stream = UnixStream::connect(&path).await.map_err(|error| {
        anyhow::anyhow!(
            "no cluster is running in {} ({error})\n  try: altair dev --dir {}",
            dir.display(),
            dir.display()
        )
    })?;
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{line}\n").as_bytes()).await?;
    let mut text = String::new();
    timeout(ANSWER_DEADLINE, read.take(ANSWER_BYTES_MAX).read_to_string(&mut text))
        .await
        .context("the console did not answer in time")??;
    match text.split_once('\n') {
        Some(("ok", rest)) => Ok(Ok(rest.to_owned())),
        Some(("error", rest)) => Ok(Err(rest.to_owned())),
        _ => bail!("the console's answer makes no sense: {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_one_shot_command_gets_the_sessions_answer() {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind(dir.path()).await.unwrap();
        let (sender, mut requests) = mpsc::channel(1);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(serve(listener, sender));
        tasks.spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer = match request.line.trim() {
                    "status" => Ok("three brokers".to_owned()),
                    other => Err(format!("what is {other}?")),
                };
                let _ = request.answer.send(answer);
            }
        });
        assert_eq!(ask(dir.path(), "status").await.unwrap(), Ok("three brokers".to_owned()));
        assert_eq!(ask(dir.path(), "dance").await.unwrap(), Err("what is dance?".to_owned()));
        assert!(bind(dir.path()).await.unwrap_err().to_string().contains("already running"));
    }

    #[tokio::test]
    async fn without_a_cluster_a_one_shot_command_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(dir.path(), "status").await.unwrap_err().to_string();
        assert!(error.contains("no cluster is running") && error.contains("try: altair dev"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_run_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(bind(dir.path()).await.unwrap());
        assert!(path(dir.path()).exists());
        bind(dir.path()).await.unwrap();
    }
}
