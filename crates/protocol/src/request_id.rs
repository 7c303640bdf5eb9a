//! The authority's id of one answer, kept for logs and support questions.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A `request_id`: 1 to 128 visible ASCII characters. Foreign text of another form is dropped rather than printed.
/// Cheap to clone: one answer of the authority may answer hundreds of checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes the text if it is fit to be printed; `None` otherwise.
    #[must_use]
    pub fn from_foreign(text: &str) -> Option<Self> {
        let fit = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fit.then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_foreign(&text).ok_or_else(|| serde::de::Error::custom("not a request id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_what_is_fit_to_print() {
        assert!(RequestId::from_foreign("1b4e28ba-2fa1-11d2-883f-0016d3cca427").is_some());
        for text in ["", "a b", "a\u{1b}[2J", &"x".repeat(129)] {
            assert_eq!(RequestId::from_foreign(text), None, "{text:?}");
        }
    }
}
