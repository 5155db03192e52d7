//! How each fault is done.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::supervise::{ProcessState, http_get};
use tokio::time::Instant;

use super::links::{Link, broken};
use super::storage::Files;
use super::tracer::{Syncs, Tracer};
use super::{Missed, Nemesis, Struck, Undo, storage};
use crate::chaos::fabric::{Fabric, LinkState};
use crate::chaos::fault::Fault;
use crate::chaos::scout::Layout;

/// Time that a broker has to end after a sync failed.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// Time for a broker to see its clock jump: what it reads may be a second old.
const SEES_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Free bytes below which a broker cannot be asked to live: its log must be able to grow by a file.
const CAN_LIVE_WITH: u64 = 40 << 20;

impl Nemesis {
    /// Faults that hit every broker.
    pub(super) async fn act_on_all(&mut self, fabric: &mut dyn Fabric, fault: &Fault) -> Struck {
        let all: Vec<u32> = (1..=self.brokers).collect();
        let indeterminate = |error: anyhow::Error| Missed::indeterminate(&error, Undo::Start(all.clone()));
        if matches!(fault, Fault::RollingRestart) {
            let restarted = self.restart_in_turn(fabric, &all).await;
            return restarted.map(|()| (String::new(), Undo::Nothing)).map_err(indeterminate);
        }
        if matches!(fault, Fault::RollBack) {
            let copied = self.copy_disks(fabric, &all).await;
            return copied.map(|earlier| (String::new(), Undo::SetBack(earlier))).map_err(indeterminate);
        }
        self.down.extend(&all);
        let ended = match fault {
            Fault::PowerCutAll => fabric.cut_power(&all).await,
            _ => kill_all(fabric, &all).await,
        };
        match ended {
            Ok(()) => Ok((String::new(), Undo::Start(all))),
            Err(error) => Err(Missed::indeterminate(&error, Undo::Start(all))),
        }
    }

    /// Faults that hit one broker.
    pub(super) async fn act(
        &mut self,
        fabric: &mut dyn Fabric,
        layout: &Layout,
        hit: (&Fault, u32),
    ) -> Struck {
        let (fault, id) = hit;
        match fault {
            Fault::Kill(_) => {
                self.down.insert(id);
                done(fabric.kill(id).await, Undo::Start(vec![id]))
            }
            Fault::Pause(_) => done(fabric.pause(id).await, Undo::Resume(id)),
            Fault::Unplug(_) => done(fabric.plug(id, false).await, Undo::Plug(id)),
            Fault::PowerCut(_) => {
                self.down.insert(id);
                done(fabric.cut_power(&[id]).await, Undo::Start(vec![id]))
            }
            Fault::SyncError(_) => self.fail_syncs(fabric, id).await,
            Fault::SlowSync(_, ms) => match trace(fabric, id, Syncs::Slow(*ms)).await {
                Ok(tracer) => Ok((format!("{ms} ms each"), Undo::Detach(tracer))),
                Err(error) => Err(Missed::indeterminate(&error, Undo::Nothing)),
            },
            Fault::DiskFull(_, left) => self.fill(fabric, id, *left),
            Fault::ClockJump(_, seconds) => self.set_clock(fabric, id, *seconds).await,
            Fault::BitFlip(_) | Fault::BitFlipLive(_) => {
                self.flip(fabric, layout, (id, matches!(fault, Fault::BitFlip(_)))).await
            }
            _ => {
                let links = broken(fault, id, self.brokers);
                let (detail, set) = (tell(&links), fabric.set_links(&links).await);
                done(set, Undo::Mend(links)).map(|(_, undo)| (detail, undo))
            }
        }
    }

