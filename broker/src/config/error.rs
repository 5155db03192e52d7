//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::path::PathBuf;

use super::load::Origin;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Full name of the key; empty if the problem is not about one key.
    pub key: String,
    /// Where the value was set.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  try: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file cannot be read.
    #[error("config file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration was read and is wrong.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let head = match problems.len() {
        1 => "the configuration has 1 problem".to_owned(),
        many => format!("the configuration has {many} problems"),
    };
    problems.iter().fold(head, |text, problem| format!("{text}\n{problem}"))
}
