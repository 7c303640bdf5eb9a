//! How records are hashed: by SHA-256, or by HMAC-SHA-256 with a key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::chain::Hash;

/// The fewest bytes of a key: as many as a hash has, which `openssl rand -hex 32` makes twice over.
const SHORTEST: usize = 32;

/// How the records of a file are hashed. Without a key, a program that can write the file can also make a new chain; with one, it
/// must have the key as well.
#[derive(Clone, Default)]
pub struct Chain(Option<Vec<u8>>);

/// The key has fewer than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortKey;

impl fmt::Display for ShortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key has at least {SHORTEST} bytes; make one with openssl rand -hex 32")
    }
}

impl std::error::Error for ShortKey {}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_keyed() { "Chain(keyed)" } else { "Chain(plain)" })
    }
}

impl Chain {
    /// The chain with the key that a file holds; white space around it is no part of the key.
    pub fn keyed(file: &[u8]) -> Result<Self, ShortKey> {
        let key = file.trim_ascii();
        if key.len() < SHORTEST { Err(ShortKey) } else { Ok(Self(Some(key.to_vec()))) }
    }

    /// Whether there is a key.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        self.0.is_some()
    }

    /// The hash of a line without its end.
    #[must_use]
    pub fn hash(&self, line: &[u8]) -> Hash {
        let Some(key) = &self.0 else { return Hash::from_bytes(Sha256::digest(line).into()) };
        // HMAC takes a key of any length.
        match Hmac::<Sha256>::new_from_slice(key) {
            Ok(mut mac) => {
                mac.update(line);
                Hash::from_bytes(mac.finalize().into_bytes().into())
            }
            Err(_) => Hash::NOTHING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_every_hash_and_is_never_printed() {
        let chain = |key: &str| Chain::keyed(key.as_bytes()).unwrap();
        let (a, b) = (chain(&"a".repeat(32)), chain(&"b".repeat(32)));
        assert_ne!(a.hash(b"x"), b.hash(b"x"));
        assert_ne!(a.hash(b"x"), Chain::default().hash(b"x"));
        assert_eq!(a.hash(b"x"), chain(&format!(" {}\n", "a".repeat(32))).hash(b"x"));
        assert_eq!(format!("{a:?}"), "Chain(keyed)");
        assert!(Chain::keyed(b"short\n").is_err());
    }

    #[test]
    fn the_hashes_are_those_of_the_standards() {
        let plain = Chain::default().hash(b"abc").to_string();
        assert_eq!(plain, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // RFC 4231, case 6: a key of 131 bytes.
        let keyed = Chain::keyed(&[0xaa; 131]).unwrap();
        let hash = keyed.hash(b"Test Using Larger Than Block-Size Key - Hash Key First").to_string();
        assert_eq!(hash, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
