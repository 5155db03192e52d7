//! Whether bounds keep up with the time: linearizable ends, and bounds that never go back for one client.

use std::collections::BTreeMap;

use super::Expectations;
use super::evidence::{Evidence, Place};
use super::findings::{Anomaly, Findings};
use super::frontier::{Known, Step, falls_behind};
use crate::history::{Answer, Call, Moment, OffsetKind, Op, Outcome};

type Steps = Vec<(Moment, Step)>;

/// Who is told a bound of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Eye<'h> {
    place: Place<'h>,
    /// Which bound.
    bound: &'static str,
    client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Worker(u32),
    Consumer(u64),
}

#[derive(Default)]
struct Timeline<'h> {
    /// What anybody knew of the end of each partition, and every linearizable question for it.
    ends: BTreeMap<Place<'h>, Steps>,
    /// What each client was told.
    eyes: BTreeMap<Eye<'h>, Steps>,
}

pub(super) fn check(evidence: &Evidence<'_>, _: &Expectations, findings: &mut Findings) {
    let mut timeline = Timeline::default();
    for (index, call) in evidence.history.calls.iter().enumerate() {
        let (Outcome::Ok(answer), Some(at)) = (&call.outcome, call.completed) else { continue };
        timeline.take(index, call, answer, at);
    }
    for (place, steps) in timeline.ends {
        for (own, known) in falls_behind(steps) {
            findings.add(Anomaly::RealtimeStale, &place, || {
                format!(
                    "the end is {} to {}, but {} was known before it was asked: {}",
                    own.number,
                    evidence.tell(own.call),
                    known.number,
                    evidence.tell(known.call)
                )
            });
        }
    }
    for (eye, steps) in timeline.eyes {
        for (own, known) in falls_behind(steps) {
            findings.add(Anomaly::WatermarkRegress, &eye.place, || {
                format!(
                    "the {} is {} to {}, after it was {} to {}",
                    eye.bound,
                    own.number,
                    evidence.tell(own.call),
                    known.number,
                    evidence.tell(known.call)
                )
            });
        }
    }
}

impl<'h> Timeline<'h> {
    fn take(&mut self, index: usize, call: &'h Call, answer: &'h Answer, at: Moment) {
        match (&call.op, answer) {
            (Op::Send(send), Answer::Send(receipt)) => {
                let place = Place { topic: &send.topic, part: send.part };
                if let Some(last) = receipt.off.iter().max() {
                    self.end_known(place, at, Known { number: last.saturating_add(1), call: index });
                }
            }
            (Op::Poll(poll), Answer::Poll(answer)) => {
                for part in &answer.parts {
                    let place = Place { topic: &part.topic, part: part.part };
                    let after_last = part.recs.iter().map(|(offset, _)| offset.saturating_add(1)).max();
                    if let Some(number) = after_last.max(part.hw) {
                        self.end_known(place, at, Known { number, call: index });
                    }
                    let client = Client::Consumer(poll.consumer);
                    for (bound, told) in [("high watermark", part.hw), ("log start", part.start)] {
                        let Some(number) = told else { continue };
                        self.told(
                            Eye { place, bound, client },
                            call.invoked,
                            at,
                            Known { number, call: index },
                        );
                    }
                }
            }
            (Op::ListOffsets(ask), Answer::ListOffsets(answer)) => {
                let place = Place { topic: &ask.topic, part: ask.part };
                let known = Known { number: answer.off, call: index };
                let client = Client::Worker(call.worker);
                match ask.what {
                    OffsetKind::Start => {
                        self.told(Eye { place, bound: "log start", client }, call.invoked, at, known);
                    }
                    OffsetKind::End => {
                        self.end_known(place, at, known);
                        // A plain question may be answered by any replica, from what it knows.
                        if ask.linearizable {
                            self.ends.entry(place).or_default().push((call.invoked, Step::Asked(known)));
                            self.told(
                                Eye { place, bound: "high watermark", client },
                                call.invoked,
                                at,
                                known,
                            );
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn end_known(&mut self, place: Place<'h>, at: Moment, known: Known) {
        self.ends.entry(place).or_default().push((at, Step::Told(known)));
    }

    fn told(&mut self, eye: Eye<'h>, invoked: Moment, at: Moment, known: Known) {
        let steps = self.eyes.entry(eye).or_default();
        steps.push((invoked, Step::Asked(known)));
        steps.push((at, Step::Told(known)));
    }
}
