//! Writes a history down while it happens.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::{Answer, CallId, Event, EventKind, Expectations, Fault, FaultOutcome, Op, VERSION};
use super::merge::{History, HistoryError};

/// Tells the time. Unit: ns since the harness began; one clock for all recorders of a run.
pub type Clock = Arc<dyn Fn() -> u64 + std::marker::Send + Sync>;

/// Records the calls of any number of workers. Cheap to clone; all clones write to the same place.
///
/// Lines stand in the order in which the methods were called, and ids count up in it: in one single-threaded run with
/// the same calls, the same history. Between the return of [`ok`](Self::ok) and a later [`invoke`](Self::invoke) the
/// order is real, whatever the clock's grain.
#[derive(Clone)]
pub struct Recorder {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    sink: Sink,
    calls: u64,
    /// Calls without an outcome, with their workers.
    open: BTreeMap<CallId, u32>,
    events: u64,
    last: u64,
    finished: bool,
    failure: Option<std::io::Error>,
}

enum Sink {
    Memory(Vec<Event>),
    Writer(Box<dyn Write + std::marker::Send>),
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("events", &self.lock().events).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Keeps the history in memory; [`history`](Self::history) gives it.
    pub fn memory(clock: Clock) -> Self {
        Self::new(clock, Sink::Memory(Vec::new()))
    }

    /// Writes the history to a file, made anew.
    ///
    /// # Errors
    /// [`HistoryError::Io`] if the file cannot be made.
    #[expect(
        clippy::disallowed_types,
        reason = "a history is a file of whoever runs the check, not broker data"
    )]
    pub fn file(clock: Clock, path: &Path) -> Result<Self, HistoryError> {
        let file = std::fs::File::create(path)
            .map_err(|source| HistoryError::Io { path: path.display().to_string(), source })?;
        Ok(Self::writer(clock, Box::new(file)))
    }

    /// Writes the history to anything that takes bytes, through a buffer.
    pub fn writer(clock: Clock, writer: Box<dyn Write + std::marker::Send>) -> Self {
        Self::new(clock, Sink::Writer(Box::new(BufWriter::with_capacity(BUFFER_BYTES, writer))))
    }

    fn new(clock: Clock, sink: Sink) -> Self {
        let state = State {
            sink,
            calls: 0,
            open: BTreeMap::new(),
            events: 0,
            last: 0,
            finished: false,
            failure: None,
        };
        let recorder = Self { clock, state: Arc::new(Mutex::new(state)) };
        recorder.write(&mut recorder.lock(), 0, EventKind::Begin { version: VERSION });
        recorder
    }

    /// Tells the judge what may be taken for granted. Once, by one recorder of a run; a second time makes the history
    /// one that is refused.
    pub fn expect(&self, expectations: Expectations) {
        self.write(&mut self.lock(), 0, EventKind::Expect(expectations));
    }

    /// The time now, as the lines will carry it. Unit: ns.
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// A worker begins a call. Record it before anything is sent.
    pub fn invoke(&self, worker: u32, op: Op) -> CallId {
        let mut state = self.lock();
        state.calls += 1;
        let id = CallId(state.calls);
        state.open.insert(id, worker);
        self.write(&mut state, worker, EventKind::Invoke { id, op });
        id
    }

    /// The call happened. Record it after the answer came.
    pub fn ok(&self, id: CallId, answer: Answer) {
        self.resolve(id, EventKind::Ok { id, answer });
    }

    /// The call certainly did not happen, for the reason named by `err`.
    pub fn fail(&self, id: CallId, err: impl fmt::Display) {
        self.resolve(id, EventKind::Fail { id, err: err.to_string() });
    }

    /// Nobody knows whether the call happened.
    pub fn info(&self, id: CallId, err: impl fmt::Display) {
        self.resolve(id, EventKind::Info { id, err: err.to_string() });
    }

    /// Something was done to the cluster, or left undone: what kind, to whom, whether it took hold, and what else a
    /// person wants to know.
    pub fn fault(
        &self,
        kind: impl Into<String>,
        target: impl Into<String>,
        outcome: FaultOutcome,
        detail: impl Into<String>,
    ) {
        let fault = Fault { kind: kind.into(), target: target.into(), outcome, detail: detail.into() };
        self.write(&mut self.lock(), 0, EventKind::Fault(fault));
    }

    /// Lines recorded so far.
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// Ends the recording: writes the last line and everything that is buffered. What is recorded later is dropped, so
    /// that calls still open stay unknown. A second call does nothing.
    ///
    /// # Errors
    /// [`HistoryError::Write`] if any line of this recording could not be written: the history has a hole.
    pub fn finish(&self) -> Result<(), HistoryError> {
        let mut state = self.lock();
        if !state.finished {
            let events = state.events;
            self.write(&mut state, 0, EventKind::End { events });
            state.finished = true;
            if let Sink::Writer(writer) = &mut state.sink
                && let Err(error) = writer.flush()
            {
                state.failure.get_or_insert(error);
            }
        }
        match state.failure.take() {
            Some(source) => Err(HistoryError::Write { source }),
            None => Ok(()),
        }
    }

    /// Finishes the recording and gives what is in memory, joined.
    ///
    /// # Errors
    /// What [`History::from_events`] refuses: a call with two outcomes, an outcome of another kind, a value sent twice.
    pub fn history(&self) -> Result<History, HistoryError> {
        self.finish()?;
        History::from_events(vec![("memory".to_owned(), self.take_events())])
    }

    /// The events in memory; none if they were written elsewhere. The next call gives those recorded since.
    pub fn take_events(&self) -> Vec<Event> {
        match &mut self.lock().sink {
            Sink::Memory(events) => std::mem::take(events),
            Sink::Writer(_) => Vec::new(),
        }
    }

    /// A second outcome is written too, for the reader of the history to refuse: it is a bug of the harness.
    fn resolve(&self, id: CallId, kind: EventKind) {
        let mut state = self.lock();
        let worker = state.open.remove(&id).unwrap_or(0);
        self.write(&mut state, worker, kind);
    }

    fn write(&self, state: &mut State, worker: u32, kind: EventKind) {
        if state.finished {
            return;
        }
        // The clock is read under the lock and never goes back in a file: the order of the lines is the order of time.
        state.last = state.last.max((self.clock)());
        let event = Event { t: state.last, w: worker, kind };
        state.events += 1;
        match &mut state.sink {
            Sink::Memory(events) => events.push(event),
            Sink::Writer(writer) => {
                let written = serde_json::to_writer(&mut *writer, &event)
                    .map_err(std::io::Error::from)
                    .and_then(|()| writer.write_all(b"\n"));
                if let Err(error) = written {
                    state.failure.get_or_insert(error);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffer between the recorder and its file: some thousand lines a write.
const BUFFER_BYTES: usize = 256 << 10;
