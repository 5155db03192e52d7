use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// Loads a file of this text with this environment and these `--set` flags.
fn load_text(text: &[u8], env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("altair.yaml");
    std::fs::write(&path, text).expect("a file");
    let args = LoadArgs {
        file: Some(path),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned(), "--set".to_owned()))
            .collect(),
    };
    load(&args)
}

fn problems(text: &str) -> Vec<Problem> {
    match load_text(text.as_bytes(), &[], &[]) {
        Err(ConfigError::Invalid(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

fn line(problem: &Problem) -> u64 {
    match &problem.origin {
        Origin::File { line, .. } => *line,
        other => panic!("expected a place in the file, got {other:?}"),
    }
}

#[test]
fn defaults_are_valid_and_every_one_reads_back_as_itself() {
    let loaded = load_text(b"", &[], &[]).expect("the defaults");
    assert_eq!(loaded.config, BrokerConfig::default());
    let flags: Vec<_> = loaded.settings.iter().map(|s| (s.path, s.value.as_str())).collect();
    let again = load_text(b"", &[], &flags).expect("what was printed");
    assert_eq!(again.config, loaded.config);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = b"node:\n  id: 2\n  rack: a\ntopics:\n  retention_ms: 3d\n";
    let loaded =
        load_text(file, &[("ALTAIR_NODE__ID", "3"), ("ALTAIR_NODE__RACK", "b")], &[("node.id", "4")])
            .expect("valid");
    assert_eq!((loaded.config.node.id, loaded.config.node.rack.as_str()), (4, "b"));
    assert_eq!(loaded.config.topics.retention_ms, Some(3 * 86_400_000));
    let origin = |path: &str| loaded.settings.iter().find(|s| s.path == path).expect("a key").origin.clone();
    assert_eq!(origin("node.id"), Origin::Flag("--set".to_owned()));
    assert_eq!(origin("node.rack"), Origin::Env("ALTAIR_NODE__RACK".to_owned()));
    assert!(matches!(origin("topics.retention_ms"), Origin::File { line: 5, .. }));
    assert_eq!(origin("storage.mode"), Origin::Default);
}

#[test]
fn json_is_read_like_yaml() {
    let loaded = load_text(
        br#"{"node": {"id": 7}, "cluster": {"seeds": ["a:1", "b:2"], "bootstrap_expect": 2}}"#,
        &[],
        &[],
    );
    let config = loaded.expect("valid").config;
    assert_eq!(config.node.id, 7);
    assert_eq!(config.cluster.seeds, ["a:1", "b:2"]);
}

#[test]
fn variables_are_expanded_with_defaults_and_escapes() {
    let file = b"node:\n  id: ${ID}\n  rack: \"${RACK:-r1}-$${x}\"\nstorage:\n  data_dir: ${HOME_DIR:-/tmp}/altair\n";
    let config = load_text(file, &[("ID", "5")], &[]).expect("valid").config;
    assert_eq!((config.node.id, config.node.rack.as_str()), (5, "r1-${x}"));
    assert_eq!(config.storage.data_dir, PathBuf::from("/tmp/altair"));
    let missing = problems("node:\n  id: ${ID}\n");
    assert_eq!(line(&missing[0]), 2);
    assert!(missing[0].message.contains("ID is not set"), "{}", missing[0]);
}

#[test]
fn durations_and_sizes_are_read_with_units_and_without() {
    let file = b"storage:\n  flush_interval_ms: 250ms\n  segment_bytes: 64MiB\n  wal_outstanding_max: 2147483648\ntopics:\n  retention_ms: none\n  retention_bytes: 10GiB\npeer:\n  dead_ms: 900\n";
    let config = load_text(file, &[], &[]).expect("valid").config;
    assert_eq!(config.storage.flush_interval_ms, 250);
    assert_eq!(config.storage.segment_bytes, 64 << 20);
    assert_eq!(config.storage.wal_outstanding_max, 2 << 30);
    assert_eq!((config.topics.retention_ms, config.topics.retention_bytes), (None, Some(10 << 30)));
    assert_eq!(config.peer.dead_ms, 900);
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_right_name() {
    let cases = [
        ("node:\n  id: 1\n  rak: a\n", 3, "node.rack"),
        ("storage:\n  datadir: x\n", 2, "storage.data_dir"),
        ("\n\ndata_dir: x\n", 3, "storage.data_dir"),
        ("strage:\n  mode: disk\n", 1, "storage"),
        ("node:\n  segment_bytes: 1GiB\n", 2, "storage.segment_bytes"),
    ];
    for (text, at, name) in cases {
        let found = problems(text);
        assert_eq!((line(&found[0]), found[0].hint.as_str()), (at, name), "{text:?}: {}", found[0]);
    }
    assert_eq!(problems("wibblewobble: 1\n")[0].hint, "");
}

#[test]
fn an_unknown_environment_key_or_flag_is_refused_with_its_name() {
    let refused = load_text(b"", &[("ALTAIR_STORAGE__DATADIR", "x")], &[]).expect_err("unknown");
    assert!(refused.to_string().contains("env ALTAIR_STORAGE__DATADIR"), "{refused}");
    assert!(refused.to_string().contains("try: storage.data_dir"), "{refused}");
    let refused = load_text(b"", &[], &[("grpc.adr", "x")]).expect_err("unknown");
    assert!(refused.to_string().contains("try: grpc.addr"), "{refused}");
    assert!(load_text(b"", &[("ALTAIR_IMAGE", "x"), ("ALTAIR_ADDR", "y")], &[]).is_ok());
}

#[test]
fn wrong_types_and_impossible_values_name_key_and_line() {
    let cases = [
        ("node:\n  id: one\n", 2, "node.id"),
        ("node:\n  id: 0\n", 2, "node.id"),
        ("node:\n  id: -3\n", 2, "node.id"),
        ("node:\n  id: 4294967296\n", 2, "node.id"),
        ("node:\n  id: 1.5\n", 2, "node.id"),
        ("node:\n  id: [1]\n", 2, "node.id"),
        ("node:\n  rack: 12\n", 2, "node.rack"),
        ("node: 3\n", 1, "node"),
        ("grpc:\n  addr: localhost\n", 2, "grpc.addr"),
        ("grpc:\n  addr: 127.0.0.1:99999\n", 2, "grpc.addr"),
        ("storage:\n  mode: tape\n", 2, "storage.mode"),
        ("storage:\n  fsync: maybe\n", 2, "storage.fsync"),
        ("storage:\n  segment_bytes: 12 potatoes\n", 2, "storage.segment_bytes"),
        ("storage:\n  segment_bytes: 1KiB\n", 2, "storage.segment_bytes"),
        ("topics:\n  retention_ms: -1\n", 2, "topics.retention_ms"),
        ("topics:\n  default_rf: 0\n", 2, "topics.default_rf"),
        ("cluster:\n  metadata_voters: 4\n", 2, "cluster.metadata_voters"),
        ("cluster:\n  bootstrap_expect: 3\n", 2, "cluster.bootstrap_expect"),
        ("cluster:\n  bootstrap_expect: 1\n  seeds: [\"nohost\"]\n", 3, "cluster.seeds"),
        ("peer:\n  beat_ms: 500ms\n  dead_ms: 600ms\n", 3, "peer.dead_ms"),
        ("http:\n  addr: 127.0.0.1:7400\n", 2, "http.addr"),
    ];
    for (text, at, key) in cases {
        let found = problems(text);
        assert_eq!((line(&found[0]), found[0].key.as_str()), (at, key), "{text:?}: {}", found[0]);
    }
}

#[test]
fn seeds_without_bootstrap_expect_are_refused() {
    let found = problems("cluster:\n  seeds: [\"a:7500\", \"b:7500\", \"c:7500\"]\n");
    assert_eq!(found[0].key, "cluster.bootstrap_expect");
    assert_eq!(found[0].hint, "cluster.bootstrap_expect: 3");
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problems("node:\n  id: x\n  rak: y\nstorage:\n  mode: tape\n");
    assert_eq!(found.len(), 3, "{found:?}");
    let found = problems("node:\n  id: 0\ncluster:\n  metadata_voters: 2\n");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn garbage_is_refused_and_never_panics() {
    let cases: [&[u8]; 9] = [
        b"\xff\xfe\x00\x01",
        b"\x00\x00\x00",
        b"[1, 2, 3]",
        b"just text",
        b"node: {id: 1",
        b"node:\n\tid: 1\n",
        b"node:\n  id: 1\n  id: 2\n",
        b"a: &a [*a, *a]",
        b"{{{{{{{{{{{{{{{{",
    ];
    for text in cases {
        let refused = load_text(text, &[], &[]).expect_err("garbage");
        assert!(matches!(refused, ConfigError::Invalid(_)), "{text:?}: {refused}");
    }
    let huge = vec![b'#'; (1 << 20) + 1];
    assert!(load_text(&huge, &[], &[]).expect_err("too large").to_string().contains("bytes"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
        let _ = load_text(text.as_bytes(), &[], &[]);
    }
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_a_usual_one_is_not() {
    let args = LoadArgs {
        file: Some(PathBuf::from("/nonexistent/altair.yaml")),
        env: BTreeMap::new(),
        flags: Vec::new(),
    };
    assert!(matches!(load(&args), Err(ConfigError::Unreadable { .. })));
    assert!(load(&LoadArgs::default()).is_ok());
}

#[test]
fn every_key_is_documented() {
    for (section, about, keys) in BrokerConfig::keys() {
        assert!(!about.is_empty() && !keys.is_empty(), "{section}");
        for key in keys {
            assert!(key.meaning.len() > 10, "{}", key.path);
        }
    }
}

#[test]
fn docs_config_md_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let stale = std::fs::read_to_string(page).expect("docs/config.md") != reference();
    assert!(!stale, "run: cargo run --bin altair -- check-config --reference > docs/config.md");
}

#[test]
fn a_listener_on_all_interfaces_is_advertised_as_loopback() {
    assert_eq!(advertised("", "0.0.0.0:7400".parse().expect("address")), "127.0.0.1:7400");
    assert_eq!(advertised("", "10.0.0.1:7400".parse().expect("address")), "10.0.0.1:7400");
    assert_eq!(advertised("h:1", "10.0.0.1:7400".parse().expect("address")), "h:1");
}
