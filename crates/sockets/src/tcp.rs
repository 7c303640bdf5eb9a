//! TCP sockets in the kernel's answers. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::AddressFamily;

use super::listing::word;

const IPPROTO_TCP: u8 = 6;

/// States: those in which a connection can carry something, and the one that listens.
const ESTABLISHED: u8 = 1;
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// `INET_DIAG_REQ_BYTECODE`: the attribute with the conditions.
const CONDITIONS: u16 = 1;
/// `INET_DIAG_BC_JMP` and `INET_DIAG_BC_D_COND`.
const JUMP: u8 = 1;
const REMOTE_IS: u8 = 8;

/// The length of an operation and of a condition without its address.
const OPERATION: u8 = 4;
const CONDITION: u8 = 8;

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// The inode, as in `/proc/PID/fd`; 0 while no process holds it.
    pub inode: u64,
    /// The user that made it.
    pub uid: u32,
    /// Whether it listens; otherwise it is connected.
    pub listens: bool,
    /// Its own address.
    pub local: SocketAddr,
    /// The address of the other end; unspecified when it listens.
    pub remote: SocketAddr,
}

/// The questions of a list: connections over loopback and listeners, of both families. The kernel applies the conditions, so
/// that a host with 100,000 connections elsewhere sends none of them.
pub(super) fn questions() -> Vec<Vec<u8>> {
    let connected = [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT];
    let mapped_or_six = {
        let six = condition(AddressFamily::INET6, 128, &Ipv6Addr::LOCALHOST.octets());
        let behind = u8::try_from(six.len()).unwrap_or(0);
        let mut both = condition(AddressFamily::INET, 8, &Ipv4Addr::LOCALHOST.octets());
        both.extend([JUMP, OPERATION]);
        both.extend(u16::from(OPERATION + behind).to_ne_bytes());
        both.extend(six);
        both
    };
    let four = condition(AddressFamily::INET, 8, &Ipv4Addr::LOCALHOST.octets());
    vec![
        question(AddressFamily::INET, &connected, &four),
        question(AddressFamily::INET6, &connected, &mapped_or_six),
        question(AddressFamily::INET, &[LISTEN], &[]),
        question(AddressFamily::INET6, &[LISTEN], &[]),
    ]
}

/// An operation that goes on behind itself when the remote address is in this network, and otherwise four bytes further:
/// behind a jump, or beyond the end, which refuses the socket.
fn condition(family: AddressFamily, prefix: u8, address: &[u8]) -> Vec<u8> {
    let length = OPERATION + CONDITION + u8::try_from(address.len()).unwrap_or(0);
    let mut bytes = vec![REMOTE_IS, length];
    bytes.extend((u16::from(length) + 4).to_ne_bytes());
    bytes.extend([u8::try_from(family.as_raw()).unwrap_or(0), prefix, 0, 0]);
    // Any port.
    bytes.extend((-1_i32).to_ne_bytes());
    bytes.extend(address);
    bytes
}

/// `inet_diag_req_v2`, and the conditions.
fn question(family: AddressFamily, states: &[u8], conditions: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(family.as_raw()).unwrap_or(0), IPPROTO_TCP, 0, 0];
    let states = states.iter().fold(0_u32, |bits, state| bits | (1 << state));
    bytes.extend(states.to_ne_bytes());
    // Any ports, addresses, interface and cookie.
    bytes.extend([0; 48]);
    if !conditions.is_empty() {
        bytes.extend(u16::try_from(4 + conditions.len()).unwrap_or(u16::MAX).to_ne_bytes());
        bytes.extend(CONDITIONS.to_ne_bytes());
        bytes.extend(conditions);
    }
    bytes
}

/// Reads one message (`inet_diag_msg`); `None` for a broken one.
pub(super) fn read(message: &[u8]) -> Option<TcpSocket> {
    let [family, state, _, _] = *message.first_chunk::<4>()?;
    let four = u16::from(family) == AddressFamily::INET.as_raw();
    let port = |at: usize| message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        let [a, b, c, d, ..] = octets;
        let six = Ipv6Addr::from(octets);
        let mapped = six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4);
        Some(if four { Ipv4Addr::new(a, b, c, d).into() } else { mapped })
    };
    Some(TcpSocket {
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        uid: word(message, 64)?,
        inode: u64::from(word(message, 68)?),
        listens: state == LISTEN,
    })
}
