//! Breaks a correct history in one way at a time, so that the checks can be seen to find it.

#![expect(
    clippy::unwrap_used,
    reason = "test material whose bugs must be loud; it is never part of a product"
)]

mod groups;

use std::collections::BTreeMap;

use super::generate::Rng;
use super::{Anomaly, Expectations};
use crate::history::*;

/// A history that is about to be broken.
pub(super) struct Plant<'a> {
    pub(super) history: &'a mut History,
    pub(super) expectations: Expectations,
    pub(super) rng: &'a mut Rng,
}

/// Breaks the history; false if it has no place for it.
type Mutator = fn(&mut Plant<'_>) -> bool;

/// What each mutator does, and the name by which it must be found.
pub(super) const MUTATORS: &[(&str, Anomaly, Mutator)] = &[
    ("a consumer is given another value", Anomaly::InconsistentOffset, other_value_polled),
    ("a receipt names the offset of another record", Anomaly::InconsistentOffset, other_offset_acked),
    ("two records swapped on one replica", Anomaly::ReplicaDivergence, swapped_on_replica),
    ("another leader epoch on one replica", Anomaly::ReplicaDivergence, other_epoch),
    ("another checksum on one replica", Anomaly::ReplicaDivergence, other_checksum),
    ("an acknowledged record gone from all replicas", Anomaly::LostWrite, acked_gone_everywhere),
    ("an acknowledged record gone from one replica", Anomaly::LostWrite, acked_gone_once),
    ("an acknowledged record overwritten", Anomaly::LostWrite, acked_overwritten),
    ("the end of all replicas cut off", Anomaly::LostWrite, tail_cut_everywhere),
    ("a record that was seen but never acknowledged gone", Anomaly::LostWrite, seen_gone),
    ("one replica behind", Anomaly::Unseen, tail_cut_once),
    ("one replica unread", Anomaly::Unseen, replica_unread),
    ("an idempotent record written again", Anomaly::Duplicate, written_again),
    ("a failed send was written", Anomaly::FailedRead, failed_but_there),
    ("a failed send was only polled", Anomaly::FailedRead, failed_but_polled),
    ("a value that nobody sent", Anomaly::Phantom, never_sent),
    ("bytes that are not of this workload", Anomaly::Phantom, foreign),
    ("a value of another partition", Anomaly::Phantom, misplaced),
    ("a value polled before it was sent", Anomaly::Phantom, from_the_future),
    ("a record polled twice", Anomaly::NonmonotonicPoll, polled_twice),
    ("a later poll begins again", Anomaly::NonmonotonicPoll, poll_goes_back),
    ("a replica returns records out of order", Anomaly::NonmonotonicPoll, final_out_of_order),
    ("a record left out of a poll", Anomaly::PollSkip, poll_skips),
    ("the first records after a seek left out", Anomaly::PollSkip, seek_skips),
    ("a later send stands before an earlier", Anomaly::NonmonotonicSend, sends_swapped),
    ("an idempotent producer's records swapped", Anomaly::ProducerOrder, producer_swapped),
    ("a linearizable end misses an ack", Anomaly::RealtimeStale, end_misses_ack),
    ("a linearizable end misses a polled record", Anomaly::RealtimeStale, end_misses_poll),
    ("a consumer's high watermark goes back", Anomaly::WatermarkRegress, watermark_goes_back),
    ("a log start goes back", Anomaly::WatermarkRegress, log_start_goes_back),
    ("a receipt without offsets", Anomaly::MissingOffset, receipt_emptied),
    ("a record missing inside all replicas", Anomaly::OffsetHole, hole),
    ("a topic with a new id", Anomaly::TopicChanged, new_topic_id),
    ("two topics with one id", Anomaly::TopicChanged, shared_topic_id),
    ("a topic that shrinks", Anomaly::TopicChanged, topic_shrinks),
    ("two leaders in one epoch", Anomaly::TwoLeaders, two_leaders),
    ("two members with a partition since one epoch", Anomaly::TwoOwners, groups::one_epoch),
    ("a member reads what it released", Anomaly::TwoOwners, groups::read_after_release),
    ("a member reads what another has already", Anomaly::TwoOwners, groups::late_reader),
    ("a commit of a former owner", Anomaly::StaleCommit, groups::stale_commit),
    ("a member begins before what was committed", Anomaly::CommitRegress, groups::begins_too_early),
    ("a commit that goes back", Anomaly::CommitRegress, groups::commits_less),
    ("a committed offset forgotten", Anomaly::CommitRegress, groups::forgets_offset),
    ("a group passes over a record", Anomaly::Unprocessed, groups::passes_over),
    ("a group ends before its last record", Anomaly::Unprocessed, groups::ends_too_early),
];

type At = (std::sync::Arc<str>, u32);

/// Final reads of one partition, as places in the history.
type Finals = BTreeMap<At, Vec<usize>>;

impl Plant<'_> {
    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.index(from.len())].clone())
    }

    fn finals(&self) -> Finals {
        let mut finals = Finals::new();
        for (index, call) in self.history.calls.iter().enumerate() {
            if let (Op::FinalRead(read), Outcome::Ok(_)) = (&call.op, &call.outcome) {
                finals.entry((read.topic.clone(), read.part)).or_default().push(index);
            }
        }
        finals
    }

    fn read(&mut self, index: usize) -> &mut FinalReadAnswer {
        match &mut self.history.calls[index].outcome {
            Outcome::Ok(Answer::FinalRead(answer)) => answer,
            other => panic!("not a final read: {other:?}"),
        }
    }

    /// The final reads of a random partition whose log has at least `least` records on every replica.
    fn logs(&mut self, least: usize) -> Option<Vec<usize>> {
        let mut fitting: Vec<Vec<usize>> = self.finals().into_values().collect();
        fitting.retain(|reads| reads.iter().all(|index| self.read(*index).recs.len() >= least));
        self.pick(&fitting)
    }

    /// Sends that were acknowledged with offsets all of which every replica still has: (call, partition, offset, value).
    fn acked(&mut self) -> Vec<(usize, At, u64, u64)> {
        let mut kept: BTreeMap<At, u64> = BTreeMap::new();
        for (at, reads) in self.finals() {
            let start = reads.iter().map(|index| self.read(*index).start).max().unwrap();
            kept.insert(at, start);
        }
        let mut found = Vec::new();
        for (index, call) in self.history.calls.iter().enumerate() {
            if let (Op::Send(send), Outcome::Ok(Answer::Send(receipt))) = (&call.op, &call.outcome)
                && let Some(offset) = receipt.off.first()
            {
                let at = (send.topic.clone(), send.part);
                if kept.get(&at).is_some_and(|start| offset >= start) {
                    found.push((index, at, *offset, send.vals[0]));
                }
            }
        }
        found
    }

    /// Every polled record: (call, part of the answer, record).
    fn polled(&self) -> Vec<(usize, usize, usize)> {
        let mut found = Vec::new();
        for (index, call) in self.history.calls.iter().enumerate() {
            if let Outcome::Ok(Answer::Poll(answer)) = &call.outcome {
                for (part, polled) in answer.parts.iter().enumerate() {
                    found.extend((0..polled.recs.len()).map(|record| (index, part, record)));
                }
            }
        }
        found
    }

    fn poll(&mut self, call: usize, part: usize) -> &mut PolledPartition {
        match &mut self.history.calls[call].outcome {
            Outcome::Ok(Answer::Poll(answer)) => &mut answer.parts[part],
            other => panic!("not a poll: {other:?}"),
        }
    }

    /// Where every replica's log begins, at most; polled records from there on are in all final reads.
    fn kept_from(&mut self, at: &At) -> u64 {
        let reads = self.finals().remove(at).unwrap_or_default();
        reads.iter().map(|index| self.read(*index).start).max().unwrap_or(0)
    }

    fn send(&self, index: usize) -> &Send {
        match &self.history.calls[index].op {
            Op::Send(send) => send,
            other => panic!("not a send: {other:?}"),
        }
    }

    /// Exchanges two values wherever they were seen, and the receipts of their sends.
    fn swap(&mut self, one: (usize, u64), other: (usize, u64)) {
        let exchange = |value: &mut u64| {
            if *value == one.1 {
                *value = other.1;
            } else if *value == other.1 {
                *value = one.1;
            }
        };
        for call in &mut self.history.calls {
            match &mut call.outcome {
                Outcome::Ok(Answer::Poll(answer)) => {
                    answer
                        .parts
                        .iter_mut()
                        .flat_map(|part| &mut part.recs)
                        .for_each(|record| exchange(&mut record.1));
                }
                Outcome::Ok(Answer::FinalRead(answer)) => {
                    answer.recs.iter_mut().for_each(|record| exchange(&mut record.val));
                }
                _ => {}
            }
        }
        let receipt = self.history.calls[one.0].outcome.clone();
        self.history.calls[one.0].outcome =
            std::mem::replace(&mut self.history.calls[other.0].outcome, receipt);
    }

    /// Pairs of sends of one value each to one partition, both acknowledged, chosen by `fits`.
    fn pair(&mut self, fits: impl Fn(&Call, &Call) -> bool) -> Option<((usize, u64), (usize, u64))> {
        let acked: Vec<_> =
            self.acked().into_iter().filter(|(index, ..)| self.send(*index).vals.len() == 1).collect();
        let mut found = Vec::new();
        for (one, at, _, value) in &acked {
            for (other, other_at, _, other_value) in &acked {
                if at == other_at && fits(&self.history.calls[*one], &self.history.calls[*other]) {
                    found.push(((*one, *value), (*other, *other_value)));
                }
            }
        }
        self.pick(&found)
    }
}

