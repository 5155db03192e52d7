//! Reads histories back, joins calls with their outcomes and several files into one.

use std::collections::HashMap;
use std::path::Path;

use super::event::{Answer, CallId, Event, EventKind, Expectations, Fault, Op, VERSION};

/// A point of a history: when, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Unit: ns since the harness began.
    pub t: u64,
    /// The file, by its place in [`History::files`].
    pub file: u16,
    /// The line of that file, from 1.
    pub line: u32,
}

impl Moment {
    /// True if this certainly came first: earlier in the same file, or at an earlier time of another. Two events of
    /// different files at the same time are in no order.
    pub fn before(self, other: Self) -> bool {
        if self.file == other.file { self.line < other.line } else { self.t < other.t }
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Ok(Answer),
    /// It certainly did not happen; the name of the error.
    Fail(String),
    /// Unknown; the name of the error, empty if there was no outcome at all.
    Info(String),
}

/// A call and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its id in its file.
    pub id: CallId,
    /// The worker that made it.
    pub worker: u32,
    /// What was asked.
    pub op: Op,
    /// When it began.
    pub invoked: Moment,
    /// When its outcome came; `None` if it never did.
    pub completed: Option<Moment>,
    /// What became of it.
    pub outcome: Outcome,
}

/// A fault and when it struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// When.
    pub at: Moment,
    /// What.
    pub fault: Fault,
}

/// Everything that the clients of one run asked and were told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The calls, by the time they began.
    pub calls: Vec<Call>,
    /// The faults, by time.
    pub faults: Vec<Installed>,
    /// What may be taken for granted, if the recording says so.
    pub expectations: Option<Expectations>,
    /// Names of the files it was read from.
    pub files: Vec<String>,
    /// Lines read.
    pub events: u64,
    /// Time of the last line. Unit: ns since the harness began.
    pub end: u64,
}

/// A history that cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file cannot be read or made.
    #[error("{path}: cannot be opened; check the path and its permissions")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A recording could not be written: it has a hole and proves nothing.
    #[error("the history could not be written; free some space or choose another place, and run again")]
    Write {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is damaged or does not fit what stands before it.
    #[error("{path}:{line}: {problem}; {advice}")]
    Damaged {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u32,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// A directory without histories.
    #[error("{path}: no .jsonl file in it; give the directory of one run, or its files")]
    NoneThere {
        /// The directory.
        path: String,
    },
    /// There is nothing in it.
    #[error(
        "{path}: no line at all; a history has one JSON event a line, as the sim, the chaos harness and altair-cli verify write them"
    )]
    Empty {
        /// The file.
        path: String,
    },
    /// More files, or more lines in one, than can be told apart.
    #[error("{path}: too large to judge at once: at most {limit}; check its parts by themselves")]
    TooLarge {
        /// The file.
        path: String,
        /// The bound.
        limit: &'static str,
    },
}

const ADVICE_CUT: &str =
    "the writer was killed in the middle of a line: delete that line to judge what stands before it";
const ADVICE_LINE: &str = "the file was changed or is no history: record the run again";
const ADVICE_HOLE: &str = "lines are missing: give the file as it was recorded, not an extract";
const ADVICE_VERSION: &str = "check it with the version of Altair that recorded it";
const ADVICE_BEGIN: &str =
    "give the whole file as a recorder wrote it: its first line says \"begin\", and only its first";
const ADVICE_EXPECT: &str = "give the files of one run only";
const ADVICE_VALUE: &str = "each value must be sent once: give each worker of a run a number of its own, and the files of one run only";
const ADVICE_ORDER: &str = "sort nothing and join nothing by hand: give each recorder's file as it is";

