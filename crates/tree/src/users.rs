//! The users of a process, as `/proc` tells them. Pure.

/// The users of a process: by real it is known to its owner, by effective the kernel asks for its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// The user that started it.
    pub real: u32,
    /// The user whose rights it has.
    pub effective: u32,
    saved: u32,
}

impl Users {
    /// Reads them from the text of `/proc/<pid>/status`.
    #[must_use]
    pub fn parse(status: &[u8]) -> Option<Self> {
        let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
        let mut numbers = std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { real: next()?, effective: next()?, saved: next()? })
    }

    /// Whether it has one user in all of its roles: a program that is set-user-ID has not.
    #[must_use]
    pub const fn are_one(self) -> bool {
        self.real == self.effective && self.real == self.saved
    }

    /// The users, for people.
    #[must_use]
    pub fn shown(self) -> String {
        if self.are_one() { self.real.to_string() } else { format!("{} (effective {})", self.real, self.effective) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_two_users_is_not_its_callers_own() {
        let parse = |text: &str| Users::parse(text.as_bytes()).unwrap();
        assert!(parse("Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGid:\t0\t0\t0\t0\n").are_one());
        for line in ["Uid:\t1000\t0\t0\t0", "Uid:\t1000\t1000\t0\t0"] {
            assert!(!parse(line).are_one(), "{line}");
        }
        for text in ["", "Name:\tx\n", "Uid:\t1000\n", "Uid:\tx\ty\tz\n"] {
            assert_eq!(Users::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse("Name:\tx\nUid:\t1\t2\t3\t4\n").effective, 2);
        assert_eq!(parse("Uid:\t1000\t0\t0\t0").shown(), "1000 (effective 0)");
    }
}
