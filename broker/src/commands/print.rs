//! Output of the commands that talk to a person: answers on standard output, progress on standard error. A reader that
//! has gone away (`altair demo | head -1`) is no error.

use std::io::Write;

/// A line of the answer.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line about what is going on.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
