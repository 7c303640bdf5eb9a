//! Secrets that the authority shows once and stores only as hashes: org keys and checkout tokens.

use std::fmt;

use machineid_org_key::OrgKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The kernel gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gave no random numbers for a new secret: {0}")]
pub(super) struct NoRandomness(String);

/// The SHA-256 of a secret. A secret of 256 random bits needs no salt and no slow hash: there is nothing to guess.
#[derive(Clone, Copy)]
pub(super) struct SecretHash([u8; 32]);

/// A short prefix of a key's hash: it tells the keys of an organisation apart, and does not help to find a key.
pub(super) type KeyMark = [u8; 6];

impl SecretHash {
    pub(super) fn of_key(key: &OrgKey) -> Self {
        Self::of("machineid-authority org key\0", key.expose())
    }

    /// The hash of the checkout token in an address.
    pub(super) fn of_token(token: &str) -> Self {
        Self::of("machineid-authority checkout\0", token)
    }

    /// The hash of the secret that confirms a checkout.
    pub(super) fn of_confirmation(secret: &str) -> Self {
        Self::of("machineid-authority checkout confirmation\0", secret)
    }

    /// The hash of a console session's id.
    pub(super) fn of_session(id: &str) -> Self {
        Self::of("machineid-authority console session\0", id)
    }

    /// The hash of the secret in an address that signs an operator in.
    pub(super) fn of_console_link(secret: &str) -> Self {
        Self::of("machineid-authority console link\0", secret)
    }

    fn of(purpose: &str, secret: &str) -> Self {
        Self(Sha256::new().chain_update(purpose).chain_update(secret).finalize().into())
    }

    /// The key's name in the audit: it tells keys apart, and does not help to find one.
    pub(super) fn fingerprint(&self) -> String {
        hex::encode(self.mark())
    }

    /// The first bytes of the hash: they record with which key a device asked last.
    pub(super) fn mark(&self) -> KeyMark {
        let mut mark = KeyMark::default();
        mark.copy_from_slice(&self.0[..size_of::<KeyMark>()]);
        mark
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash, in hex: not secret, but nothing to print either.
    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The hash of this hex text.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The hash itself, as an index for look-ups.
    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Compares with a stored hash in constant time. The index has already found the row; this check does not depend on
    /// how the database compares.
    pub(super) fn matches(&self, stored: &[u8]) -> bool {
        self.0.as_slice().ct_eq(stored).into()
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.as_bytes())
    }
}

impl Eq for SecretHash {}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut hash).map_err(serde::de::Error::custom)?;
        Ok(Self(hash))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A new org key: `org_` and 256 random bits in hex.
pub(super) fn new_key() -> Result<OrgKey, NoRandomness> {
    let text = format!("org_{}", random_hex()?);
    text.parse().map_err(|error: machineid_org_key::OrgKeyError| NoRandomness(error.to_string()))
}

/// A new number for an operator to type: 40 random bits in hex.
pub(super) fn new_number() -> Result<String, NoRandomness> {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(hex::encode(bytes))
}

/// A new checkout token: 256 random bits in hex.
pub(super) fn new_token() -> Result<String, NoRandomness> {
    random_hex()
}

fn random_hex() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_256_random_bits_and_its_hash_knows_only_itself() {
        let (one, two) = (new_key().unwrap(), new_key().unwrap());
        assert_eq!(one.expose().len(), "org_".len() + 64);
        assert!(one != two);
        let hash = SecretHash::of_key(&one);
        assert!(hash.matches(SecretHash::of_key(&one).as_bytes()));
        assert!(!hash.matches(SecretHash::of_key(&two).as_bytes()));
        assert!(!hash.matches(b""));
        assert_eq!(format!("{hash:?}"), "SecretHash");
    }

    #[test]
    fn a_token_that_reads_like_a_key_has_another_hash() {
        let key = new_key().unwrap();
        assert!(!SecretHash::of_token(key.expose()).matches(SecretHash::of_key(&key).as_bytes()));
    }
}
