//! The helper's loop. It serves one connection at a time, each with one request, and answers one user: the owner of its socket.

use std::fmt;
use std::io::{IoSliceMut, Write, stderr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use machineid_sys as sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_acceptconn};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketAddrUnix, SocketFlags,
    accept_with, getsockname, recvmsg, send,
};

use crate::message::{LONGEST_REQUEST, LeafRefusal, LeafRequest, LeafVerb, answer};
use crate::work;

/// How long a client may take for its request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the helper cannot serve.
#[derive(Debug)]
pub enum ServeError {
    /// The descriptor is not a listening unix socket with a path.
    NoListener,
    /// The socket's file cannot be looked at, so that no peer can be recognised.
    NoOwner(PathBuf, Errno),
    /// `accept` or `poll` failed.
    Failed(Errno),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener => f.write_str(
                "standard input is not a listening unix socket with a path; start machineid-sidecar-leaf.socket instead",
            ),
            Self::NoOwner(path, errno) => {
                write!(f, "cannot tell which user {} belongs to: {errno}; restart its socket unit", path.display())
            }
            Self::Failed(errno) => write!(f, "cannot take connections: {errno}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until no request has come for this long.
pub fn serve(listener: &impl AsFd, idle: Duration) -> Result<(), ServeError> {
    let listener = listener.as_fd();
    if !socket_acceptconn(listener).unwrap_or(false) {
        return Err(ServeError::NoListener);
    }
    let path = getsockname(listener).ok().and_then(|name| SocketAddrUnix::try_from(name).ok());
    let path = path.as_ref().and_then(SocketAddrUnix::path_bytes).ok_or(ServeError::NoListener)?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    let owner = rustix::fs::stat(&path).map_err(|errno| ServeError::NoOwner(path, errno))?.st_uid;
    let idle = PollTimeout::try_from(idle).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(listener, PollFlags::POLLIN)], idle).map_err(sys::from_nix) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(ServeError::Failed(errno)),
        }
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => attend(&connection, owner),
            // The client is gone already.
            Err(Errno::INTR | Errno::AGAIN | Errno::CONNABORTED) => {}
            Err(errno) => return Err(ServeError::Failed(errno)),
        }
    }
}

/// Reads the request of a connection, carries it out and answers. A client that sends nothing, or takes no answer, is left.
fn attend(connection: &OwnedFd, owner: u32) {
    let timed = set_socket_timeout(connection, Timeout::Recv, Some(PATIENCE))
        .and_then(|()| set_socket_timeout(connection, Timeout::Send, Some(PATIENCE)));
    let Ok(peer) = timed.and_then(|()| sys::peer_credentials(connection)) else { return };
    // Read in any case: a client that is still sending would otherwise lose the answer.
    let received = receive(connection);
    let result = if peer.uid == owner {
        received.and_then(|received| carry_out(received, peer))
    } else {
        Err(LeafRefusal::new(Errno::PERM, format!("uid {} is not the owner of this socket", peer.uid)))
    };
    if let Err(refusal) = &result
        && refusal.errno != Errno::BUSY
    {
        say(&format!("refused a request of pid {}, uid {}: {}", peer.pid, peer.uid, refusal.why));
    }
    // The client may be gone: it need not wait for the answer.
    let _ = send(connection, &answer(&result), SendFlags::NOSIGNAL);
}

fn carry_out((request, descriptor): (LeafRequest, OwnedFd), peer: sys::Credentials) -> Result<(), LeafRefusal> {
    match request.verb {
        LeafVerb::Contain => {
            let contained = work::contain(descriptor, request.run, peer.gid)?;
            let (pid, leaf) = (contained.pid, contained.leaf.display());
            say(&format!("process {pid} is in {leaf}, at the request of uid {}", peer.uid));
            Ok(())
        }
        LeafVerb::Remove => work::remove(&descriptor, request.run),
    }
}

/// The request and its one descriptor.
fn receive(connection: &OwnedFd) -> Result<(LeafRequest, OwnedFd), LeafRefusal> {
    let mut bytes = [0; LONGEST_REQUEST + 1];
    // Room for a second descriptor, to see that there is one; the kernel closes the others.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(connection, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        .map_err(|errno| LeafRefusal::new(errno, format!("no request came: {errno}")))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        // The socket asks for nothing else, so the kernel sends nothing else.
        if let RecvAncillaryMessage::ScmRights(several) = message {
            descriptors.extend(several);
        }
    }
    let whole = !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let request = LeafRequest::parse(&bytes[..received.bytes]).filter(|_| whole);
    let request = request.ok_or_else(|| LeafRefusal::new(Errno::INVAL, "this is no request"))?;
    match (descriptors.pop(), descriptors.pop()) {
        (Some(descriptor), None) => Ok((request, descriptor)),
        (None | Some(_), _) => Err(LeafRefusal::new(Errno::INVAL, "a request carries one descriptor")),
    }
}

/// Writes a line for the journal: what a root process did at another user's request.
fn say(line: &str) {
    let _ = writeln!(stderr().lock(), "{line}");
}
