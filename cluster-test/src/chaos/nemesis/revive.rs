//! Brokers that are down come back, and those that are not meant to be down are noticed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::supervise::ProcessState;

use super::{Nemesis, storage};
use crate::chaos::fabric::Fabric;

/// Time for a broker to be ready again. The bar for a whole cluster after a power cut is half of it.
const READY: Duration = Duration::from_secs(60);
/// Time for a broker to stop when it is asked to.
const GRACE: Duration = Duration::from_secs(30);

impl Nemesis {
    /// Notes every broker that has ended without being told to, or allowed to.
    ///
    /// # Errors
    /// If a broker's state cannot be found out.
    pub fn watch(&mut self, fabric: &dyn Fabric) -> Result<()> {
        for id in 1..=self.brokers {
            let state = fabric.state(id)?;
            if matches!(state, ProcessState::Running { .. }) || !self.down.insert(id) {
                continue;
            }
            if !self.excused.contains(&id) {
                self.findings.push(format!("broker {id} ended by itself: {state}"));
            }
        }
        Ok(())
    }

    /// Starts these brokers, where they do not run, and waits until each is ready; what a person should know of it. One that
    /// does not come back is a finding, unless its files were damaged: such a one may refuse, and gets an empty disk.
    ///
    /// # Errors
    /// If the harness cannot start processes.
    pub(super) async fn bring_up(&mut self, fabric: &mut dyn Fabric, ids: &[u32]) -> Result<String> {
        for id in ids {
            fabric.start(*id).await?;
        }
        let mut notes = Vec::new();
        for id in ids {
            let came = fabric.ready(*id, READY).await;
            self.excused.remove(id);
            match came {
                Ok(()) => {
                    self.down.remove(id);
                }
                Err(error) if self.rotten == Some(*id) && !is_running(fabric, *id)? => {
                    notes.push(self.replace_disk(fabric, *id, &error).await?);
                }
                Err(error) => self.findings.push(format!("broker {id} does not come back: {error:#}")),
            }
        }
        Ok(notes.join("; "))
    }

    /// What the operator of a broker does that refuses its disk.
    async fn replace_disk(
        &mut self,
        fabric: &mut dyn Fabric,
        id: u32,
        refusal: &anyhow::Error,
    ) -> Result<String> {
        let told = format!("{refusal:#}");
        let reason = told.lines().last().unwrap_or_default().trim().to_owned();
        storage::empty(&fabric.data_dir(id)?).context("replacing a damaged disk")?;
        fabric.start(id).await?;
        match fabric.ready(id, READY).await {
            Ok(()) => {
                self.down.remove(&id);
            }
            Err(error) => {
                self.findings.push(format!("broker {id} does not come back with an empty disk: {error:#}"));
            }
        }
        Ok(format!("refused to start and got an empty disk: {reason}"))
    }

    /// Starts a broker again that was allowed to end and did.
    pub(super) async fn revive_if_ended(&mut self, fabric: &mut dyn Fabric, id: u32) -> Result<String> {
        let was_excused = self.excused.remove(&id);
        if is_running(fabric, id)? {
            return Ok(String::new());
        }
        if !was_excused {
            self.findings.push(format!("broker {id} ended by itself: {}", fabric.state(id)?));
        }
        self.down.insert(id);
        self.bring_up(fabric, &[id]).await?;
        Ok("it ended by itself and came back".to_owned())
    }

    /// Every broker in turn: asked to stop, started, waited for.
    pub(super) async fn restart_in_turn(&mut self, fabric: &mut dyn Fabric, ids: &[u32]) -> Result<()> {
        for id in ids {
            self.down.insert(*id);
            if !fabric.stop(*id, GRACE).await? {
                self.findings.push(format!("broker {id} did not stop within {GRACE:?} of being asked to"));
            }
            self.bring_up(fabric, &[*id]).await?;
        }
        Ok(())
    }

    /// Brokers that do not run now because of a fault.
    #[must_use]
    pub fn down(&self) -> &BTreeSet<u32> {
        &self.down
    }
}

fn is_running(fabric: &dyn Fabric, id: u32) -> Result<bool> {
    Ok(matches!(fabric.state(id)?, ProcessState::Running { .. }))
}
