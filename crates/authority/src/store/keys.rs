//! Keys with roles, as operators see them.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use machineid_protocol::{DevicePattern, KeyRole};

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

impl fmt::Display for WhichKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither a key's fingerprint (12 hex digits) nor its name")
    }
}

impl std::error::Error for WhichKeyError {}

/// What became of a change of keys.
#[derive(Clone, Debug)]
pub(crate) enum KeyChange<T> {
    Done(T),
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
    /// There are as many keys as may be.
    Full,
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
