//! An organisation's org key, reading it from a file, and the secret of a sidecar.

#![forbid(unsafe_code)]

pub mod file;
pub mod sidecar;

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// An org key: `org_` and 1 to 256 visible ASCII characters behind it. It cannot be printed, and is zeroed when dropped.
#[derive(Clone)]
pub struct OrgKey(SecretString);

/// Why a text is not an org key. Shows nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrgKeyError {
    /// Nothing but white space.
    Empty,
    /// The text does not begin with `org_`.
    NoPrefix,
    /// The text holds white space or control characters, nothing behind `org_`, or far too much.
    Malformed,
}

impl OrgKey {
    const PREFIX: &'static str = "org_";
    const LONGEST: usize = 260;

    /// The key as text, for the header of a request and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A name for the key that does not reveal it: 16 hex digits of a SHA-256 made for this purpose alone.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest =
            Sha256::new().chain_update("machineid-sidecar key fingerprint\0").chain_update(self.expose()).finalize();
        hex::encode(&digest[..8])
    }
}

impl FromStr for OrgKey {
    type Err = OrgKeyError;

    /// Trims white space (a key file ends with a line feed), and parses the rest.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(OrgKeyError::Empty);
        }
        let secret = text.strip_prefix(Self::PREFIX).ok_or(OrgKeyError::NoPrefix)?;
        let whole = !secret.is_empty() && text.len() <= Self::LONGEST && text.bytes().all(|b| b.is_ascii_graphic());
        if !whole {
            return Err(OrgKeyError::Malformed);
        }
        Ok(Self(SecretString::from(text)))
    }
}

impl PartialEq for OrgKey {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for OrgKey {}

impl fmt::Debug for OrgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("org_[redacted]")
    }
}

impl fmt::Display for OrgKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the org key is empty; it should hold one line that starts with org_",
            Self::NoPrefix => "this is not an org key: org keys start with org_",
            Self::Malformed => "the org key is malformed: it must be one line, org_ and visible characters behind it",
        })
    }
}

impl std::error::Error for OrgKeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_key_with_the_line_feed_of_its_file() {
        assert_eq!("org_abc\n".parse::<OrgKey>().unwrap().expose(), "org_abc");
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        for (text, error) in [
            ("", OrgKeyError::Empty),
            (" \n", OrgKeyError::Empty),
            ("sk_live_1", OrgKeyError::NoPrefix),
            ("org_", OrgKeyError::Malformed),
            ("org_a b", OrgKeyError::Malformed),
            ("org_a\norg_b", OrgKeyError::Malformed),
            (&format!("org_{}", "x".repeat(300)), OrgKeyError::Malformed),
        ] {
            assert_eq!(text.parse::<OrgKey>().unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn cannot_be_printed() {
        let key: OrgKey = "org_topsecret".parse().unwrap();
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "org_[redacted] Some(org_[redacted])");
        assert!(!key.fingerprint().contains("topsecret"));
        assert_eq!(key.fingerprint().len(), 16);
    }
}
