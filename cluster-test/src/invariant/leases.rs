//! **Leases are kept:** no member of a consumer group is expelled while a lease runs that a coordinator told for it: it
//! takes itself for a member still, and another would read its partitions at the same time (I12).

use std::collections::BTreeMap;
use std::time::Duration;

use broker::runtime::ProbeEvent;
use wire::ids::MemberId;

use super::logs::Logs;
use super::{Invariant, Sighting};

#[derive(Debug, Default)]
pub(super) struct LeasesKept {
    /// The longest lease of each member. Those of a run are few.
    leases: BTreeMap<MemberId, Told>,
}

/// A lease that was told.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    until: Duration,
    /// Last entry of the metadata log that the coordinator knew: what expels a member in an earlier one is another matter,
    /// after which it joined again.
    index: u64,
}

impl Invariant for LeasesKept {
    fn name(&self) -> &'static str {
        "leases-kept"
    }

    fn see(&mut self, _: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Leased { member, lease, index } => {
                let told = self.leases.entry(*member).or_default();
                if seen.at + *lease > told.until {
                    *told = Told { until: seen.at + *lease, index: *index };
                }
                Ok(())
            }
            ProbeEvent::Expelled { member, index } => match self.leases.get(member) {
                Some(told) if told.until > seen.at && *index > told.index => {
                    let left = told.until - seen.at;
                    Err(format!("{member:?} is expelled, and its lease runs {left:?} more"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::story::Story;
    use super::*;

    #[test]
    fn a_member_that_is_expelled_within_its_lease_is_found() {
        let member = MemberId(Uuid::from_u128(1));
        let leased = |index| ProbeEvent::Leased { member, lease: Duration::from_secs(2), index };
        let expelled = |index| ProbeEvent::Expelled { member, index };
        let mut story = Story::of(LeasesKept::default());
        story.holds(1, leased(5));
        story.wait(Duration::from_secs(1));
        // Another coordinator hears it as well.
        story.holds(2, leased(6));
        story.wait(Duration::from_millis(1_500));
        story.holds(3, expelled(6));
        story.breaks(1, expelled(7), "lease runs 499");
        story.wait(Duration::from_secs(1));
        story.holds(1, expelled(7));
    }
}
