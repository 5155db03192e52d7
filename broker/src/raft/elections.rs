//! Who stands for election, and when: this broker's answer to a death, a restart, or a group without a leader.
//!
//! Partition groups do not tick, so nothing elects unless this does. Three things begin an election: a verdict on the
//! leader's broker, a group that opens without a leader, and the sweep that finds what the other two missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::ids::{BrokerId, RaftGroupId, ReplicaId};

use super::liveness::Verdict;
use super::peers::Switchboard;
use super::port::{Brief, GroupPort};

/// All groups are looked over this often. A look costs well under a microsecond a group.
const SWEEP: Duration = Duration::from_secs(1);
/// A group that opens without a leader waits this long for one to report, before it elects: the leader beats as soon
/// as it has a link.
const WAIT_FOR_LEADER: Duration = Duration::from_millis(700);
/// Delay of the second, third … candidate behind the one before it.
const STAGGER: [u64; 4] = [0, 300, 900, 1_500];
/// First wait for the outcome of an election; it doubles up to sixteen times.
const RETRY_MS: u64 = 120;
/// How much later the next in line tries again.
const BEHIND_MS: u64 = 150;
/// After so many elections that the verdict on a leader justified, ask in advance, so that terms do not inflate.
const BOLD_ATTEMPTS: u32 = 4;
/// A candidate that was told of a longer log stands back for this long: its next term would only cross the other's.
const STAND_BACK: Duration = Duration::from_millis(1_000);
/// Groups that elect or beat at once, and the pause after them: bounds the burst of votes that must be fsynced.
const BATCH: usize = 500;
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Enqueueing an election takes no longer, unless the group is stuck.
const ENQUEUE_DEADLINE: Duration = Duration::from_millis(100);

/// A group that needs a leader.
struct Watched {
    due: Instant,
    attempts: u32,
    /// The leader is known to be gone.
    bold: bool,
    /// Whom it had, so that the candidates line up differently for each.
    lost: Option<ReplicaId>,
}

/// What was last seen of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct LastSeen {
    verdict: Verdict,
    starts: u64,
    links: u64,
}

/// The task that elects.
pub(crate) struct Elections {
    board: Arc<Switchboard>,
    nudged: mpsc::Receiver<u64>,
    watched: BTreeMap<u64, Watched>,
    peers: BTreeMap<BrokerId, LastSeen>,
}

impl Elections {
    /// `nudged` brings the numbers of groups that perhaps need a leader: they opened, or a candidate of theirs cannot
    /// win.
    pub(crate) fn new(board: Arc<Switchboard>, nudged: mpsc::Receiver<u64>) -> Self {
        Self { board, nudged, watched: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// Runs until the scope is cancelled.
    pub(crate) async fn run(mut self) {
        let stop = self.board.tasks().token();
        let mut changes = self.board.liveness.subscribe();
        let mut sweep_at = Instant::now() + SWEEP;
        loop {
            let next = self.watched.values().map(|watched| watched.due).min();
            let wake = next.map_or(sweep_at, |due| due.min(sweep_at));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.peers_changed().await;
                }
                Some(group) = self.nudged.recv() => self.nudged(group),
                () = tokio::time::sleep_until(wake) => {
                    self.stand().await;
                    if Instant::now() >= sweep_at {
                        self.sweep().await;
                        sweep_at = Instant::now() + SWEEP;
                    }
                }
            }
        }
    }

    async fn peers_changed(&mut self) {
        for (broker, health) in self.board.liveness.all() {
            let now = LastSeen { verdict: health.verdict, starts: health.starts, links: health.links };
            let before = self.peers.insert(broker, now);
            let died = now.verdict == Verdict::Dead && before.is_none_or(|b| b.verdict != Verdict::Dead);
            let restarted = before.is_some_and(|b| b.starts > 0 && now.starts > b.starts);
            let linked = before.is_none_or(|b| now.links > b.links) && now.links > 0;
            if died || restarted {
                self.bereaved(broker, restarted);
            }
            if linked {
                self.welcome(broker).await;
            }
        }
        self.stand().await;
    }