impl History {
    /// Reads the files of one run and merges them by time.
    ///
    /// # Errors
    /// The first file or line that cannot be believed, with what to do about it.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for path in paths {
            let name = path.as_ref().display().to_string();
            let bytes = std::fs::read(path.as_ref())
                .map_err(|source| HistoryError::Io { path: name.clone(), source })?;
            history.add(&name, parse_lines(&name, &bytes))?;
        }
        history.complete()
    }

    /// Takes the lines of one file as they are.
    ///
    /// # Errors
    /// As [`read`](Self::read); `name` stands for the file's.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        history.add(name, parse_lines(name, bytes))?;
        history.complete()
    }

    /// Takes the events of several recorders that were never written down.
    ///
    /// # Errors
    /// As [`read`](Self::read); the n-th event of a recorder counts as its line n.
    pub fn from_events(recorders: Vec<(String, Vec<Event>)>) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for (name, events) in recorders {
            history.add(&name, events.into_iter().map(Ok))?;
        }
        history.complete()
    }

    /// A call as people find it again: its id, with the file's name if there are several.
    pub fn call_name(&self, call: &Call) -> String {
        match self.files.get(usize::from(call.invoked.file)) {
            Some(file) if self.files.len() > 1 => format!("{file}{}", call.id),
            _ => call.id.to_string(),
        }
    }

    fn add(
        &mut self,
        name: &str,
        events: impl Iterator<Item = Result<Event, HistoryError>>,
    ) -> Result<(), HistoryError> {
        let file = u16::try_from(self.files.len())
            .map_err(|_| HistoryError::TooLarge { path: name.to_owned(), limit: "65,535 files" })?;
        self.files.push(name.to_owned());
        let mut joiner = Joiner { path: name, file, first: self.calls.len(), ..Joiner::default() };
        for (number, event) in (1_u64..).zip(events) {
            let line = u32::try_from(number)
                .map_err(|_| HistoryError::TooLarge { path: name.to_owned(), limit: "4 billion lines" })?;
            joiner.take(self, line, event?)?;
        }
        if joiner.lines == 0 {
            return Err(HistoryError::Empty { path: name.to_owned() });
        }
        self.events += joiner.lines;
        self.end = self.end.max(joiner.last);
        Ok(())
    }

    /// Sorts what all files brought, and refuses values that do not tell records apart.
    fn complete(mut self) -> Result<Self, HistoryError> {
        self.calls.sort_by_key(|call| call.invoked);
        self.faults.sort_by_key(|fault| fault.at);
        let mut senders = HashMap::new();
        for call in &self.calls {
            let Op::Send(send) = &call.op else { continue };
            for value in &send.vals {
                if let Some(first) = senders.insert(*value, call) {
                    let file = usize::from(call.invoked.file);
                    let (call_name, first) = (self.call_name(call), self.call_name(first));
                    return Err(HistoryError::Damaged {
                        path: self.files.get(file).cloned().unwrap_or_default(),
                        line: call.invoked.line,
                        problem: format!("call {call_name} sends value {value}, and so did call {first}"),
                        advice: ADVICE_VALUE,
                    });
                }
            }
        }
        Ok(self)
    }
}

/// The lines of a file as events. The last line must be whole.
fn parse_lines<'a>(path: &'a str, bytes: &'a [u8]) -> impl Iterator<Item = Result<Event, HistoryError>> + 'a {
    let cut = !bytes.is_empty() && bytes.last() != Some(&b'\n');
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let count = if bytes.is_empty() { 0 } else { body.split(|byte| *byte == b'\n').count() };
    body.split(|byte| *byte == b'\n').take(count).enumerate().map(move |(index, text)| {
        let damaged = |problem, advice| HistoryError::Damaged {
            path: path.to_owned(),
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            problem,
            advice,
        };
        if cut && index + 1 == count {
            return Err(damaged("the last line is cut off".to_owned(), ADVICE_CUT));
        }
        Event::parse(text).map_err(|problem| damaged(problem, ADVICE_LINE))
    })
}

/// Joins the outcomes of one file with its calls.
#[derive(Default)]
struct Joiner<'a> {
    path: &'a str,
    file: u16,
    /// Where this file's calls begin in the history: call n is at `first + n - 1`.
    first: usize,
    lines: u64,
    last: u64,
    calls: u64,
    ended: bool,
}

