//! The coordinator's table of members: when each was heard of last, on a clock of its own.
//!
//! The clock stands still while the coordinator could not hear anybody (its process was stopped, or it had no quorum), so
//! that members are not expelled for its own silence. Nothing of this is replicated: after a change of the leader every
//! session begins anew with its full timeout, and nobody who is still there loses anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk::mutant::{self, Mutant};
use tokio::time::Instant;
use wire::ids::{GroupId, MemberId};

use crate::group::{Group, Groups};

/// The clock never moves by more at once: what is beyond it, the coordinator's process did not hear either.
const STEP_MAX: Duration = Duration::from_millis(1_000);
/// Members that are expelled in one round.
const EXPIRED_AT_ONCE: usize = 256;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Term of the metadata leader that this table is of.
    term: u64,
    /// Version of the image that was followed last.
    followed: Option<u64>,
    clock: Duration,
    /// When the clock was set last.
    set: Option<Instant>,
    groups: BTreeMap<GroupId, Known>,
}

/// One group as the table follows it.
#[derive(Debug)]
struct Known {
    group: Arc<Group>,
    members: BTreeMap<MemberId, Session>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    /// When it was heard of last.
    heard: Duration,
    timeout: Duration,
    /// It is being expelled: it must not be told that it is a member, whoever hears of it meanwhile.
    over: bool,
}

impl Sessions {
    /// Begins anew if another term has begun.
    pub(crate) fn begin(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
    }

    /// True if nobody has a session.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes up members that came and drops those that are gone, if this version was not followed yet.
    pub(crate) fn follow(&mut self, version: u64, groups: &Groups) {
        if self.followed == Some(version) {
            return;
        }
        self.followed = Some(version);
        let now = self.clock;
        self.groups.retain(|id, _| groups.get(id).is_some_and(|entry| !entry.group.members.is_empty()));
        for (id, entry) in groups.all() {
            if entry.group.members.is_empty() {
                continue;
            }
            let known = self
                .groups
                .entry(id.clone())
                .or_insert_with(|| Known { group: Arc::default(), members: BTreeMap::new() });
            if !Arc::ptr_eq(&known.group, &entry.group) {
                known.group = entry.group.clone();
                known.follow(now);
            }
        }
    }

    /// Lets the time pass since the last call, if the coordinator could hear its members meanwhile. To be called before
    /// anything is written down: whoever comes now begins now.
    pub(crate) fn advance(&mut self, now: Instant, could_hear: bool) {
        let step = self.set.map_or(Duration::ZERO, |set| now.saturating_duration_since(set).min(STEP_MAX));
        self.set = Some(now);
        if could_hear {
            self.clock += step;
        }
    }

    /// A member was heard of; its timeout, or `None` if it is none any more.
    pub(crate) fn touch(&mut self, group: &GroupId, member: MemberId) -> Option<Duration> {
        let session = self.groups.get_mut(group)?.members.get_mut(&member)?;
        if session.over {
            return None;
        }
        session.heard = self.clock;
        Some(session.timeout)
    }

    /// True if the holder of an instance id was silent for half of its session: another process may take its place.
    pub(crate) fn is_silent(&self, group: &GroupId, instance: &str) -> bool {
        let Some(known) = self.groups.get(group) else { return false };
        let Some((holder, _)) = known.group.instance(instance) else { return false };
        let silent = |session: &Session| self.clock - session.heard >= session.timeout / 2;
        known.members.get(&holder).is_some_and(silent)
    }

    /// Members that were silent for too long, some of them if they are very many. Their sessions are over, also if the
    /// caller does not succeed with expelling them: it finds them here again.
    pub(crate) fn expired(&mut self) -> Vec<(GroupId, MemberId)> {
        if mutant::on(Mutant::SessionsNeverEnd) {
            return Vec::new();
        }
        let (clock, part) = (self.clock, if mutant::on(Mutant::ExpelledEarly) { 5 } else { 1 });
        let all = self.groups.iter_mut().flat_map(|(id, known)| {
            known.members.iter_mut().map(move |(member, session)| (id, member, session))
        });
        let over = all.filter(|(.., session)| clock - session.heard >= session.timeout / part);
        let ended = over.take(EXPIRED_AT_ONCE).map(|(id, member, session)| {
            session.over = true;
            (id.clone(), *member)
        });
        ended.collect()
    }
}

