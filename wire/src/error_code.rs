//! The one table of errors: every error that a user can see is a row here.
//!
//! Numbers: 1xxx the request, 2xxx topics and metadata, 3xxx produce, 4xxx fetch, 5xxx cluster and leadership, 6xxx
//! storage, 7xxx the client's side, 8xxx consumer groups, 9xxx own faults. A number is never given a second meaning.

mod table;

use std::fmt;

pub use table::ErrorCode;

impl ErrorCode {
    /// The row with this code, for example `ALT-2107`; `2107` and lower case are understood too.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let digits = match code.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("ALT-") => code.get(4..)?,
            _ => code,
        };
        Self::ALL.iter().copied().find(|row| row.code().get(4..) == Some(digits))
    }

    /// The row with this name, for example `not_enough_brokers`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.name() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}
