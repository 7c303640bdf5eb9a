//! The wrapper's side of the guardian: starting it, sending orders, receiving reports.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use machineid_clock::BootTime;
use machineid_sys::{self as sys, Fork, SignalFd};
use machineid_tree::Leaf;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use rustix::cmsg_space;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::super::Run;
use super::super::child::Pipes;
use super::error::{GuardianStartError, LeaderError};
use super::message::{GuardianOrder, GuardianReport, GuardianTerms, SIZE};
use super::serve::{self, Inheritance};
use super::{GuardianKind, namespace};

/// How long a guardian may take to fork the leader, in milliseconds.
const START_MS: u16 = 10_000;

/// The guardian, a child of the wrapper.
#[derive(Debug)]
pub(crate) struct GuardianHandle {
    pid: Pid,
    kind: GuardianKind,
    /// The connection to the guardian. `None` when the guardian is gone or has sent an unintelligible message.
    socket: Option<OwnedFd>,
    told_deadline: Option<BootTime>,
    told_kill_at: Option<BootTime>,
    state: GuardianState,
}

/// The state of the guardian's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuardianState {
    Lives,
    /// The guardian was killed by the wrapper: its end means nothing.
    Dismissed,
    Reaped,
}

/// What the guardian's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardianEnd {
    /// No process of the tree is left.
    TreeEmpty,
    /// The guardian was killed, and the tree may live.
    Killed,
}

/// What a guardian is started with.
#[derive(Debug)]
pub(crate) struct GuardianStart<'a> {
    pub(crate) run: &'a Run,
    pub(crate) signals: &'a SignalFd,
    pub(crate) kind: GuardianKind,
    /// The control group for the leader to begin in.
    pub(crate) leaf: Option<&'a Leaf>,
}

/// The leader that a guardian has made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaderStart {
    pub(crate) pid: Pid,
    /// Whether it is in its control group.
    pub(crate) in_leaf: bool,
    /// Why the process numbers of its PID namespace begin at 2, if they do.
    pub(crate) unscattered: Option<Errno>,
}

impl GuardianHandle {
    /// Forks the guardian, which forks the leader. Does not return in the child.
    pub(crate) fn start(start: &GuardianStart<'_>, pipes: Pipes) -> Result<(Self, Pipes), GuardianStartError> {
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let pair = pair.and_then(|(own, other)| {
            // The kernel then adds the sender's pid to each message, as this process sees it.
            rustix::net::sockopt::set_socket_passcred(&own, true)?;
            Ok((own, other))
        });
        let (own, other) = pair.map_err(GuardianStartError::Socket)?;
        let wrapper = rustix::process::getpid();
        let forked = match start.kind {
            GuardianKind::Sweeper => sys::fork().map_err(GuardianStartError::Process),
            GuardianKind::Init(user) => namespace::fork(user).map_err(GuardianStartError::Namespace),
        };
        match forked? {
            Fork::Child => {
                drop(own);
                serve::guard(start, Inheritance { wrapper, control: other, ends: pipes.into_leader_ends() })
            }
            Fork::Parent(pid) => {
                let guardian = Self {
                    pid,
                    kind: start.kind,
                    socket: Some(own),
                    told_deadline: None,
                    told_kill_at: None,
                    state: GuardianState::Lives,
                };
                Ok((guardian, pipes))
            }
        }
    }

    /// The guardian's pid.
    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the guardian's end is the end of the tree.
    pub(crate) const fn is_init(&self) -> bool {
        matches!(self.kind, GuardianKind::Init(_))
    }

