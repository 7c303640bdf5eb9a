//! Bytes as lower-case hex digits.

use std::fmt::Write;

/// Two digits a byte.
#[must_use]
pub fn of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
