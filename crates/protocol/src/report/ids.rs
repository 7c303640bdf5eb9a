//! The ids of sidecars and of events, as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of a sidecar: 128 bits in hex, made of its secret, the same until its host boots again. Older sidecars have random
/// ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidecarId(u128);

/// The text is not the id of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidecarIdError;

impl fmt::Display for SidecarIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 32 lower-case hex digits")
    }
}

impl std::error::Error for SidecarIdError {}

/// The id of an event: the sidecar's start, and a number that counts from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Another number after each start of the sidecar.
    pub life: u32,
    /// The number of the event; the first is 1.
    pub number: u64,
}

/// The text is not the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdError;

impl fmt::Display for EventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 8 hex digits, a dash and a number")
    }
}

impl std::error::Error for EventIdError {}

impl SidecarId {
    /// Makes an id of these bits.
    #[must_use]
    pub const fn random(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits of the id.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.life, self.number)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('-').filter(|(life, number)| {
            life.len() == 8
                && life.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let id = parts.and_then(|(life, number)| {
            Some(Self { life: u32::from_str_radix(life, 16).ok()?, number: number.parse().ok()? })
        });
        id.ok_or(EventIdError)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SidecarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SidecarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SidecarId({self})")
    }
}

impl FromStr for SidecarId {
    type Err = SidecarIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fit = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fit.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self).ok_or(SidecarIdError)
    }
}

impl Serialize for SidecarId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SidecarId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_s_id_survives_the_wire_and_nothing_else_is_one() {
        let id = SidecarId::random(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ab", "000000000000000000000000000000AB", "+00000000000000000000000000000ab"] {
            assert!(text.parse::<SidecarId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_events_id_survives_the_wire_and_nothing_else_is_one() {
        let id = EventId { life: 0x1a, number: 17 };
        assert_eq!(id.to_string(), "0000001a-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-", "0000001a", "0000001a-", "1a-17", "0000001A-17", "0000001a-+7", "0000001a-1-1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
