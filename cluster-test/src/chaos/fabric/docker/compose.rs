//! The users' own compose file, and what a round puts over it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::FabricSpec;
use super::engine::RUN_LABEL;

/// Networks of the compose files: between brokers, and towards clients.
pub(super) const NETWORKS: [&str; 2] = ["peers", "clients"];

/// The compose file for so many brokers.
pub(super) fn file(brokers: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(if brokers > 3 { "deploy/compose-5.yml" } else { "docker-compose.yml" })
}

/// Name of a broker's service, host and volume.
pub(super) fn service(id: u32) -> String {
    format!("altair-{id}")
}

/// Variables of the compose file: an address of this machine that belongs to this process alone, so that the cluster's ports
/// are free on it.
pub(super) fn variables(image: &str) -> BTreeMap<&'static str, String> {
    let address = address(std::process::id()).to_string();
    [("ALTAIR_IMAGE", image.to_owned()), ("ALTAIR_BIND", address.clone()), ("ALTAIR_HOST", address)].into()
}

/// The loopback address of a process.
pub(super) fn address(pid: u32) -> Ipv4Addr {
    let digit = |place: u32| u8::try_from(pid / 250_u32.pow(place) % 250).unwrap_or(0);
    Ipv4Addr::new(127, 2 + digit(2), digit(1), 1 + digit(0))
}

/// What goes over the compose file: settings, labels, and no engine that starts brokers again by itself. JSON, which compose
/// reads as it reads YAML.
pub(super) fn over(spec: &FabricSpec) -> Value {
    let label = json!({ RUN_LABEL: spec.run.display().to_string() });
    let settings: BTreeMap<String, &String> =
        spec.settings.iter().map(|(key, value)| (variable(key), value)).collect();
    let broker = json!({ "restart": "no", "environment": settings, "labels": label });
    let labelled = json!({ "labels": label });
    let ids = 1..=spec.brokers;
    let services: BTreeMap<String, &Value> = ids.clone().map(|id| (service(id), &broker)).collect();
    let volumes: BTreeMap<String, &Value> = ids.map(|id| (service(id), &labelled)).collect();
    let networks: BTreeMap<&str, &Value> = NETWORKS.map(|name| (name, &labelled)).into();
    json!({ "version": "3.8", "services": services, "networks": networks, "volumes": volumes })
}

/// The environment variable of a config key.
fn variable(key: &str) -> String {
    format!("ALTAIR_{}", key.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Disks;

    #[test]
    fn everything_that_is_made_is_labelled_and_brokers_get_their_settings() {
        let spec = FabricSpec {
            brokers: 3,
            dir: PathBuf::new(),
            run: PathBuf::from("/tmp/run-1"),
            binary: PathBuf::new(),
            image: "altair:dev".to_owned(),
            settings: [("storage.segment_bytes".to_owned(), "64KiB".to_owned())].into(),
            environment: BTreeMap::new(),
            disks: Disks::Plain,
        };
        let over = over(&spec);
        assert_eq!(over["services"]["altair-3"]["environment"]["ALTAIR_STORAGE__SEGMENT_BYTES"], "64KiB");
        for (kind, name) in [("services", "altair-1"), ("networks", "peers"), ("volumes", "altair-2")] {
            assert_eq!(over[kind][name]["labels"][RUN_LABEL], "/tmp/run-1", "{kind} {name}");
        }
    }

    #[test]
    fn compose_files_have_the_names_that_the_fabric_relies_on() {
        for brokers in [3, 5] {
            let text = std::fs::read_to_string(file(brokers)).unwrap();
            assert!(NETWORKS.iter().all(|name| text.contains(&format!("\n  {name}:"))));
            for id in 1..=brokers {
                assert!(text.contains(&format!("\n  {}:\n", service(id))), "{brokers} {id}");
                assert!(text.contains(&format!("{0}:{0}", 7400 + id - 1)), "{brokers} {id}");
            }
        }
    }

    #[test]
    fn processes_have_loopback_addresses_of_their_own() {
        let [a, b] = [1, 4_194_303].map(address);
        assert!(a.is_loopback() && b.is_loopback() && a != b);
        assert_ne!(address(77), address(78));
    }
}
