//! Values that are right one by one and wrong together.

use super::BrokerConfig;

/// (key, message, hint) of everything that is wrong with a config whose values could all be read.
pub(super) fn problems(config: &BrokerConfig) -> Vec<(&'static str, String, String)> {
    let mut found: Vec<_> =
        config.out_of_range().into_iter().map(|out| (out.path, out.message, String::new())).collect();
    found.extend(cluster(config));
    found.extend(addresses(config));
    found.extend(sizes(config));
    found
}

fn problem(
    key: &'static str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> (&'static str, String, String) {
    (key, message.into(), hint.into())
}

fn cluster(config: &BrokerConfig) -> Vec<(&'static str, String, String)> {
    let cluster = &config.cluster;
    let mut found = Vec::new();
    if cluster.name.is_empty() || cluster.name.len() > 100 {
        found.push(problem("cluster.name", "must have 1 to 100 bytes", ""));
    }
    if cluster.seeds.is_empty() && cluster.expected() > 1 {
        found.push(problem(
            "cluster.bootstrap_expect",
            format!("waits for {} brokers, but cluster.seeds names none", cluster.expected()),
            "set cluster.seeds to the peer addresses of the first brokers",
        ));
    }
    if !cluster.seeds.is_empty() && cluster.bootstrap_expect.is_none() {
        found.push(problem(
            "cluster.bootstrap_expect",
            "must be set when cluster.seeds is: without it two halves of a new cluster could each begin one",
            format!("cluster.bootstrap_expect: {}", cluster.seeds.len()),
        ));
    }
    if cluster.metadata_voters.is_multiple_of(2) {
        found.push(problem(
            "cluster.metadata_voters",
            format!(
                "must be odd: {} voters survive no more failures than {}",
                cluster.metadata_voters,
                cluster.metadata_voters.saturating_sub(1)
            ),
            "cluster.metadata_voters: 3",
        ));
    }
    for seed in &cluster.seeds {
        if let Err(message) = host_and_port(seed) {
            found.push(problem(
                "cluster.seeds",
                format!("{seed:?} {message}"),
                "host:port, for example altair-1:7500",
            ));
        }
    }
    found
}

fn addresses(config: &BrokerConfig) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    let doors =
        [("grpc.addr", config.grpc.addr), ("http.addr", config.http.addr), ("peer.addr", config.peer.addr)];
    for (at, (key, address)) in doors.iter().enumerate() {
        let taken = doors.iter().take(at).find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = taken {
            found.push(problem(key, format!("{address} is taken by {other}"), ""));
        }
    }
    let advertised = [
        ("grpc.advertise", &config.grpc.advertise),
        ("http.advertise", &config.http.advertise),
        ("peer.advertise", &config.peer.advertise),
    ];
    for (key, address) in advertised {
        if !address.is_empty()
            && let Err(message) = host_and_port(address)
        {
            found.push(problem(
                key,
                format!("{address:?} {message}"),
                "host:port, for example altair-1:7400",
            ));
        }
    }
    if !config.cluster.seeds.is_empty()
        && config.peer.addr.ip().is_unspecified()
        && config.peer.advertise.is_empty()
    {
        found.push(problem(
            "peer.advertise",
            format!(
                "must be set when peer.addr is {}: the other brokers need a name to reach this one by",
                config.peer.addr
            ),
            format!("peer.advertise: <name of this host>:{}", config.peer.addr.port()),
        ));
    }
    found
}

fn sizes(config: &BrokerConfig) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    if config.peer.dead_ms < config.peer.beat_ms.saturating_mul(3) {
        found.push(problem(
            "peer.dead_ms",
            format!("must be at least three times peer.beat_ms ({} ms)", config.peer.beat_ms),
            format!("peer.dead_ms: {}", config.peer.beat_ms.saturating_mul(7)),
        ));
    }
    if config.groups.heartbeat_interval_ms > config.groups.session_timeout_ms / 3 {
        found.push(problem(
            "groups.heartbeat_interval_ms",
            format!(
                "must be at most a third of groups.session_timeout_ms ({} ms): one lost heartbeat must not expel anyone",
                config.groups.session_timeout_ms
            ),
            format!("groups.heartbeat_interval_ms: {}", config.groups.session_timeout_ms / 4),
        ));
    }
    if config.topics.max_batch_bytes > config.limits.message_bytes / 2 {
        found.push(problem(
            "topics.max_batch_bytes",
            format!("must be at most half of limits.message_bytes ({})", config.limits.message_bytes),
            "",
        ));
    }
    if config.limits.in_flight_bytes < config.limits.message_bytes {
        found.push(problem(
            "limits.in_flight_bytes",
            format!("must be at least limits.message_bytes ({})", config.limits.message_bytes),
            "",
        ));
    }
    if config.storage.wal_outstanding_max < config.storage.wal_file_bytes.saturating_mul(2) {
        found.push(problem(
            "storage.wal_outstanding_max",
            format!("must be at least twice storage.wal_file_bytes ({})", config.storage.wal_file_bytes),
            "",
        ));
    }
    if !config.storage.wal_file_bytes.is_multiple_of(1 << 20) {
        found.push(problem(
            "storage.wal_file_bytes",
            "must be a whole number of MiB",
            "storage.wal_file_bytes: 64MiB",
        ));
    }
    if config.storage.data_dir.as_os_str().is_empty() {
        found.push(problem("storage.data_dir", "must not be empty", "storage.data_dir: data"));
    }
    found
}

fn host_and_port(address: &str) -> Result<(), &'static str> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err("has no port");
    };
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err("has no host name");
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err("has no port from 1 to 65535"),
        Ok(_) => Ok(()),
    }
}
