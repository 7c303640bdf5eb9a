//! A stop's signal, told apart from anybody else's.

#![expect(unsafe_code, reason = "rustix's pidfd_send_signal takes no siginfo")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::process::Signal;

/// The value that comes with a stop's signal. A number of ours, and no secret: all it says is "everybody in the tree has
/// got this one", and a process that says so untruly only keeps a signal of its own from being passed on.
pub(super) const OF_A_LADDER: u64 = 0x6d61_6368_696e_6569;

/// `siginfo_t` of a queued signal, on 64-bit Linux. libc offers its fields for reading only.
#[repr(C)]
struct Queued {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _gap: libc::c_int,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: u64,
    _rest: [u64; 12],
}

const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());

/// Sends the stop signal to the process behind a pidfd, marked as a ladder's: a wrapper inside the tree that gets it knows
/// that its own agent has got it too ([`super::Arrived::from_ladder`]). To any other process it is a signal like another.
///
/// The mark is lost when the receiver's limit of pending signals is used up, or the same signal is pending already; the
/// signal itself never is. Fails as `pidfd_send_signal` does.
pub fn queue_signal<Fd: AsFd>(pidfd: Fd, signal: Signal) -> Result<(), Errno> {
    let info = Queued {
        signal: signal.as_raw(),
        errno: 0,
        code: libc::SI_QUEUE,
        _gap: 0,
        pid: rustix::process::getpid().as_raw_pid(),
        uid: rustix::process::getuid().as_raw(),
        value: OF_A_LADDER,
        _rest: [0; 12],
    };
    // SAFETY: plain numbers, a borrowed descriptor that stays open during the call, and a live local that has the size and
    // layout of `siginfo_t`, which the kernel only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal.as_raw(), &raw const info, 0_u32)
    };
    if result == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
