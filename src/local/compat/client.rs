//! The user at the other end of a connection to `compat.listen`.

use std::io;

use machineid_tcp_owner::{Owner, of_connection};
use tokio::net::TcpStream;

/// The user number that stands for clients whose user is unknown: they share one part of the places.
const UNKNOWN: u32 = u32::MAX;

/// The client's user, to share the places by. Asks the kernel, which takes microseconds.
pub(super) fn uid(stream: &TcpStream) -> u32 {
    let asked = || -> io::Result<Option<Owner>> { of_connection(stream.peer_addr()?, stream.local_addr()?) };
    asked().ok().flatten().map_or(UNKNOWN, |owner| owner.uid)
}