    async fn fail_syncs(&mut self, fabric: &mut dyn Fabric, id: u32) -> Struck {
        self.excused.insert(id);
        let indeterminate = |error| Missed::indeterminate(&error, Undo::Start(vec![id]));
        let tracer = trace(fabric, id, Syncs::Fail).await.map_err(indeterminate)?;
        let until = Instant::now() + ENDS_WITHIN;
        let ended = loop {
            match fabric.state(id).map_err(indeterminate)? {
                ProcessState::Exited { how, code } => break Some((how, code)),
                _ if Instant::now() >= until => break None,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let failed = tracer.has_injected();
        // The broker is gone, or will be killed: nothing that the tracer changed can be returned to it.
        drop(tracer);
        match ended {
            Some((_, Some(1))) => {}
            Some((how, _)) => {
                self.findings.push(format!("broker {id} ended with {how} when a sync failed, not with 1"))
            }
            None if failed => {
                self.findings
                    .push(format!("broker {id} went on for {ENDS_WITHIN:?} after a sync had failed"));
            }
            None => {
                let why = format!("broker {id} synced nothing for {ENDS_WITHIN:?}");
                return Err(Missed::Indeterminate(why, Undo::Start(vec![id])));
            }
        }
        self.down.insert(id);
        done(fabric.kill(id).await, Undo::Start(vec![id]))
    }

    fn fill(&mut self, fabric: &dyn Fabric, id: u32, left: u64) -> Struck {
        let data = fabric.data_dir(id).map_err(|error| Missed::Skipped(format!("{error:#}")))?;
        match storage::fill(&data, left) {
            Ok(ballast) => {
                if left < CAN_LIVE_WITH {
                    self.excused.insert(id);
                }
                Ok((format!("{left} bytes left"), Undo::Remove(id, ballast)))
            }
            Err(error) => Err(Missed::Skipped(format!("{error:#}"))),
        }
    }

    async fn set_clock(&mut self, fabric: &dyn Fabric, id: u32, seconds: i64) -> Struck {
        let Some(clock) = self.clocks.get(&id) else {
            return Err(Missed::Skipped("clocks are true in this round".to_owned()));
        };
        let set = async {
            clock.set(seconds)?;
            sees_jump(fabric, id, seconds).await
        };
        match set.await {
            Ok(()) => Ok((format!("by {seconds} s"), Undo::SetClock(id))),
            Err(error) => Err(Missed::indeterminate(&error, Undo::SetClock(id))),
        }
    }

    /// Flips bits of one broker, `stopped` or at work.
    async fn flip(&mut self, fabric: &mut dyn Fabric, layout: &Layout, (id, stopped): (u32, bool)) -> Struck {
        if let Some(why) = layout.unsettled() {
            return Err(Missed::Skipped(format!("the others may lack what it holds: {why}")));
        }
        let id = *self.rotten.get_or_insert(id);
        let undo = if stopped { Undo::Start(vec![id]) } else { Undo::Nothing };
        let damage = async {
            let files = if stopped {
                self.down.insert(id);
                fabric.kill(id).await?;
                Files::All
            } else {
                Files::Cached
            };
            let count = self.random.range(1..4);
            storage::flip_bits(&fabric.data_dir(id)?, files, count, &self.random)
        };
        match damage.await {
            Ok(flips) => {
                let told: Vec<String> = flips.iter().map(ToString::to_string).collect();
                Ok((format!("broker {id}: {}", told.join(", ")), undo))
            }
            Err(error) => Err(Missed::indeterminate(&error, undo)),
        }
    }

    /// Takes one thing back; what a person should know of it.
    pub(super) async fn undo(&mut self, fabric: &mut dyn Fabric, undo: Undo) -> Result<String> {
        match undo {
            Undo::Nothing => {}
            Undo::Start(ids) => return self.bring_up(fabric, &ids).await,
            Undo::Resume(id) => fabric.resume(id).await?,
            Undo::Mend(links) => {
                let whole: Vec<Link> =
                    links.into_iter().map(|(from, to, _)| (from, to, LinkState::Whole)).collect();
                fabric.set_links(&whole).await?;
            }
            Undo::Plug(id) => fabric.plug(id, true).await?,
            Undo::Detach(tracer) => tracer.detach().await?,
            Undo::Remove(id, path) => {
                std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
                return self.revive_if_ended(fabric, id).await;
            }
            Undo::SetBack(earlier) => return self.set_back(fabric, &earlier).await,
            Undo::SetClock(id) => {
                if let Some(clock) = self.clocks.get(&id) {
                    clock.set(0)?;
                }
            }
        }
        Ok(String::new())
    }
}

/// An act that is one call: what it came to.
fn done(result: Result<()>, undo: Undo) -> Struck {
    match result {
        Ok(()) => Ok((String::new(), undo)),
        Err(error) => Err(Missed::indeterminate(&error, undo)),
    }
}

async fn kill_all(fabric: &mut dyn Fabric, ids: &[u32]) -> Result<()> {
    for id in ids {
        fabric.kill(*id).await?;
    }
    Ok(())
}

async fn trace(fabric: &dyn Fabric, id: u32, syncs: Syncs) -> Result<Tracer> {
    match fabric.state(id)? {
        ProcessState::Running { pid } => Tracer::attach(pid, syncs).await,
        other => bail!("broker {id} is {other}"),
    }
}

/// Waits until a broker's own word for the time is off by so many seconds.
async fn sees_jump(fabric: &dyn Fabric, id: u32, seconds: i64) -> Result<()> {
    let until = Instant::now() + SEES_WITHIN;
    loop {
        let off = clock_error_ms(fabric, id).await.unwrap_or_default();
        if (off - seconds * 1_000).abs() < 10_000 {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("broker {id} does not see the jump: its clock is off by {off} ms (a static binary cannot)");
        }
        tokio::time::sleep(LOOK_EVERY * 5).await;
    }
}

/// How far a broker's clock is off. Unit: ms.
async fn clock_error_ms(fabric: &dyn Fabric, id: u32) -> Option<i64> {
    let answer = http_get(fabric.http(id), "/health", SEES_WITHIN).await.ok()?;
    let document: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let told = humantime::parse_rfc3339(document.get("timestamp")?.as_str()?).ok()?;
    let told = told.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    Some(i64::try_from(told).ok()? - client::Clock::system().now_ms())
}

/// How broken links are told: what the first one does, and how many there are.
fn tell(links: &[Link]) -> String {
    links.first().map_or_else(String::new, |(_, _, state)| {
        let how = match state {
            LinkState::Whole => "whole".to_owned(),
            LinkState::BlackHole => "black hole".to_owned(),
            LinkState::Reset => "reset".to_owned(),
            LinkState::Held => "held".to_owned(),
            LinkState::Shaped(shape) => {
                let (delay, jitter) = (shape.delay_ms, shape.jitter_ms);
                format!("{delay}±{jitter} ms, {}‰ lost", shape.loss_permille)
            }
        };
        format!("{how} on {} links", links.len())
    })
}
