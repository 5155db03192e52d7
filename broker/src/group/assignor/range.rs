//! Range: each topic is cut into as many runs of neighbours as it has readers.

use std::collections::BTreeMap;

use wire::ids::{MemberId, PartitionIndex, TopicIdPartition};

use super::Input;

pub(super) fn assign(input: &Input<'_>) -> BTreeMap<TopicIdPartition, MemberId> {
    let mut targets = BTreeMap::new();
    for (topic, count) in input.topics {
        let readers: Vec<MemberId> =
            input.members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(id, _)| *id).collect();
        let Ok(readers_count) = u32::try_from(readers.len()) else { continue };
        if readers_count == 0 {
            continue;
        }
        let (each, rest) = (count / readers_count, count % readers_count);
        let mut next = 0;
        for (place, reader) in (0..).zip(readers) {
            let end = next + each + u32::from(place < rest);
            for n in next..end {
                targets.insert(TopicIdPartition { topic: *topic, partition: PartitionIndex(n) }, reader);
            }
            next = end;
        }
    }
    targets
}
