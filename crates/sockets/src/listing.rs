//! Lists of sockets by `sock_diag`: one question, and as many messages as there are sockets.

use std::io;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::tcp::{self, TcpSocket};
use super::unix::{self as unix_messages, UnixSocket};

/// `SOCK_DIAG_BY_FAMILY`, the type of question and answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`: an answer that is an errno.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of the list.
const DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const REQUEST_LIST: u16 = 0x301;
/// The length of a netlink header.
pub(super) const HEAD: usize = 16;
/// The room for one answer: the kernel sends at most 32 KiB at once.
const ROOM: usize = 64 * 1024;

/// A list of sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The sockets.
    pub sockets: Vec<T>,
    /// Whether these are all. `false` when the caller gave up, or more than the caller's limit were there.
    pub complete: bool,
}

/// The unix stream and seqpacket sockets that listen or are connected, at most `most`. `go_on` is asked between two answers
/// of the kernel, each of which has some hundred sockets.
///
/// Fails when the kernel gives no such list: netlink is forbidden, or the kernel has no `unix_diag`.
pub fn unix(most: usize, go_on: &mut dyn FnMut() -> bool) -> io::Result<Listing<UnixSocket>> {
    let mut list = Listing { sockets: Vec::new(), complete: true };
    ask(&unix_messages::question(), &mut list, most, go_on, &unix_messages::read)?;
    Ok(list)
}

/// The TCP sockets that are connected over loopback, and all that listen, of both families, at most `most`. An IPv6 socket that
/// carries IPv4 is listed with its IPv4 addresses.
///
/// Fails when the kernel gives no such list.
pub fn loopback(most: usize, go_on: &mut dyn FnMut() -> bool) -> io::Result<Listing<TcpSocket>> {
    let mut list = Listing { sockets: Vec::new(), complete: true };
    for question in tcp::questions() {
        ask(&question, &mut list, most, go_on, &tcp::read)?;
    }
    Ok(list)
}

fn ask<T>(
    question: &[u8],
    list: &mut Listing<T>,
    most: usize,
    go_on: &mut dyn FnMut() -> bool,
    read: &dyn Fn(&[u8]) -> Option<T>,
) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    send(&kernel, &framed(question), SendFlags::empty())?;
    let mut room = vec![0; ROOM];
    loop {
        if !list.complete || !go_on() || list.sockets.len() >= most {
            // Closing the socket ends the list.
            list.complete = false;
            return Ok(());
        }
        if receive(&kernel, &mut room, list, most, read)? {
            return Ok(());
        }
    }
}

fn receive<T>(
    kernel: &OwnedFd,
    room: &mut [u8],
    list: &mut Listing<T>,
    most: usize,
    read: &dyn Fn(&[u8]) -> Option<T>,
) -> io::Result<bool> {
    // The kernel has the next part of the list ready whenever it is asked: this does not wait.
    let (length, _) = recv(kernel, &mut *room, RecvFlags::empty())?;
    parse(room.get(..length).unwrap_or_default(), list, most, read)
}

/// The question behind a netlink header.
fn framed(question: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD + question.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_LIST.to_ne_bytes());
    // Sequence number and port.
    bytes.extend([0; 8]);
    bytes.extend(question);
    bytes
}

/// Takes the messages of one answer. Returns whether the list has ended.
fn parse<T>(
    mut answer: &[u8],
    list: &mut Listing<T>,
    most: usize,
    read: &dyn Fn(&[u8]) -> Option<T>,
) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of sockets cannot be read");
    if answer.is_empty() {
        return Err(broken());
    }
    while !answer.is_empty() {
        let head = answer.get(..HEAD).ok_or_else(broken)?;
        let length = word(head, 0).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
        let kind = half(head, 4).ok_or_else(broken)?;
        let body = answer.get(HEAD..length).ok_or_else(broken)?;
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let errno = word(body, 0).ok_or_else(broken)?.cast_signed().saturating_neg();
                return Err(io::Error::from_raw_os_error(errno));
            }
            BY_FAMILY if list.sockets.len() < most => list.sockets.extend(read(body)),
            BY_FAMILY => list.complete = false,
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes behind the fixed part of a message: kind and value. One that is cut short ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The 32 bits at this place, in the byte order of this machine.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The 16 bits at this place, in the byte order of this machine.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Checks that any bytes are read into sockets with an inode, or into none.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz(data: &[u8]) {
    let mut unix = Listing { sockets: Vec::new(), complete: true };
    let _ = parse(data, &mut unix, 64, &unix_messages::read);
    assert!(unix.sockets.len() <= 64 && unix.sockets.iter().all(|socket| socket.inode != 0));
    let mut tcp = Listing { sockets: Vec::new(), complete: true };
    let _ = parse(data, &mut tcp, 64, &tcp::read);
    assert!(tcp.sockets.len() <= 64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn both_ends_of_a_unix_connection_name_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let find = |inode: u64| {
            let list = unix(usize::MAX, &mut || true).unwrap();
            assert!(list.complete);
            list.sockets.into_iter().find(|socket| socket.inode == inode)
        };
        let waiting = find(inode(&listener)).unwrap();
        assert!(waiting.listens && waiting.waiting == [inode(&client)], "{waiting:?}");
        assert_eq!(find(inode(&client)).unwrap().peer, None, "no process has accepted it");
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let (near, far) = (find(inode(&client)).unwrap(), find(inode(&server)).unwrap());
        assert_eq!((near.peer, far.peer), (Some(far.inode), Some(near.inode)));
        let name = path.as_os_str().as_encoded_bytes();
        assert_eq!((near.name, far.name.as_deref()), (None, Some(name)));
        assert!(far.uid.is_none_or(|uid| uid == rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn both_ends_of_a_connection_over_loopback_and_its_listener_are_listed() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let to = if address == "[::1]:0" { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let Ok(client) = TcpStream::connect(&to) else { continue };
            let (server, _) = listener.accept().unwrap();
            let list = loopback(usize::MAX, &mut || true).unwrap();
            let find = |wanted: u64| list.sockets.iter().find(|socket| socket.inode == wanted).unwrap();
            let (near, far) = (find(inode(&client)), find(inode(&server)));
            assert_eq!((near.local, near.remote), (far.remote, far.local), "{address}");
            assert_eq!(near.remote, to.parse().unwrap());
            let heard = find(inode(&listener));
            assert!(heard.listens && heard.local.port() == port && !near.listens);
        }
    }

    #[test]
    fn a_list_ends_where_the_caller_does_not_go_on() {
        let _pair = UnixStream::pair().unwrap();
        let list = unix(usize::MAX, &mut || false).unwrap();
        assert!(list.sockets.is_empty() && !list.complete);
        let list = unix(1, &mut || true).unwrap();
        assert!(list.sockets.len() == 1 && !list.complete);
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error_and_never_a_panic() {
        let mut message = framed(&[0; 20]);
        fuzz(&message);
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        message[HEAD..HEAD + 4].copy_from_slice(&(-2_i32).to_ne_bytes());
        let mut list: Listing<UnixSocket> = Listing { sockets: Vec::new(), complete: true };
        let error = parse(&message, &mut list, 9, &unix_messages::read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for length in 0..message.len() {
            assert!(parse(&message[..length], &mut list, 9, &unix_messages::read).is_err(), "{length}");
        }
    }
}
