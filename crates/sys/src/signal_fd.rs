//! Signals as something to poll for, and sending those rustix has no name for.

#![expect(unsafe_code, reason = "signalfd, sigprocmask, and kill with real-time signals")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::process::last_errno;
use super::queue::OF_A_LADDER;

/// Left to their default: they report a fault of this very program, and blocked they would end it in a worse way.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub signal: i32,
    /// Whether this process caused it itself, as a write to a closed pipe does.
    pub own: bool,
    /// Whether the kernel sent it by itself, as for a key on the terminal.
    pub from_kernel: bool,
    /// Whether it is a stop's ([`super::queue_signal`]): everybody in the sender's tree has got it.
    pub from_ladder: bool,
}

/// Every signal but those that report a fault, blocked and readable from a descriptor.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
    mask_before: libc::sigset_t,
}

impl SignalFd {
    /// Blocks the signals and opens the descriptor, non-blocking and closed on exec.
    pub fn open() -> Result<Self, Errno> {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises the set it is given; sigdelset takes an initialised one and valid numbers.
        let all = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            let mut all = all.assume_init();
            for signal in FAULTS {
                libc::sigdelset(&raw mut all, signal);
            }
            all
        };
        // SAFETY: `all` is initialised, and `before` has room for what the call writes.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const all, before.as_mut_ptr()) } != 0 {
            return Err(last_errno());
        }
        // SAFETY: the call succeeded, so it has written the set.
        let mask_before = unsafe { before.assume_init() };
        // SAFETY: -1 asks for a new descriptor, and the set is initialised.
        let fd = unsafe { libc::signalfd(-1, &raw const all, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd == -1 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows of it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, mask_before })
    }

    /// The next signal that came; `None` when there is none now.
    pub fn next(&self) -> Result<Option<Arrived>, Errno> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: `info` has room for `size` bytes.
            let count = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if count == isize::try_from(size).unwrap_or(isize::MAX) {
                // SAFETY: the kernel has filled the whole structure, which is plain numbers.
                let info = unsafe { info.assume_init() };
                let own = i32::try_from(info.ssi_pid) == Ok(rustix::process::getpid().as_raw_pid());
                let from_kernel = info.ssi_code == libc::SI_KERNEL;
                let from_ladder = info.ssi_code == libc::SI_QUEUE && info.ssi_ptr == OF_A_LADDER;
                let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
                return Ok(Some(Arrived { signal, own, from_kernel, from_ladder }));
            }
            match last_errno() {
                Errno::AGAIN => return Ok(None),
                Errno::INTR => {}
                errno => return Err(errno),
            }
        }
    }

    /// Sets the signal mask to what it was before [`SignalFd::open`], for a forked child about to exec.
    pub fn restore_mask(&self) -> Result<(), Errno> {
        // SAFETY: the set was filled by the kernel.
        let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask_before, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends any signal, also a real-time one, to a process group. The group must be known to be ours: its leader is an
/// unreaped child.
pub fn send_to_group(group: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory; `Pid` is positive and never 1 for a child, so the target is one group.
    if unsafe { libc::kill(-group.as_raw_pid(), signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sends any signal to a child that is not reaped. Fails with ESRCH when it is.
pub fn send_to_child(child: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory; `Pid` is positive.
    if unsafe { libc::kill(child.as_raw_pid(), signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Stops this process by a terminal's stop signal (or only asks to: the kernel stops nobody in an orphaned process group,
/// where nobody could continue it), with its whole group if `group`. Returns when it has been continued.
pub fn stop_by(signal: i32, group: bool) {
    let only = set_of(signal);
    // SAFETY: the set is initialised, and kill touches no memory. The signal stops or is ignored: it has no handler.
    unsafe {
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::kill(if group { 0 } else { libc::getpid() }, signal);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const only, std::ptr::null_mut());
    }
}

/// Unblocks `signal`, sets it to its default and sends it to this process, or its whole group if `group`: an end by the
/// signal, which a shell tells from an exit code. Returns when the signal does not end the process.
pub fn die_by(signal: i32, group: bool) {
    let only = set_of(signal);
    // SAFETY: the handler is SIG_DFL, no function of ours; the set is initialised; kill touches no memory.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::kill(if group { 0 } else { libc::getpid() }, signal);
    }
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut only = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before sigaddset and assume_init use it; a bad number changes nothing.
    unsafe {
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), signal);
        only.assume_init()
    }
}