    /// A broker is gone, or came back as a new process: the groups that it led need leaders now.
    fn bereaved(&mut self, broker: BrokerId, restarted: bool) {
        let mut count = 0_u32;
        for (group, port) in self.board.ports.all() {
            let brief = port.brief();
            if brief.leading || brief.leader.is_none_or(|(_, at)| at != broker) {
                continue;
            }
            if restarted {
                self.board.orphaned(group, brief.term);
            }
            if self.needs_leader(group, &brief) {
                self.watched.remove(&group);
                self.watch(group, &brief);
                count += 1;
            }
        }
        if count > 0 {
            tracing::info!(broker = %broker, groups = count, restarted, "leaders lost with a broker");
        }
    }

    /// A link to a broker is there: it learns who leads, and replication to it goes on at once.
    async fn welcome(&self, broker: BrokerId) {
        let mut led: Vec<(Arc<dyn GroupPort>, Vec<u64>)> = Vec::new();
        for (_, port) in self.board.ports.all() {
            let brief = port.brief();
            let there: Vec<u64> = brief
                .members
                .iter()
                .filter(|(_, at, _)| *at == broker)
                .map(|(replica, _, _)| replica.0)
                .collect();
            if brief.leading && !there.is_empty() {
                led.push((port, there));
            }
        }
        in_batches(led, |(port, there)| async move {
            port.reset_backoff(there).await;
            port.beat().await;
        })
        .await;
    }

    fn nudged(&mut self, group: u64) {
        let Some(port) = self.board.ports.get(group) else { return };
        let brief = port.brief();
        if !self.needs_leader(group, &brief) {
            return;
        }
        let Some(lost) = self.watched.get(&group).map(|watched| watched.lost) else {
            self.watch(group, &brief);
            return;
        };
        // Known to be without a leader for a while: now is its turn. One candidate nudges all who have a longer log at
        // once; the first in line has a moment to win, or they would split the vote each time.
        let jitter = self.board.random().range(0..RETRY_MS / 8);
        let wait = RETRY_MS / 8 + self.behind(&brief, lost) + jitter;
        if let Some(watched) = self.watched.get_mut(&group) {
            watched.due = watched.due.min(Instant::now() + Duration::from_millis(wait));
        }
    }

    /// Finds stopped groups, hand-overs that got stuck, and groups without a leader that nothing else noticed.
    async fn sweep(&mut self) {
        let mut stuck = Vec::new();
        for (group, port) in self.board.ports.all() {
            let brief = port.brief();
            if let Some(reason) = &brief.fatal {
                let stopped = format!("raft group {} stopped: {reason}", RaftGroupId(group));
                self.board.seams().fatal.stop(stopped);
            }
            if brief.stuck {
                let group = RaftGroupId(group);
                tracing::warn!(group = %group, "a hand-over of leadership is stuck; the leader steps down");
                stuck.push(port);
            } else if self.needs_leader(group, &brief) {
                self.watch(group, &brief);
            }
        }
        in_batches(stuck, |port| async move { port.step_down().await }).await;
    }

    fn needs_leader(&self, group: u64, brief: &Brief) -> bool {
        if brief.leading || brief.fatal.is_some() || !brief.voters().any(|(replica, _)| replica == brief.me) {
            return false;
        }
        match brief.leader {
            None => true,
            Some((_, broker)) => self.board.is_dead(broker) || self.board.is_orphan(group, brief.term),
        }
    }

    fn watch(&mut self, group: u64, brief: &Brief) {
        if self.watched.contains_key(&group) {
            return;
        }
        let lost = brief.leader.map(|(replica, _)| replica);
        let rank = self.rank(brief, lost);
        let newborn = brief.term == 0;
        let wait = match (newborn, lost) {
            // Whoever holds the initial membership was told to initialise the group.
            (true, _) => Duration::ZERO,
            (false, Some(_)) => self.stagger(rank),
            (false, None) => WAIT_FOR_LEADER + self.stagger(rank),
        };
        let bold = newborn || lost.is_some();
        self.watched.insert(group, Watched { due: Instant::now() + wait, attempts: 0, bold, lost });
    }

