//! What is printed.

use anyhow::Result;
use serde_json::{Value, json};

use super::contest::{Bound, Outcome, Row};

/// A line of the result.
#[expect(clippy::print_stdout, reason = "the output of a command-line tool")]
pub(super) fn print(text: &str) {
    println!("{text}");
}

/// A line beside it.
#[expect(clippy::print_stderr, reason = "the progress of a command-line tool")]
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// The table, as it stands in the documentation.
pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let mut lines = vec![
        "| contest | what | measured | against | ratio | asked for | |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for outcome in outcomes {
        lines.extend(outcome.rows.iter().map(|row| line(outcome, row)));
    }
    lines.join("\n")
}

fn line(outcome: &Outcome, row: &Row) -> String {
    let side = |name: &str| {
        let median = outcome.figure(row, name).map_or_else(|| "?".to_owned(), number);
        let durability = outcome.durability.get(name).copied().unwrap_or_default();
        format!("{median} {} ({name}, {durability})", row.unit)
    };
    let against = row.against.map_or_else(|| "–".to_owned(), side);
    let judged = outcome.judged(row);
    let ratio = match row.against {
        Some(_) => judged.map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.2}")),
        None => "–".to_owned(),
    };
    let verdict = match (row.asked, judged) {
        (None, _) => "",
        (Some(bound), Some(value)) if bound.holds(value) => "ok",
        _ => "missed",
    };
    format!(
        "| {} | {} | {} | {against} | {ratio} | {} | {verdict} |",
        outcome.contest,
        row.what,
        side(row.of),
        row.asked.map_or_else(|| "–".to_owned(), asked)
    )
}

fn asked(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(value) => format!("≥ {}", number(value)),
        Bound::AtMost(value) => format!("≤ {}", number(value)),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One document with every run.
///
/// # Errors
/// Never for what is measured here.
pub(super) fn json(outcomes: &[Outcome]) -> Result<String> {
    let all: Vec<Value> = outcomes.iter().map(document).collect();
    Ok(serde_json::to_string_pretty(&json!({ "contests": all }))?)
}

fn document(outcome: &Outcome) -> Value {
    let rows: Vec<Value> = outcome
        .rows
        .iter()
        .map(|row| {
            let (bound, least) = match row.asked {
                None => (None, false),
                Some(Bound::AtLeast(value)) => (Some(value), true),
                Some(Bound::AtMost(value)) => (Some(value), false),
            };
            json!({
                "what": row.what,
                "figure": row.figure,
                "unit": row.unit,
                "of": row.of,
                "against": row.against,
                "median": outcome.median(row.of, row.figure),
                "worst_counts": row.worst,
                "judged": outcome.judged(row),
                "at_least": bound.filter(|_| least),
                "at_most": bound.filter(|_| !least),
            })
        })
        .collect();
    json!({ "contest": outcome.contest, "durability": outcome.durability, "runs": outcome.runs, "rows": rows })
}