fn other_value_polled(plant: &mut Plant<'_>) -> bool {
    let mut places = plant.polled();
    places.retain(|(call, part, record)| {
        let polled = plant.poll(*call, *part);
        let at = (polled.topic.clone(), polled.part);
        let offset = polled.recs[*record].0;
        offset >= plant.kept_from(&at)
    });
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let polled = plant.poll(call, part);
    let (topic, number, own) = (polled.topic.clone(), polled.part, polled.recs[record].1);
    let acked = plant.acked();
    let Some((.., value)) =
        acked.iter().find(|(_, at, _, value)| *at == (topic.clone(), number) && *value != own)
    else {
        return false;
    };
    plant.poll(call, part).recs[record].1 = *value;
    true
}

fn other_offset_acked(plant: &mut Plant<'_>) -> bool {
    let acked: Vec<_> =
        plant.acked().into_iter().filter(|(index, ..)| plant.send(*index).vals.len() == 1).collect();
    let Some((call, at, offset, _)) = plant.pick(&acked) else { return false };
    let others: Vec<u64> =
        acked.iter().filter(|(_, other, o, _)| *other == at && *o != offset).map(|(_, _, o, _)| *o).collect();
    let Some(other) = plant.pick(&others) else { return false };
    let Outcome::Ok(Answer::Send(receipt)) = &mut plant.history.calls[call].outcome else { return false };
    receipt.off = vec![other];
    true
}

