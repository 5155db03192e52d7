//! What can go wrong, whom it hits, and whether it did.

use std::fmt;

use super::fabric::{Ability, LinkState, Shape};

/// Whom a fault hits; who that is, is looked up when it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// The leader of this partition of the workload's topic.
    Leader(u32),
    /// A follower of this partition.
    Follower(u32),
    /// The leader of the metadata group.
    MetadataLeader,
    /// A broker by id.
    Broker(u32),
}

/// How a cut looks to those who call over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// Nothing comes back.
    BlackHole,
    /// Refused and reset.
    Reset,
}

/// One thing that goes wrong, for as long as its step lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill(Victim),
    /// SIGKILL of every broker at once; all started again at the end.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause(Victim),
    /// Nobody reaches the broker and it reaches nobody; clients still do where `clients` is true.
    Isolate {
        /// Who is cut off.
        victim: Victim,
        /// How.
        kind: CutKind,
        /// Whether clients still reach it.
        clients: bool,
    },
    /// A minority of brokers, the victim among them, is cut off from the others; clients reach both sides.
    Minority {
        /// One of the minority; ids after it join.
        victim: Victim,
        /// How.
        kind: CutKind,
    },
    /// The other brokers cannot call the victim; it calls them.
    Unheard {
        /// Whom nobody can call.
        victim: Victim,
        /// How.
        kind: CutKind,
    },
    /// The victim cannot call the others; they call it.
    Mute {
        /// Who can call nobody.
        victim: Victim,
        /// How.
        kind: CutKind,
    },
    /// Two halves that cannot reach each other; the victim reaches both.
    Bridge {
        /// The one in the middle.
        victim: Victim,
        /// How.
        kind: CutKind,
    },
    /// All links of the victim are slow or lossy.
    Slow {
        /// Whose.
        victim: Victim,
        /// How slow, how lossy.
        shape: Shape,
    },
    /// What others send to the victim is kept back and delivered at the end.
    Hold(Victim),
    /// The victim's cable is taken out: nobody reaches it and it reaches nobody.
    Unplug(Victim),
    /// Clients cannot reach the victim.
    NoClients {
        /// Whom.
        victim: Victim,
        /// How.
        kind: CutKind,
    },
    /// The next sync of the victim's disk fails with EIO; the broker must stop, and is started again at the end.
    SyncError(Victim),
    /// Each sync of the victim's disk takes this much longer. Unit: ms.
    SlowSync(Victim, u32),
    /// The victim's disk is filled by somebody else up to this many free bytes.
    DiskFull(Victim, u64),
    /// The victim's wall clock jumps by this. Unit: s.
    ClockJump(Victim, i64),
    /// Every broker in turn: asked to stop, waited for, started, waited until ready.
    RollingRestart,
    /// The power of the victim's disk is cut while it works; started again on what was synced.
    PowerCut(Victim),
    /// The power of all disks is cut at once.
    PowerCutAll,
    /// A bit flips in the victim's stored files while it is stopped.
    BitFlip(Victim),
    /// A bit flips in the victim's stored files while it works with them.
    BitFlipLive(Victim),
    /// At its end, every disk holds again what it held when this struck: all that was acknowledged meanwhile is gone. No
    /// cluster can keep its word then; it is here to see that the harness notices.
    RollBack,
}

impl CutKind {
    /// What a link does that is cut like this.
    #[must_use]
    pub fn state(self) -> LinkState {
        match self {
            Self::BlackHole => LinkState::BlackHole,
            Self::Reset => LinkState::Reset,
        }
    }
}

