//! What `/proc` tells about a process besides its place in a tree: its users, its arguments, and whether it is the kernel's.
//! Pure.

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The users of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) real: u32,
    effective: u32,
    saved: u32,
}

impl Users {
    /// Reads them from the text of `/proc/<pid>/status`.
    pub(super) fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { real: next()?, effective: next()?, saved: next()? })
    }

    /// Whether it has one user in all of its roles: a program that is set-user-ID has not.
    pub(super) const fn are_one(self) -> bool {
        self.real == self.effective && self.real == self.saved
    }

    /// The users, for people.
    pub(super) fn shown(self) -> String {
        if self.are_one() { self.real.to_string() } else { format!("{} (effective {})", self.real, self.effective) }
    }
}

/// Whether this text of `/proc/<pid>/stat` is that of a kernel thread.
pub(super) fn is_kernel_thread(stat: &[u8]) -> bool {
    // The name in parentheses may contain anything; the flags are the seventh field behind it.
    let Some(close) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    let behind = stat.get(close + 1..).and_then(|text| std::str::from_utf8(text).ok());
    let flags = behind.and_then(|text| text.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// The arguments in the text of `/proc/<pid>/cmdline`.
pub(super) fn arguments(cmdline: &[u8]) -> Vec<String> {
    let text = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_two_users_is_not_its_callers_own() {
        let parse = |text: &str| Users::parse(text).unwrap();
        assert!(parse("Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGid:\t0\t0\t0\t0\n").are_one());
        for line in ["Uid:\t1000\t0\t0\t0", "Uid:\t1000\t1000\t0\t0"] {
            assert!(!parse(line).are_one(), "{line}");
        }
        for text in ["", "Uid:\t1000\n", "Uid:\tx\ty\tz\n"] {
            assert_eq!(Users::parse(text), None, "{text}");
        }
        assert_eq!(parse("Uid:\t1000\t0\t0\t0").shown(), "1000 (effective 0)");
    }

    #[test]
    fn a_thread_of_the_kernel_is_known_by_its_flag() {
        let own = std::fs::read("/proc/self/stat").unwrap();
        assert!(!is_kernel_thread(&own));
        assert!(is_kernel_thread(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0"));
        assert!(is_kernel_thread(b"9 (a) b) I 2 0 0 0 -1 69238880 0 0"));
        for text in [&b""[..], b"9 (x", b"9 (x) S 1", b"9 (x) S 1 1 1 0 -1 4194560 0"] {
            assert!(!is_kernel_thread(text), "{text:?}");
        }
    }

    #[test]
    fn arguments_are_split_at_the_zero_bytes() {
        assert_eq!(arguments(b"codex\0app-server\0\0"), ["codex", "app-server", ""]);
        assert_eq!(arguments(b""), Vec::<String>::new());
    }
}
