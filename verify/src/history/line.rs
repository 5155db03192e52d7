//! Reads one line of a history.

use serde::Deserialize;

use super::event::{Answer, CallId, Event, EventKind, Op, OpName};

/// The part of a line that says what the rest is. Read first: serde's own flattening would buffer every line.
#[derive(Deserialize)]
struct Head {
    t: u64,
    #[serde(default)]
    w: u32,
    e: LineName,
    id: Option<CallId>,
    op: Option<OpName>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineName {
    Begin,
    Expect,
    Invoke,
    Ok,
    Fail,
    Info,
    Fault,
    End,
}

#[derive(Deserialize)]
struct Begin {
    version: u32,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    err: String,
}

#[derive(Deserialize)]
struct End {
    events: u64,
}

impl Event {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let head: Head = read(line)?;
        let id = || head.id.ok_or_else(|| "a call without \"id\"".to_owned());
        let op = || head.op.ok_or_else(|| "a call without \"op\"".to_owned());
        let kind = match head.e {
            LineName::Begin => EventKind::Begin { version: read::<Begin>(line)?.version },
            LineName::Expect => EventKind::Expect(read(line)?),
            LineName::Invoke => EventKind::Invoke { id: id()?, op: read_op(op()?, line)? },
            LineName::Ok => EventKind::Ok { id: id()?, answer: read_answer(op()?, line)? },
            LineName::Fail => EventKind::Fail { id: id()?, err: read::<Error>(line)?.err },
            LineName::Info => EventKind::Info { id: id()?, err: read::<Error>(line)?.err },
            LineName::Fault => EventKind::Fault(read(line)?),
            LineName::End => EventKind::End { events: read::<End>(line)?.events },
        };
        Ok(Self { t: head.t, w: head.w, kind })
    }
}

fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

fn read_op(name: OpName, line: &[u8]) -> Result<Op, String> {
    Ok(match name {
        OpName::Send => Op::Send(read(line)?),
        OpName::Poll => Op::Poll(read(line)?),
        OpName::Seek => Op::Seek(read(line)?),
        OpName::ListOffsets => Op::ListOffsets(read(line)?),
        OpName::Metadata => Op::Metadata(read(line)?),
        OpName::FinalRead => Op::FinalRead(read(line)?),
        OpName::Assign => Op::Assign(read(line)?),
        OpName::Release => Op::Release(read(line)?),
        OpName::Commit => Op::Commit(read(line)?),
        OpName::Committed => Op::Committed(read(line)?),
        OpName::Drain => Op::Drain(read(line)?),
    })
}

fn read_answer(name: OpName, line: &[u8]) -> Result<Answer, String> {
    Ok(match name {
        OpName::Send => Answer::Send(read(line)?),
        OpName::Poll => Answer::Poll(read(line)?),
        OpName::Seek => Answer::Seek,
        OpName::ListOffsets => Answer::ListOffsets(read(line)?),
        OpName::Metadata => Answer::Metadata(read(line)?),
        OpName::FinalRead => Answer::FinalRead(read(line)?),
        OpName::Assign => Answer::Assign,
        OpName::Release => Answer::Release,
        OpName::Commit => Answer::Commit,
        OpName::Committed => Answer::Committed(read(line)?),
        OpName::Drain => Answer::Drain,
    })
}
