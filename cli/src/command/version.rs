//! `version` and `completion`: what concerns the program itself.

use std::io::Write;

use serde_json::json;

use crate::completion;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Column, Kind, Row, View};

const VERSION: Kind = Kind {
    many: "versions",
    columns: &[Column::text("PROGRAM"), Column::text("VERSION"), Column::text("API")],
    fields: &[
        ("program", "string", "altair-cli"),
        ("version", "string", "of this program"),
        ("api", "string", "gRPC package that it speaks"),
    ],
};

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    if context.out.explain(&VERSION)? {
        return Ok(());
    }
    let (program, version, api) = ("altair-cli", env!("CARGO_PKG_VERSION"), "altair.v1");
    let row = Row {
        name: version.to_owned(),
        cells: [program, version, api].map(str::to_owned).into(),
        json: json!({"program": program, "version": version, "api": api}),
    };
    context.out.show(View::one(&VERSION, row).detail(format!("{program} {version} ({api})")))
}

/// Prints a completion script; the output form does not apply to it.
pub(crate) fn completion(shell: &str) -> Result<(), Failure> {
    std::io::stdout().lock().write_all(&completion::script(shell)?)?;
    Ok(())
}
