//! The figures of consumer groups, measured on three real brokers: commits a second, how fast members come, go and are
//! replaced, what idle groups cost. Prints one table, and with `--json` one JSON line.
//!
//! `cargo run --release -p cluster-test --bin group_figures [commits] [settle] [idle] [replace]`

mod commits;
mod idle;
mod replace;
mod settle;

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

/// What can be measured, in this order.
const ALL: [&str; 4] = ["commits", "settle", "idle", "replace"];

/// The bound of a figure.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nobody asked for one.
    None,
}

/// One row: what was measured, what was asked for.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    measured: f64,
    unit: &'static str,
    bound: Bound,
}

impl Figure {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
            Bound::None => true,
        }
    }

    fn line(&self) -> String {
        let (name, measured, unit) = (self.name, self.measured, self.unit);
        let bound = match self.bound {
            Bound::AtMost(most) => format!("at most {most}"),
            Bound::AtLeast(least) => format!("at least {least}"),
            Bound::None => "-".to_owned(),
        };
        let verdict = if self.holds() { "ok" } else { "MISSED" };
        format!("{name:<66} {measured:>11.2} {unit:<4} {bound:>16}  {verdict}")
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let named: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--json").collect();
    let wanted = if named.is_empty() { ALL.to_vec() } else { named };
    let mut figures = Vec::new();
    for what in wanted {
        figures.extend(match what {
            "commits" => commits::measure().await?,
            "settle" => settle::measure().await?,
            "idle" => idle::measure().await?,
            "replace" => replace::measure().await?,
            other => bail!("{other:?} is none of {}", ALL.join(", ")),
        });
    }
    let good = figures.iter().all(Figure::holds);
    if json {
        print_line(&serde_json::to_string(&figures)?);
    } else {
        figures.iter().for_each(|figure| print_line(&figure.line()));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the output of a command-line tool")]
fn print_line(text: &str) {
    println!("{text}");
}
