//! A connection to the daemon that never blocks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use machineid_sys as sys;
use machineid_tree::{Activity, Pid, ProcessEntry};
use nix::poll::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Run;
use super::event::{ConnectionLost, DaemonState, WrapperEvent};
use super::wire::{self, AnswerReader};

/// The most reads in one round. A daemon that never stops sending must not keep the wrapper from its deadline.
const READS: usize = 32;

/// A connection for one request and its answer.
#[derive(Debug)]
pub(super) struct DaemonConnection {
    fd: OwnedFd,
    unsent: Vec<u8>,
    reader: AnswerReader,
}

impl DaemonConnection {
    /// Connects.
    pub(super) fn open(socket: &Path) -> Result<Self, ConnectionLost> {
        let lost = |why: String, daemon| ConnectionLost { why, daemon };
        let address = SocketAddrUnix::new(socket).map_err(|_| {
            lost("the path is too long for a socket (107 bytes at most)".to_owned(), DaemonState::There)
        })?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(|errno| {
            let refused = || format!("cannot make a socket: {}", sys::in_words(errno));
            lost(sys::why_unreachable(socket).unwrap_or_else(refused), DaemonState::There)
        })?;
        rustix::net::connect(&fd, &address).map_err(|errno| match errno {
            Errno::NOENT => match sys::why_unreachable(socket) {
                Some(why) => lost(why, DaemonState::There),
                None => lost("there is no such socket, so it is not running".to_owned(), DaemonState::Absent),
            },
            Errno::CONNREFUSED => {
                lost("no process listens there, so it is not running".to_owned(), DaemonState::Absent)
            }
            Errno::ACCESS | Errno::PERM => {
                let modes =
                    || "permission denied; only the socket's owner and group may ask (`ls -l` shows them)".to_owned();
                lost(sys::why_unreachable(socket).unwrap_or_else(modes), DaemonState::There)
            }
            Errno::AGAIN => lost("it has too many connections waiting".to_owned(), DaemonState::Busy),
            errno => lost(sys::in_words(errno), DaemonState::There),
        })?;
        if !sys::peer_credentials(&fd).is_ok_and(|listener| listener.is_trusted_at(socket)) {
            let why = "its listener runs as a user that is neither root, nor this user, nor the owner of its directory";
            return Err(lost(why.to_owned(), DaemonState::There));
        }
        Ok(Self { fd, unsent: Vec::new(), reader: AnswerReader::default() })
    }

    /// Connects and begins to send the question of a start.
    pub(super) fn begin(run: &Run) -> Result<Self, ConnectionLost> {
        Self::open(&run.socket)?.ask(wire::beginning(&run.question))
    }

    /// Begins to send a request, or more of it.
    pub(super) fn ask(mut self, request: Vec<u8>) -> Result<Self, ConnectionLost> {
        self.unsent.extend(request);
        match self.send() {
            Ok(()) => Ok(self),
            // What the daemon sent before it closed the connection can still be read.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                self.unsent = Vec::new();
                Ok(self)
            }
            Err(errno) => Err(ConnectionLost { why: errno.to_string(), daemon: DaemonState::There }),
        }
    }

    /// Whether the daemon is this process's parent, as in front of `machineid-sidecar -- COMMAND`.
    pub(super) fn is_to_parent(&self) -> bool {
        let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
        sys::peer_credentials(&self.fd).is_ok_and(|listener| Some(listener.pid) == parent)
    }

    /// Whether the daemon lives and is not stopped, as far as this process can see.
    pub(super) fn listener_can_act(&self) -> bool {
        let pid = sys::peer_credentials(&self.fd).ok().and_then(|listener| Pid::new(listener.pid));
        let entry = pid.and_then(|pid| ProcessEntry::read(pid).ok().flatten());
        entry.is_some_and(|entry| entry.is_alive() && entry.activity != Activity::Stopped)
    }

    /// The events to poll for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    /// Sends and reads as much as possible without blocking. Returns the events that are complete.
    pub(super) fn advance(&mut self) -> Vec<WrapperEvent> {
        let mut events = Vec::new();
        if let Err(errno) = self.send() {
            // An early refusal can still be read.
            self.unsent = Vec::new();
            if errno != Errno::PIPE && errno != Errno::CONNRESET {
                return vec![WrapperEvent::Lost(ConnectionLost { why: errno.to_string(), daemon: DaemonState::There })];
            }
        }
        let mut buffer = [0_u8; 4096];
        for _ in 0..READS {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => {
                    events.extend(self.reader.end());
                    return events;
                }
                Ok((count, _)) => events.extend(self.reader.feed(&buffer[..count])),
                Err(Errno::AGAIN) => return events,
                Err(Errno::INTR) => {}
                Err(_) => {
                    events.extend(self.reader.end());
                    return events;
                }
            }
        }
        events
    }

    fn send(&mut self) -> Result<(), Errno> {
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.fd, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.unsent.drain(..count);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl AsFd for DaemonConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
