//! **The high watermark is monotonic:** within a life it never goes back and shows nothing that is not applied; a restart
//! may put it back as far as the durable state, and no further (I5).

use std::collections::BTreeMap;

use broker::runtime::ProbeEvent;
use raft_store::GroupReplica;

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct WatermarkMonotonic {
    replicas: BTreeMap<GroupReplica, Stand>,
}

#[derive(Debug, Default)]
struct Stand {
    watermark: u64,
    /// End of what is applied.
    end: u64,
}

impl Invariant for WatermarkMonotonic {
    fn name(&self) -> &'static str {
        "watermark-monotonic"
    }

    fn see(&mut self, logs: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Opened { of, applied, end } => {
                self.replicas.insert(*of, Stand { watermark: 0, end: *end });
                let mark = logs.log(*of).and_then(|log| log.mark);
                if applied.map(|at| at.index) < mark.map(|at| at.index) {
                    return Err(format!("{of} is opened at {applied:?}, before its durable mark {mark:?}"));
                }
                Ok(())
            }
            ProbeEvent::Applied { of, end, .. } | ProbeEvent::Installed { of, end, .. } => {
                self.replicas.entry(*of).or_default().end = *end;
                Ok(())
            }
            ProbeEvent::Watermark { of, to } => {
                let stand = self.replicas.entry(*of).or_default();
                let (before, end) = (stand.watermark, stand.end);
                stand.watermark = *to;
                if *to < before {
                    return Err(format!("the high watermark of {of} goes back from {before} to {to}"));
                }
                if *to > end {
                    return Err(format!(
                        "the high watermark of {of} is {to}, its log is applied up to {end}"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;

    fn watermark(to: u64) -> ProbeEvent {
        ProbeEvent::Watermark { of: Story::replica(1), to }
    }

    #[test]
    fn a_watermark_that_goes_back_is_found_and_a_restart_is_not() {
        let mut story = Story::of(WatermarkMonotonic::default());
        story.holds(1, Story::applied(1, (1, 1), 9));
        story.holds(1, watermark(9));
        story.breaks(1, watermark(8), "goes back from 9 to 8");
        story.holds(1, ProbeEvent::Opened { of: Story::replica(1), applied: None, end: 3 });
        story.holds(1, watermark(3));
    }

    #[test]
    fn a_watermark_beyond_what_is_applied_is_found() {
        let mut story = Story::of(WatermarkMonotonic::default());
        story.holds(1, Story::applied(1, (1, 1), 9));
        story.breaks(1, watermark(10), "applied up to 9");
    }

    #[test]
    fn a_restart_before_the_durable_mark_is_found() {
        let mut story = Story::of(WatermarkMonotonic::default());
        story.holds(1, Story::checkpoint(&[(1, (1, 4), None)]));
        story.restart();
        story.breaks(1, ProbeEvent::Opened { of: Story::replica(1), applied: None, end: 0 }, "durable mark");
    }
}
