//! The history sorted by partition: who sent which value, and everything that anybody saw at an offset.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{
    AckLevel, Answer, Call, FOREIGN, FinalReadAnswer, History, Moment, OffsetKind, Op, Outcome, PollAnswer,
    Send, value_parts,
};

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'h> {
    pub(super) topic: &'h str,
    pub(super) part: u32,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.part)
    }
}

/// How a value came to be seen at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The receipt of its send said so.
    Ack,
    /// A consumer was given it.
    Poll,
    /// A replica was read at the end.
    Final,
}

/// One value at one offset, as somebody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sighting {
    pub(super) offset: u64,
    pub(super) value: u64,
    pub(super) source: Source,
    /// Place of the call in the history.
    pub(super) call: usize,
}

/// The last successful final read of one replica.
#[derive(Debug, Clone, Copy)]
pub(super) struct Final<'h> {
    pub(super) call: usize,
    pub(super) answer: &'h FinalReadAnswer,
}

/// All that is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Partition<'h> {
    /// Calls that sent to it, in order.
    pub(super) sends: Vec<usize>,
    /// Everything seen, by offset, then value.
    pub(super) sightings: Vec<Sighting>,
    /// Each value's offsets: (value, offset), sorted, each pair once.
    pub(super) offsets: Vec<(u64, u64)>,
    /// Every offset at which something was seen, sorted.
    pub(super) visible: Vec<u64>,
    /// Final reads by replica.
    pub(super) finals: BTreeMap<u32, Final<'h>>,
    /// The highest log start that anybody was told.
    pub(super) log_start: u64,
}

impl Partition<'_> {
    /// The first offset at which a value was seen.
    pub(super) fn offset_of(&self, value: u64) -> Option<u64> {
        let at = self.offsets.partition_point(|(other, _)| *other < value);
        self.offsets.get(at).filter(|(other, _)| *other == value).map(|(_, offset)| *offset)
    }

    /// The first sighting of a value at an offset.
    pub(super) fn sighting(&self, offset: u64, value: u64) -> Option<&Sighting> {
        let at = self.sightings.partition_point(|seen| (seen.offset, seen.value) < (offset, value));
        self.sightings.get(at).filter(|seen| (seen.offset, seen.value) == (offset, value))
    }
}

/// The whole history, sorted.
#[derive(Debug)]
pub(super) struct Evidence<'h> {
    pub(super) history: &'h History,
    pub(super) partitions: BTreeMap<Place<'h>, Partition<'h>>,
    /// The call that sent each value. Looked up, never walked: its order is chance.
    senders: HashMap<u64, usize>,
    by_answer: Vec<(Moment, usize)>,
}

impl<'h> Evidence<'h> {
    pub(super) fn gather(history: &'h History) -> Self {
        let answered = |(index, call): (usize, &Call)| (call.completed.unwrap_or(call.invoked), index);
        let mut by_answer: Vec<(Moment, usize)> = history.calls.iter().enumerate().map(answered).collect();
        by_answer.sort();
        let mut evidence = Self { history, partitions: BTreeMap::new(), senders: HashMap::new(), by_answer };
        for (index, call) in history.calls.iter().enumerate() {
            evidence.take(index, call);
        }
        for partition in evidence.partitions.values_mut() {
            partition.sightings.sort_unstable();
            partition.offsets = partition.sightings.iter().map(|seen| (seen.value, seen.offset)).collect();
            partition.offsets.sort_unstable();
            partition.offsets.dedup();
            partition.visible = partition.sightings.iter().map(|seen| seen.offset).collect();
            partition.visible.dedup();
        }
        evidence
    }

    fn take(&mut self, index: usize, call: &'h Call) {
        match (&call.op, &call.outcome) {
            (Op::Send(send), outcome) => self.take_send(index, send, outcome),
            (Op::Poll(_), Outcome::Ok(Answer::Poll(answer))) => self.take_poll(index, answer),
            (Op::ListOffsets(ask), Outcome::Ok(Answer::ListOffsets(answer)))
                if ask.what == OffsetKind::Start =>
            {
                let partition = self.partition(&ask.topic, ask.part);
                partition.log_start = partition.log_start.max(answer.off);
            }
            (Op::FinalRead(read), Outcome::Ok(Answer::FinalRead(answer))) => {
                let partition = self.partition(&read.topic, read.part);
                partition.finals.insert(read.replica, Final { call: index, answer });
                partition.log_start = partition.log_start.max(answer.start);
                let seen = answer.recs.iter().map(|record| (record.off, record.val));
                saw(partition, index, Source::Final, seen);
            }
            _ => {}
        }
    }

