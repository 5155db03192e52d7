//! Sticky: everybody keeps what they have, what is free goes to whoever has least, and only then, while somebody has
//! two more than another one who could take it, one partition moves.
//!
//! Where all members read the same topics this ends even (no two differ by more than one) with the fewest possible
//! moves: a member that gives was above the final level, and one that receives never gives.

use std::collections::{BTreeMap, BTreeSet};

use wire::ids::{MemberId, PartitionIndex, TopicId, TopicIdPartition};

use super::Input;

pub(super) fn assign(input: &Input<'_>) -> BTreeMap<TopicIdPartition, MemberId> {
    let mut shares = Shares::new(input);
    let mut free = Vec::new();
    for at in input.partitions() {
        let holder = input.holders.get(&at).and_then(|member| shares.place(*member));
        match holder.filter(|place| shares.reads(*place, at.topic)) {
            Some(place) => shares.give(place, at),
            None => free.push(at),
        }
    }
    for at in free {
        if let Some((_, place)) = shares.least_reader(at.topic) {
            shares.give(place, at);
        }
    }
    while let Some((from, to, at)) = shares.worthwhile_move(input) {
        shares.take(from, at);
        shares.give(to, at);
    }
    shares.targets()
}

/// Members by how much they have. Members with the same topics are one class, so that the least loaded reader of a
/// topic is found among a few classes instead of all members.
struct Shares<'a> {
    members: &'a [(MemberId, BTreeSet<TopicId>)],
    places: BTreeMap<MemberId, usize>,
    held: Vec<BTreeMap<TopicId, BTreeSet<PartitionIndex>>>,
    loads: Vec<usize>,
    class_of: Vec<usize>,
    classes: Vec<BTreeSet<(usize, usize)>>,
    classes_of: BTreeMap<TopicId, Vec<usize>>,
    all: BTreeSet<(usize, usize)>,
}

impl<'a> Shares<'a> {
    fn new(input: &Input<'a>) -> Self {
        let mut known: BTreeMap<&BTreeSet<TopicId>, usize> = BTreeMap::new();
        let mut shares = Self {
            members: input.members,
            places: BTreeMap::new(),
            held: vec![BTreeMap::new(); input.members.len()],
            loads: vec![0; input.members.len()],
            class_of: Vec::new(),
            classes: Vec::new(),
            classes_of: BTreeMap::new(),
            all: BTreeSet::new(),
        };
        for (place, (member, topics)) in input.members.iter().enumerate() {
            shares.places.insert(*member, place);
            let class = *known.entry(topics).or_insert_with(|| {
                shares.classes.push(BTreeSet::new());
                for topic in topics {
                    shares.classes_of.entry(*topic).or_default().push(shares.classes.len() - 1);
                }
                shares.classes.len() - 1
            });
            shares.class_of.push(class);
            shares.classes[class].insert((0, place));
            shares.all.insert((0, place));
        }
        shares
    }

    fn place(&self, member: MemberId) -> Option<usize> {
        self.places.get(&member).copied()
    }

    fn reads(&self, place: usize, topic: TopicId) -> bool {
        self.members[place].1.contains(&topic)
    }

    /// The reader of a topic with the least, the one that joined first among equals.
    fn least_reader(&self, topic: TopicId) -> Option<(usize, usize)> {
        let classes = self.classes_of.get(&topic)?;
        classes.iter().filter_map(|class| self.classes[*class].first().copied()).min()
    }

    fn give(&mut self, place: usize, at: TopicIdPartition) {
        self.held[place].entry(at.topic).or_default().insert(at.partition);
        self.set_load(place, self.loads[place] + 1);
    }

    fn take(&mut self, place: usize, at: TopicIdPartition) {
        if let Some(of_topic) = self.held[place].get_mut(&at.topic) {
            of_topic.remove(&at.partition);
        }
        self.set_load(place, self.loads[place] - 1);
    }

    fn set_load(&mut self, place: usize, load: usize) {
        let old = std::mem::replace(&mut self.loads[place], load);
        for set in [&mut self.all, &mut self.classes[self.class_of[place]]] {
            set.remove(&(old, place));
            set.insert((load, place));
        }
    }

    /// A move from whoever has most to a reader with at least two less.
    fn worthwhile_move(&self, input: &Input<'_>) -> Option<(usize, usize, TopicIdPartition)> {
        let (least, _) = *self.all.first()?;
        for (load, from) in self.all.iter().rev() {
            if *load < least + 2 {
                return None;
            }
            // From the topic that it has most of, so that every topic is spread too.
            let mut best: Option<(usize, TopicId, usize)> = None;
            for (topic, partitions) in &self.held[*from] {
                let taker = self.least_reader(*topic).filter(|(least, _)| least + 2 <= *load);
                let Some((_, to)) = taker.filter(|_| !partitions.is_empty()) else { continue };
                if best.is_none_or(|(count, _, _)| partitions.len() >= count) {
                    best = Some((partitions.len(), *topic, to));
                }
            }
            if let Some((_, topic, to)) = best {
                return Some((*from, to, self.choose(*from, topic, input)?));
            }
        }
        None
    }

    /// What nobody reads yet moves before what is being read.
    fn choose(&self, from: usize, topic: TopicId, input: &Input<'_>) -> Option<TopicIdPartition> {
        let member = self.members[from].0;
        let partitions = self.held[from].get(&topic)?;
        let at = |partition: &PartitionIndex| TopicIdPartition { topic, partition: *partition };
        let fresh = partitions.iter().rev().map(at).find(|at| input.holders.get(at) != Some(&member));
        fresh.or_else(|| partitions.last().map(at))
    }

    fn targets(self) -> BTreeMap<TopicIdPartition, MemberId> {
        let mut targets = BTreeMap::new();
        for ((member, _), held) in self.members.iter().zip(self.held) {
            for (topic, partitions) in held {
                let of_topic = partitions.into_iter().map(|partition| TopicIdPartition { topic, partition });
                targets.extend(of_topic.map(|at| (at, *member)));
            }
        }
        targets
    }
}
