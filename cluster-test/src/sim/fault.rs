//! The kinds of faults, by the names that histories and reports carry.

/// A kind of fault that the nemesis installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A broker's process dies and starts again.
    Kill,
    /// The processes of most brokers or of all die and start again.
    KillMany,
    /// A broker's machine loses power.
    PowerOne,
    /// All machines lose power at once.
    PowerAll,
    /// A broker's machine loses power between two operations on its disk.
    PowerMidWrite,
    /// A broker is stopped in order and starts again.
    Restart,
    /// A broker is cut off from the others, and sometimes from the clients too.
    Isolate,
    /// The brokers are split in two; the clients see one side or both.
    Split,
    /// Two brokers cannot talk, all others can.
    CutPair,
    /// A broker hears the others and is not heard, or the other way round.
    OneWay,
    /// Packets of a broker are kept and delivered late.
    Hold,
    /// The links of a broker are slow.
    SlowLink,
    /// A broker's disk is slow.
    SlowDisk,
    /// The wall clock of a machine jumps.
    ClockJump,
    /// An fsync fails; the broker must stop.
    FsyncError,
    /// A write fails; the broker may stop.
    WriteError,
    /// A disk runs full and has room again later.
    DiskFull,
    /// Bits of one broker's durable files flip while it is down.
    BitRot,
    /// Bits of one broker's write-ahead log flip, where entries stand, while it is down.
    WalRot,
    /// One broker comes back with an empty disk.
    Wipe,
    /// A leadership is moved.
    Transfer,
    /// A topic is created.
    CreateTopic,
    /// A broker is struck at a vote or an election.
    AtVote,
    /// A broker is struck between the write of an entry and the answer.
    AtWrite,
    /// A broker is struck while it shortens its log.
    AtRelease,
    /// A broker is struck while it installs a snapshot.
    AtInstall,
    /// A broker is struck while it hands a leadership over.
    AtTransfer,
    /// A broker is struck right after it created a replica.
    AtCreate,
    /// A broker is cut off from the others with all clients, and struck when it takes back what it wrote alone.
    AtTruncate,
}

impl FaultKind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Kill,
        Self::KillMany,
        Self::PowerOne,
        Self::PowerAll,
        Self::PowerMidWrite,
        Self::Restart,
        Self::Isolate,
        Self::Split,
        Self::CutPair,
        Self::OneWay,
        Self::Hold,
        Self::SlowLink,
        Self::SlowDisk,
        Self::ClockJump,
        Self::FsyncError,
        Self::WriteError,
        Self::DiskFull,
        Self::BitRot,
        Self::WalRot,
        Self::Wipe,
        Self::Transfer,
        Self::CreateTopic,
        Self::AtVote,
        Self::AtWrite,
        Self::AtRelease,
        Self::AtInstall,
        Self::AtTransfer,
        Self::AtCreate,
        Self::AtTruncate,
    ];

    /// Its name in histories and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillMany => "kill_many",
            Self::PowerOne => "power_one",
            Self::PowerAll => "power_all",
            Self::PowerMidWrite => "power_mid_write",
            Self::Restart => "restart",
            Self::Isolate => "isolate",
            Self::Split => "split",
            Self::CutPair => "cut_pair",
            Self::OneWay => "one_way",
            Self::Hold => "hold",
            Self::SlowLink => "slow_link",
            Self::SlowDisk => "slow_disk",
            Self::ClockJump => "clock_jump",
            Self::FsyncError => "fsync_error",
            Self::WriteError => "write_error",
            Self::DiskFull => "disk_full",
            Self::BitRot => "bit_rot",
            Self::WalRot => "wal_rot",
            Self::Wipe => "wipe",
            Self::Transfer => "transfer",
            Self::CreateTopic => "create_topic",
            Self::AtVote => "at_vote",
            Self::AtWrite => "at_write",
            Self::AtRelease => "at_release",
            Self::AtInstall => "at_install",
            Self::AtTransfer => "at_transfer",
            Self::AtCreate => "at_create",
            Self::AtTruncate => "at_truncate",
        }
    }
}