    fn take_send(&mut self, index: usize, send: &'h Send, outcome: &'h Outcome) {
        self.senders.extend(send.vals.iter().map(|value| (*value, index)));
        let partition = self.partition(&send.topic, send.part);
        partition.sends.push(index);
        if let Outcome::Ok(Answer::Send(receipt)) = outcome {
            let seen = receipt.off.iter().copied().zip(send.vals.iter().copied());
            saw(partition, index, Source::Ack, seen);
        }
    }

    fn take_poll(&mut self, index: usize, answer: &'h PollAnswer) {
        for part in &answer.parts {
            let partition = self.partition(&part.topic, part.part);
            partition.log_start = partition.log_start.max(part.start.unwrap_or(0));
            saw(partition, index, Source::Poll, part.recs.iter().copied());
        }
    }

    fn partition(&mut self, topic: &'h str, part: u32) -> &mut Partition<'h> {
        self.partitions.entry(Place { topic, part }).or_default()
    }

    /// All calls in the order of their answers; one without an answer by its question. For a client that makes one call
    /// after another this is the order in which it learned things.
    pub(super) fn by_answer(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_answer.iter().map(|(_, index)| *index)
    }

    pub(super) fn call(&self, index: usize) -> &'h Call {
        &self.history.calls[index]
    }

    /// The send at an index that [`Partition::sends`] or [`sender`](Self::sender) gave.
    pub(super) fn send(&self, index: usize) -> Option<(&'h Call, &'h Send)> {
        let call = self.call(index);
        match &call.op {
            Op::Send(send) => Some((call, send)),
            _ => None,
        }
    }

    /// The call that sent a value, if any did.
    pub(super) fn sender(&self, value: u64) -> Option<(&'h Call, &'h Send)> {
        self.senders.get(&value).and_then(|index| self.send(*index))
    }

    /// A call in words: what, who, when.
    pub(super) fn tell(&self, index: usize) -> String {
        tell(self.history, self.call(index))
    }

    /// A sighting in words: where it was seen.
    pub(super) fn tell_sighting(&self, seen: &Sighting) -> String {
        match seen.source {
            Source::Ack => format!("acknowledged to {}", self.tell(seen.call)),
            Source::Poll | Source::Final => format!("seen by {}", self.tell(seen.call)),
        }
    }
}

fn saw(
    partition: &mut Partition<'_>,
    call: usize,
    source: Source,
    records: impl Iterator<Item = (u64, u64)>,
) {
    partition.sightings.extend(records.map(|(offset, value)| Sighting { offset, value, source, call }));
}

/// A call in words: what, who, when, and the lines of its file that prove it.
pub(super) fn tell(history: &History, call: &Call) -> String {
    let what = match &call.op {
        Op::Send(send) => match send.acks {
            AckLevel::All => "send".to_owned(),
            AckLevel::Leader => "send (acks=leader)".to_owned(),
            AckLevel::None => "send (acks=none)".to_owned(),
        },
        Op::Poll(poll) => format!("poll of consumer {}", poll.consumer),
        Op::Seek(seek) => format!("seek of consumer {}", seek.consumer),
        Op::ListOffsets(_) => "list offsets".to_owned(),
        Op::Metadata(_) => "metadata".to_owned(),
        Op::FinalRead(read) => format!("final read of replica {}", read.replica),
        Op::Assign(assign) => format!("assignment to consumer {}", assign.consumer),
        Op::Release(release) => format!("release by consumer {}", release.consumer),
        Op::Commit(commit) => format!("commit of consumer {}", commit.consumer),
        Op::Committed(ask) => format!("committed offset of {:?}", ask.group),
        Op::Drain(drain) => format!("drain of {:?}", drain.group),
    };
    let (until, lines) = match call.completed {
        Some(at) => (tell_time(at), format!("lines {} and {}", call.invoked.line, at.line)),
        None => ("unanswered".to_owned(), format!("line {}", call.invoked.line)),
    };
    format!(
        "{what} {} by worker {} ({}..{until}, {lines})",
        history.call_name(call),
        call.worker,
        tell_time(call.invoked)
    )
}

/// A time in words.
pub(super) fn tell_time(at: Moment) -> String {
    format!("{}.{:06} s", at.t / 1_000_000_000, at.t % 1_000_000_000 / 1_000)
}

/// A value in words: its worker and its number, as in `7:981`.
pub(super) fn tell_value(value: u64) -> String {
    if value == FOREIGN {
        return "that is not of this workload".to_owned();
    }
    let (worker, n) = value_parts(value);
    format!("{worker}:{n}")
}
