//! A process held by a descriptor, which cannot be mistaken for another one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use machineid_sys as sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};

use super::pid::{Identity, Pid, StartTime};
use super::stat::ProcessEntry;

/// The result of sending a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel accepted the signal.
    Sent,
    /// The process has ended; no process got the signal.
    Gone,
    /// The kernel refused: the process runs as another user.
    NotPermitted,
}

/// A process held by a pidfd: a signal reaches this process or none.
#[derive(Debug)]
pub struct Process {
    identity: Identity,
    fd: OwnedFd,
}

impl Process {
    /// Pins the process that has this number and this start time. `Ok(None)` when it is gone, even if a later process
    /// has its number by now.
    ///
    /// The pidfd is opened first and the start time compared afterwards. In the other order a new process could take
    /// the number in between. In this order a match proves that the pidfd holds the expected process, since that
    /// process existed before the pidfd and still does.
    ///
    /// Fails when no descriptor is available or `/proc` cannot be read.
    pub fn pin(pid: Pid, expected_start: StartTime) -> Result<Option<Self>, Errno> {
        Ok(Self::pin_any(pid)?.filter(|process| process.identity.start == expected_start))
    }

    /// Pins the process that has this number now. For a number that cannot have been reused, such as that of an
    /// unreaped child. `Ok(None)` when there is none.
    pub fn pin_any(pid: Pid) -> Result<Option<Self>, Errno> {
        Ok(Self::pin_entry(pid)?.map(|(process, _)| process))
    }

    /// The same, with the entry of `/proc` that was read after the process was pinned.
    pub(super) fn pin_entry(pid: Pid) -> Result<Option<(Self, ProcessEntry)>, Errno> {
        let Some(raw) = rustix::process::Pid::from_raw(pid.as_raw()) else { return Ok(None) };
        let fd = match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let Some(entry) = ProcessEntry::read(pid)? else { return Ok(None) };
        Ok(Some((Self { identity: entry.identity, fd }, entry)))
    }

    /// Pins the process behind a pidfd that came from elsewhere (`SO_PEERPIDFD`). `Ok(None)` when it has been reaped.
    ///
    /// `pid` is its number, as the kernel reported it together with the pidfd.
    pub fn from_pidfd(pid: Pid, fd: OwnedFd) -> Result<Option<Self>, Errno> {
        let Some(entry) = ProcessEntry::read(pid)? else { return Ok(None) };
        let process = Self { identity: entry.identity, fd };
        // Signal 0 cannot be sent through rustix's typed call, but readiness says the same. A process that had not
        // ended *after* the entry was read is the process of that entry.
        Ok((!process.has_exited()?).then_some(process))
    }

    /// Which process this is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Sends a signal. Fails only for reasons that do not depend on the process (an invalid signal).
    pub fn signal(&self, signal: Signal) -> Result<Delivery, Errno> {
        delivery(rustix::process::pidfd_send_signal(&self.fd, signal))
    }

    /// Sends a signal marked as a stop's; see [`sys::queue_signal`]. Fails as [`Process::signal`] does.
    pub fn queue(&self, signal: Signal) -> Result<Delivery, Errno> {
        delivery(sys::queue_signal(&self.fd, signal))
    }

    /// Whether the last thread of the process has ended; a zombie has exited.
    pub fn has_exited(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO).map_err(sys::from_nix) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn delivery(result: Result<(), Errno>) -> Result<Delivery, Errno> {
    match result {
        Ok(()) => Ok(Delivery::Sent),
        Err(Errno::SRCH) => Ok(Delivery::Gone),
        Err(Errno::PERM) => Ok(Delivery::NotPermitted),
        Err(errno) => Err(errno),
    }
}

impl AsFd for Process {
    /// The pidfd, which becomes readable when the process has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("1000").spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::new(i32::try_from(self.0.id()).unwrap()).unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_pinned_process_gets_the_signal_and_is_then_gone() {
        let mut sleeper = Sleeper::start();
        let start = ProcessEntry::read(sleeper.pid()).unwrap().unwrap().identity.start;
        let process = Process::pin(sleeper.pid(), start).unwrap().unwrap();
        assert!(!process.has_exited().unwrap());
        assert_eq!(process.signal(Signal::KILL).unwrap(), Delivery::Sent);
        sleeper.0.wait().unwrap();
        assert!(process.has_exited().unwrap());
        assert_eq!(process.signal(Signal::KILL).unwrap(), Delivery::Gone);
        assert!(Process::pin(sleeper.pid(), start).unwrap().is_none());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_pinned() {
        let sleeper = Sleeper::start();
        let start = ProcessEntry::read(sleeper.pid()).unwrap().unwrap().identity.start;
        assert!(Process::pin(sleeper.pid(), StartTime(start.0 - 1)).unwrap().is_none());
    }
}