fn swapped_on_replica(plant: &mut Plant<'_>) -> bool {
    let Some(reads) = plant.logs(2) else { return false };
    let Some(index) = plant.pick(&reads) else { return false };
    let recs = &mut plant.read(index).recs;
    let last = recs.len() - 1;
    let (a, b) = (recs[last - 1].val, recs[last].val);
    (recs[last - 1].val, recs[last].val) = (b, a);
    true
}

/// Changes one field of a record that is known on all replicas.
fn change_known(plant: &mut Plant<'_>, change: fn(&mut FinalRecord)) -> bool {
    let Some(reads) = plant.logs(1) else { return false };
    for back in 1..=5 {
        let known = reads.iter().all(|index| {
            let recs = &plant.read(*index).recs;
            recs.len() >= back && recs[recs.len() - back].epoch > 0
        });
        if known {
            let Some(index) = plant.pick(&reads) else { return false };
            let recs = &mut plant.read(index).recs;
            let at = recs.len() - back;
            change(&mut recs[at]);
            return true;
        }
    }
    false
}

fn other_epoch(plant: &mut Plant<'_>) -> bool {
    change_known(plant, |record| record.epoch += 1)
}

fn other_checksum(plant: &mut Plant<'_>) -> bool {
    change_known(plant, |record| record.sum ^= 1 << 31)
}

