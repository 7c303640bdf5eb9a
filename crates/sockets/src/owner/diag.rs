//! The kernel's `sock_diag`: one question for one socket, by netlink.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::{SocketEntry, Wanted};

/// `SOCK_DIAG_BY_FAMILY`, the type of question and answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`, an answer that is an errno.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// States of a TCP socket: one that listens, and one that only waits for late packets.
const TCP_LISTEN: u8 = 10;
const TCP_TIME_WAIT: u8 = 6;
/// `INET_DIAG_NOCOOKIE`: whichever socket has these addresses.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// `INET_DIAG_CGROUP_ID`, the attribute with the control group.
const CONTROL_GROUP: u16 = 21;

/// The length of a netlink header, of the question after it (`inet_diag_req_v2`), and of the answer (`inet_diag_msg`).
const HEAD: usize = 16;
const QUESTION: usize = 56;
const ANSWER: usize = 72;

/// Looks for a socket. `None` when the kernel does not answer such questions.
pub(super) fn find(wanted: Wanted) -> io::Result<Option<SocketEntry>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    let ask = |wanted: Wanted| -> io::Result<Option<SocketEntry>> {
        send(&kernel, &question(wanted), SendFlags::empty())?;
        let mut answer = [0; 1024];
        // The kernel answers before `send` returns. Only it may send to this socket: ordinary processes may not.
        let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
        read(answer.get(..length).unwrap_or_default(), wanted)
    };
    match (ask(wanted)?, wanted) {
        (Some(found), _) => Ok(Some(found)),
        // ENOENT says that there is no such socket, and also that this kernel has no module for the question. The other end of
        // the connection, which the caller holds, tells which.
        (None, Wanted::Connection { local, remote }) => {
            let known = ask(Wanted::Connection { local: remote, remote: local })?.is_some();
            Ok(known.then_some(SocketEntry::Absent))
        }
        (None, Wanted::Listener(_)) => Ok(None),
    }
}

/// The bytes of a question.
fn question(wanted: Wanted) -> [u8; HEAD + QUESTION] {
    let (local, remote) = match wanted {
        Wanted::Connection { local, remote } => (local, Some(remote)),
        Wanted::Listener(address) => (address, None),
    };
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = Vec::with_capacity(HEAD + QUESTION);
    let length = u32::try_from(HEAD + QUESTION).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // Sequence number and port.
    bytes.extend([0; 8]);
    bytes.extend([u8::try_from(family.as_raw()).unwrap_or(0), IPPROTO_TCP, 0, 0]);
    // Every state.
    bytes.extend([0xff; 4]);
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.map_or(0, |remote| remote.port()).to_be_bytes());
    bytes.extend(octets(Some(local)));
    bytes.extend(octets(remote));
    // Any interface.
    bytes.extend([0; 4]);
    bytes.extend(NO_COOKIE);
    let mut whole = [0; HEAD + QUESTION];
    for (place, byte) in whole.iter_mut().zip(bytes) {
        *place = byte;
    }
    whole
}

fn octets(address: Option<SocketAddr>) -> [u8; 16] {
    match address.map(|address| address.ip()) {
        None => [0; 16],
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        Some(IpAddr::V6(ip)) => ip.octets(),
    }
}

/// Reads the kernel's answer; `None` for ENOENT.
fn read(answer: &[u8], wanted: Wanted) -> io::Result<Option<SocketEntry>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about a socket is too short");
    let word = |at: usize| -> io::Result<[u8; 4]> {
        answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(broken)
    };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(broken)?;
    match kind {
        ERROR => {
            let error = io::Error::from_raw_os_error(i32::from_ne_bytes(word(HEAD)?).saturating_neg());
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
        }
        BY_FAMILY => {
            let state = *answer.get(HEAD + 1).ok_or_else(broken)?;
            let uid = u32::from_ne_bytes(word(HEAD + ANSWER - 8)?);
            let inode = u32::from_ne_bytes(word(HEAD + ANSWER - 4)?);
            let group = control_group(answer.get(HEAD + ANSWER..).unwrap_or_default());
            Ok(Some(match (wanted, state) {
                (Wanted::Listener(_), TCP_LISTEN) => SocketEntry::new(uid, inode.into(), group),
                // Without such a connection, the kernel answers with a listener at its address.
                (Wanted::Connection { .. }, TCP_LISTEN | TCP_TIME_WAIT) | (Wanted::Listener(_), _) => {
                    SocketEntry::Absent
                }
                (Wanted::Connection { .. }, _) => SocketEntry::new(uid, inode.into(), group),
            }))
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("an answer of type {other} about a socket"))),
    }
}

/// The control group among the attributes behind an answer. Kernels before 5.8 do not tell it.
fn control_group(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let (head, rest) = attributes.split_at_checked(4)?;
        let length = usize::from(u16::from_ne_bytes(head.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(head.get(2..)?.try_into().ok()?);
        let value = rest.get(..length.checked_sub(4)?)?;
        if kind == CONTROL_GROUP {
            return value.try_into().ok().map(u64::from_ne_bytes);
        }
        attributes = rest.get(value.len().next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let wanted = Wanted::Listener(SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut answer = vec![0; HEAD + ANSWER];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[HEAD + 1] = TCP_LISTEN;
        answer[HEAD + ANSWER - 8..HEAD + ANSWER - 4].copy_from_slice(&7_u32.to_ne_bytes());
        answer[HEAD + ANSWER - 4..].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(read(&answer, wanted).unwrap(), Some(SocketEntry::new(7, 9, None)));
        for length in 0..answer.len() {
            assert!(read(&answer[..length], wanted).is_err(), "{length}");
        }
        // Another attribute before it, and one that is cut short.
        answer.extend([5, 0, 8, 0, 0, 0, 0, 0]);
        answer.extend([12, 0, 21, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        if cfg!(target_endian = "little") {
            assert_eq!(read(&answer, wanted).unwrap(), Some(SocketEntry::new(7, 9, Some(7))));
            assert_eq!(read(&answer[..answer.len() - 1], wanted).unwrap(), Some(SocketEntry::new(7, 9, None)));
        }
        let mut refusal = vec![0; HEAD + 4];
        refusal[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        refusal[HEAD..].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(read(&refusal, wanted).unwrap(), None);
        refusal[HEAD..].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert!(read(&refusal, wanted).is_err());
    }
}
