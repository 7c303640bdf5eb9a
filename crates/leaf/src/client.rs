//! The daemon's side: one connection for each request.
//!
//! The helper's word is not relied on. After a `Contain` the daemon looks by itself which control group the process is in.

use std::fmt;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_protocol::RunId;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, sendmsg, socket_with,
};

use crate::message::{LONGEST_ANSWER, LeafRefusal, LeafRequest, LeafVerb, parse_answer};

/// How long a request may take in each direction. A service manager may have to start the helper first.
const PATIENCE: Duration = Duration::from_secs(3);

/// The helper at one socket.
#[derive(Clone, Debug)]
pub struct LeafHelper {
    socket: PathBuf,
}

/// Why the helper did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelperError {
    /// No helper can be reached at this socket.
    Unreachable(PathBuf, Errno),
    /// The helper at this socket did not answer, or not as it should.
    Silent(PathBuf, Errno),
    /// The helper refused.
    Refused(LeafRefusal),
}

impl HelperError {
    /// Whether there is no helper: its socket does not exist.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Unreachable(_, Errno::NOENT | Errno::NOTDIR))
    }

    /// The error as a number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Unreachable(_, errno) | Self::Silent(_, errno) => *errno,
            Self::Refused(refusal) => refusal.errno,
        }
    }
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(socket, errno) => write!(
                f,
                "the leaf helper at {} cannot be reached: {errno}; see systemctl status machineid-sidecar-leaf.socket",
                socket.display()
            ),
            Self::Silent(socket, errno) => write!(
                f,
                "the leaf helper at {} does not answer: {errno}; see journalctl -u machineid-sidecar-leaf",
                socket.display()
            ),
            Self::Refused(refusal) => write!(f, "the leaf helper: {}", refusal.why),
        }
    }
}

impl std::error::Error for HelperError {}

impl LeafHelper {
    /// The helper that listens at this path.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether this process may connect to the helper's socket.
    #[must_use]
    pub fn is_there(&self) -> bool {
        rustix::fs::accessat(CWD, &self.socket, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    /// Has the helper put this process (a pidfd) into a control group named after the run, which this process's group may kill
    /// and freeze.
    pub fn contain(&self, process: impl AsFd, run: RunId) -> Result<(), HelperError> {
        self.ask(LeafRequest { verb: LeafVerb::Contain, run }, process)
    }

    /// Has the helper remove the control group of this directory, with those below it. Fails with EBUSY while a process is
    /// inside.
    pub fn remove(&self, directory: impl AsFd, run: RunId) -> Result<(), HelperError> {
        self.ask(LeafRequest { verb: LeafVerb::Remove, run }, directory)
    }

    /// The same, without waiting for anything: the request is carried out even if this process ends now. It may also be lost.
    pub fn begin_removal(&self, directory: impl AsFd, run: RunId) {
        let request = LeafRequest { verb: LeafVerb::Remove, run };
        let sent = self.connected(SocketFlags::NONBLOCK).and_then(|socket| send(&socket, request, directory));
        // The caller asks again, and waits then.
        let _ = sent;
    }

    fn ask(&self, request: LeafRequest, descriptor: impl AsFd) -> Result<(), HelperError> {
        let socket = self.connected(SocketFlags::empty()).map_err(|errno| self.unreachable(errno))?;
        let silent = |errno| HelperError::Silent(self.socket.clone(), errno);
        send(&socket, request, descriptor).map_err(silent)?;
        let mut answer = [0; LONGEST_ANSWER];
        let (_, count) = retry_on_intr(|| recv(&socket, &mut answer[..], RecvFlags::empty())).map_err(silent)?;
        // An end without an answer has a length of 0.
        parse_answer(&answer[..count]).ok_or_else(|| silent(Errno::PROTO))?.map_err(HelperError::Refused)
    }

    fn unreachable(&self, errno: Errno) -> HelperError {
        HelperError::Unreachable(self.socket.clone(), errno)
    }

    fn connected(&self, flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let address = SocketAddrUnix::new(&self.socket)?;
        let flags = flags | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Also the time of `connect`, which waits while the backlog is full.
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        retry_on_intr(|| connect(&socket, &address))?;
        Ok(socket)
    }
}

fn send(socket: &OwnedFd, request: LeafRequest, descriptor: impl AsFd) -> Result<(), Errno> {
    let bytes = request.to_bytes();
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