fn acked_gone_everywhere(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, offset, _)) = plant.pick(&acked) else { return false };
    for index in plant.finals().remove(&at).unwrap_or_default() {
        plant.read(index).recs.retain(|record| record.off != offset);
    }
    true
}

fn acked_gone_once(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, offset, _)) = plant.pick(&acked) else { return false };
    let reads = plant.finals().remove(&at).unwrap_or_default();
    let Some(index) = plant.pick(&reads) else { return false };
    plant.read(index).recs.retain(|record| record.off != offset);
    true
}

fn acked_overwritten(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, offset, value)) = plant.pick(&acked) else { return false };
    let others: Vec<u64> =
        acked.iter().filter(|(_, other, _, v)| *other == at && *v != value).map(|(.., v)| *v).collect();
    let Some(other) = plant.pick(&others) else { return false };
    for index in plant.finals().remove(&at).unwrap_or_default() {
        for record in plant.read(index).recs.iter_mut().filter(|record| record.off == offset) {
            record.val = other;
        }
    }
    true
}

fn cut(plant: &mut Plant<'_>, index: usize, offset: u64) {
    let answer = plant.read(index);
    answer.recs.retain(|record| record.off < offset);
    answer.hw = offset;
}

fn tail_cut_everywhere(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, offset, _)) = plant.pick(&acked) else { return false };
    for index in plant.finals().remove(&at).unwrap_or_default() {
        cut(plant, index, offset);
    }
    true
}

fn tail_cut_once(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, offset, _)) = plant.pick(&acked) else { return false };
    let reads = plant.finals().remove(&at).unwrap_or_default();
    let Some(index) = plant.pick(&reads) else { return false };
    cut(plant, index, offset);
    true
}

fn seen_gone(plant: &mut Plant<'_>) -> bool {
    let acked: Vec<(At, u64)> = plant.acked().into_iter().map(|(_, at, offset, _)| (at, offset)).collect();
    let mut places = Vec::new();
    for (call, part, record) in plant.polled() {
        let polled = plant.poll(call, part);
        let at = (polled.topic.clone(), polled.part);
        let offset = polled.recs[record].0;
        if offset >= plant.kept_from(&at) && !acked.contains(&(at.clone(), offset)) {
            places.push((at, offset));
        }
    }
    let Some((at, offset)) = plant.pick(&places) else { return false };
    for index in plant.finals().remove(&at).unwrap_or_default() {
        plant.read(index).recs.retain(|record| record.off != offset);
    }
    true
}

fn replica_unread(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((_, at, ..)) = plant.pick(&acked) else { return false };
    let reads = plant.finals().remove(&at).unwrap_or_default();
    let Some(index) = plant.pick(&reads) else { return false };
    plant.history.calls[index].outcome = Outcome::Fail("NotReady".into());
    true
}

fn written_again(plant: &mut Plant<'_>) -> bool {
    let acked: Vec<_> = plant.acked().into_iter().filter(|(index, ..)| plant.send(*index).idem).collect();
    let Some((_, at, _, value)) = plant.pick(&acked) else { return false };
    for index in plant.finals().remove(&at).unwrap_or_default() {
        let answer = plant.read(index);
        answer.recs.push(FinalRecord { off: answer.hw, val: value, epoch: 1, sum: 1 });
        answer.hw += 1;
    }
    true
}

fn failed_but_there(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((index, ..)) = plant.pick(&acked) else { return false };
    plant.history.calls[index].outcome = Outcome::Fail("NotEnoughReplicas".into());
    true
}

fn failed_but_polled(plant: &mut Plant<'_>) -> bool {
    let places = plant.polled();
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let polled = plant.poll(call, part);
    let (topic, number) = (polled.topic.clone(), polled.part);
    let failed = plant.history.calls.iter().find_map(|call| match (&call.op, &call.outcome) {
        (Op::Send(send), Outcome::Fail(_)) if send.topic == topic && send.part == number => {
            Some(send.vals[0])
        }
        _ => None,
    });
    let Some(value) = failed else { return false };
    plant.poll(call, part).recs[record].1 = value;
    true
}

