//! Signals read from a descriptor, and sending signals that neither nix nor rustix has a name for.

#![expect(unsafe_code, reason = "kill and sets of signals with real-time signals: nix's `Signal` has none")]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SfdFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::inherited::{Disposition, set_disposition};
use super::process::{from_nix, last_errno};
use super::queue::OF_A_LADDER;

/// Signals that report a fault of this program. They keep their default action: blocked, they would end it in a worse
/// way.
const FAULTS: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGSYS, Signal::SIGABRT];

/// A signal that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The signal's number.
    pub signal: i32,
    /// Whether this process caused the signal itself, as by a write to a closed pipe.
    pub own: bool,
    /// Whether the kernel sent the signal by itself, as for a key on the terminal.
    pub from_kernel: bool,
    /// Whether the signal is a stop's ([`super::queue_signal`]): every process of the sender's tree has got it.
    pub from_ladder: bool,
}

/// All signals except those that report a fault: blocked, and readable from a descriptor.
#[derive(Debug)]
pub struct SignalFd {
    fd: nix::sys::signalfd::SignalFd,
    mask_before: SigSet,
}

impl SignalFd {
    /// Blocks the signals and opens the descriptor, non-blocking and closed on exec.
    pub fn open() -> Result<Self, Errno> {
        // The set includes real-time signals.
        let mut all = SigSet::all();
        for signal in FAULTS {
            all.remove(signal);
        }
        let mut mask_before = SigSet::empty();
        // Not `SigSet::thread_swap_mask`, which overlooks a failure: pthread_sigmask returns its error number.
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), Some(&mut mask_before)).map_err(from_nix)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = nix::sys::signalfd::SignalFd::with_flags(&all, flags).map_err(from_nix)?;
        Ok(Self { fd, mask_before })
    }

    /// The next signal that has arrived; `None` when there is none now.
    pub fn next(&self) -> Result<Option<Arrived>, Errno> {
        loop {
            let info = match self.fd.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) => return Ok(None),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(from_nix(errno)),
            };
            let own = i32::try_from(info.ssi_pid) == Ok(nix::unistd::getpid().as_raw());
            let from_kernel = info.ssi_code == libc::SI_KERNEL;
            let from_ladder = info.ssi_code == libc::SI_QUEUE && info.ssi_ptr == OF_A_LADDER;
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            return Ok(Some(Arrived { signal, own, from_kernel, from_ladder }));
        }
    }

    /// Sets the signal mask to what it was before [`SignalFd::open`], for a forked child about to exec.
    pub fn restore_mask(&self) -> Result<(), Errno> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask_before), None).map_err(from_nix)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends any signal, also a real-time one, to a process group whose leader is an unreaped child of the caller.
pub fn send_to_group(group: Pid, signal: i32) -> Result<(), Errno> {
    // `Pid` is positive and never 1 for a child, so the target is one group.
    kill(-group.as_raw_pid(), signal)
}

/// Sends any signal to a child that is not reaped. Fails with ESRCH after it was.
pub fn send_to_child(child: Pid, signal: i32) -> Result<(), Errno> {
    kill(child.as_raw_pid(), signal)
}

/// Stops this process, and its whole group if `group`, by a terminal's stop signal. Returns when it has been continued.
/// In an orphaned process group, where no shell could continue it, the kernel ignores the signal, and this returns at
/// once.
pub fn stop_by(signal: i32, group: bool) {
    let only = set_of(signal);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    let _ = kill(own_target(group), signal);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&only), None);
}

/// Ends this process, and its whole group if `group`, by a signal, which a shell tells from an exit code: unblocks the
/// signal, sets it to its default and sends it. Returns if the signal does not end the process.
pub fn die_by(signal: i32, group: bool) {
    let _ = set_disposition(signal, Disposition::Default);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set_of(signal)), None);
    let _ = kill(own_target(group), signal);
}

/// The target of `kill` for this process, or for its whole group.
fn own_target(group: bool) -> i32 {
    if group { 0 } else { nix::unistd::getpid().as_raw() }
}

fn kill(target: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory. The callers in this file choose the target.
    if unsafe { libc::kill(target, signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

fn set_of(signal: i32) -> SigSet {
    let mut only = *SigSet::empty().as_ref();
    // SAFETY: the set is initialised before sigaddset changes it; an invalid number changes nothing.
    unsafe {
        libc::sigaddset(&raw mut only, signal);
        SigSet::from_sigset_t_unchecked(only)
    }
}
