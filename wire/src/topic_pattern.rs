//! Patterns over topic names: `orders.*` is any one part, `orders.>` is one part or more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api_error::ApiError;
use crate::error_code::ErrorCode;
use crate::limits::TOPIC_NAME_LEN_MAX;

/// Any one part.
const ONE: &str = "*";
/// One part or more, at the end only.
const REST: &str = ">";

/// A checked pattern. Parts are what stands between dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicPattern(String);

impl TopicPattern {
    /// Checks a pattern: 1 to 249 bytes, no empty part, `*` alone in its part, `>` alone in the last part, everything
    /// else as in topic names.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidTopicPattern`], with the reason.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => {
                let shown: String = text.chars().take(60).collect();
                let message = format!("topic pattern {shown:?} is not allowed");
                Err(ApiError::new(ErrorCode::InvalidTopicPattern, message).reason(reason))
            }
        }
    }

    /// True if a text is meant as a pattern: it has a wildcard, which no topic name has.
    #[must_use]
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '>'])
    }

    /// True if a topic's name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = name.split('.');
        for wanted in self.0.split('.') {
            let part = parts.next();
            match (wanted, part) {
                (_, None) => return false,
                (REST, Some(_)) => return true,
                (ONE, Some(part)) if !part.is_empty() => {}
                (wanted, Some(part)) if wanted == part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.len() > TOPIC_NAME_LEN_MAX {
        return Some(format!("it has {} bytes, at most {TOPIC_NAME_LEN_MAX} are allowed", text.len()));
    }
    let last = text.split('.').count();
    for (number, part) in (1..).zip(text.split('.')) {
        match part {
            "" => return Some("a part between dots is empty".to_owned()),
            ONE => {}
            REST if number == last => {}
            REST => return Some("\">\" stands at the end only".to_owned()),
            part if TopicPattern::is_pattern(part) => {
                return Some(format!("\"*\" and \">\" stand alone between dots, not in {part:?}"));
            }
            part => {
                let stranger = part.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
                if let Some(c) = stranger {
                    return Some(format!("{c:?} is not one of a-z A-Z 0-9 . _ - * >"));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_parts_only() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders.eu", false),
            ("orders.*", "orders.eu", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.eu.de", false),
            ("orders.*", "orders.", false),
            ("*.eu", "orders.eu", true),
            ("*.eu", "orders.us", false),
            ("orders.*.v1", "orders.eu.v1", true),
            ("orders.>", "orders.eu", true),
            ("orders.>", "orders.eu.de.berlin", true),
            ("orders.>", "orders", false),
            ("orders.>", "ordersx.eu", false),
            (">", "anything.at.all", true),
            ("*", "one", true),
            ("*", "one.two", false),
        ];
        for (pattern, name, fits) in cases {
            assert_eq!(TopicPattern::parse(pattern).unwrap().matches(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn illegal_patterns_are_refused_with_a_reason() {
        let long = "x".repeat(250);
        for text in ["", ".", "a..b", "a.", ".a", "a*", "*a", "a.>.b", ">>", "**", "a b", "ü.*", "a/*", &long]
        {
            let error = TopicPattern::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidTopicPattern, "{text:?}");
            assert!(!error.reason.is_empty(), "{text:?}");
            assert!(error.to_string().len() < 1_000);
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcard_matches_itself_only(name in "[a-z]{1,3}(\\.[a-z]{1,3}){0,3}", other in "[a-z.]{0,8}") {
            let pattern = TopicPattern::parse(&name).unwrap();
            prop_assert!(pattern.matches(&name));
            prop_assert_eq!(pattern.matches(&other), name == other);
        }

        #[test]
        fn any_text_parses_or_is_refused_and_matching_never_panics(text: String, name: String) {
            if let Ok(pattern) = TopicPattern::parse(&text) {
                let _ = pattern.matches(&name);
                prop_assert_eq!(pattern.as_str(), text);
            }
        }
    }
}