fn replace_polled(plant: &mut Plant<'_>, value: u64) -> bool {
    let places = plant.polled();
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    plant.poll(call, part).recs[record].1 = value;
    true
}

fn never_sent(plant: &mut Plant<'_>) -> bool {
    replace_polled(plant, value(77, 5))
}

fn foreign(plant: &mut Plant<'_>) -> bool {
    let Some(reads) = plant.logs(1) else { return false };
    for index in reads {
        plant.read(index).recs.last_mut().unwrap().val = FOREIGN;
    }
    true
}

fn misplaced(plant: &mut Plant<'_>) -> bool {
    let places = plant.polled();
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let polled = plant.poll(call, part);
    let at = (polled.topic.clone(), polled.part);
    let acked = plant.acked();
    let Some((.., value)) = acked.iter().find(|(_, other, ..)| *other != at) else { return false };
    plant.poll(call, part).recs[record].1 = *value;
    true
}

fn from_the_future(plant: &mut Plant<'_>) -> bool {
    let places = plant.polled();
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let value = plant.poll(call, part).recs[record].1;
    let end = plant.history.end;
    let sender = plant
        .history
        .calls
        .iter_mut()
        .find(|call| matches!(&call.op, Op::Send(send) if send.vals.contains(&value)));
    let Some(sender) = sender else { return false };
    sender.invoked = Moment { t: end + 1, line: u32::MAX, ..sender.invoked };
    true
}

fn polled_twice(plant: &mut Plant<'_>) -> bool {
    let places = plant.polled();
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let recs = &mut plant.poll(call, part).recs;
    recs.insert(record, recs[record]);
    true
}

