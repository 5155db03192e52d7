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
    /// End of the longest lease of each member. Members are never used again, and those of a run are few.
    until: BTreeMap<MemberId, Duration>,
}

impl Invariant for LeasesKept {
    fn name(&self) -> &'static str {
        "leases-kept"
    }

    fn see(&mut self, _: &Logs, seen: &Sighting<'_>) -> Result<(), String> {
        match seen.event {
            ProbeEvent::Leased { member, lease } => {
                let until = self.until.entry(*member).or_default();
                *until = (*until).max(seen.at + *lease);
                Ok(())
            }
            ProbeEvent::Expelled { member } => match self.until.get(member) {
                Some(until) if *until > seen.at => {
                    let left = *until - seen.at;
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
        let leased = || ProbeEvent::Leased { member, lease: Duration::from_secs(2) };
        let mut story = Story::of(LeasesKept::default());
        story.holds(1, leased());
        story.wait(Duration::from_secs(1));
        // Another coordinator hears it as well.
        story.holds(2, leased());
        story.wait(Duration::from_millis(1_500));
        story.breaks(1, ProbeEvent::Expelled { member }, "lease runs 499");
        story.wait(Duration::from_secs(1));
        story.holds(1, ProbeEvent::Expelled { member });
    }
}
