//! Patterns of device ids: `*` matches any run of characters, everything else itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::DeviceId;

/// A pattern that at least one device id may match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DevicePattern(String);

/// The text is no pattern of device ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePatternError;

impl FromStr for DevicePattern {
    type Err = DevicePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c == '*' || DeviceId::may_contain(c);
        let fits = (1..=Self::LONGEST).contains(&text.len()) && text.chars().all(known);
        if fits { Ok(Self(text.to_owned())) } else { Err(DevicePatternError) }
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for DevicePatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a pattern of device ids: 1 to {} letters, digits and . _ : @ / - where * stands for any run of them",
            DevicePattern::LONGEST
        )
    }
}

impl std::error::Error for DevicePatternError {}

impl<'de> Deserialize<'de> for DevicePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl DevicePattern {
    /// The longest pattern, in characters. Longer than a device id: a `*` may stand for nothing.
    pub const LONGEST: usize = 2 * DeviceId::LONGEST;

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole id fits. Linear in its length: each `*` takes as little as it can.
    #[must_use]
    pub fn matches(&self, id: &DeviceId) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| id.as_str().strip_prefix(first)) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(place) = rest.find(part) else { return false };
            rest = &rest[place + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_every_character_and_nothing_else_does() {
        for (pattern, id, fits) in [
            ("*", "worker:prod:07", true),
            ("worker:*", "worker:prod:07", true),
            ("worker:*", "worker2:prod", false),
            ("*:07", "worker:prod:07", true),
            ("a*b*c", "a/x/b/y/c", true),
            ("a*b*c", "a/c/b", false),
            ("a*a", "a", false),
            ("agent-01", "agent-01", true),
            ("agent-01", "agent-011", false),
        ] {
            let device: DeviceId = id.parse().unwrap();
            assert_eq!(pattern.parse::<DevicePattern>().unwrap().matches(&device), fits, "{pattern} {id}");
        }
    }

    #[test]
    fn what_no_device_id_can_match_is_no_pattern() {
        for text in ["", "agent?", "a b", "k8s:*\n", &"x".repeat(257)] {
            assert_eq!(text.parse::<DevicePattern>(), Err(DevicePatternError), "{text:?}");
        }
    }
}
