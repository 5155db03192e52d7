//! What can go wrong with a consumer group.

use super::{At, Plant};
use crate::history::*;

/// A member got a partition: its call, the partition, and what was told.
struct Given {
    call: usize,
    at: At,
    consumer: u64,
    since: u64,
    from: Option<u64>,
}

impl Plant<'_> {
    fn given(&self) -> Vec<Given> {
        let given = self.history.calls.iter().enumerate().filter_map(|(call, made)| match &made.op {
            Op::Assign(assign) => Some(Given {
                call,
                at: (assign.topic.clone(), assign.part),
                consumer: assign.consumer,
                since: assign.since,
                from: assign.from,
            }),
            _ => None,
        });
        given.collect()
    }

    /// Pairs of members that had a partition one after the other.
    fn successions(&self) -> Vec<(Given, Given)> {
        let mut pairs = Vec::new();
        for later in self.given() {
            let before = self.given().into_iter().filter(|one| {
                one.at == later.at && one.consumer != later.consumer && one.since < later.since
            });
            let is_over = |one: &Given| {
                let begun = self.history.calls[later.call].completed;
                begun.is_some_and(|begun| self.history.calls[one.call].invoked.before(begun))
            };
            if let Some(before) = before.filter(is_over).max_by_key(|one| one.since) {
                pairs.push((before, later));
            }
        }
        pairs
    }

    /// Acknowledged commits of one partition: call, place in it, offset, consumer.
    fn commits(&self, at: &At) -> Vec<(usize, usize, u64, u64)> {
        let mut found = Vec::new();
        for (call, made) in self.history.calls.iter().enumerate() {
            if let (Op::Commit(commit), Outcome::Ok(_)) = (&made.op, &made.outcome) {
                let parts = commit.parts.iter().enumerate();
                let here = parts.filter(|(_, part)| part.topic == at.0 && part.part == at.1);
                found.extend(here.map(|(place, part)| (call, place, part.off, commit.consumer)));
            }
        }
        found
    }

    fn assign(&mut self, call: usize) -> &mut Assign {
        match &mut self.history.calls[call].op {
            Op::Assign(assign) => assign,
            other => panic!("not an assignment: {other:?}"),
        }
    }

    /// Polls of a consumer that brought records of a partition and began after a call was answered.
    fn polls_after(&self, consumer: u64, at: &At, call: usize) -> Vec<usize> {
        let Some(from) = self.history.calls[call].completed else { return Vec::new() };
        let polls = self.history.calls.iter().enumerate().filter(|(_, made)| {
            let brought = match &made.outcome {
                Outcome::Ok(Answer::Poll(answer)) => answer
                    .parts
                    .iter()
                    .any(|part| (&part.topic, part.part) == (&at.0, at.1) && !part.recs.is_empty()),
                _ => false,
            };
            let by_it = matches!(&made.op, Op::Poll(poll) if poll.consumer == consumer);
            brought && by_it && from.before(made.invoked)
        });
        polls.map(|(index, _)| index).collect()
    }

    /// Takes a record out of every poll of the group.
    fn take_from_group(&mut self, at: &At, offset: u64) {
        let members: Vec<u64> = self.given().into_iter().map(|given| given.consumer).collect();
        for call in &mut self.history.calls {
            let (Op::Poll(poll), Outcome::Ok(Answer::Poll(answer))) = (&call.op, &mut call.outcome) else {
                continue;
            };
            if members.contains(&poll.consumer) {
                let parts = answer.parts.iter_mut();
                let here = parts.filter(|part| (&part.topic, part.part) == (&at.0, at.1));
                here.for_each(|part| part.recs.retain(|(other, _)| *other != offset));
            }
        }
    }
}

pub(super) fn one_epoch(plant: &mut Plant<'_>) -> bool {
    let pairs = plant.successions();
    let pairs: Vec<(u64, usize)> = pairs.into_iter().map(|(one, other)| (one.since, other.call)).collect();
    let Some((since, call)) = plant.pick(&pairs) else { return false };
    plant.assign(call).since = since;
    true
}

pub(super) fn read_after_release(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    for given in plant.given() {
        let begun = plant.history.calls[given.call].completed;
        for (call, made) in plant.history.calls.iter().enumerate() {
            let is_later = begun.is_some_and(|begun| begun.before(made.invoked));
            let is_its = matches!(&made.op, Op::Release(release)
                if release.consumer == given.consumer && (&release.topic, release.part) == (&given.at.0, given.at.1));
            let again = plant.given().iter().any(|other| {
                other.consumer == given.consumer && other.at == given.at && other.since > given.since
            });
            if is_later && is_its && !again {
                // It keeps a partition and goes on polling: one of those polls brings the released one, too.
                let polls = plant.history.calls.iter().enumerate().filter(|(_, poll)| {
                    matches!(&poll.op, Op::Poll(poll) if poll.consumer == given.consumer)
                        && matches!(poll.outcome, Outcome::Ok(_))
                        && made.completed.is_some_and(|released| released.before(poll.invoked))
                });
                places.extend(polls.map(|(poll, _)| (call, poll, given.at.clone())));
            }
        }
    }
    let Some((_, poll, (topic, part))) = plant.pick(&places) else { return false };
    let record = plant.polled().into_iter().find_map(|(call, place, record)| {
        let polled = plant.poll(call, place);
        ((&polled.topic, polled.part) == (&topic, part)).then(|| polled.recs[record])
    });
    let Some(record) = record else { return false };
    match &mut plant.history.calls[poll].outcome {
        Outcome::Ok(Answer::Poll(answer)) => {
            answer.parts.push(PolledPartition { topic, part, recs: vec![record], hw: None, start: None });
        }
        other => panic!("not a poll: {other:?}"),
    }
    true
}

