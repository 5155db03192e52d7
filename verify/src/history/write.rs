//! Writes a history that is in memory as the files it could have been read from.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::event::{CallId, Event, EventKind, VERSION};
use super::merge::{Call, History, HistoryError, Moment, Outcome};

/// A line before it has its place: when, and which of the lines of that moment.
type Placed = (Moment, u64, EventKind, u32);

impl History {
    /// The events of each file, as a recorder would have written them: the inverse of
    /// [`from_events`](Self::from_events), with calls numbered anew where the history was changed meanwhile.
    #[must_use]
    pub fn to_events(&self) -> Vec<(String, Vec<Event>)> {
        let of_file = |(file, name): (u16, &String)| {
            let mut placed = self.placed(file);
            // Stable: an outcome never stands before its call, whatever a changed history says.
            placed.sort_by_key(|(at, turn, ..)| (*at, *turn));
            let begin = EventKind::Begin { version: VERSION };
            let expect = self.expectations.filter(|_| file == 0).map(EventKind::Expect);
            let mut events: Vec<Event> =
                std::iter::once(begin).chain(expect).map(|kind| Event { t: 0, w: 0, kind }).collect();
            events.extend(placed.into_iter().map(|(at, _, kind, w)| Event { t: at.t, w, kind }));
            let (t, lines) = (events.last().map_or(0, |last| last.t).max(self.end), events.len() as u64);
            events.push(Event { t, w: 0, kind: EventKind::End { events: lines } });
            (name.clone(), events)
        };
        (0_u16..).zip(&self.files).map(of_file).collect()
    }

    /// Writes one file for each of [`files`](Self::files) into a directory, by its last name, and gives their paths.
    ///
    /// # Errors
    /// [`HistoryError::Io`] if a file cannot be made, [`HistoryError::Write`] if it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, HistoryError> {
        let mut paths = Vec::new();
        for (name, events) in self.to_events() {
            let name = Path::new(&name).file_name().unwrap_or_else(|| "history.jsonl".as_ref());
            let path = dir.join(name);
            write_file(&path, &events)?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn placed(&self, file: u16) -> Vec<Placed> {
        let mut calls: Vec<&Call> = self.calls.iter().filter(|call| call.invoked.file == file).collect();
        calls.sort_by_key(|call| call.invoked);
        let mut placed = Vec::new();
        for (turn, call) in (1_u64..).zip(calls) {
            let id = CallId(turn);
            let op = call.op.clone();
            placed.push((call.invoked, turn, EventKind::Invoke { id, op }, call.worker));
            let Some(completed) = call.completed else { continue };
            let kind = match call.outcome.clone() {
                Outcome::Ok(answer) => EventKind::Ok { id, answer },
                Outcome::Fail(err) => EventKind::Fail { id, err },
                Outcome::Info(err) => EventKind::Info { id, err },
            };
            placed.push((completed.max(call.invoked), turn, kind, call.worker));
        }
        let faults = self.faults.iter().filter(|fault| fault.at.file == file);
        placed.extend(faults.map(|fault| (fault.at, 0, EventKind::Fault(fault.fault.clone()), 0)));
        placed
    }
}

#[expect(clippy::disallowed_types, reason = "a history is a file of whoever runs the check, not broker data")]
fn write_file(path: &Path, events: &[Event]) -> Result<(), HistoryError> {
    let file = std::fs::File::create(path)
        .map_err(|source| HistoryError::Io { path: path.display().to_string(), source })?;
    let mut file = BufWriter::new(file);
    let mut write = || {
        for event in events {
            serde_json::to_writer(&mut file, event)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    write().map_err(|source| HistoryError::Write { source })
}
