//! `error`: the table of errors, offline.

use serde_json::json;
use wire::error_code::ErrorCode;

use crate::context::Context;
use crate::exit::{Failure, exit_code};
use crate::output::{Column, Kind, Row, View};

const ERRORS: Kind = Kind {
    many: "errors",
    columns: &[
        Column::text("CODE"),
        Column::text("NAME"),
        Column::number("GRPC").wide(),
        Column::number("HTTP").wide(),
        Column::number("KAFKA").wide(),
        Column::number("EXIT").wide(),
        Column::text("RETRIABLE"),
        Column::text("DEFINITE"),
        Column::text("MEANING"),
    ],
    fields: &[
        ("code", "string", "stable code, the same everywhere"),
        ("name", "string", "the same in words"),
        ("title", "string", "what happened"),
        ("cause", "string", "why it happens"),
        ("next_step", "string", "what to do"),
        ("grpc_code", "number", "gRPC status"),
        ("http_status", "number", "HTTP status"),
        ("kafka_number", "number", "error number of the Kafka protocol"),
        ("exit_code", "number", "exit code of altair-cli"),
        ("retriable", "boolean", "the same request may succeed later or elsewhere"),
        ("definite", "boolean", "the request certainly had no effect"),
    ],
};

pub(crate) fn run(context: &Context, code: Option<&str>) -> Result<(), Failure> {
    if context.out.explain(&ERRORS)? {
        return Ok(());
    }
    let Some(code) = code else {
        return context.out.show(View::list(&ERRORS, ErrorCode::ALL.iter().map(|row| shown(*row)).collect()));
    };
    let found = ErrorCode::from_code(code).or_else(|| ErrorCode::from_name(code)).ok_or_else(|| {
        Failure::usage(format!("there is no error {code:?}"), "altair-cli error lists all of them")
    })?;
    context.out.show(View::one(&ERRORS, shown(found)).detail(explained(found)))
}

fn shown(code: ErrorCode) -> Row {
    let word = |yes| if yes { "yes" } else { "no" };
    Row {
        name: code.code().to_owned(),
        cells: vec![
            code.code().to_owned(),
            code.name().to_owned(),
            code.grpc_code().to_string(),
            code.http_status().to_string(),
            code.kafka_number().to_string(),
            exit_code(code).to_string(),
            word(code.retriable()).to_owned(),
            word(code.definite()).to_owned(),
            code.title().to_owned(),
        ],
        json: json!({
            "code": code.code(), "name": code.name(), "title": code.title(), "cause": code.cause(),
            "next_step": code.next_step(), "grpc_code": code.grpc_code(), "http_status": code.http_status(),
            "kafka_number": code.kafka_number(), "exit_code": exit_code(code),
            "retriable": code.retriable(), "definite": code.definite(),
        }),
    }
}

fn explained(code: ErrorCode) -> String {
    let retriable = if code.retriable() { "a retry may help" } else { "a retry does not help" };
    let definite = if code.definite() { "it certainly had no effect" } else { "it may have had an effect" };
    format!(
        "{code} {}: {}\n\n{}\n\n{retriable}; {definite}\ngRPC status {}, HTTP {}, Kafka {}, exit code {}",
        code.name(),
        code.title(),
        code.help(),
        code.grpc_code(),
        code.http_status(),
        code.kafka_number(),
        exit_code(code)
    )
}
