//! The house rules as a test: who may import whom, how long a file may be, what may not stand in the tree.
//!
//! It reads the tree as text. A rule that must bend somewhere bends here, in a table with its reason, not in the code.

#[path = "tidy/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::{Source, sources, text, workspace_files};

/// Lines a source file may have, its tests not counted.
const FILE_LINES_MAX: usize = 800;
/// Lines `main.rs` may have.
const MAIN_LINES_MAX: usize = 80;

/// Which workspace crates each crate may name in its manifest (architecture: an arrow points down only).
const CRATE_ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("disk", &[]),
    ("raft-store", &["disk"]),
    ("partition-log", &["disk", "wire"]),
    ("client", &["wire"]),
    ("verify", &["client", "wire"]),
    ("cli", &["verify", "client", "wire", "disk", "raft-store", "partition-log"]),
    ("broker", &["wire", "disk", "raft-store", "partition-log", "client", "cli"]),
    ("cluster-test", &["broker", "verify", "client", "raft-store", "partition-log", "disk", "wire"]),
];

/// Modules of `broker` from the ground up: each may use only those named beside it.
const MODULE_ARROWS: &[(&str, &[&str])] = &[
    ("runtime", &[]),
    ("config", &[]),
    ("raft", &["runtime", "config"]),
    ("group", &[]),
    ("metadata", &["group", "raft", "runtime", "config"]),
    ("partition", &["metadata", "raft", "runtime", "config"]),
    ("api", &["partition", "metadata", "group", "raft", "runtime", "config"]),
    ("grpc", &["api", "runtime", "config"]),
    ("http", &["api", "runtime", "config"]),
    ("node", &["http", "grpc", "api", "partition", "metadata", "group", "raft", "runtime", "config"]),
    ("supervise", &[]),
];

/// Crates whose name stands in one place only: (crate name in code, folders that may name it).
const CONFINED: &[(&str, &[&str])] = &[
    (
        "openraft",
        &[
            "raft-store/",
            "broker/src/raft/",
            "broker/src/metadata/",
            "broker/src/partition/",
            "broker/src/runtime/",
        ],
    ),
    ("sled", &["raft-store/src/keyed_state"]),
    ("bincode", &["raft-store/src/codec"]),
    (
        "hyper",
        &[
            "broker/src/http/",
            "broker/src/grpc/",
            "client/src/",
            "broker/src/raft/transport",
            "broker/src/runtime/http_executor",
        ],
    ),
    (
        "clap",
        &[
            "cli/",
            "broker/src/main.rs",
            "broker/src/commands/",
            "raft-store/benches/",
            "cluster-test/src/bin/",
        ],
    ),
];

/// Words that only disk, and what stands beside a broker on an operator's machine, may say.
const FILES_OUTSIDE_DISK: &[&str] = &[
    "disk/",
    // Real processes with real files: never part of a simulated broker.
    "broker/src/supervise/",
    "broker/src/commands/",
    // Reads the config file before there is a node.
    "broker/src/config/",
    // Reads the user's own files.
    "cli/",
    "client/examples/",
    "cluster-test/",
    // Histories are files of whoever runs the check.
    "verify/",
    "wire/build.rs",
];

#[test]
fn crates_depend_downwards_only() {
    let names: BTreeSet<&str> = CRATE_ARROWS.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (name, allowed) in CRATE_ARROWS {
        let manifest = text(&format!("{name}/Cargo.toml"));
        for dependency in normal_dependencies(&manifest) {
            if names.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "crates that import upwards or sideways: {wrong:#?}");
}

#[test]
fn broker_modules_import_downwards_only() {
    let arrows: BTreeMap<&str, &[&str]> = MODULE_ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("broker/src/")) {
        let Some(module) = broker_module(&source.path) else { continue };
        let Some(allowed) = arrows.get(module.as_str()) else { continue };
        for used in crate_paths(&source.code()) {
            if used != module && arrows.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {module} -> {used}", source.path));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "broker modules that import upwards or sideways: {wrong:#?}");
}

#[test]
fn client_and_cli_serve_the_broker_binary_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("broker/src/")) {
        let is_binary =
            source.path.starts_with("broker/src/commands/") || source.path == "broker/src/main.rs";
        if !is_binary && (names_crate(source, "client") || names_crate(source, "cli")) {
            wrong.push(source.path.clone());
        }
    }
    assert!(wrong.is_empty(), "only broker/src/commands and main.rs may use client and cli: {wrong:#?}");
}

#[test]
fn the_cli_opens_data_directories_in_log_commands_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("cli/src/")) {
        let reads = ["raft_store", "partition_log", "disk"].iter().any(|name| names_crate(source, name));
        if reads && !source.path.starts_with("cli/src/command/log") {
            wrong.push(source.path.clone());
        }
    }
    assert!(wrong.is_empty(), "only cli/src/command/log.rs reads data directories: {wrong:#?}");
}

