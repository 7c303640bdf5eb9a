//! The state of the process at its start that Rust's runtime changes before `main`: it ignores SIGPIPE, and opens closed
//! standard descriptors to `/dev/null`. A wrapper has to hand on what *it* got, so a constructor, which the C library runs
//! before the runtime, writes both down.

#![expect(unsafe_code, reason = "constructors, sigaction and closing a descriptor std believes open")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
        // SAFETY: F_GETFD reads a flag and touches no memory of ours; the descriptor may be closed.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
            closed |= 1_u8 << descriptor;
        }
    }
    CLOSED.store(closed, Ordering::Relaxed);
}

fn disposition(signal: libc::c_int) -> Option<libc::sighandler_t> {
    // SAFETY: all bytes zero is a valid `sigaction`: a null handler, an empty mask, no flags.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null new action the call only fills `old`, a live local.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut old) };
    (result == 0).then_some(old.sa_sigaction)
}

fn set_disposition(signal: libc::c_int, handler: libc::sighandler_t) -> Result<(), Errno> {
    // SAFETY: all bytes zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` is a live local, and its handler is SIG_IGN or SIG_DFL: no function of ours is ever called.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

/// What the process was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    ignored: u64,
    closed: u8,
}

impl Inherited {
    /// As written down before `main`.
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
        set_disposition(libc::SIGCHLD, libc::SIG_DFL)
    }
}

/// Sets SIGCHLD to be ignored: whatever child ends from now on vanishes without an exit code, and needs no reaping. For
/// one who inherits orphans and kills them: the kernel is done with them in no time, while a reaper that shares the
/// processor with a storm of them falls ever further behind. Zombies of before still are to be reaped.
pub fn let_children_vanish() -> Result<(), Errno> {
    set_disposition(libc::SIGCHLD, libc::SIG_IGN)
}

/// In a forked child about to exec: sets SIGPIPE and SIGCHLD to what they were at the start, and closes the standard
/// descriptors that were closed then. (Handlers, such as the runtime's for stack overflow, end with the exec by themselves.)
pub fn restore_inherited(inherited: Inherited) -> Result<(), Errno> {
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        let handler = if inherited.ignores(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        set_disposition(signal, handler)?;
    }
    for descriptor in 0..3 {
        if inherited.closed & (1 << descriptor) != 0 {
            // SAFETY: the runtime opened this number to /dev/null before `main` and hands it out as standard stream only;
            // no owner of it exists that could close it again, and this process is about to become another program.
            unsafe { libc::close(descriptor) };
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