    /// Waits until the leader exists.
    pub(crate) fn leader(&mut self) -> Result<LeaderStart, LeaderError> {
        let Some(socket) = &self.socket else { return Err(LeaderError::GuardianGone) };
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, START_MS) {
            Ok(1) => {}
            Ok(_) => return Err(LeaderError::GuardianSilent),
            Err(errno) => return Err(LeaderError::Read(sys::from_nix(errno))),
        }
        match self.receive() {
            Some((GuardianReport::Here { in_leaf, numbers }, Some(pid))) => {
                let unscattered = (numbers != 0).then(|| Errno::from_raw_os_error(numbers));
                Ok(LeaderStart { pid, in_leaf, unscattered })
            }
            Some((GuardianReport::Cannot(step, errno), _)) => {
                Err(LeaderError::Failed(step, Errno::from_raw_os_error(errno)))
            }
            Some(_) | None => Err(LeaderError::GuardianGone),
        }
    }

    /// The next report; `None` when there is none now, or the guardian is gone.
    pub(crate) fn next(&mut self) -> Option<GuardianReport> {
        self.receive().map(|(report, _)| report)
    }

    fn receive(&mut self) -> Option<(GuardianReport, Option<Pid>)> {
        loop {
            let socket = self.socket.as_ref()?;
            let mut bytes = [0_u8; SIZE + 1];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Ok(message) => {
                    let count = message.bytes;
                    let sender = ancillary.drain().find_map(|message| match message {
                        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
                        RecvAncillaryMessage::ScmRights(_) | _ => None,
                    });
                    if let Some(report) = GuardianReport::read(&bytes[..count]) {
                        return Some((report, sender));
                    }
                    self.give_up();
                }
                Err(_) => self.give_up(),
            }
        }
    }

    /// Gives up the connection to a guardian that is gone or sends unintelligible messages. The latter is killed, so
    /// that the wrapper takes over.
    fn give_up(&mut self) {
        self.socket = None;
        if self.state == GuardianState::Lives {
            self.signal(Signal::SIGKILL);
        }
    }

    /// Tells the guardian that the command is about to be executed.
    pub(crate) fn terms(&mut self, terms: GuardianTerms, deadline: BootTime) {
        if self.tell(GuardianOrder::Terms(terms, deadline)) {
            self.told_deadline = Some(deadline);
        }
    }

    /// Tells the guardian the end of the lease, if it has moved.
    pub(crate) fn deadline(&mut self, deadline: BootTime) {
        if self.told_deadline.is_some_and(|told| told != deadline) && self.tell(GuardianOrder::Deadline(deadline)) {
            self.told_deadline = Some(deadline);
        }
    }

    /// Tells the guardian that a stop is under way, if it is new or its SIGKILL was moved forward.
    pub(crate) fn stopping(&mut self, kill_at: BootTime) {
        if self.told_kill_at != Some(kill_at) && self.tell(GuardianOrder::Stopping { kill_at }) {
            self.told_kill_at = Some(kill_at);
        }
    }

    /// Tells the guardian that the wrapper knows of the leader's end.
    pub(crate) fn acknowledge(&self) {
        self.tell(GuardianOrder::Acknowledge);
    }

    /// Sends an order and returns whether that succeeded. A full queue means that the guardian reads nothing; important
    /// orders are sent again in the next round.
    fn tell(&self, order: GuardianOrder) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.socket.as_ref().is_some_and(|socket| rustix::net::send(socket, &order.write(), flags).is_ok())
    }

    /// Kills the guardian, which is no longer needed.
    pub(crate) fn dismiss(&mut self) {
        if self.state == GuardianState::Lives {
            self.signal(Signal::SIGKILL);
            self.state = GuardianState::Dismissed;
        }
    }

    /// Kills the guardian if it has not ended, and reaps it.
    pub(crate) fn end(&mut self) {
        self.dismiss();
        if self.state == GuardianState::Dismissed {
            while matches!(rustix::process::waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
            self.state = GuardianState::Reaped;
        }
    }

    /// Takes note that the guardian has been reaped, and returns what its end means.
    pub(crate) fn reaped(&mut self, status: WaitStatus) -> GuardianEnd {
        let expected = self.state == GuardianState::Dismissed || status.exit_status() == Some(0);
        self.state = GuardianState::Reaped;
        // The kernel ends everything in a namespace before its first process is seen to have ended.
        if expected || self.is_init() { GuardianEnd::TreeEmpty } else { GuardianEnd::Killed }
    }

    /// Whether the guardian has ended and was reaped.
    pub(crate) fn is_gone(&self) -> bool {
        self.state == GuardianState::Reaped
    }

    /// Continues the guardian, which some process has stopped.
    pub(crate) fn resume(&self) {
        if self.state == GuardianState::Lives {
            self.signal(Signal::SIGCONT);
        }
    }

    /// Sends a signal. The guardian is a child that has not been reaped, so the number is its own.
    fn signal(&self, signal: Signal) {
        let _ = kill(nix::unistd::Pid::from_raw(self.pid.as_raw_pid()), signal);
    }

    /// The socket to poll, while the guardian can send.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }
}
