//! Runs seeds twice and compares.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::args::Args;
use super::children::{Task, apart, each};
use super::tell::{print, say};

/// Runs each seed in two processes; true if both always saw the same.
pub(crate) fn run(args: &Args, seeds: Range<u64>) -> Result<bool> {
    let differ = Mutex::new(Vec::new());
    let count = seeds.end - seeds.start;
    each(args, seeds, |seed| {
        let task = Task { seed, mutant: None, with: &args.with };
        let same = match (apart(args, &task), apart(args, &task)) {
            (Ok(a), Ok(b)) if a.hash == b.hash => true,
            (Ok(a), Ok(b)) => {
                say(&format!(
                    "seed {seed} gave the traces {} ({} events) and {} ({})",
                    a.hash, a.events, b.hash, b.events
                ));
                false
            }
            (Err(error), _) | (_, Err(error)) => {
                say(&format!("seed {seed}: {error:#}"));
                false
            }
        };
        if !same {
            differ.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
        }
    });
    let mut differ = differ.into_inner().unwrap_or_else(PoisonError::into_inner);
    differ.sort_unstable();
    print(&serde_json::json!({"seeds": count, "differ": differ}).to_string());
    Ok(differ.is_empty())
}
