//! The topic of a run: made for it, seen by nobody else, removed at the end.

use client::{Client, Clock};
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::pb;

use super::args::VerifyRun;
use crate::context::Context;
use crate::convert::time_text;
use crate::exit::Failure;
use crate::terminal;

/// Replicas where nobody said how many, and there are brokers enough.
const RF_WANTED: u32 = 3;

/// Characters of `20261120t100000`.
const SECOND_DIGITS: usize = 15;

/// A name that no other run has: the prefix, the time, and the number of this process.
///
/// # Errors
/// The prefix gives no legal name.
pub(super) fn unique_name(prefix: &str) -> Result<String, Failure> {
    // 2026-11-20T10:00:00.123Z to the second, without what a name cannot have.
    let now = time_text(Clock::system().now_ms());
    let now: String = now.chars().filter(char::is_ascii_alphanumeric).take(SECOND_DIGITS).collect();
    let name = format!("{prefix}-{}-{}", now.to_lowercase(), std::process::id());
    wire::topic_name::validate(&name)?;
    Ok(name)
}

/// Replicas of each partition: as asked for, or as many as there are brokers for.
///
/// # Errors
/// No broker tells who is there.
pub(super) async fn replicas(
    context: &Context,
    client: &Client,
    wanted: Option<u32>,
) -> Result<u32, Failure> {
    if let Some(wanted) = wanted {
        return Ok(wanted);
    }
    let request = context.call("Admin/ListBrokers", pb::ListBrokersRequest {});
    let brokers = client.admin().list_brokers(request).await?.brokers;
    let alive = brokers.iter().filter(|broker| broker.state() == pb::BrokerState::Alive).count();
    let rf = u32::try_from(alive).unwrap_or(RF_WANTED).clamp(1, RF_WANTED);
    if rf < RF_WANTED {
        terminal::note(&format!(
            "{alive} brokers are alive: each partition gets {rf} replicas, and the loss of one broker is not covered"
        ));
    }
    Ok(rf)
}

/// Creates the topic and waits for its leaders.
///
/// # Errors
/// The broker's; too few brokers, or a name that is taken, among them.
pub(super) async fn create(
    context: &Context,
    client: &Client,
    args: &VerifyRun,
    (name, rf): (&str, u32),
) -> Result<(), Failure> {
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let request = pb::CreateTopicRequest {
        name: name.to_owned(),
        partitions: args.partitions,
        replication_factor: rf,
        // A record that retention removes could not be told from one that is lost.
        config: [
            setting("retention_ms", "none"),
            setting("retention_bytes", "none"),
            setting("description", "of a run of altair-cli verify; may be deleted when it is over"),
        ]
        .into(),
        dry_run: false,
        wait_ms: context.timeout_ms(),
    };
    let created = client.admin().create_topic(context.call("Admin/CreateTopic", request)).await;
    created.map(drop).map_err(|error| refused(error.into_api()))
}

fn refused(error: ApiError) -> Failure {
    Failure::Api(match error.code {
        ErrorCode::TopicExists => {
            error.reason("it is not of this run").hint("run it again, or with another --topic-prefix")
        }
        ErrorCode::NotEnoughBrokers if error.hint.is_empty() => {
            error.hint("a smaller --rf, or more brokers (altair-cli broker list)")
        }
        _ => error,
    })
}

/// Removes the topic; a failure is told and harms no verdict.
pub(super) async fn remove(context: &Context, client: &Client, name: &str) -> bool {
    let request = pb::DeleteTopicRequest { name: name.to_owned(), dry_run: false };
    match client.admin().delete_topic(context.call("Admin/DeleteTopic", request)).await {
        Ok(_) => true,
        Err(error) => {
            terminal::note(&format!("the topic could not be removed: {}", error.into_api()));
            terminal::note(&format!("next: {}", removal(name)));
            false
        }
    }
}

/// How a person removes the topic.
pub(super) fn removal(name: &str) -> String {
    format!("altair-cli topic delete {name} --yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_and_begin_as_asked() {
        let name = unique_name("mine").unwrap();
        assert!(name.starts_with("mine-20") && name.len() < 60, "{name}");
        assert!(name.ends_with(&format!("-{}", std::process::id())), "{name}");
        for wrong in ["a b", "__kept", "é"] {
            let Err(Failure::Api(error)) = unique_name(wrong) else { panic!("{wrong} is a name") };
            assert_eq!(error.code, ErrorCode::InvalidTopicName);
        }
    }

    #[test]
    fn a_name_that_is_taken_and_too_few_brokers_say_what_to_do() {
        let of = |code| match refused(ApiError::new(code, "x")) {
            Failure::Api(error) => (error.next_step().to_owned(), crate::exit::exit_code(error.code)),
            other => panic!("{other:?}"),
        };
        let (next, exit) = of(ErrorCode::TopicExists);
        assert!(next.contains("--topic-prefix") && exit == crate::exit::CONFLICT, "{next}");
        let (next, exit) = of(ErrorCode::NotEnoughBrokers);
        assert!(next.contains("--rf") && exit == crate::exit::CONFLICT, "{next}");
    }
}
