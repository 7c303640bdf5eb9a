//! Whether a process is the kernel's own, as `/proc` tells. Pure.

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Whether this text of `/proc/<pid>/stat` is that of a kernel thread.
pub(super) fn is_kernel_thread(stat: &[u8]) -> bool {
    // The name in parentheses may contain anything; the flags are the seventh field behind it.
    let Some(close) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    let behind = stat.get(close + 1..).and_then(|text| std::str::from_utf8(text).ok());
    let flags = behind.and_then(|text| text.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
