//! The files of a run: the history while it is recorded, the report beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use verify::history::Recorder;
use verify::report::Report;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use crate::exit::Failure;

/// Name of the history in a directory that the user named.
const HISTORY: &str = "history.jsonl";

/// Where a run writes its history.
#[derive(Debug)]
pub(super) struct Kept {
    /// The directory that the user named, if any.
    dir: Option<PathBuf>,
    pub(super) history: PathBuf,
}

impl Kept {
    /// Makes the file, in the directory that the user named or among the temporary files, and a recorder to it.
    ///
    /// # Errors
    /// The directory or file cannot be made, or there is a history already.
    pub(super) fn create(dir: Option<&Path>, topic: &str) -> Result<(Self, Recorder), Failure> {
        let history = match dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| refused(dir, &error))?;
                dir.join(HISTORY)
            }
            None => std::env::temp_dir().join(format!("{topic}.jsonl")),
        };
        let file = create_new(&history)?;
        let begun = Instant::now();
        let clock = Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let recorder = Recorder::writer(clock, file);
        Ok((Self { dir: dir.map(Path::to_owned), history }, recorder))
    }

    /// True if the user asked for the files.
    pub(super) fn is_wanted(&self) -> bool {
        self.dir.is_some()
    }

    /// Writes the report beside the history, where the user asked for it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep_report(&self, report: &Report) -> Result<(), Failure> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for (name, text) in
            [("report.txt", report.to_string()), ("report.json", format!("{}\n", report.json_line()))]
        {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| refused(&path, &error))?;
        }
        Ok(())
    }

    /// Removes the history of a run that nobody wants to see again.
    pub(super) fn remove(&self) {
        // A file left among the temporary ones harms nobody.
        let _ = std::fs::remove_file(&self.history);
    }
}

#[expect(clippy::disallowed_types, reason = "the user's own file, not a broker's data: Disk is not for it")]
fn create_new(path: &Path) -> Result<Box<dyn std::io::Write + Send>, Failure> {
    match std::fs::File::create_new(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::Api(
            ApiError::new(ErrorCode::Conflict, format!("{} exists already", path.display()))
                .reason("the histories of two runs cannot be judged together, and nothing is overwritten")
                .hint("keep this run in another directory"),
        )),
        Err(error) => Err(refused(path, &error)),
    }
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Api(
        ApiError::new(ErrorCode::LocalIo, format!("{} cannot be written", path.display()))
            .reason(error.to_string())
            .hint("give --keep a directory that you may write to"),
    )
}
