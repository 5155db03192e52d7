//! A member of a consumer group at work: what it read, and what it was told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, ClientConfig, GroupConfig, Rebalance, TopicPartition};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// One turn of its loop.
const TURN: Duration = Duration::from_millis(200);

/// What a member has seen up to now.
#[derive(Debug, Default)]
pub struct Notes {
    /// Partition and offset of each record, and when it came.
    pub read: Vec<(u32, u64, Instant)>,
    /// Changes of what it reads.
    pub changes: Vec<Rebalance>,
    /// What it reads now.
    pub assigned: BTreeSet<TopicPartition>,
}

/// A group consumer with a client of its own.
#[derive(Debug)]
pub struct Member {
    notes: Arc<Mutex<Notes>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Member {
    /// Joins a group and reads a topic, until it is told to stop.
    ///
    /// # Errors
    /// If no broker answers.
    pub async fn start(bootstrap: Vec<String>, config: GroupConfig, topic: &str) -> Result<Self> {
        let client = Client::connect(ClientConfig::new(bootstrap)).await.context("connecting a member")?;
        let mut consumer = client.group_consumer(config)?;
        let notes = Arc::new(Mutex::new(Notes::default()));
        let told = Arc::clone(&notes);
        consumer.on_rebalance(move |change| {
            lock(&told).note(change);
            std::future::ready(())
        });
        consumer.subscribe([topic])?;
        let (stop, mut stopped) = oneshot::channel();
        let seen = Arc::clone(&notes);
        #[expect(clippy::disallowed_methods, reason = "a test's own task, joined or aborted by its owner")]
        let task = tokio::spawn(async move {
            loop {
                let records = tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    records = consumer.poll(TURN) => records.context("a member's poll")?,
                };
                let now = Instant::now();
                lock(&seen).read.extend(records.iter().map(|record| (record.partition, record.offset, now)));
            }
            Ok(consumer.close().await?)
        });
        Ok(Self { notes, stop, task })
    }

    /// What it has seen up to now. Keep it for a few lines only.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// How many partitions it reads now.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.notes().assigned.len()
    }

    /// Ends it without a word to anybody.
    pub async fn die(self) -> Notes {
        self.task.abort();
        // Aborted, or ended by an error of its own: it is gone either way.
        let _ = self.task.await;
        take(&self.notes)
    }

    /// Closes it and returns what it has seen.
    ///
    /// # Errors
    /// What ended it before, or that closing failed.
    pub async fn close(self) -> Result<Notes> {
        let _ = self.stop.send(());
        self.task.await??;
        Ok(take(&self.notes))
    }
}

impl Notes {
    fn note(&mut self, change: Rebalance) {
        match &change {
            Rebalance::Assigned(partitions) => self.assigned.extend(partitions.iter().cloned()),
            Rebalance::Revoked(partitions) | Rebalance::Lost(partitions) => {
                self.assigned.retain(|at| !partitions.contains(at));
            }
        }
        self.changes.push(change);
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(notes: &Mutex<Notes>) -> Notes {
    std::mem::take(&mut *lock(notes))
}