/// Polls of one consumer of one partition without a seek or an unknown poll between them.
fn neighbours(plant: &Plant<'_>) -> Vec<((usize, usize), (usize, usize))> {
    let mut last: BTreeMap<(u64, At), (usize, usize)> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, call) in plant.history.calls.iter().enumerate() {
        match (&call.op, &call.outcome) {
            (Op::Seek(seek), _) => {
                last.remove(&(seek.consumer, (seek.topic.clone(), seek.part)));
            }
            (Op::Poll(poll), Outcome::Info(_)) => last.retain(|(consumer, _), _| *consumer != poll.consumer),
            (Op::Poll(poll), Outcome::Ok(Answer::Poll(answer))) => {
                for (part, polled) in
                    answer.parts.iter().enumerate().filter(|(_, part)| !part.recs.is_empty())
                {
                    let key = (poll.consumer, (polled.topic.clone(), polled.part));
                    if let Some(before) = last.insert(key, (index, part)) {
                        found.push((before, (index, part)));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn poll_goes_back(plant: &mut Plant<'_>) -> bool {
    let pairs = neighbours(plant);
    let Some(((a, part_a), (b, part_b))) = plant.pick(&pairs) else { return false };
    let again = plant.poll(a, part_a).recs.last().copied().unwrap();
    plant.poll(b, part_b).recs.insert(0, again);
    true
}

fn final_out_of_order(plant: &mut Plant<'_>) -> bool {
    let Some(reads) = plant.logs(2) else { return false };
    let Some(index) = plant.pick(&reads) else { return false };
    let recs = &mut plant.read(index).recs;
    let last = recs.len() - 1;
    recs.swap(last - 1, last);
    true
}

/// True if a record left out at this offset must be missed by its consumer.
fn is_owed(plant: &mut Plant<'_>, call: usize, part: usize, record: usize) -> bool {
    let polled = plant.poll(call, part);
    let (offset, _) = polled.recs[record];
    let at = (polled.topic.clone(), polled.part);
    let told = plant.history.calls.iter().filter_map(|call| match (&call.op, &call.outcome) {
        (Op::ListOffsets(ask), Outcome::Ok(Answer::ListOffsets(answer)))
            if ask.what == OffsetKind::Start && (ask.topic.clone(), ask.part) == at =>
        {
            Some(answer.off)
        }
        _ => None,
    });
    let start = told.max().unwrap_or(0);
    offset >= start.max(plant.kept_from(&at))
}

fn poll_skips(plant: &mut Plant<'_>) -> bool {
    let mut places = plant.polled();
    places.retain(|(call, part, record)| *record > 0 && *record + 1 < plant.poll(*call, *part).recs.len());
    places.retain(|(call, part, record)| is_owed(plant, *call, *part, *record));
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    plant.poll(call, part).recs.remove(record);
    true
}

fn seek_skips(plant: &mut Plant<'_>) -> bool {
    let mut places = plant.polled();
    places.retain(|(call, part, record)| *record == 0 && plant.poll(*call, *part).recs.len() > 1);
    places.retain(|(call, part, record)| is_owed(plant, *call, *part, *record));
    let Some((call, part, record)) = plant.pick(&places) else { return false };
    let polled = plant.poll(call, part);
    let (topic, number) = (polled.topic.clone(), polled.part);
    let (offset, _) = polled.recs.remove(record);
    let poll = &plant.history.calls[call];
    let Op::Poll(Poll { consumer }) = poll.op else { return false };
    // A seek to the record just before the poll that leaves it out.
    let seek = Seek { consumer, topic, part: number, to: SeekTo::Offset(offset) };
    let outcome = Outcome::Ok(Answer::Seek);
    let seek = Call { op: Op::Seek(seek), outcome, ..poll.clone() };
    plant.history.calls.insert(call, seek);
    true
}

fn sends_swapped(plant: &mut Plant<'_>) -> bool {
    // A value of a producer that is not idempotent may stand at a second offset, which would hide the swap.
    let idem = |call: &Call| matches!(&call.op, Op::Send(send) if send.idem);
    let pair = plant.pair(|one, other| {
        idem(one) && idem(other) && one.completed.is_some_and(|at| at.before(other.invoked))
    });
    let Some((one, other)) = pair else { return false };
    plant.swap(one, other);
    true
}

fn producer_swapped(plant: &mut Plant<'_>) -> bool {
    let pair = plant.pair(|one, other| {
        let (Op::Send(one), Op::Send(other)) = (&one.op, &other.op) else { return false };
        one.idem && one.producer == other.producer && one.seq < other.seq
    });
    let Some((one, other)) = pair else { return false };
    plant.swap(one, other);
    true
}

/// Linearizable questions for the end of a partition.
fn ends(plant: &Plant<'_>) -> Vec<(usize, At)> {
    let is_end = |(index, call): (usize, &Call)| match (&call.op, &call.outcome) {
        (Op::ListOffsets(ask), Outcome::Ok(_)) if ask.what == OffsetKind::End && ask.linearizable => {
            Some((index, (ask.topic.clone(), ask.part)))
        }
        _ => None,
    };
    plant.history.calls.iter().enumerate().filter_map(is_end).collect()
}

fn answer_end(plant: &mut Plant<'_>, index: usize, off: u64) {
    plant.history.calls[index].outcome = Outcome::Ok(Answer::ListOffsets(ListOffsetsAnswer { off }));
}

fn end_misses_ack(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    let acked = plant.acked();
    for (index, at) in ends(plant) {
        let asked = plant.history.calls[index].invoked;
        let known = acked.iter().filter(|(call, to, ..)| {
            *to == at && plant.history.calls[*call].completed.is_some_and(|at| at.before(asked))
        });
        places.extend(known.map(|(_, _, offset, _)| (index, *offset)));
    }
    let Some((index, offset)) = plant.pick(&places) else { return false };
    answer_end(plant, index, offset);
    true
}

fn end_misses_poll(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    let polled = plant.polled();
    for (index, at) in ends(plant) {
        let asked = plant.history.calls[index].invoked;
        for (call, part, record) in &polled {
            let before = plant.history.calls[*call].completed.is_some_and(|at| at.before(asked));
            let polled = plant.poll(*call, *part);
            if before && (polled.topic.clone(), polled.part) == at {
                places.push((index, polled.recs[*record].0));
            }
        }
    }
    let Some((index, offset)) = plant.pick(&places) else { return false };
    answer_end(plant, index, offset);
    true
}

fn watermark_goes_back(plant: &mut Plant<'_>) -> bool {
    let mut pairs = neighbours(plant);
    pairs.retain(|(one, other)| {
        plant.poll(one.0, one.1).hw.is_some_and(|hw| hw > 0) && plant.poll(other.0, other.1).hw.is_some()
    });
    let Some((one, other)) = plant.pick(&pairs) else { return false };
    let before = plant.poll(one.0, one.1).hw.unwrap();
    plant.poll(other.0, other.1).hw = Some(before - 1);
    true
}

fn log_start_goes_back(plant: &mut Plant<'_>) -> bool {
    // Not every history retires records: one that does not is told that it did, and then that it did not.
    let mut pairs = neighbours(plant);
    pairs.retain(|(one, other)| {
        plant.poll(one.0, one.1).start.is_some() && plant.poll(other.0, other.1).start.is_some()
    });
    let Some((one, other)) = plant.pick(&pairs) else { return false };
    let later = plant.poll(other.0, other.1).start.unwrap();
    plant.poll(one.0, one.1).start = Some(later + 1);
    true
}

fn receipt_emptied(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let Some((index, ..)) = plant.pick(&acked) else { return false };
    plant.history.calls[index].outcome = Outcome::Ok(Answer::Send(SendAnswer::default()));
    true
}

fn hole(plant: &mut Plant<'_>) -> bool {
    let Some(reads) = plant.logs(1) else { return false };
    for index in reads {
        plant.read(index).recs.pop();
    }
    true
}

/// Views of topics that metadata answers gave: (call, place in the answer).
fn views(plant: &Plant<'_>) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (index, call) in plant.history.calls.iter().enumerate() {
        if let Outcome::Ok(Answer::Metadata(answer)) = &call.outcome {
            found.extend((0..answer.topics.len()).map(|view| (index, view)));
        }
    }
    found
}

/// Tells a view again at the end, changed.
fn told_again(plant: &mut Plant<'_>, change: impl Fn(&mut TopicView) -> bool) -> bool {
    let views = views(plant);
    let fitting: Vec<_> = views
        .into_iter()
        .filter(|(index, view)| match &plant.history.calls[*index].outcome {
            Outcome::Ok(Answer::Metadata(answer)) => change(&mut answer.topics[*view].clone()),
            _ => false,
        })
        .collect();
    let Some((index, view)) = plant.pick(&fitting) else { return false };
    let mut call = plant.history.calls[index].clone();
    let end = plant.history.end;
    for moment in [Some(&mut call.invoked), call.completed.as_mut()].into_iter().flatten() {
        (moment.t, moment.line) = (end + 1, u32::MAX);
    }
    if let Outcome::Ok(Answer::Metadata(answer)) = &mut call.outcome {
        change(&mut answer.topics[view]);
    }
    plant.history.calls.push(call);
    true
}

fn new_topic_id(plant: &mut Plant<'_>) -> bool {
    told_again(plant, |view| {
        view.id = "made anew".into();
        true
    })
}

fn shared_topic_id(plant: &mut Plant<'_>) -> bool {
    told_again(plant, |view| {
        view.topic = "another".into();
        true
    })
}

fn topic_shrinks(plant: &mut Plant<'_>) -> bool {
    // Any broker may still be behind when topics grow: then only the one that told more is held to it.
    let grows = plant.expectations.grows;
    if grows
        && views(plant)
            .iter()
            .any(|(index, _)| matches!(plant.history.calls[*index].op, Op::Metadata(Metadata { broker: 0 })))
    {
        for call in &mut plant.history.calls {
            if let Op::Metadata(ask) = &mut call.op {
                ask.broker = 9;
            }
        }
    }
    told_again(plant, |view| view.parts.pop().is_some())
}

fn two_leaders(plant: &mut Plant<'_>) -> bool {
    told_again(plant, |view| {
        let led = view.parts.iter_mut().find_map(|part| part.leader.as_mut());
        led.map(|leader| *leader += 1).is_some()
    })
}
