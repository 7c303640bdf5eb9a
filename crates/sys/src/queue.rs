//! The mark by which a stop's signal is told from all others.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::Signal;

/// The value that comes with a stop's signal. It is no secret: it only says that every process of the tree has got this
/// signal, and a process that sends it without being a stop only keeps its own signal from being passed on.
pub(super) const OF_A_LADDER: u64 = 0x6d61_6368_696e_6569;

/// `siginfo_t` of a queued signal, on 64-bit Linux. libc makes its fields readable only.
#[repr(C)]
pub(super) struct Queued {
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

/// Sends the stop signal to the process behind a pidfd, marked as a ladder's: a wrapper inside the tree that gets it
/// knows that its own agent has got it too ([`super::Arrived::from_ladder`]). To any other process it is an ordinary
/// signal.
///
/// The mark is lost when the receiver's limit of pending signals is used up, or the same signal is pending already; the
/// signal itself is never lost. Fails as `pidfd_send_signal` does.
pub fn queue_signal<Fd: AsFd>(pidfd: Fd, signal: Signal) -> Result<(), Errno> {
    let info = Queued {
        signal: signal.as_raw(),
        errno: 0,
        code: libc::SI_QUEUE,
        _gap: 0,
        pid: nix::unistd::getpid().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        value: OF_A_LADDER,
        _rest: [0; 12],
    };
    super::pidfd_signal::send(pidfd, info.signal, Some(&info))
}
