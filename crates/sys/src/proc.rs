//! Whether `/proc` is ours.

use rustix::io::Errno;

/// Checks that `/proc` was mounted in this process's PID namespace. In that of another one the numbers in it name other
/// processes: a tree would never be found, or somebody else's would.
///
/// Fails with one line that says what to do.
pub fn check_proc() -> Result<(), String> {
    let own = rustix::process::getpid().as_raw_pid().to_string();
    match rustix::fs::readlink("/proc/self", Vec::new()) {
        Ok(number) if number.to_bytes() == own.as_bytes() => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err("/proc is missing or shows another PID namespace than this process is in; \
                                          mount it there (unshare --mount-proc)"
            .to_owned()),
        Err(errno) => Err(format!("/proc cannot be read: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_proc_of_a_test_is_its_own() {
        assert_eq!(super::check_proc(), Ok(()));
    }
}
