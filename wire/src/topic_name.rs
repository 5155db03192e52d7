//! What a topic may be called.

use crate::api_error::ApiError;
use crate::error_code::ErrorCode;
use crate::limits::TOPIC_NAME_LEN_MAX;

/// Names with this beginning are kept for the broker's own topics.
pub const INTERNAL_PREFIX: &str = "__";

/// Checks a name that a user gives to a new topic: 1 to 249 characters of `[a-zA-Z0-9._-]`, neither `.` nor `..`, not
/// beginning with `__`.
///
/// # Errors
/// [`ErrorCode::InvalidTopicName`], with the reason.
pub fn validate(name: &str) -> Result<(), ApiError> {
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > TOPIC_NAME_LEN_MAX {
        format!("it has {} bytes, at most {TOPIC_NAME_LEN_MAX} are allowed", name.len())
    } else if name == "." || name == ".." {
        "\".\" and \"..\" mean directories".to_owned()
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        format!("{c:?} is not one of a-z A-Z 0-9 . _ -")
    } else if name.starts_with(INTERNAL_PREFIX) {
        "names beginning with \"__\" are kept for the broker's own topics".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorCode::InvalidTopicName, format!("topic name {:?} is not allowed", shown(name)))
        .reason(reason))
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// A refused name can be megabytes long; its beginning is enough to recognise it.
fn shown(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["a", "orders", "orders.eu-1", "A_b-c.9", "_x", "...", &"x".repeat(249)] {
            validate(name).unwrap();
        }
    }

    #[test]
    fn other_names_are_refused_with_a_reason() {
        for name in ["", ".", "..", "a b", "ü", "a/b", "a\0b", "__offsets", "a\n", &"x".repeat(250)] {
            let error = validate(name).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidTopicName);
            assert!(!error.reason.is_empty(), "{name:?}");
        }
    }

    #[test]
    fn a_huge_name_makes_a_small_error() {
        assert!(validate(&"ü".repeat(1 << 20)).unwrap_err().to_string().len() < 1_000);
    }
}
