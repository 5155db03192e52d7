//! Who is alive, decided once per broker and not once per group.
//!
//! Every frame from a broker is a sign of life, and beats make sure that there is one in time. A verdict costs at most
//! a needless election: votes alone decide who leads (I2), so a wrong verdict is never unsafe.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wire::ids::BrokerId;

use super::identity::Hello;

/// What this broker thinks of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Heard of lately.
    Alive,
    /// Silent for more than half the time after which it counts as dead, or not yet heard of.
    Suspect,
    /// Silent for too long, or its process is gone.
    Dead,
}

/// What is known of one peer.
#[derive(Debug, Clone)]
pub struct PeerHealth {
    /// Alive or not.
    pub verdict: Verdict,
    /// Its last greeting.
    pub hello: Option<Arc<Hello>>,
    /// True while this broker holds an open link to it.
    pub connected: bool,
    /// Time since it was last heard of.
    pub silent: Duration,
    /// Counts the processes that greeted as this broker: a higher number is a restart.
    pub starts: u64,
    /// Counts the links that were opened to it.
    pub links: u64,
}

struct Seen {
    last: Instant,
    verdict: Verdict,
    hello: Option<Arc<Hello>>,
    connected: bool,
    starts: u64,
    links: u64,
    /// Rises with every verdict of death: sessions greeted before it prove nothing any more.
    session: u64,
}

/// Verdicts about all peers.
pub(crate) struct Liveness {
    dead_after: Duration,
    table: Mutex<BTreeMap<BrokerId, Seen>>,
    changes: watch::Sender<u64>,
}

impl Liveness {
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, table: Mutex::default(), changes: watch::Sender::new(0) }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Seen>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Rises whenever a verdict, a process or a link changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Begins to expect signs of life of a broker.
    pub(crate) fn expect(&self, broker: BrokerId) {
        self.table().entry(broker).or_insert_with(Seen::unknown);
    }

    /// Forgets a broker that left the cluster.
    pub(crate) fn forget(&self, broker: BrokerId) {
        if self.table().remove(&broker).is_some() {
            self.changed();
        }
    }

    /// A broker greeted on a new connection. Returns the session to pass to [`Liveness::heard`].
    pub(crate) fn greeted(&self, hello: &Arc<Hello>) -> u64 {
        let mut table = self.table();
        let seen = table.entry(hello.broker_id).or_insert_with(Seen::unknown);
        let restarted = seen.hello.as_ref().is_none_or(|old| old.process != hello.process);
        let news = restarted || seen.verdict != Verdict::Alive || seen.hello.as_ref() != Some(hello);
        seen.starts += u64::from(restarted);
        seen.hello = Some(hello.clone());
        seen.verdict = Verdict::Alive;
        seen.last = Instant::now();
        let session = seen.session;
        drop(table);
        if news {
            self.changed();
        }
        session
    }

    /// A sign of life. False if the session is older than a verdict of death: its connection must go.
    pub(crate) fn heard(&self, broker: BrokerId, session: u64) -> bool {
        let mut table = self.table();
        let Some(seen) = table.get_mut(&broker) else { return false };
        if seen.session != session {
            return false;
        }
        seen.last = Instant::now();
        let revived = std::mem::replace(&mut seen.verdict, Verdict::Alive) != Verdict::Alive;
        drop(table);
        if revived {
            self.changed();
        }
        true
    }

    /// True if no verdict of death fell since the session was greeted.
    pub(crate) fn current(&self, broker: BrokerId, session: u64) -> bool {
        self.table().get(&broker).is_some_and(|seen| seen.session == session)
    }

    /// The link to a broker opened.
    pub(crate) fn linked(&self, broker: BrokerId) {
        if let Some(seen) = self.table().get_mut(&broker) {
            seen.connected = true;
            seen.links += 1;
        }
        self.changed();
    }

    /// The link to a broker broke.
    pub(crate) fn unlinked(&self, broker: BrokerId) {
        if let Some(seen) = self.table().get_mut(&broker) {
            seen.connected = false;
        }
        self.changed();
    }

    /// A broker's host refused a connection: nobody listens, so a broker that was heard of before is gone.
    pub(crate) fn refused(&self, broker: BrokerId) {
        let mut table = self.table();
        let Some(seen) = table.get_mut(&broker) else { return };
        let news = seen.hello.is_some() && !seen.connected && seen.verdict != Verdict::Dead;
        if news {
            seen.die();
        }
        drop(table);
        if news {
            tracing::warn!(broker = %broker, "a peer's process is gone");
            self.changed();
        }
    }

    /// Draws the conclusions from silence.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut died = Vec::new();
        let mut news = false;
        for (broker, seen) in self.table().iter_mut() {
            let silent = now.saturating_duration_since(seen.last);
            if silent >= self.dead_after && seen.verdict != Verdict::Dead {
                seen.die();
                died.push(*broker);
            } else if silent >= self.dead_after / 2 && seen.verdict == Verdict::Alive {
                seen.verdict = Verdict::Suspect;
                news = true;
            }
        }
        for broker in &died {
            tracing::warn!(broker = %broker, silent_ms = self.dead_after.as_millis(), "a peer fell silent");
        }
        if news || !died.is_empty() {
            self.changed();
        }
    }

    /// The verdict on one broker; one that nobody expects is dead.
    pub(crate) fn verdict(&self, broker: BrokerId) -> Verdict {
        self.table().get(&broker).map_or(Verdict::Dead, |seen| seen.verdict)
    }

    /// All peers.
    pub(crate) fn all(&self) -> BTreeMap<BrokerId, PeerHealth> {
        let now = Instant::now();
        self.table().iter().map(|(broker, seen)| (*broker, seen.health(now))).collect()
    }

    pub(crate) fn hello(&self, broker: BrokerId) -> Option<Arc<Hello>> {
        self.table().get(&broker).and_then(|seen| seen.hello.clone())
    }
}

