//! Unix sockets in the kernel's answers. Pure.

use rustix::net::AddressFamily;

use super::listing::{attributes, word};

/// States of a socket, as for TCP: connected, and listening.
const CONNECTED: u8 = 1;
const LISTENING: u8 = 10;

/// `SOCK_STREAM` and `SOCK_SEQPACKET`. Datagram sockets are left out: one end of them is a name, not a process (`/dev/log`).
const STREAM: u8 = 1;
const SEQPACKET: u8 = 5;

/// `UDIAG_SHOW_NAME`, `UDIAG_SHOW_PEER`, `UDIAG_SHOW_ICONS`, `UDIAG_SHOW_UID`.
const SHOW: u32 = 0x1 | 0x4 | 0x8 | 0x40;

/// Attributes: the name, the peer's inode, the inodes of the clients that wait to be accepted, the user.
const NAME: u16 = 0;
const PEER: u16 = 2;
const WAITING: u16 = 3;
const UID: u16 = 7;

/// The length of the fixed part of a message.
const FIXED: usize = 16;

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// The inode, as in `/proc/PID/fd`.
    pub inode: u64,
    /// Whether it listens; otherwise it is connected.
    pub listens: bool,
    /// Its name: a path, or an abstract name that begins with a zero byte. A connection that was accepted has the name of its
    /// listener.
    pub name: Option<Vec<u8>>,
    /// The inode of the other end. `None` while no process has accepted the connection, or after the other end was closed.
    pub peer: Option<u64>,
    /// The user that made it. `None` on kernels before 5.3.
    pub uid: Option<u32>,
    /// The inodes of the clients whose connections wait to be accepted.
    pub waiting: Vec<u64>,
}

/// `unix_diag_req`
pub(super) fn question() -> Vec<u8> {
    let mut bytes = vec![u8::try_from(AddressFamily::UNIX.as_raw()).unwrap_or(0), 0, 0, 0];
    let states = (1_u32 << CONNECTED) | (1_u32 << LISTENING);
    bytes.extend(states.to_ne_bytes());
    // Any inode.
    bytes.extend([0; 4]);
    bytes.extend(SHOW.to_ne_bytes());
    // Any cookie.
    bytes.extend([0xff; 8]);
    bytes
}

/// Reads one message (`unix_diag_msg`). `None` for another kind of socket, one that no process holds, and a broken message.
pub(super) fn read(message: &[u8]) -> Option<UnixSocket> {
    let [_, kind, state, _] = *message.first_chunk::<4>()?;
    let inode = u64::from(word(message, 4)?);
    if !matches!(kind, STREAM | SEQPACKET) || inode == 0 {
        return None;
    }
    let mut socket =
        UnixSocket { inode, listens: state == LISTENING, name: None, peer: None, uid: None, waiting: Vec::new() };
    for (kind, value) in attributes(message.get(FIXED..)?) {
        match kind {
            // A path may end with a zero byte; an abstract name begins with one.
            NAME => {
                let name = if value.first() == Some(&0) { value } else { value.split(|byte| *byte == 0).next()? };
                socket.name = (!name.is_empty()).then(|| name.to_vec());
            }
            PEER => socket.peer = word(value, 0).filter(|inode| *inode != 0).map(u64::from),
            WAITING => {
                let inodes = value.chunks_exact(4).filter_map(|inode| word(inode, 0));
                socket.waiting = inodes.filter(|inode| *inode != 0).map(u64::from).collect();
            }
            UID => socket.uid = word(value, 0),
            _ => {}
        }
    }
    Some(socket)
}