impl Fault {
    /// Whom it hits; `None` for those that hit everybody.
    #[must_use]
    pub fn victim(&self) -> Option<&Victim> {
        match self {
            Self::KillAll | Self::PowerCutAll | Self::RollingRestart | Self::RollBack => None,
            Self::Kill(victim)
            | Self::Pause(victim)
            | Self::Isolate { victim, .. }
            | Self::Minority { victim, .. }
            | Self::Unheard { victim, .. }
            | Self::Mute { victim, .. }
            | Self::Bridge { victim, .. }
            | Self::Slow { victim, .. }
            | Self::Hold(victim)
            | Self::Unplug(victim)
            | Self::NoClients { victim, .. }
            | Self::SyncError(victim)
            | Self::SlowSync(victim, _)
            | Self::DiskFull(victim, _)
            | Self::ClockJump(victim, _)
            | Self::PowerCut(victim)
            | Self::BitFlip(victim)
            | Self::BitFlipLive(victim) => Some(victim),
        }
    }

    /// What a fabric must be able to do for it.
    #[must_use]
    pub fn needs(&self) -> Vec<Ability> {
        let cut = |kind: &CutKind| match kind {
            CutKind::BlackHole => Ability::Cut,
            CutKind::Reset => Ability::Reset,
        };
        match self {
            Self::Kill(_) | Self::KillAll | Self::Pause(_) | Self::RollingRestart => Vec::new(),
            Self::Unheard { kind, .. } | Self::Mute { kind, .. } => {
                vec![cut(kind), Ability::OneWay]
            }
            Self::Isolate { kind, .. }
            | Self::Minority { kind, .. }
            | Self::Bridge { kind, .. }
            | Self::NoClients { kind, .. } => vec![cut(kind)],
            Self::Slow { shape, .. } if shape.loss_permille > 0 => vec![Ability::Delay, Ability::Loss],
            Self::Slow { .. } => vec![Ability::Delay],
            Self::Hold(_) => vec![Ability::Hold],
            Self::Unplug(_) => vec![Ability::Unplug],
            Self::SyncError(_) | Self::SlowSync(..) => vec![Ability::Trace],
            Self::DiskFull(..) => vec![Ability::BoundedDisk],
            Self::ClockJump(..) => vec![Ability::Clock],
            Self::PowerCut(_) | Self::PowerCutAll => vec![Ability::Power],
            Self::BitFlip(_) | Self::BitFlipLive(_) | Self::RollBack => vec![Ability::Rot],
        }
    }

    /// Whether a majority of brokers stays alive, connected, and within reach of clients.
    #[must_use]
    pub fn leaves_a_quorum(&self) -> bool {
        !matches!(self, Self::KillAll | Self::PowerCutAll | Self::RollBack)
    }

    /// Name in histories and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::KillAll => "kill-all",
            Self::Pause(_) => "pause",
            Self::Isolate { clients: false, .. } => "isolate",
            Self::Isolate { clients: true, .. } => "isolate-from-brokers",
            Self::Minority { .. } => "minority",
            Self::Unheard { .. } => "one-way-in",
            Self::Mute { .. } => "one-way-out",
            Self::Bridge { .. } => "bridge",
            Self::Slow { shape, .. } if shape.loss_permille > 0 => "loss",
            Self::Slow { .. } => "slow-link",
            Self::Hold(_) => "hold",
            Self::Unplug(_) => "unplug",
            Self::NoClients { .. } => "no-clients",
            Self::SyncError(_) => "sync-error",
            Self::SlowSync(..) => "slow-sync",
            Self::DiskFull(..) => "disk-full",
            Self::ClockJump(..) => "clock-jump",
            Self::RollingRestart => "rolling-restart",
            Self::PowerCut(_) => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::BitFlip(_) => "bit-flip",
            Self::BitFlipLive(_) => "bit-flip-live",
            Self::RollBack => "roll-back",
        }
    }
}

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It struck.
    Installed,
    /// It did not, and why: this fabric or machine cannot, or there was nobody to hit.
    Skipped(String),
    /// It may have struck; what went wrong.
    Indeterminate(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("installed"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Indeterminate(why) => write!(f, "indeterminate: {why}"),
        }
    }
}