    /// Place of this replica among the live candidates. They line up after the lost leader in the order of their ids,
    /// so that the groups of a dead broker spread over the others.
    fn rank(&self, brief: &Brief, lost: Option<ReplicaId>) -> usize {
        let mut line: Vec<ReplicaId> = brief
            .voters()
            .filter(|(replica, broker)| *replica == brief.me || self.board.is_alive(*broker))
            .map(|(replica, _)| replica)
            .collect();
        line.sort_by_key(|replica| (lost.is_some_and(|lost| *replica < lost), *replica));
        line.iter().position(|replica| *replica == brief.me).unwrap_or(0)
    }

    /// How long this replica lets those before it in line try first, in ms.
    fn behind(&self, brief: &Brief, lost: Option<ReplicaId>) -> u64 {
        u64::try_from(self.rank(brief, lost)).unwrap_or(0) * BEHIND_MS
    }

    fn stagger(&self, rank: usize) -> Duration {
        let base = STAGGER.get(rank).or(STAGGER.last()).copied().unwrap_or(0);
        let jitter = if rank == 0 { 0 } else { self.board.random().range(0..100) };
        Duration::from_millis(base + jitter)
    }

    /// Elects where it is time to.
    async fn stand(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> =
            self.watched.iter().filter(|(_, watched)| watched.due <= now).map(|(group, _)| *group).collect();
        let mut elections: Vec<(Arc<dyn GroupPort>, bool)> = Vec::new();
        for group in due {
            elections.extend(self.consider(group, now));
        }
        in_batches(elections, |(port, pre)| async move { port.elect(pre).await }).await;
    }

    /// Whether a watched group elects now, and whether it asks in advance.
    fn consider(&mut self, group: u64, now: Instant) -> Option<(Arc<dyn GroupPort>, bool)> {
        let port = self.board.ports.get(group);
        let brief = port.as_ref().map(|port| port.brief());
        let (Some(port), Some(brief)) = (port, brief.filter(|brief| self.needs_leader(group, brief))) else {
            self.watched.remove(&group);
            self.board.adopted(group);
            return None;
        };
        let behind = self.watched.get(&group).map_or(0, |watched| self.behind(&brief, watched.lost));
        let jitter = self.board.random().range(0..80);
        let quorum = self.has_quorum(&brief);
        let outranked = self.board.is_outranked(group, STAND_BACK);
        let watched = self.watched.get_mut(&group)?;
        if outranked {
            watched.due = now + STAND_BACK / 2;
            return None;
        }
        if !quorum {
            // An election without a majority only inflates the term. Once there is one again, it may follow a leader that
            // this broker could not hear of: that one must not be ended without asking.
            watched.bold = false;
            watched.due = now + Duration::from_millis(RETRY_MS + jitter);
            return None;
        }
        let pre = !watched.bold || watched.attempts >= BOLD_ATTEMPTS;
        watched.due = now + Duration::from_millis((RETRY_MS << watched.attempts.min(4)) + behind + jitter);
        watched.attempts += 1;
        Some((port, pre))
    }

    fn has_quorum(&self, brief: &Brief) -> bool {
        let all = brief.voters().count();
        let alive = brief
            .voters()
            .filter(|(replica, broker)| *replica == brief.me || self.board.is_alive(*broker))
            .count();
        alive > all / 2
    }
}

async fn in_batches<T, F: Future<Output = ()>>(work: Vec<T>, begin: impl Fn(T) -> F) {
    let mut work = work.into_iter().peekable();
    while work.peek().is_some() {
        let batch = join_all(work.by_ref().take(BATCH).map(&begin));
        let _ = tokio::time::timeout(ENQUEUE_DEADLINE, batch).await;
        if work.peek().is_some() {
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
}
