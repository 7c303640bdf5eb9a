//! Errors that say that the machine, or this process's share of it, has run out of something, in words.

use std::io;

use rustix::io::Errno;

/// What is lacking, and what to do; `None` for an error that does not come from a lack.
#[must_use]
pub const fn shortage(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => {
            Some("this process may open no more files; raise its limit (ulimit -n, or LimitNOFILE= of its unit)")
        }
        Errno::NFILE => Some("this machine can open no more files; end what holds them, or raise fs.file-max"),
        Errno::NOMEM => Some("no memory is left for it, on this machine or in its control group"),
        Errno::NOSPC => Some("no room is left on the device, or a limit of the kernel is reached"),
        _ => None,
    }
}

/// The error as text, with what to do when something has run out.
#[must_use]
pub fn in_words(errno: Errno) -> String {
    shortage(errno).map_or_else(|| errno.to_string(), str::to_owned)
}

/// The error of a `fork` as text: EAGAIN then means a limit of processes.
#[must_use]
pub(super) fn fork_in_words(errno: Errno) -> String {
    if errno == Errno::AGAIN {
        "no more processes may be made; end some, or raise the limit that is reached: of the user (ulimit -u), of the \
         control group (pids.max, TasksMax=) or of the machine (kernel.pid_max, kernel.threads-max)"
            .to_owned()
    } else {
        in_words(errno)
    }
}

/// The error of a library as text, with what to do when something has run out.
#[must_use]
pub fn io_in_words(error: &io::Error) -> String {
    let short = error.raw_os_error().map(Errno::from_raw_os_error).and_then(shortage);
    short.map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_its_own_remedy_and_other_errors_their_own_words() {
        for (errno, remedy) in [(Errno::MFILE, "ulimit -n"), (Errno::NFILE, "fs.file-max"), (Errno::NOMEM, "memory")] {
            assert!(in_words(errno).contains(remedy), "{errno}");
            assert!(io_in_words(&io::Error::from(errno)).contains(remedy), "{errno}");
        }
        assert!(fork_in_words(Errno::AGAIN).contains("ulimit -u") && fork_in_words(Errno::NOMEM).contains("memory"));
        assert_eq!(in_words(Errno::AGAIN), Errno::AGAIN.to_string());
        assert_eq!(io_in_words(&io::Error::other("broken")), "broken");
    }
}
