//! The error table is complete, and `docs/errors.md` is what it says.
//!
//! The page is generated: `ALTAIR_BLESS=1 cargo test -p wire --test errors_page` writes it anew.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure there fails the test")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use wire::error_code::ErrorCode;

const GROUPS: [(&str, &str); 9] = [
    ("ALT-1", "The request"),
    ("ALT-2", "Topics, partitions, settings"),
    ("ALT-3", "Writing"),
    ("ALT-4", "Reading"),
    ("ALT-5", "Cluster and leadership"),
    ("ALT-6", "Storage"),
    ("ALT-7", "On the client's side"),
    ("ALT-8", "Consumer groups"),
    ("ALT-9", "Faults of Altair itself"),
];

#[test]
fn codes_and_names_are_unique_and_in_order() {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|row| row.code()).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "codes must be unique and ascending");
    let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|row| row.name()).collect();
    assert_eq!(names.len(), ErrorCode::ALL.len());
    for row in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(row.code()), Some(*row));
        assert_eq!(ErrorCode::from_code(&row.code()[4..]), Some(*row));
        assert_eq!(ErrorCode::from_code(&row.code().to_lowercase()), Some(*row));
        assert_eq!(ErrorCode::from_name(row.name()), Some(*row));
    }
    for wrong in ["", "ALT-", "ALT-0000", "ALT", "äöü", "2107x"] {
        assert_eq!(ErrorCode::from_code(wrong), None, "{wrong:?}");
    }
}

#[test]
fn every_row_has_all_its_forms() {
    for row in ErrorCode::ALL {
        let code = row.code();
        assert_eq!(code.len(), 8, "{code}");
        assert!(GROUPS.iter().any(|(prefix, _)| code.starts_with(prefix)), "{code} is in no group");
        assert!((1..=16).contains(&row.grpc_code()), "{code}");
        assert!((400..=599).contains(&row.http_status()), "{code}");
        assert!((-1..=130).contains(&row.kafka_number()) && row.kafka_number() != 0, "{code}");
        assert!(row.title().len() > 10 && !row.title().ends_with('.'), "{code}: a title is a phrase");
        assert!(row.cause().len() > 30 && row.cause().ends_with('.'), "{code}: a cause is whole sentences");
        assert!(
            row.next_step().len() > 10 && !row.next_step().ends_with('.'),
            "{code}: a next step is a phrase"
        );
        assert!(row.help().contains(row.cause()) && row.help().contains(row.next_step()), "{code}");
        let snake = row.name().chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(snake, "{code}: names are snake case");
    }
}

#[test]
fn a_throttled_or_full_broker_is_retriable_and_definite() {
    for row in
        [ErrorCode::Overloaded, ErrorCode::StorageFull, ErrorCode::NotEnoughReplicas, ErrorCode::NotLeader]
    {
        assert!(row.retriable() && row.definite(), "{row}");
    }
    for row in
        [ErrorCode::OutcomeUnknown, ErrorCode::ConnectionLost, ErrorCode::Internal, ErrorCode::StorageFault]
    {
        assert!(!row.definite(), "{row}");
    }
}

#[test]
fn the_errors_page_is_up_to_date() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "docs", "errors.md"].iter().collect();
    let page = page();
    if std::env::var_os("ALTAIR_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/errors.md is stale: run `ALTAIR_BLESS=1 cargo test -p wire --test errors_page` and commit it"
    );
}

fn page() -> String {
    let mut out = String::from(
        "# Errors\n\n\
         <!-- Generated from wire/src/error_code/table.rs: ALTAIR_BLESS=1 cargo test -p wire --test errors_page -->\n\n\
         Every error has a code that is the same on gRPC, HTTP, in logs and on the command line; `altair-cli error <code>`\n\
         prints what stands here. *Retriable*: the same request may succeed later or elsewhere. *Definite*: the request\n\
         certainly had no effect; of an indefinite one it is not known.\n\n\
         | Code | Name | gRPC | HTTP | Kafka | Retriable | Definite |\n\
         |---|---|---:|---:|---:|---|---|\n",
    );
    let word = |yes| if yes { "yes" } else { "no" };
    for row in ErrorCode::ALL {
        let anchor = row.code().to_lowercase();
        let (code, name) = (row.code(), row.name());
        let numbers = format!("{} | {} | {}", row.grpc_code(), row.http_status(), row.kafka_number());
        let flags = format!("{} | {}", word(row.retriable()), word(row.definite()));
        writeln!(out, "| [{code}](#{anchor}) | `{name}` | {numbers} | {flags} |").unwrap();
    }
    for (prefix, title) in GROUPS {
        write!(out, "\n## {title}\n").unwrap();
        for row in ErrorCode::ALL.iter().filter(|row| row.code().starts_with(prefix)) {
            write!(out, "\n### {}\n\n**{}** (`{}`)\n\n", row.code(), row.title(), row.name()).unwrap();
            write!(out, "{}\n\nNext: {}.\n", row.cause(), row.next_step()).unwrap();
        }
    }
    out
}
