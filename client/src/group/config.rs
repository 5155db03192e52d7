//! Settings of a consumer that is a member of a group.

use std::str::FromStr;

use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use crate::config::{Check, ConsumerConfig};
use crate::error::ConfigProblems;

/// When a record counts as done, and with it what can be lost or repeated when a consumer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// Records count as done when the application asks for the next ones, and are committed soon after. Nothing is lost; after
    /// a crash or a lost session, what was done since the last commit is repeated.
    #[default]
    AtLeastOnce,
    /// Records are committed before the application sees them. Nothing is repeated; what was taken and not processed when the
    /// consumer died is lost.
    AtMostOnce,
    /// Nothing is committed but by [`commit`](crate::GroupConsumer::commit): the application decides. What it commits before
    /// it is done can be lost, what it has done and not committed is repeated.
    Manual,
}

/// How the broker shares the partitions of a group out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Evenly, moving as few partitions as that needs.
    Sticky,
    /// Neighbouring partitions of each topic together: the same partition of several topics goes to one member.
    Range,
    /// One by one over all topics.
    RoundRobin,
}

impl Assignor {
    /// The word of the protocol and of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Range => "range",
            Self::RoundRobin => "round_robin",
        }
    }
}

impl FromStr for Assignor {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let all = [Self::Sticky, Self::Range, Self::RoundRobin];
        let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
        all.into_iter().find(|assignor| plain(assignor.name()) == plain(text)).ok_or_else(|| {
            ApiError::new(
                ErrorCode::UnknownAssignor,
                format!("{text:?} is not one of sticky, range, round_robin"),
            )
        })
    }
}

/// Settings of a [`GroupConsumer`](crate::GroupConsumer).
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group. No default. 1 to 249 bytes. Alias `group.id`.
    pub group_id: String,
    /// Name of a static member, the same after every restart of the process: it keeps its partitions meanwhile. Default: none.
    /// Alias `group.instance.id`.
    pub instance_id: Option<String>,
    /// How partitions should be shared out; the group takes the wish of most members. Default: no wish, which means sticky.
    pub assignor: Option<Assignor>,
    /// Silence after which the group gives the partitions to others. Unit: ms. Default 0 = the brokers' own setting (10 s).
    /// Range 1_000..=1_800_000. Alias `session.timeout.ms`.
    pub session_timeout_ms: u32,
    /// Time between two calls of `poll` after which the consumer takes the application for stuck and leaves the group. Unit: ms.
    /// Default 300_000. Range 1_000..=86_400_000. Alias `max.poll.interval.ms`.
    pub max_poll_interval_ms: u32,
    /// When a record counts as done. Default `AtLeastOnce`. Values: `at_least_once`, `at_most_once`, `manual`.
    pub guarantee: Guarantee,
    /// How often what is done is committed with `AtLeastOnce`: the most that a crash repeats. Unit: ms. Default 1_000.
    /// Range 10..=3_600_000. Alias `auto.commit.interval.ms`.
    pub auto_commit_interval_ms: u32,
    /// How partitions are read. Its `offset_reset` says where a partition begins that has no committed offset.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// The defaults for a group.
    pub fn new(group_id: impl Into<String>) -> Self {
        Self { group_id: group_id.into(), ..Self::default() }
    }

    /// Finds everything that cannot work.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigProblems> {
        let mut check = Check::default();
        check.that(!self.group_id.is_empty(), "group_id", "a consumer of a group needs the group's id");
        if self.session_timeout_ms != 0 {
            check.range("session_timeout_ms", u64::from(self.session_timeout_ms), 1_000, 1_800_000);
        }
        check.range("max_poll_interval_ms", u64::from(self.max_poll_interval_ms), 1_000, 86_400_000);
        check.range("auto_commit_interval_ms", u64::from(self.auto_commit_interval_ms), 10, 3_600_000);
        check.and(self.consumer.validate());
        check.done()
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            group_id: String::new(),
            instance_id: None,
            assignor: None,
            session_timeout_ms: 0,
            max_poll_interval_ms: 300_000,
            guarantee: Guarantee::AtLeastOnce,
            auto_commit_interval_ms: 1_000,
            consumer: ConsumerConfig::default(),
        }
    }
}