pub(super) fn late_reader(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    for (former, owner) in plant.successions() {
        // As if the former owner had never heard that it is one.
        let polls = plant.polls_after(owner.consumer, &owner.at, owner.call);
        places.extend(polls.into_iter().map(|poll| (poll, former.consumer, former.at.clone())));
    }
    let Some((poll, consumer, at)) = plant.pick(&places) else { return false };
    plant.history.calls.iter_mut().for_each(|call| {
        if let Op::Release(release) = &mut call.op
            && release.consumer == consumer
            && (&release.topic, release.part) == (&at.0, at.1)
        {
            release.consumer = u64::MAX;
        }
    });
    if let Op::Poll(made) = &mut plant.history.calls[poll].op {
        made.consumer = consumer;
    }
    true
}

pub(super) fn stale_commit(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    for (former, owner) in plant.successions() {
        let Some(begun) = plant.history.calls[owner.call].completed else { continue };
        let again = plant.given().into_iter().any(|other| {
            other.consumer == former.consumer && other.at == former.at && other.since > former.since
        });
        let commits = plant.commits(&owner.at).into_iter().filter(|(call, _, _, consumer)| {
            *consumer == owner.consumer && begun.before(plant.history.calls[*call].invoked)
        });
        if !again {
            places.extend(commits.map(|(call, ..)| (call, former.consumer)));
        }
    }
    let Some((call, consumer)) = plant.pick(&places) else { return false };
    if let Op::Commit(commit) = &mut plant.history.calls[call].op {
        commit.consumer = consumer;
    }
    true
}

pub(super) fn begins_too_early(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    for given in plant.given().into_iter().filter(|given| given.from.is_some_and(|from| from > 0)) {
        let told = plant.commits(&given.at).into_iter().any(|(call, _, offset, consumer)| {
            let earlier = plant.given().into_iter().any(|turn| {
                turn.consumer == consumer
                    && turn.at == given.at
                    && turn.since < given.since
                    && turn.call < call
            });
            earlier && Some(offset) == given.from && call < given.call
        });
        if told {
            places.push(given.call);
        }
    }
    let Some(call) = plant.pick(&places) else { return false };
    let assign = plant.assign(call);
    assign.from = assign.from.map(|from| from - 1);
    true
}

pub(super) fn commits_less(plant: &mut Plant<'_>) -> bool {
    let mut places = Vec::new();
    for given in plant.given() {
        let commits = plant.commits(&given.at);
        for (call, place, offset, _) in &commits {
            let before = commits.iter().any(|(earlier, _, known, _)| {
                let completed = plant.history.calls[*earlier].completed;
                *known > 0
                    && known <= offset
                    && completed.is_some_and(|at| at.before(plant.history.calls[*call].invoked))
            });
            if before {
                places.push((*call, *place));
            }
        }
    }
    let Some((call, place)) = plant.pick(&places) else { return false };
    if let Op::Commit(commit) = &mut plant.history.calls[call].op {
        commit.parts[place].off = 0;
    }
    true
}

pub(super) fn forgets_offset(plant: &mut Plant<'_>) -> bool {
    let told = plant.history.calls.iter().enumerate().filter(|(_, call)| {
        matches!(&call.outcome, Outcome::Ok(Answer::Committed(answer)) if answer.off.is_some_and(|off| off > 0))
    });
    let places: Vec<usize> = told.map(|(index, _)| index).collect();
    let Some(call) = plant.pick(&places) else { return false };
    plant.history.calls[call].outcome = Outcome::Ok(Answer::Committed(CommittedAnswer { off: None }));
    true
}

/// Partitions with what the group has committed of them, and where their logs begin at the end.
fn ends(plant: &mut Plant<'_>) -> Vec<(At, u64, u64)> {
    let mut places: Vec<At> = plant.given().into_iter().map(|given| given.at).collect();
    places.sort();
    places.dedup();
    let committed =
        |plant: &Plant<'_>, at: &At| plant.commits(at).into_iter().map(|(_, _, offset, _)| offset).max();
    let mut ends = Vec::new();
    for at in places {
        let start = plant.kept_from(&at);
        if let Some(end) = committed(plant, &at).filter(|end| *end > start) {
            ends.push((at, start, end));
        }
    }
    ends
}

pub(super) fn passes_over(plant: &mut Plant<'_>) -> bool {
    let ends = ends(plant);
    let Some((at, start, end)) = plant.pick(&ends) else { return false };
    let offset = start + plant.rng.below(end - start);
    plant.take_from_group(&at, offset);
    true
}

pub(super) fn ends_too_early(plant: &mut Plant<'_>) -> bool {
    let acked = plant.acked();
    let mut last: Vec<(At, u64)> = Vec::new();
    for (at, _, end) in ends(plant) {
        if acked.iter().any(|(_, other, offset, _)| *other == at && offset + 1 == end) {
            last.push((at, end - 1));
        }
    }
    let Some((at, offset)) = plant.pick(&last) else { return false };
    plant.take_from_group(&at, offset);
    for call in &mut plant.history.calls {
        match (&mut call.op, &mut call.outcome) {
            (Op::Commit(commit), _) => {
                let parts = commit.parts.iter_mut();
                let here = parts.filter(|part| (&part.topic, part.part) == (&at.0, at.1));
                here.for_each(|part| part.off = part.off.min(offset));
            }
            (Op::Committed(ask), Outcome::Ok(Answer::Committed(answer)))
                if (&ask.topic, ask.part) == (&at.0, at.1) =>
            {
                answer.off = answer.off.map(|off| off.min(offset));
            }
            _ => {}
        }
    }
    true
}
