//! Whether topics stay what they are and each leader epoch has one leader.

use std::collections::BTreeMap;

use super::Expectations;
use super::evidence::{Evidence, Place};
use super::findings::{Anomaly, Findings};
use crate::history::{Answer, Op, Outcome, TopicView};

/// What was first told, and by which call.
#[derive(Default)]
struct Known<'h> {
    /// Topic to id.
    ids: BTreeMap<&'h str, (&'h str, usize)>,
    /// Id to topic.
    owners: BTreeMap<&'h str, (&'h str, usize)>,
    /// Partitions of a topic: to everyone if they never change, else to those who asked one broker (0: not checked).
    counts: BTreeMap<(&'h str, u32), (usize, usize)>,
    leaders: BTreeMap<(Place<'h>, u32), (u32, usize)>,
}

pub(super) fn check(evidence: &Evidence<'_>, expectations: &Expectations, findings: &mut Findings) {
    let mut known = Known::default();
    for (index, call) in evidence.history.calls.iter().enumerate() {
        let (Op::Metadata(ask), Outcome::Ok(Answer::Metadata(answer))) = (&call.op, &call.outcome) else {
            continue;
        };
        for view in &answer.topics {
            known.identity(evidence, (index, view), findings);
            if !expectations.grows {
                known.partitions(evidence, (index, view, 0), findings);
            } else if ask.broker != 0 {
                known.partitions(evidence, (index, view, ask.broker), findings);
            }
            known.leaders(evidence, (index, view), findings);
        }
    }
}

impl<'h> Known<'h> {
    fn identity(
        &mut self,
        evidence: &Evidence<'h>,
        (call, view): (usize, &'h TopicView),
        findings: &mut Findings,
    ) {
        let topic: &str = &view.topic;
        let (id, by) = *self.ids.entry(topic).or_insert((&view.id, call));
        if id != view.id {
            findings.add(Anomaly::TopicChanged, &topic, || {
                format!(
                    "its id is {} to {} and was {id} to {}",
                    view.id,
                    evidence.tell(call),
                    evidence.tell(by)
                )
            });
        }
        let (owner, by) = *self.owners.entry(&view.id).or_insert((topic, call));
        if owner != topic {
            findings.add(Anomaly::TopicChanged, &topic, || {
                format!(
                    "its id {} ({}) is also that of {owner} ({})",
                    view.id,
                    evidence.tell(call),
                    evidence.tell(by)
                )
            });
        }
    }

    /// Without growth any other number is wrong; with it, a broker's number never shrinks.
    fn partitions(
        &mut self,
        evidence: &Evidence<'h>,
        (call, view, broker): (usize, &'h TopicView, u32),
        findings: &mut Findings,
    ) {
        let topic: &str = &view.topic;
        let now = view.parts.len();
        let entry = self.counts.entry((topic, broker)).or_insert((now, call));
        let (before, by) = *entry;
        let ordered = evidence.call(by).completed.is_some_and(|at| at.before(evidence.call(call).invoked));
        if (broker == 0 && now != before) || (now < before && ordered) {
            findings.add(Anomaly::TopicChanged, &topic, || {
                format!(
                    "it has {now} partitions to {} and had {before} to {}",
                    evidence.tell(call),
                    evidence.tell(by)
                )
            });
        }
        if now > before {
            *entry = (now, call);
        }
    }

    fn leaders(
        &mut self,
        evidence: &Evidence<'h>,
        (call, view): (usize, &'h TopicView),
        findings: &mut Findings,
    ) {
        for (part, told) in (0_u32..).zip(&view.parts) {
            let Some(leader) = told.leader.filter(|_| told.epoch > 0) else { continue };
            let place = Place { topic: &view.topic, part };
            let (before, by) = *self.leaders.entry((place, told.epoch)).or_insert((leader, call));
            if before != leader {
                findings.add(Anomaly::TwoLeaders, &place, || {
                    format!(
                        "leader epoch {} is led by broker {leader} to {} and by broker {before} to {}",
                        told.epoch,
                        evidence.tell(call),
                        evidence.tell(by)
                    )
                });
            }
        }
    }
}
