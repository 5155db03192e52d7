//! What is said to a person: errors, notes, questions. Always on standard error, so that data stays clean.

use std::io::{self, IsTerminal, Write};

use wire::api_error::ApiError;

use crate::exit::Failure;

/// Prints an error in its three-line shape.
pub(crate) fn print_error(error: &ApiError) {
    let text = error.to_string();
    let mut err = io::stderr().lock();
    // Nothing can be done if even standard error is closed.
    let _ = match text.split_once(": ") {
        Some((head, rest)) if colours() => writeln!(err, "\u{1b}[1;31m{head}\u{1b}[0m: {rest}"),
        _ => writeln!(err, "{text}"),
    };
}

/// Prints one line for a person.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// True if standard error is a terminal and nobody asked for no colours (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Asks before something is destroyed or disturbed. Where nobody can be asked, `--yes` is needed; `otherwise` says what
/// else the user may do there.
///
/// # Errors
/// The user said no, or standard input is no terminal.
pub(crate) fn confirm(question: &str, yes: bool, otherwise: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("{question}: this needs a confirmation, and standard input is no terminal"),
            format!("--yes confirms it, {otherwise}"),
        ));
    }
    {
        let mut err = io::stderr().lock();
        write!(err, "{question}? [y/N] ")?;
        err.flush()?;
    }
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    note("nothing was changed");
    Err(Failure::Told(crate::exit::ERROR))
}

/// Clears the terminal between two looks of `--watch`; nothing where the output goes elsewhere.
pub(crate) fn clear_screen() {
    if io::stdout().is_terminal() {
        // Home, then erase to the end: what was there does not flicker.
        let _ = write!(io::stdout().lock(), "\u{1b}[H\u{1b}[2J");
    }
}
