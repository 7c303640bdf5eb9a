//! Keys with roles, as operators see them.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use machineid_protocol::{DevicePattern, KeyRole};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::keys::{KeyMark, SecretHash};
use super::super::org::{HeldKey, KeyName};

/// How many keys with roles an organisation may have that are valid.
pub(crate) const KEPT_KEYS: u64 = 1_000;

/// How long a key that has ended is still listed.
pub(super) const KEPT_ENDED: SignedDuration = SignedDuration::from_hours(24 * 30);

/// A key to add.
#[derive(Clone, Debug)]
pub(crate) struct NewRoleKey {
    pub(crate) hash: SecretHash,
    pub(crate) role: KeyRole,
    /// Of a host key: the devices that it may work for; `None` for all.
    pub(crate) devices: Option<DevicePattern>,
    pub(crate) name: Option<KeyName>,
    /// It is invalid from this time on.
    pub(crate) ends: Option<Timestamp>,
}

impl NewRoleKey {
    /// The key as requests will carry it.
    pub(crate) fn held(&self) -> HeldKey {
        let Self { hash: _, role, devices, name, ends } = self;
        HeldKey {
            own: false,
            role: *role,
            devices: devices.clone(),
            name: name.clone(),
            ends: *ends,
            replaced: false,
            revoked: false,
        }
    }
}

/// A key of a list.
#[derive(Clone, Debug)]
pub(crate) struct KeyRow {
    pub(crate) mark: KeyMark,
    pub(crate) held: HeldKey,
    /// When it was made; not known of the organisation's own.
    pub(crate) created_at: Option<Timestamp>,
    /// To about a minute.
    pub(crate) last_used_at: Option<Timestamp>,
    /// How many devices asked last with it.
    pub(crate) devices: u64,
}

/// Which key is meant: by its fingerprint or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WhichKey {
    Mark(KeyMark),
    Name(KeyName),
}

/// The text is neither a fingerprint nor a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WhichKeyError;

impl FromStr for WhichKey {
    type Err = WhichKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mark = KeyMark::default();
        if text.len() == 2 * mark.len() && hex::decode_to_slice(text, &mut mark).is_ok() {
            return Ok(Self::Mark(mark));
        }
        text.parse().map(Self::Name).map_err(|_| WhichKeyError)
    }
}

impl fmt::Display for WhichKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => f.write_str(&hex::encode(mark)),
            Self::Name(name) => fmt::Display::fmt(name, f),
        }
    }
}

impl Serialize for WhichKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WhichKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for WhichKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither a key's fingerprint (12 hex digits) nor its name")
    }
}

impl std::error::Error for WhichKeyError {}

/// What is wrong with a request about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// The organisation is gone.
    NoOrg,
    /// There is no such valid key.
    Unknown,
    /// It is the organisation's own key, which is rotated, never revoked.
    Own,
    /// Several valid keys have this fingerprint or name.
    Several,
    /// Another key has taken its place already.
    Replaced,
    /// Another valid key has the name.
    Taken,
    /// There are as many valid keys as may be.
    Full,
    /// Only a host key names devices.
    Devices,
    /// A key cannot expire after such a time.
    Expiry,
    /// An old key cannot stay valid for such a time.
    Overlap,
    /// The key in use is an old one.
    OldAuthor,
    /// Restores need two keys, and only the holder of a key that may restore rotates it.
    OthersKey,
}

impl KeyRefusal {
    /// Its word in the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoOrg => "org_not_found",
            Self::Unknown => "not_found",
            Self::Own => "own_key",
            Self::Several => "ambiguous_key",
            Self::Replaced => "key_replaced",
            Self::Taken => "name_taken",
            Self::Full => "too_many_keys",
            Self::Devices => "devices_need_host_role",
            Self::Expiry => "invalid_expiry",
            Self::Overlap => "invalid_overlap",
            Self::OldAuthor => "old_key",
            Self::OthersKey => "not_its_holder",
        }
    }
}

impl std::error::Error for KeyRefusal {}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrg => f.write_str("there is no such organisation, or it was deleted"),
            Self::Unknown => f.write_str("no valid key has that fingerprint or name; `key list` names them"),
            Self::Own => f.write_str("that is the organisation's own key: it is rotated (`rotate-key`), not revoked"),
            Self::Several => f.write_str("several valid keys have that name; give the fingerprint"),
            Self::Replaced => f.write_str("another key has taken its place already"),
            Self::Taken => f.write_str("another valid key has that name"),
            Self::Full => write!(f, "there are {KEPT_KEYS} valid keys already; revoke some"),
            Self::Devices => f.write_str("only a key of the role host names devices"),
            Self::Expiry => f.write_str("a key expires after 1 second to 10 years"),
            Self::OldAuthor => f.write_str("another key has taken the place of the one in use; use that one"),
            Self::OthersKey => f.write_str(
                "restores need two keys here, so a key that may restore is rotated by its own holder, or by the server's operator",
            ),
            Self::Overlap => f.write_str("an old key can stay valid for 90 days (2160h) at most"),
        }
    }
}

/// The result of a change of keys: done, or what is wrong with it.
pub(crate) type KeyChange<T> = Result<T, KeyRefusal>;

/// A key that was put in the place of another one.
#[derive(Clone, Debug)]
pub(crate) struct RotatedKey {
    pub(crate) new: NewRoleKey,
    /// When the old one ends, or ended.
    pub(crate) old_ends: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_fingerprint_or_its_name() {
        let mark = WhichKey::Mark([0xab, 1, 2, 3, 4, 0xff]);
        assert_eq!("ab01020304ff".parse(), Ok(mark.clone()));
        assert_eq!(mark.to_string(), "ab01020304ff");
        assert_eq!("oncall".parse(), Ok(WhichKey::Name("oncall".parse().unwrap())));
        for text in ["", "on call", "org_0123:"] {
            assert_eq!(text.parse::<WhichKey>(), Err(WhichKeyError), "{text:?}");
        }
    }
}
