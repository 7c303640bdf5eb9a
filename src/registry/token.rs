//! A run's token for `compat.listen`: given to its agent once, kept as a hash.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The prefix of every token. It begins with `org_`, since clients look for that.
const PREFIX: &str = "org_local_";

/// The token itself: `org_local_` and 256 random bits in hex. Cannot be printed.
#[derive(Clone)]
pub(crate) struct Token(SecretString);

/// The hash of a token. A secret of 256 random bits needs neither salt nor a slow hash.
#[derive(Clone, Copy)]
pub(crate) struct TokenHash([u8; 32]);

impl Token {
    /// Creates a token. Fails when the kernel gives no random numbers.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(SecretString::from(format!("{PREFIX}{}", hex::encode(bits)))))
    }

    /// The token, for the one line that gives it to the wrapper.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(self.expose())
    }
}

impl TokenHash {
    /// The hash of the key that a client sent.
    pub(crate) fn of(said: &str) -> Self {
        Self(Sha256::new().chain_update("machineid-sidecar token\0").chain_update(said).finalize().into())
    }

    /// 64 hex digits.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("org_local_[redacted]")
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone_and_is_no_other() {
        let (one, other) = (Token::new().unwrap(), Token::new().unwrap());
        assert_eq!(one.expose().len(), PREFIX.len() + 64);
        assert!(one.hash() == TokenHash::of(one.expose()) && one.hash() != other.hash());
        assert!(!format!("{one:?} {:?}", one.hash()).contains(&one.expose()[PREFIX.len()..]));
    }

    #[test]
    fn a_hash_survives_being_written_down_and_nothing_else_reads_as_one() {
        let hash = Token::new().unwrap().hash();
        assert!(TokenHash::from_hex(&hash.to_hex()) == Some(hash));
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert!(TokenHash::from_hex(text).is_none(), "{text}");
        }
    }
}
