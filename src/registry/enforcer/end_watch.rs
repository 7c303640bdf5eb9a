//! The end watch: the kernel reports which trees have ended.
//!
//! One epoll descriptor serves all trees. Looking at each tree every few milliseconds was rejected: with a thousand agents
//! that use their whole grace, the looks cost more than the stops.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Reports taken at once; the rest is taken in the next turn.
const AT_ONCE: usize = 256;

/// The descriptor by which the kernel reports the end of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sign<'a> {
    /// The events of a control group, which change when it becomes empty.
    Group(BorrowedFd<'a>),
    /// A process that ends with the tree.
    Process(BorrowedFd<'a>),
}

/// An epoll descriptor. Each watched descriptor carries the key of its stop.
#[derive(Debug)]
pub(super) struct EndWatch(OwnedFd);

impl EndWatch {
    /// Fails when no descriptor is available.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches this sign for one report. Returns false when the kernel does not watch it.
    pub(super) fn watch(&self, key: u64, sign: Sign<'_>) -> bool {
        let (fd, event) = match sign {
            Sign::Group(fd) => (fd, EventFlags::PRI),
            Sign::Process(fd) => (fd, EventFlags::IN),
        };
        let (data, flags) = (EventData::new_u64(key), event | EventFlags::ONESHOT);
        match epoll::modify(&self.0, fd, data, flags) {
            Err(Errno::NOENT) => epoll::add(&self.0, fd, data, flags).is_ok(),
            watched => watched.is_ok(),
        }
    }

    /// Stops watching this sign.
    pub(super) fn leave(&self, sign: Sign<'_>) {
        let (Sign::Group(fd) | Sign::Process(fd)) = sign;
        let _ = epoll::delete(&self.0, fd);
    }

    /// The keys of the signs that have reported since the last call.
    pub(super) fn take(&self) -> Vec<u64> {
        let mut events: Vec<Event> = Vec::with_capacity(AT_ONCE);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // When a signal interrupts the call, the reports stay for the next turn.
        let _ = epoll::wait(&self.0, spare_capacity(&mut events), Some(&at_once));
        events.iter().map(|event| event.data.u64()).collect()
    }
}

impl AsFd for EndWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use machineid_tree::{Pid, Process};

    #[test]
    fn an_end_is_told_once_with_its_key_and_not_of_one_that_was_left() {
        let end_watch = EndWatch::new().unwrap();
        let start = || {
            let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let pid = Pid::new(i32::try_from(child.id()).unwrap()).unwrap();
            (child, Process::pin_any(pid).unwrap().unwrap())
        };
        let ((mut one, one_pinned), (mut two, two_pinned)) = (start(), start());
        assert!(end_watch.watch(1, Sign::Process(one_pinned.as_fd())));
        assert!(end_watch.watch(2, Sign::Process(two_pinned.as_fd())));
        assert!(end_watch.take().is_empty());
        end_watch.leave(Sign::Process(two_pinned.as_fd()));
        // It ends with its input.
        drop((one.stdin.take(), two.stdin.take()));
        one.wait().unwrap();
        two.wait().unwrap();
        assert_eq!(end_watch.take(), [1]);
        assert!(end_watch.take().is_empty());
        assert!(end_watch.watch(1, Sign::Process(one_pinned.as_fd())), "it may be watched again");
        assert_eq!(end_watch.take(), [1]);
    }
}