impl Joiner<'_> {
    fn take(&mut self, history: &mut History, line: u32, event: Event) -> Result<(), HistoryError> {
        if self.ended {
            return Err(self.damaged(line, "a line after the end of the recording".to_owned(), ADVICE_ORDER));
        }
        if event.t < self.last {
            let problem = format!("time goes back, from {} ns to {} ns", self.last, event.t);
            return Err(self.damaged(line, problem, ADVICE_ORDER));
        }
        let at = Moment { t: event.t, file: self.file, line };
        let begins = matches!(event.kind, EventKind::Begin { .. });
        if begins != (self.lines == 0) {
            let problem = if begins { "a second beginning" } else { "the beginning is missing" };
            return Err(self.damaged(line, problem.to_owned(), ADVICE_BEGIN));
        }
        match event.kind {
            EventKind::Begin { version } => self.begin(line, version)?,
            EventKind::Expect(expectations) => self.expect(history, line, expectations)?,
            EventKind::Invoke { id, op } => self.invoke(history, at, (id, event.w, op))?,
            EventKind::Ok { id, answer } => self.resolve(history, at, id, Outcome::Ok(answer))?,
            EventKind::Fail { id, err } => self.resolve(history, at, id, Outcome::Fail(err))?,
            EventKind::Info { id, err } => self.resolve(history, at, id, Outcome::Info(err))?,
            EventKind::Fault(fault) => history.faults.push(Installed { at, fault }),
            EventKind::End { events } if events == self.lines => self.ended = true,
            EventKind::End { events } => {
                let problem =
                    format!("the recording had {events} lines before its end, here are {}", self.lines);
                return Err(self.damaged(line, problem, ADVICE_HOLE));
            }
        }
        self.last = event.t;
        self.lines += 1;
        Ok(())
    }

    fn begin(&self, line: u32, version: u32) -> Result<(), HistoryError> {
        if version == VERSION {
            return Ok(());
        }
        let problem = format!("version {version} of the format, this is version {VERSION}");
        Err(self.damaged(line, problem, ADVICE_VERSION))
    }

    fn expect(
        &self,
        history: &mut History,
        line: u32,
        expectations: Expectations,
    ) -> Result<(), HistoryError> {
        match history.expectations.replace(expectations) {
            None => Ok(()),
            Some(_) => {
                Err(self.damaged(line, "expectations are told a second time".to_owned(), ADVICE_EXPECT))
            }
        }
    }

    fn invoke(
        &mut self,
        history: &mut History,
        at: Moment,
        (id, worker, op): (CallId, u32, Op),
    ) -> Result<(), HistoryError> {
        if id.0 != self.calls + 1 {
            let problem = format!("call {id} begins where call #{} is due", self.calls + 1);
            return Err(self.damaged(at.line, problem, ADVICE_HOLE));
        }
        self.calls += 1;
        let outcome = Outcome::Info(String::new());
        history.calls.push(Call { id, worker, op, invoked: at, completed: None, outcome });
        Ok(())
    }

    fn resolve(
        &self,
        history: &mut History,
        at: Moment,
        id: CallId,
        outcome: Outcome,
    ) -> Result<(), HistoryError> {
        let call =
            id.0.checked_sub(1)
                .and_then(|before| usize::try_from(before).ok())
                .and_then(|before| history.calls.get_mut(self.first + before));
        let Some(call) = call else {
            let problem = format!("an outcome of call {id}, which never began");
            return Err(self.damaged(at.line, problem, ADVICE_HOLE));
        };
        if let Some(earlier) = call.completed {
            let problem = format!("a second outcome of call {id}, the first is in line {}", earlier.line);
            return Err(self.damaged(at.line, problem, ADVICE_LINE));
        }
        if let Some(problem) = misfit(&call.op, &outcome) {
            return Err(self.damaged(at.line, format!("call {id} {problem}"), ADVICE_LINE));
        }
        call.completed = Some(at);
        call.outcome = outcome;
        Ok(())
    }

    fn damaged(&self, line: u32, problem: String, advice: &'static str) -> HistoryError {
        HistoryError::Damaged { path: self.path.to_owned(), line, problem, advice }
    }
}

/// Why an outcome cannot be this call's.
fn misfit(op: &Op, outcome: &Outcome) -> Option<String> {
    let Outcome::Ok(answer) = outcome else { return None };
    if op.name() != answer.name() {
        return Some(format!("is a {:?} and was answered as a {:?}", op.name(), answer.name()));
    }
    if let (Op::Send(send), Answer::Send(receipt)) = (op, answer)
        && !receipt.off.is_empty()
        && receipt.off.len() != send.vals.len()
    {
        return Some(format!("sent {} values and got {} offsets", send.vals.len(), receipt.off.len()));
    }
    None
}
