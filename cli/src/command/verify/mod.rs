//! `verify`: run a workload on a cluster and judge what its clients saw, or judge a kept history once more.

pub(crate) mod args;
mod kept;
mod live;
mod run;
mod topic;
mod transfers;

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use verify::history::{History, HistoryError, files_of};
use verify::report::Report;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;

use self::args::Verify;
use crate::context::Context;
use crate::convert::count_text;
use crate::exit::{Failure, UNHEALTHY};
use crate::output::{Column, Kind, Row, View};

const VERDICTS: Kind = Kind {
    many: "verdicts",
    columns: &[
        Column::text("VERDICT"),
        Column::number("FINDINGS"),
        Column::number("ACKED"),
        Column::number("LOST"),
        Column::number("DUPLICATED"),
    ],
    fields: &[
        ("verdict", "string", "clean or violated"),
        ("violations", "number", "everything that is wrong, counted"),
        ("lost", "number", "records that were acknowledged or seen and are not there any more"),
        ("duplicated", "number", "records of idempotent producers that stand twice"),
        ("findings", "object", "count of each kind of finding, by its name"),
        ("evidence", "array of object", "the first findings of each kind: anomaly, place, evidence"),
        ("notes", "array of string", "what could not be judged, and why"),
        ("files", "number", "files of the history"),
        ("lines", "number", "lines in them"),
        ("duration_ms", "number", "from the first line to the last"),
        ("topics", "number", "topics that were written or read"),
        ("partitions", "number", "partitions that were written or read"),
        ("acked", "number", "records with a receipt"),
        ("sends", "object", "of acks all, leader and none: sent, acked, failed, unknown"),
        ("reads", "object", "polls, records, seeks, final_reads, final_records"),
        ("list_offsets", "object", "questions for offsets: ok, failed, unknown"),
        ("metadata", "object", "questions for metadata: ok, failed, unknown"),
        ("faults", "object", "of each kind: installed, skipped, indeterminate"),
        (
            "without_ack",
            "object",
            "windows, p50_ms, p90_ms, p99_ms, longest_ms, partitions: times without an ack while a send waited",
        ),
        ("expectations", "object", "what was taken for granted: retention, replicas, dense, grows"),
        ("topic", "string", "run: the topic that was made"),
        ("topic_kept", "boolean", "run: it is still there"),
        ("history", "string or null", "run: where the history is, if it was kept"),
        ("unread", "array of string", "run: replicas that could not be read at the end, and why"),
        ("interrupted", "boolean", "run: ended early by Ctrl-C"),
    ],
};

pub(crate) async fn run(context: &Context, command: Verify) -> Result<(), Failure> {
    if context.out.explain(&VERDICTS)? {
        return Ok(());
    }
    match command {
        Verify::Run(args) => run::run(context, &args).await,
        Verify::Report { files } => report(context, &files),
    }
}

fn report(context: &Context, files: &[PathBuf]) -> Result<(), Failure> {
    let report = judge(files)?;
    show(context, &report, Map::new(), None)?;
    verdict(&report)
}

/// Reads a history back and judges it by its own expectations.
fn judge(paths: &[PathBuf]) -> Result<Report, Failure> {
    let history = files_of(paths).and_then(|files| History::read(&files)).map_err(|e| unbelievable(&e))?;
    Ok(Report::judge(&history, &history.expectations.unwrap_or_default()))
}

fn unbelievable(error: &HistoryError) -> Failure {
    let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Failure::Api(ApiError::new(ErrorCode::InvalidHistory, error.to_string()).reason(reason))
}

/// Prints a report, with what a run adds to it and the next useful command.
fn show(
    context: &Context,
    report: &Report,
    more: Map<String, Value>,
    next: Option<String>,
) -> Result<(), Failure> {
    let mut fields = match json!(report) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.extend(more);
    let numbers = [report.violations, report.acked, report.lost, report.duplicated].map(count_text);
    let row = Row {
        name: report.verdict.to_owned(),
        cells: std::iter::once(report.verdict.to_owned()).chain(numbers).collect(),
        json: Value::Object(fields),
    };
    let view = View::one(&VERDICTS, row).detail(report.to_string().trim_end().to_owned());
    context.out.show(match next {
        Some(next) => view.note(next),
        None => view,
    })
}

/// How a command ends that has shown this report.
fn verdict(report: &Report) -> Result<(), Failure> {
    if report.is_clean() { Ok(()) } else { Err(Failure::Told(UNHEALTHY)) }
}
