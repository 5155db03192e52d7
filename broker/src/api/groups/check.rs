//! What a request about groups may contain. Everything here is definite: nothing was changed.

use std::collections::BTreeSet;

use uuid::Uuid;
use wire::api_error::ApiError;
use wire::error_code::ErrorCode;
use wire::ids::{GroupId, MemberId, PartitionIndex, TopicIdPartition};
use wire::topic_pattern::TopicPattern;
use wire::{pb, topic_name};

use crate::api::route;
use crate::group::{Assignor, GroupError, NAME_BYTES_MAX, SUBSCRIPTIONS_MAX, Subscription};
use crate::metadata::image::MetadataImage;

/// Shortest and longest session, in ms.
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<u32> = 1_000..=1_800_000;
/// Partitions that one request may name.
const PARTITIONS_MAX: usize = 10_000;
/// Characters of a refused text that an error repeats.
const SHOWN: usize = 60;

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Why a text cannot be a name, if it cannot.
fn fault(text: &str) -> Option<String> {
    if text.len() > NAME_BYTES_MAX {
        return Some(format!("it has {} bytes, at most {NAME_BYTES_MAX} are allowed", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Some(format!("{c:?} is a control character"));
    }
    (text.trim() != text).then(|| "it begins or ends with a space".to_owned())
}

pub(super) fn group_id(text: &str) -> Result<GroupId, ApiError> {
    let reason = if text.is_empty() { Some("it is empty".to_owned()) } else { fault(text) };
    match reason {
        None => Ok(GroupId(text.to_owned())),
        Some(reason) => {
            let message = format!("group id {:?} is not allowed", shown(text));
            Err(ApiError::new(ErrorCode::InvalidGroupId, message).reason(reason))
        }
    }
}

pub(super) fn member_id(text: &str) -> Result<MemberId, ApiError> {
    let id = Uuid::try_parse(text).ok().filter(|id| !id.is_nil());
    id.map(MemberId).ok_or_else(|| {
        invalid(format!("member_id {:?} is no UUID", shown(text)))
            .hint("send the member_id that JoinGroup answered")
    })
}

/// A text that people chose, or nothing.
pub(super) fn name(field: &str, text: String) -> Result<String, ApiError> {
    match fault(&text) {
        None => Ok(text),
        Some(reason) => Err(invalid(format!("{field} {:?} is not allowed", shown(&text))).reason(reason)),
    }
}

/// As [`name`], empty = none.
pub(super) fn optional_name(field: &str, text: String) -> Result<Option<String>, ApiError> {
    Ok(Some(name(field, text)?).filter(|text| !text.is_empty()))
}

pub(super) fn session_timeout(asked_ms: u32, default_ms: u32) -> Result<u32, ApiError> {
    match asked_ms {
        0 => Ok(default_ms),
        ms if SESSION_TIMEOUT_MS.contains(&ms) => Ok(ms),
        ms => {
            let (least, most) = (SESSION_TIMEOUT_MS.start(), SESSION_TIMEOUT_MS.end());
            Err(invalid(format!("session_timeout_ms {ms} is outside {least}..={most}")))
        }
    }
}

pub(super) fn assignor(text: &str) -> Result<Option<Assignor>, ApiError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

pub(super) fn subscription(topics: Vec<String>, patterns: &[String]) -> Result<Subscription, ApiError> {
    let count = topics.len() + patterns.len();
    if count > SUBSCRIPTIONS_MAX {
        let message = format!("the subscription names {count} topics and patterns");
        let reason = format!("at most {SUBSCRIPTIONS_MAX} are allowed");
        return Err(ApiError::new(ErrorCode::GroupLimit, message).reason(reason));
    }
    if count == 0 {
        return Err(invalid("the subscription names neither a topic nor a pattern"));
    }
    topics.iter().try_for_each(|name| topic_name::validate(name))?;
    let patterns =
        patterns.iter().map(|text| TopicPattern::parse(text)).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Subscription { topics: topics.into_iter().collect(), patterns })
}

/// At least one partition and not more than one request may name.
pub(super) fn count(partitions: usize) -> Result<(), ApiError> {
    match partitions {
        0 => Err(invalid("the request names no partition")),
        n if n > PARTITIONS_MAX => {
            Err(invalid(format!("the request names {n} partitions, at most {PARTITIONS_MAX} are allowed")))
        }
        _ => Ok(()),
    }
}

/// A partition by name.
pub(super) fn partition(
    image: &MetadataImage,
    topic: &str,
    partition: u32,
) -> Result<TopicIdPartition, ApiError> {
    let topic = route::topic(image, topic)?;
    let partition = route::partition(topic, PartitionIndex(partition))?.index;
    Ok(TopicIdPartition { topic: topic.id, partition })
}

/// Partitions by name; those of topics that are gone meanwhile are left out.
pub(super) fn known_partitions(
    image: &MetadataImage,
    named: &[pb::PartitionRef],
) -> Result<Vec<TopicIdPartition>, ApiError> {
    count(named.len())?;
    Ok(named.iter().filter_map(|at| partition(image, &at.topic, at.partition).ok()).collect())
}

/// The group, which must be there.
pub(super) fn unknown(group: &GroupId) -> ApiError {
    GroupError::UnknownGroup { group: group.clone() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_confuse_a_person_are_refused() {
        for text in ["", " a", "a ", "a\nb", "\u{7}", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(group_id(text).unwrap_err().code, ErrorCode::InvalidGroupId, "{text:?}");
        }
        for text in ["billing", "eu.fraud-check", "größe 1", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(group_id(text).unwrap().0, text);
        }
        assert_eq!(optional_name("instance_id", String::new()), Ok(None));
        assert_eq!(optional_name("instance_id", "pod".into()), Ok(Some("pod".into())));
        assert!(name("client_id", "\0".into()).is_err());
    }

    #[test]
    fn numbers_and_lists_have_bounds() {
        assert_eq!(session_timeout(0, 10_000), Ok(10_000));
        assert_eq!(session_timeout(1_000, 10_000), Ok(1_000));
        assert!(session_timeout(999, 10_000).is_err() && session_timeout(1_800_001, 1).is_err());
        assert!(count(0).is_err() && count(1).is_ok() && count(PARTITIONS_MAX + 1).is_err());
        assert!(member_id("x").is_err() && member_id(&Uuid::nil().to_string()).is_err());
        let code = |topics: &[&str], patterns: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            subscription(owned(topics), &owned(patterns)).err().map(|error| error.code)
        };
        assert_eq!(code(&[], &[]), Some(ErrorCode::InvalidRequest));
        assert_eq!(code(&["a b"], &[]), Some(ErrorCode::InvalidTopicName));
        assert_eq!(code(&[], &["a*"]), Some(ErrorCode::InvalidTopicPattern));
        assert_eq!(code(&["a"; SUBSCRIPTIONS_MAX + 1], &[]), Some(ErrorCode::GroupLimit));
        assert_eq!(code(&["orders"], &["pay.>"]), None);
    }
}
