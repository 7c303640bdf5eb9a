//! Whether a uid that the kernel reports names one user.

use std::sync::OnceLock;

/// The uid by which the kernel names every user that the caller's user namespace does not map.
pub const OVERFLOW_UID: u32 = 65_534;

/// Whether this uid names any user that the caller's user namespace does not map, and so proves nothing. In a namespace that
/// maps every user, as the initial one does, the overflow uid is an ordinary user, which many containers run as.
#[must_use]
pub fn is_ambiguous(uid: u32) -> bool {
    static ALL: OnceLock<bool> = OnceLock::new();
    let all_mapped = || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_every_user(&map));
    uid == OVERFLOW_UID && !*ALL.get_or_init(all_mapped)
}

fn maps_every_user(uid_map: &str) -> bool {
    let numbers: Vec<&str> = uid_map.split_ascii_whitespace().collect();
    matches!(numbers[..], ["0", _, "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_of_all_users_makes_the_overflow_uid_a_user() {
        assert!(maps_every_user("         0          0 4294967295\n"));
        for map in ["", "0 100000 65536\n", "0 0 65535\n65536 65536 1\n", "1000 1000 1\n"] {
            assert!(!maps_every_user(map), "{map}");
        }
        assert!(!is_ambiguous(0) && !is_ambiguous(1000));
    }
}