#[test]
fn confined_crates_stay_where_they_are() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places) in CONFINED {
            let at_home = places.iter().any(|place| source.path.starts_with(place));
            let is_this_test = source.path.starts_with("cluster-test/tests/tidy");
            if !at_home && !is_this_test && names_crate(&source, name) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_clocks_and_tasks_go_through_their_seam() {
    let mut wrong = Vec::new();
    for source in sources() {
        let outside = FILES_OUTSIDE_DISK.iter().any(|place| source.path.starts_with(place));
        let in_tests = source.path.contains("/tests/") || source.path.contains("/benches/");
        let code = source.code();
        if !outside && !in_tests && code.contains("std::fs") {
            wrong.push(format!("{}: std::fs, go through disk::Disk", source.path));
        }
        let is_seam = source.path.starts_with("broker/src/runtime/");
        if !in_tests && !is_seam {
            for (word, instead) in [("thread_rng(", "runtime::Random"), ("Uuid::new_v4", "runtime::Random")] {
                if code.contains(word) {
                    wrong.push(format!("{}: {word}, use {instead}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.code().lines().count();
        let bound = if source.path.ends_with("/main.rs") { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        let is_test = source.path.contains("/tests/") || source.path.ends_with("tests.rs");
        if lines > bound && !is_test {
            wrong.push(format!("{}: {lines} lines, at most {bound}", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_unfinished_is_left_in_the_tree() {
    // Put together here, so that this file does not find itself.
    let words =
        [["FIX", "ME"], ["TO", "DO"], ["XX", "X"], ["dbg", "!("], ["todo", "!("], ["unimplemented", "!("]];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            for word in words.iter().map(|parts| parts.concat()) {
                if line.contains(&word) {
                    wrong.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_tests = source.path.ends_with("/tests.rs");
        if source.path.contains("/src/") && !is_tests && !source.text.trim_start().starts_with("//!") {
            wrong.push(source.path);
        }
    }
    assert!(wrong.is_empty(), "no module doc at the top of {wrong:#?}");
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in workspace_files(".md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in relative_links(&text(&path)) {
            let target = tree::root().join(folder).join(&link);
            if !target.exists() {
                wrong.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "links to nothing: {wrong:#?}");
}

#[test]
fn every_dependency_has_a_reason_in_the_docs() {
    let reasons = text("docs/dependencies.md");
    let manifest = text("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut wrong = Vec::new();
    for line in section.lines().filter(|line| !line.starts_with('#') && !line.contains("path =")) {
        let Some((name, _)) = line.split_once('=') else { continue };
        if !reasons.contains(&format!("`{}`", name.trim())) {
            wrong.push(name.trim().to_owned());
        }
    }
    assert!(wrong.is_empty(), "no line in docs/dependencies.md for {wrong:#?}");
}

/// Names under `[dependencies]` and `[build-dependencies]` of a manifest.
fn normal_dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[build-dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The top module of a file of the broker's library.
fn broker_module(path: &str) -> Option<String> {
    let rest = path.strip_prefix("broker/src/")?;
    let first = rest.split('/').next()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// First segments of all `crate::…` paths, also those in braces after `use crate::{`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            let list = list.split("};").next().unwrap_or_default();
            let mut depth = 0_i32;
            let mut word = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && (letter.is_alphanumeric() || letter == '_') {
                    word.push(letter);
                } else if !word.is_empty() {
                    found.insert(std::mem::take(&mut word));
                }
            }
        } else {
            found.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

/// True if the code names a crate in a path: `name::` that is not the tail of another path or word.
fn names_crate(source: &Source, name: &str) -> bool {
    let needle = format!("{name}::");
    let code = source.code();
    code.match_indices(&needle).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        !matches!(before, Some(c) if c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Targets of `[text](target)` that are files of the tree.
fn relative_links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    for part in markdown.split("](").skip(1) {
        let Some(target) = part.split(')').next() else { continue };
        let target = target.split('#').next().unwrap_or_default();
        let elsewhere = target.is_empty()
            || target.contains("://")
            || target.contains(' ')
            || target.starts_with("mailto:");
        if !elsewhere {
            links.push(target.to_owned());
        }
    }
    links
}

#[test]
fn the_rules_see_what_they_are_meant_to_see() {
    let source = |text: &str| Source { path: "x.rs".into(), text: text.into() };
    assert!(names_crate(&source("use openraft::Raft;"), "openraft"));
    assert!(!names_crate(&source("use my_openraft::Raft;"), "openraft"));
    assert!(!names_crate(&source("// openraft::Raft is named in a comment\n"), "openraft"));
    assert!(!names_crate(&source("use raft_store::disk::X;"), "disk"));
    assert_eq!(
        crate_paths("use crate::{a::b, c::{d, e}};\ncrate::f::g()"),
        BTreeSet::from(["a", "b", "c", "f"].map(String::from))
    );
    assert_eq!(
        normal_dependencies("[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = \"1\"\n"),
        ["a", "b"]
    );
    assert_eq!(source("a\n#[cfg(test)]\nmod tests {\n b\n}\n").code(), "a\n");
}
