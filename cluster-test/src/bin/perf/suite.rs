//! What can be measured, by name.

use clap::ValueEnum;

use super::contest::{Contest, Plan};
use super::{core, scale};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Suite {
    /// Produce, consume, end to end, against the machine's own limits and against peers
    Core,
    /// What partitions cost: none to 1,000 on three brokers, idle, at a trickle and busy; one run of each
    Scale,
}

impl Suite {
    /// Its contests.
    pub(super) fn contests(self, plan: Plan) -> Vec<Contest> {
        match self {
            Self::Core => core::contests(plan),
            Self::Scale => scale::contests(plan),
        }
    }
}
