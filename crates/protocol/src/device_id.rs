//! The name of a device, about which an authority decides.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A device id: 1 to 128 characters of `A–Z a–z 0–9 . _ : @ / -`, the first a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

/// Why a text is not a device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceIdError {
    /// Nothing but white space.
    Empty,
    /// More than [`DeviceId::LONGEST`] characters.
    TooLong,
    /// The first character is neither a letter nor a digit.
    BadStart,
    /// This character is not one of those allowed.
    BadCharacter(char),
}

impl DeviceId {
    /// The longest id, in characters.
    pub const LONGEST: usize = 128;

    /// Whether an id may have this character behind its first one.
    #[must_use]
    pub const fn may_contain(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '/' | '-')
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    /// Trims white space, as every client of the service does, and parses the rest.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let first = text.chars().next().ok_or(DeviceIdError::Empty)?;
        if let Some(bad) = text.chars().find(|c| !Self::may_contain(*c)) {
            return Err(DeviceIdError::BadCharacter(bad));
        }
        if text.len() > Self::LONGEST {
            return Err(DeviceIdError::TooLong);
        }
        if !first.is_ascii_alphanumeric() {
            return Err(DeviceIdError::BadStart);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DeviceIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the device id is empty"),
            Self::TooLong => write!(f, "the device id is longer than {} characters", DeviceId::LONGEST),
            Self::BadStart => f.write_str("the device id must begin with a letter or a digit"),
            Self::BadCharacter(c) => {
                write!(f, "the device id may not contain {c:?}; use letters, digits and . _ : @ / -")
            }
        }
    }
}

impl std::error::Error for DeviceIdError {}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_the_ids_of_the_documentation() {
        for id in ["worker:prod:queue-consumer:07", "agent-01", "python-starter:01", "a", "0", "A/b@c.d_e"] {
            assert_eq!(id.parse::<DeviceId>().map(|id| id.to_string()), Ok(id.to_owned()));
        }
        assert_eq!("  agent-01\n".parse::<DeviceId>().unwrap().as_str(), "agent-01");
    }

    #[test]
    fn refuses_what_is_not_an_id_and_says_why() {
        let longest = "x".repeat(128);
        assert!(longest.parse::<DeviceId>().is_ok());
        for (text, error) in [
            ("", DeviceIdError::Empty),
            ("   ", DeviceIdError::Empty),
            ("-a", DeviceIdError::BadStart),
            ("a b", DeviceIdError::BadCharacter(' ')),
            ("a\nb", DeviceIdError::BadCharacter('\n')),
            ("é", DeviceIdError::BadCharacter('é')),
            ((longest.clone() + "x").as_str(), DeviceIdError::TooLong),
        ] {
            assert_eq!(text.parse::<DeviceId>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_is_unchanged_by_parsing_again(text in ".{0,140}") {
            if let Ok(id) = text.parse::<DeviceId>() {
                prop_assert_eq!(id.as_str().parse::<DeviceId>(), Ok(id.clone()));
                prop_assert!(id.as_str().len() <= DeviceId::LONGEST && !id.as_str().is_empty());
            }
        }
    }
}
