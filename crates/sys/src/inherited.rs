//! The state of the process at its start that Rust's runtime changes before `main`: the runtime ignores SIGPIPE, and
//! opens closed standard descriptors to `/dev/null`. A wrapper must pass on the state that *it* was started with, so a
//! constructor, which the C library runs before the runtime, records both.

#![expect(
    unsafe_code,
    reason = "a constructor; fcntl on a descriptor that may be closed; and sigaction, since nix's is unsafe as well, knows no \
              real-time signals and cannot read without setting"
)]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use nix::sys::signal::SigSet;
use rustix::io::Errno;

/// One bit for each signal that was ignored at the start; bit 0 is signal 1.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// One bit for each of the descriptors 0 to 2 that was closed at the start.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// The highest signal number on Linux.
const LAST_SIGNAL: libc::c_int = 64;

// SAFETY: `.init_array` holds pointers to functions of this type, which the C library calls once before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = write_down;

extern "C" fn write_down() {
    let mut ignored = 0;
    for signal in 1..=LAST_SIGNAL {
        if disposition(signal) == Some(libc::SIG_IGN) {
            ignored |= 1_u64 << (signal - 1);
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    let mut closed = 0;
    for descriptor in 0..3 {
        // SAFETY: F_GETFD reads a flag and touches no memory of this process; the descriptor may be closed.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
            closed |= 1_u8 << descriptor;
        }
    }
    CLOSED.store(closed, Ordering::Relaxed);
}

fn disposition(signal: libc::c_int) -> Option<libc::sighandler_t> {
    sigaction(signal, None).ok().map(|action| action.sa_sigaction)
}

/// Sets a signal to be ignored or to its default.
pub(super) fn set_disposition(signal: libc::c_int, disposition: Disposition) -> Result<(), Errno> {
    let handler = match disposition {
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Default => libc::SIG_DFL,
    };
    sigaction(signal, Some(handler)).map(drop)
}

/// What a process does with a signal for which it has no handler.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disposition {
    Ignore,
    Default,
}

/// Returns the action that was in force for a signal. `handler`, if any, is `SIG_IGN` or `SIG_DFL` and is in force
/// afterwards.
fn sigaction(signal: libc::c_int, handler: Option<libc::sighandler_t>) -> Result<libc::sigaction, Errno> {
    let without_flags = |sa_sigaction| libc::sigaction {
        sa_sigaction,
        sa_mask: *SigSet::empty().as_ref(),
        sa_flags: 0,
        sa_restorer: None,
    };
    let new = handler.map(without_flags);
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = without_flags(libc::SIG_DFL);
    // SAFETY: `new` is null or a live local, and `old` a live local. No handler is a function of this program: the
    // callers in this file pass SIG_IGN, SIG_DFL or none.
    let result = unsafe { libc::sigaction(signal, new, &raw mut old) };
    if result == 0 { Ok(old) } else { Err(super::process::last_errno()) }
}

/// The recorded state of the process at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    ignored: u64,
    closed: u8,
}

impl Inherited {
    /// The state as it was recorded before `main`.
    #[must_use]
    pub fn get() -> Self {
        Self { ignored: IGNORED.load(Ordering::Relaxed), closed: CLOSED.load(Ordering::Relaxed) }
    }

    /// Whether this signal was ignored, as `nohup` does with SIGHUP.
    #[must_use]
    pub const fn ignores(self, signal: i32) -> bool {
        signal >= 1 && signal <= LAST_SIGNAL && self.ignored & (1 << (signal - 1)) != 0
    }

    /// Sets SIGCHLD to its default: inherited as ignored, it would make children vanish without an exit code.
    pub fn expect_children() -> Result<(), Errno> {
        set_disposition(libc::SIGCHLD, Disposition::Default)
    }
}

/// Sets SIGCHLD to be ignored: a child that ends from now on vanishes without an exit code, and needs no reaping. This
/// is for a process that inherits orphans and kills them: the kernel removes them at once, while in a fork storm a
/// reaper falls ever further behind. Children that ended earlier must still be reaped.
pub fn let_children_vanish() -> Result<(), Errno> {
    set_disposition(libc::SIGCHLD, Disposition::Ignore)
}

/// Sets SIGPIPE and SIGCHLD to what they were at the start, and closes the standard descriptors that were closed then.
/// For a forked child that is about to exec. (Handlers, such as the runtime's for stack overflow, are reset by the
/// exec.)
pub fn restore_inherited(inherited: Inherited) -> Result<(), Errno> {
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        let disposition = if inherited.ignores(signal) { Disposition::Ignore } else { Disposition::Default };
        set_disposition(signal, disposition)?;
    }
    for descriptor in 0..3 {
        if inherited.closed & (1 << descriptor) != 0 {
            // The runtime opened this number to /dev/null before `main` and uses it as a standard stream only. No owner
            // of it exists that could close it again, and this process is about to become another program.
            let _ = nix::unistd::close(descriptor);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constructor_has_run_before_the_runtime_ignored_sigpipe() {
        // The test runner starts tests with SIGPIPE at its default; the runtime has set it to be ignored by now.
        assert_eq!(disposition(libc::SIGPIPE), Some(libc::SIG_IGN));
        assert!(!Inherited::get().ignores(libc::SIGPIPE));
        assert!(!Inherited::get().ignores(0) && !Inherited::get().ignores(65));
    }
}
