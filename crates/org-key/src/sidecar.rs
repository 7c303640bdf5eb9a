//! The secret of a sidecar, from which its id is made: only the process that knows the secret can report under the id.
//!
//! The id is a hash of the secret, so an authority checks the proof without a record: there is no first report that an
//! attacker could be faster with, and nothing to store for each sidecar.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The place of the version digit in an id: the same as in a UUID.
const VERSION_SHIFT: u32 = 76;
/// The version of a UUID whose bits have a meaning of their maker's.
const MADE_OF_A_SECRET: u128 = 8;

/// A sidecar's secret: 64 lower-case hex digits. It cannot be printed, and is zeroed when dropped.
#[derive(Clone)]
pub struct SidecarSecret(SecretString);

/// The text is not the secret of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidecarSecretError;

impl SidecarSecret {
    /// The secret of these random bytes.
    #[must_use]
    pub fn of(random: [u8; 32]) -> Self {
        Self(SecretString::from(hex::encode(random)))
    }

    /// The secret as text, for a header or its file and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The bits of the sidecar's id.
    #[must_use]
    pub fn id_bits(&self) -> u128 {
        let digest = Sha256::new().chain_update("machineid sidecar id\0").chain_update(self.expose()).finalize();
        let bits = digest.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte));
        bits & !(0xf << VERSION_SHIFT) | MADE_OF_A_SECRET << VERSION_SHIFT
    }
}

/// Whether an id of these bits is made of a secret. Sidecars that know no secret have
/// ids of random bits, with version 4.
#[must_use]
pub fn needs_secret(id_bits: u128) -> bool {
    id_bits >> VERSION_SHIFT & 0xf == MADE_OF_A_SECRET
}

impl FromStr for SidecarSecret {
    type Err = SidecarSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fit = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fit { Ok(Self(SecretString::from(text))) } else { Err(SidecarSecretError) }
    }
}

impl fmt::Debug for SidecarSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SidecarSecret([redacted])")
    }
}

impl fmt::Display for SidecarSecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 64 lower-case hex digits")
    }
}

impl std::error::Error for SidecarSecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_its_secret_alone_and_says_so() {
        let secret = SidecarSecret::of([7; 32]);
        let again: SidecarSecret = secret.expose().parse().unwrap();
        assert_eq!(again.id_bits(), secret.id_bits());
        assert_ne!(SidecarSecret::of([8; 32]).id_bits(), secret.id_bits());
        assert!(needs_secret(secret.id_bits()));
        for foreign in [0, 1, 0x0000_0000_0000_4000_8000_0000_0000_0001] {
            assert!(!needs_secret(foreign), "{foreign:032x}");
        }
    }

    #[test]
    fn nothing_but_a_secret_is_one_and_none_is_printed() {
        for text in ["", "07", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64)] {
            assert!(text.parse::<SidecarSecret>().is_err(), "{text}");
        }
        assert_eq!(format!("{:?}", SidecarSecret::of([7; 32])), "SidecarSecret([redacted])");
    }
}
