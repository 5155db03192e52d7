//! Names of settings, with the spellings of other brokers' clients.

use std::str::FromStr;

use wire::record::Compression;

use super::{Acks, OffsetReset, Settings};
use crate::group::config::Guarantee;

type Setter = fn(&mut Settings, &str) -> Result<(), String>;

/// Documented name first, then aliases; all without separators and in lower case when compared.
const NAMES: &[(&[&str], Setter)] = &[
    (&["bootstrap", "bootstrap.servers", "brokers"], |s, v| {
        s.client.bootstrap = v.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
        Ok(())
    }),
    (&["client_id"], |s, v| {
        v.clone_into(&mut s.client.client_id);
        Ok(())
    }),
    (&["connect_timeout_ms"], |s, v| put(&mut s.client.connect_timeout_ms, v)),
    (&["request_timeout_ms"], |s, v| {
        put(&mut s.client.request_timeout_ms, v)?;
        s.producer.request_timeout_ms = s.client.request_timeout_ms;
        Ok(())
    }),
    (&["metadata_refresh_ms", "metadata.max.age.ms"], |s, v| put(&mut s.client.metadata_refresh_ms, v)),
    (&["keep_alive_ms"], |s, v| put(&mut s.client.keep_alive_ms, v)),
    (&["message_bytes_max"], |s, v| put(&mut s.client.message_bytes_max, v)),
    (&["retries", "max_retries"], |s, v| put(&mut s.client.retry.retries, v)),
    (&["retry_backoff_ms", "retry.backoff"], |s, v| put(&mut s.client.retry.backoff_ms, v)),
    (&["retry_backoff_max_ms"], |s, v| put(&mut s.client.retry.backoff_max_ms, v)),
    (&["acks", "ack_level"], |s, v| {
        s.producer.acks = match v.to_ascii_lowercase().as_str() {
            "0" | "none" => Acks::None,
            "1" | "leader" => Acks::Leader,
            "all" | "-1" => Acks::All,
            _ => return Err(format!("`{v}` is not one of 0, none, 1, leader, all")),
        };
        Ok(())
    }),
    (&["idempotent", "enable.idempotence"], |s, v| {
        let mut on = false;
        put(&mut on, v)?;
        s.producer.idempotent = Some(on);
        Ok(())
    }),
    (&["batch_size"], |s, v| put(&mut s.producer.batch_size, v)),
    (&["linger_ms", "linger"], |s, v| put(&mut s.producer.linger_ms, v)),
    (&["compression", "compression.type"], |s, v| {
        s.producer.compression = Compression::from_str(v).map_err(|error| error.to_string())?;
        Ok(())
    }),
    (&["buffer_bytes", "buffer.memory"], |s, v| put(&mut s.producer.buffer_bytes, v)),
    (&["buffer_records", "queue_size"], |s, v| put(&mut s.producer.buffer_records, v)),
    (&["max_block_ms"], |s, v| put(&mut s.producer.max_block_ms, v)),
    (&["delivery_timeout_ms"], |s, v| put(&mut s.producer.delivery_timeout_ms, v)),
    (&["max_request_bytes", "max.request.size"], |s, v| put(&mut s.producer.max_request_bytes, v)),
    (&["max_in_flight", "max.in.flight.requests.per.connection"], |s, v| {
        put(&mut s.producer.max_in_flight, v)
    }),
    (&["rate_limit_per_s", "rate_limit"], |s, v| put(&mut s.producer.rate_limit_per_s, v)),
    (&["offset_reset", "auto.offset.reset"], |s, v| {
        s.consumer.offset_reset = match v.to_ascii_lowercase().as_str() {
            "earliest" => OffsetReset::Earliest,
            "latest" => OffsetReset::Latest,
            "none" | "error" => OffsetReset::Error,
            _ => return Err(format!("`{v}` is not one of earliest, latest, none")),
        };
        Ok(())
    }),
    (&["fetch_min_bytes"], |s, v| put(&mut s.consumer.fetch_min_bytes, v)),
    (&["fetch_max_wait_ms"], |s, v| put(&mut s.consumer.fetch_max_wait_ms, v)),
    (&["fetch_max_bytes"], |s, v| put(&mut s.consumer.fetch_max_bytes, v)),
    (&["partition_fetch_bytes", "max.partition.fetch.bytes"], |s, v| {
        put(&mut s.consumer.partition_fetch_bytes, v)
    }),
    (&["prefetch_bytes"], |s, v| put(&mut s.consumer.prefetch_bytes, v)),
    (&["max_poll_records"], |s, v| put(&mut s.consumer.max_poll_records, v)),
    (&["check_crc", "check.crcs"], |s, v| put(&mut s.consumer.check_crc, v)),
    (&["inflated_bytes_max"], |s, v| put(&mut s.consumer.inflated_bytes_max, v)),
    (&["group_id", "group"], |s, v| {
        v.clone_into(&mut s.group.group_id);
        Ok(())
    }),
    (&["instance_id", "group.instance.id"], |s, v| {
        s.group.instance_id = Some(v.to_owned()).filter(|id| !id.is_empty());
        Ok(())
    }),
    (&["assignor", "partition.assignment.strategy"], |s, v| {
        s.group.assignor = Some(v.parse().map_err(|error: wire::api_error::ApiError| error.message)?);
        Ok(())
    }),
    (&["session_timeout_ms"], |s, v| put(&mut s.group.session_timeout_ms, v)),
    (&["max_poll_interval_ms"], |s, v| put(&mut s.group.max_poll_interval_ms, v)),
    (&["guarantee"], |s, v| {
        s.group.guarantee = match v.to_ascii_lowercase().replace('-', "_").as_str() {
            "at_least_once" => Guarantee::AtLeastOnce,
            "at_most_once" => Guarantee::AtMostOnce,
            "manual" => Guarantee::Manual,
            _ => return Err(format!("`{v}` is not one of at_least_once, at_most_once, manual")),
        };
        Ok(())
    }),
    (&["auto_commit", "enable.auto.commit"], |s, v| {
        let mut on = true;
        put(&mut on, v)?;
        s.group.guarantee = if on { Guarantee::AtLeastOnce } else { Guarantee::Manual };
        Ok(())
    }),
    (&["auto_commit_interval_ms"], |s, v| put(&mut s.group.auto_commit_interval_ms, v)),
];

/// Sets the field that `key` names.
pub(super) fn set(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    let wanted = plain(key);
    let found = NAMES.iter().find(|(names, _)| names.iter().any(|name| plain(name) == wanted));
    match found {
        Some((_, setter)) => setter(settings, value.trim()),
        None => Err(unknown(&wanted)),
    }
}

fn unknown(wanted: &str) -> String {
    let nearest = NAMES
        .iter()
        .flat_map(|(names, _)| {
            names.iter().map(move |name| (strsim::damerau_levenshtein(&plain(name), wanted), names))
        })
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, [name, ..])) if distance <= 3 || distance * 3 <= wanted.len() => {
            format!("no such setting; did you mean `{name}`?")
        }
        _ => "no such setting".to_owned(),
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '.' | '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn put<T: FromStr>(field: &mut T, value: &str) -> Result<(), String> {
    match value.parse() {
        Ok(parsed) => {
            *field = parsed;
            Ok(())
        }
        Err(_) => Err(format!("`{value}` is not a {}", std::any::type_name::<T>())),
    }
}
