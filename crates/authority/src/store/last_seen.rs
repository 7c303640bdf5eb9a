//! The time of a device's last validation, as the store keeps it.

use super::super::keys::KeyMark;

/// A device's last validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastSeen {
    /// The device's number in the store.
    pub(crate) seq: i64,
    /// The time, in microseconds since 1970.
    pub(crate) at: i64,
    /// The key that was used.
    pub(crate) key: KeyMark,
}