impl Seen {
    fn unknown() -> Self {
        Self {
            last: Instant::now(),
            verdict: Verdict::Suspect,
            hello: None,
            connected: false,
            starts: 0,
            links: 0,
            session: 0,
        }
    }

    fn die(&mut self) {
        self.verdict = Verdict::Dead;
        self.session += 1;
    }

    fn health(&self, now: Instant) -> PeerHealth {
        PeerHealth {
            verdict: self.verdict,
            hello: self.hello.clone(),
            connected: self.connected,
            silent: now.saturating_duration_since(self.last),
            starts: self.starts,
            links: self.links,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{BrokerId, Hello, Liveness, Verdict};

    fn hello(process: u64) -> Arc<Hello> {
        let mut hello = crate::raft::identity::tests::hello();
        hello.process = process;
        Arc::new(hello)
    }

    const PEER: BrokerId = BrokerId(3);

    #[test]
    fn silence_makes_suspect_and_then_dead() {
        let liveness = Liveness::new(Duration::from_millis(40));
        assert_eq!(liveness.verdict(PEER), Verdict::Dead);
        let session = liveness.greeted(&hello(1));
        assert_eq!(liveness.verdict(PEER), Verdict::Alive);
        std::thread::sleep(Duration::from_millis(25));
        liveness.sweep();
        assert_eq!(liveness.verdict(PEER), Verdict::Suspect);
        assert!(liveness.heard(PEER, session));
        assert_eq!(liveness.verdict(PEER), Verdict::Alive);
        std::thread::sleep(Duration::from_millis(45));
        liveness.sweep();
        assert_eq!(liveness.verdict(PEER), Verdict::Dead);
    }

    #[test]
    fn the_dead_rise_by_a_new_greeting_only() {
        let liveness = Liveness::new(Duration::from_secs(60));
        let old = liveness.greeted(&hello(1));
        liveness.refused(PEER);
        assert_eq!(liveness.verdict(PEER), Verdict::Dead);
        assert!(!liveness.heard(PEER, old), "bytes that were under way prove nothing");
        assert_eq!(liveness.verdict(PEER), Verdict::Dead);
        let new = liveness.greeted(&hello(2));
        assert!(liveness.heard(PEER, new));
        assert_eq!(liveness.all()[&PEER].starts, 2);
    }

    #[test]
    fn a_refusal_says_nothing_of_a_broker_that_holds_a_link_or_never_spoke() {
        let liveness = Liveness::new(Duration::from_secs(60));
        liveness.expect(PEER);
        liveness.refused(PEER);
        assert_eq!(liveness.verdict(PEER), Verdict::Suspect);
        liveness.greeted(&hello(1));
        liveness.linked(PEER);
        liveness.refused(PEER);
        assert_eq!(liveness.verdict(PEER), Verdict::Alive);
    }
}
