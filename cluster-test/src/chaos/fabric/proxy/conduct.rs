//! How one directed pair of proxied hosts behaves now.

use std::time::Duration;

/// What happens to the bytes of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Bytes pass, late and slowly if the pace says so; their order is kept.
    Pass(Pace),
    /// Bytes are kept and pass once the flow passes again, even if the sender has gone away meanwhile: packets that come
    /// out of a grave. What is kept is bounded; beyond that the sender is no longer read from.
    Hold,
    /// Bytes vanish. A connection that lost some is reset as soon as its flow passes again: TCP has no holes.
    Swallow,
    /// The stream ends here: the receiver reads its end, the other direction goes on (a half-closed connection).
    Close,
}

/// How fast bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Least time from one side to the other.
    pub delay: Duration,
    /// Up to so much more, by chance.
    pub jitter: Duration,
    /// Bytes per second; `None` = as many as come.
    pub bytes_per_second: Option<u32>,
}

/// Behaviour of all connections that one host opened to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conduct {
    /// Connections are reset, those that exist and those that are opened.
    pub reset: bool,
    /// From who dialled to who was dialled.
    pub there: Flow,
    /// From who was dialled to who dialled.
    pub back: Flow,
}

impl Flow {
    /// Bytes pass at once.
    pub const OPEN: Self =
        Self::Pass(Pace { delay: Duration::ZERO, jitter: Duration::ZERO, bytes_per_second: None });
}

impl Conduct {
    /// As if there were no proxy.
    pub const OPEN: Self = Self { reset: false, there: Flow::OPEN, back: Flow::OPEN };
    /// Connections are reset.
    pub const RESET: Self = Self { reset: true, ..Self::OPEN };

    /// The same flow both ways.
    #[must_use]
    pub const fn both(flow: Flow) -> Self {
        Self { reset: false, there: flow, back: flow }
    }
}