impl Known {
    fn follow(&mut self, now: Duration) {
        let group = &self.group;
        self.members.retain(|id, _| group.members.contains_key(id));
        for (id, member) in &group.members {
            let timeout = Duration::from_millis(u64::from(member.session_timeout_ms));
            let session = self.members.entry(*id).or_insert(Session { heard: now, timeout, over: false });
            session.timeout = timeout;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;
    use wire::ids::TopicId;

    use super::*;
    use crate::group::{GroupCommand, Join, Subscription, TopicCatalog, TopicShape};

    struct NoTopics;

    impl TopicCatalog for NoTopics {
        fn by_name(&self, _name: &str) -> Option<TopicShape> {
            None
        }
        fn by_id(&self, _id: TopicId) -> Option<TopicShape> {
            None
        }
        fn each(&self, _visit: &mut dyn FnMut(&str, TopicShape)) {}
    }

    fn group() -> GroupId {
        GroupId("g".into())
    }

    fn member(n: u128) -> MemberId {
        MemberId(Uuid::from_u128(n))
    }

    fn apply(groups: &mut Groups, command: &GroupCommand) {
        groups.apply(&group(), command, &NoTopics).unwrap();
    }

    fn join(n: u128, timeout_ms: u32) -> GroupCommand {
        let topics = BTreeSet::from(["t".to_owned()]);
        GroupCommand::Join(Join {
            member: member(n),
            instance: Some(format!("i{n}")),
            client_id: "c".into(),
            host: "h".into(),
            subscription: Subscription { topics, ..Subscription::default() },
            assignor: None,
            session_timeout_ms: timeout_ms,
            take_over: false,
            time_ms: 1,
        })
    }

    fn expired(sessions: &mut Sessions) -> Vec<u128> {
        sessions.expired().into_iter().map(|(_, member)| member.0.as_u128()).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A table of term 7 and the time that it is.
    struct Table {
        sessions: Sessions,
        now: Instant,
    }

    impl Table {
        fn new(groups: &Groups) -> Self {
            let mut table = Self { sessions: Sessions::default(), now: Instant::now() };
            table.sessions.begin(7);
            table.pass(0, true);
            table.sessions.follow(1, groups);
            table
        }

        /// Second by second, as the coordinator looks.
        fn pass(&mut self, seconds: u32, could_hear: bool) {
            self.sessions.advance(self.now, could_hear);
            for _ in 0..seconds {
                self.now += SECOND;
                self.sessions.advance(self.now, could_hear);
            }
        }
    }

    #[test]
    fn who_is_heard_of_stays_and_who_is_silent_is_found() {
        let mut groups = Groups::default();
        apply(&mut groups, &join(1, 2_000));
        apply(&mut groups, &join(2, 10_000));
        let mut table = Table::new(&groups);
        table.pass(1, true);
        assert!(table.sessions.is_silent(&group(), "i1") && !table.sessions.is_silent(&group(), "i2"));
        assert_eq!(table.sessions.touch(&group(), member(1)), Some(2 * SECOND));
        assert_eq!(table.sessions.touch(&group(), member(3)), None);
        table.pass(1, true);
        assert_eq!(expired(&mut table.sessions), [0; 0]);
        table.pass(1, true);
        assert_eq!(expired(&mut table.sessions), [1]);
        // It comes while it is being expelled: nobody may tell it that it is a member.
        assert_eq!(table.sessions.touch(&group(), member(1)), None);
        assert_eq!(expired(&mut table.sessions), [1], "until it is gone");
        apply(&mut groups, &GroupCommand::Expire { member: member(1), time_ms: 2 });
        table.sessions.follow(2, &groups);
        assert_eq!(expired(&mut table.sessions), [0; 0]);
        assert!(!table.sessions.is_silent(&group(), "i1"), "nobody holds it");
        table.pass(7, true);
        assert_eq!(expired(&mut table.sessions), [2]);
        apply(&mut groups, &GroupCommand::Leave { member: member(2), keep_place: false, time_ms: 3 });
        table.sessions.follow(2, &groups);
        assert!(!table.sessions.is_empty(), "this version is known");
        table.sessions.follow(3, &groups);
        assert!(table.sessions.is_empty());
    }

    #[test]
    fn another_term_gives_everybody_a_full_session() {
        let mut groups = Groups::default();
        apply(&mut groups, &join(1, 2_000));
        let mut table = Table::new(&groups);
        table.pass(3, true);
        table.sessions.begin(7);
        assert_eq!(expired(&mut table.sessions), [1]);
        table.sessions.begin(8);
        table.sessions.follow(1, &groups);
        assert_eq!(expired(&mut table.sessions), [0; 0]);
        table.pass(2, true);
        assert_eq!(expired(&mut table.sessions), [1]);
    }

    #[test]
    fn what_the_coordinator_could_not_hear_does_not_count() {
        let mut groups = Groups::default();
        apply(&mut groups, &join(1, 2_000));
        let mut table = Table::new(&groups);
        table.pass(60, false);
        // Its process was stopped for an hour: a single look afterwards.
        table.now += 3_600 * SECOND;
        table.sessions.advance(table.now, true);
        assert_eq!(expired(&mut table.sessions), [0; 0]);
        table.pass(1, true);
        assert_eq!(expired(&mut table.sessions), [1]);
    }

    #[test]
    fn who_comes_between_two_looks_begins_when_it_comes() {
        let mut groups = Groups::default();
        let mut table = Table::new(&groups);
        apply(&mut groups, &join(1, 1_000));
        table.now += SECOND * 9 / 10;
        table.sessions.advance(table.now, true);
        table.sessions.follow(2, &groups);
        table.now += SECOND * 9 / 10;
        table.sessions.advance(table.now, true);
        assert_eq!(expired(&mut table.sessions), [0; 0]);
    }
}
