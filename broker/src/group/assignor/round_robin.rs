//! Round robin: every partition in turn goes to the next member that reads its topic.

use std::collections::BTreeMap;

use wire::ids::{MemberId, TopicIdPartition};

use super::Input;

pub(super) fn assign(input: &Input<'_>) -> BTreeMap<TopicIdPartition, MemberId> {
    let mut targets = BTreeMap::new();
    let mut turn = 0;
    for at in input.partitions() {
        let count = input.members.len();
        let next = (0..count)
            .map(|step| (turn + step) % count)
            .find(|place| input.members.get(*place).is_some_and(|(_, topics)| topics.contains(&at.topic)));
        if let Some((place, (member, _))) = next.and_then(|place| Some((place, input.members.get(place)?))) {
            targets.insert(at, *member);
            turn = place + 1;
        }
    }
    targets
}
