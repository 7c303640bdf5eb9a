//! The user that holds a TCP socket of this host: whose process is at the other end of a loopback connection.
//!
//! A unix socket tells its peer (`SO_PEERCRED`); a TCP socket does not. The kernel lists the sockets of the caller's network
//! namespace with their users, and is asked for one of them: by `sock_diag` (`diag`), at a cost that does not grow with the
//! number of sockets, or, where netlink is forbidden or the kernel lacks it, by `/proc/net/tcp` (`table`).
//!
//! What it cannot tell:
//! - the socket of a process in another network namespace, as a container's: it is absent here;
//! - a user that the caller's user namespace does not map: the kernel reports the overflow uid (65534) for it,
//!   which [`is_ambiguous`] tells from an ordinary user;
//! - a proxy on this host (as Docker's) is the holder of the connections that it forwards;
//! - the user is the one that created or accepted the socket; a process may have passed it on.
//!
//! The calls block for microseconds; the table takes milliseconds on a host with many sockets.

mod diag;
mod table;
mod users;

use std::io;
use std::net::{IpAddr, SocketAddr};

pub use self::users::{OVERFLOW_UID, is_ambiguous};

/// The holder of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// The user that created or accepted it, in the caller's user namespace.
    pub uid: u32,
    /// The socket's inode, as in `/proc/PID/fd`: `socket:[INODE]`.
    pub inode: u64,
}

/// The holder of a socket, and where the socket was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOrigin {
    /// The holder.
    pub owner: SocketOwner,
    /// The id of the control group (version 2) in which the socket was made: the inode of the group's directory. `None` where
    /// the kernel does not tell.
    pub control_group: Option<u64>,
}

/// A socket, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketEntry {
    /// There is none. (Or it is in another network namespace.)
    Absent,
    /// No process holds it: it waits to be accepted, or has been closed. The kernel then reports no user, or root.
    Unheld,
    Held(SocketOrigin),
}

impl SocketEntry {
    /// A socket with this uid and inode; an inode of 0 says that no process holds it.
    const fn new(uid: u32, inode: u64, control_group: Option<u64>) -> Self {
        if inode == 0 {
            Self::Unheld
        } else {
            Self::Held(SocketOrigin { owner: SocketOwner { uid, inode }, control_group })
        }
    }

    const fn owner(self) -> Option<SocketOwner> {
        match self {
            Self::Absent | Self::Unheld => None,
            Self::Held(origin) => Some(origin.owner),
        }
    }
}

/// A socket to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Connection { local: SocketAddr, remote: SocketAddr },
    Listener(SocketAddr),
}

/// The holder of the socket that is bound to `local` and connected to `remote`. A server that accepted a connection asks for
/// `of_connection(stream.peer_addr()?, stream.local_addr()?)`.
///
/// `None` when there is no such socket on this host, or no process holds it any more. Fails when the kernel cannot be asked.
pub fn of_connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwner>> {
    Ok(find_connection(local, remote)?.owner())
}

/// The same, with the control group in which the socket was made.
pub fn origin_of_connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOrigin>> {
    Ok(match find_connection(local, remote)? {
        SocketEntry::Absent | SocketEntry::Unheld => None,
        SocketEntry::Held(origin) => Some(origin),
    })
}

/// The holder of the socket that listens at `address`, also by a wildcard address. With `SO_REUSEPORT` there may be several,
/// all of the same user.
///
/// `None` when no socket listens there. Fails when the kernel cannot be asked.
pub fn of_listener(address: SocketAddr) -> io::Result<Option<SocketOwner>> {
    Ok(find(Wanted::Listener(plain(address)))?.owner())
}

/// The holder of the server's end of a connection that the caller has made: `server` is the address that it connected to,
/// `client` its own (`stream.peer_addr()?`, `stream.local_addr()?`). To be asked before the first byte is sent.
///
/// A connection that the server has not accepted yet has no holder: its holder is then the listener in whose queue it waits.
/// That is certain only when the connection still waits after the listener was looked up; otherwise a user could accept it,
/// close its listener, and pass for the next process that listens there.
///
/// `None` when the server is not on this host, or the connection has been closed. Fails when the kernel cannot be asked.
pub fn of_server(server: SocketAddr, client: SocketAddr) -> io::Result<Option<SocketOwner>> {
    decide_server(|| find_connection(server, client), || of_listener(server))
}

fn decide_server(
    mut connection: impl FnMut() -> io::Result<SocketEntry>,
    listener: impl FnOnce() -> io::Result<Option<SocketOwner>>,
) -> io::Result<Option<SocketOwner>> {
    match connection()? {
        SocketEntry::Absent => return Ok(None),
        SocketEntry::Held(origin) => return Ok(Some(origin.owner)),
        SocketEntry::Unheld => {}
    }
    let listener = listener()?;
    Ok(match connection()? {
        SocketEntry::Absent => None,
        SocketEntry::Held(origin) => Some(origin.owner),
        SocketEntry::Unheld => listener,
    })
}

fn find_connection(local: SocketAddr, remote: SocketAddr) -> io::Result<SocketEntry> {
    let (local, remote) = (plain(local), plain(remote));
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the ends of a connection are of different families"));
    }
    find(Wanted::Connection { local, remote })
}

fn find(wanted: Wanted) -> io::Result<SocketEntry> {
    match diag::find(wanted) {
        Ok(Some(found)) => Ok(found),
        Ok(None) | Err(_) => table::find(wanted),
    }
}

/// Without the IPv6 form of an IPv4 address: the kernel finds both kinds of socket by the IPv4 address.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(address, |ip| SocketAddr::new(IpAddr::V4(ip), address.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// Both ways of asking, each by itself.
    fn both(wanted: Wanted) -> Vec<SocketEntry> {
        let by_diag = diag::find(wanted).ok().flatten();
        by_diag.into_iter().chain([table::find(wanted).unwrap()]).collect()
    }

    #[test]
    fn a_connection_is_held_by_those_that_made_and_accepted_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let own = client.local_addr().unwrap();
            let waiting = Wanted::Connection { local: at, remote: own };
            assert!(both(waiting).iter().all(|found| *found == SocketEntry::Unheld), "{:?}", both(waiting));
            assert_eq!(of_connection(at, own).unwrap(), None, "no process has accepted it");
            let listening = SocketOwner { uid: us(), inode: inode(&listener) };
            assert_eq!(of_listener(at).unwrap(), Some(listening));
            assert!(both(Wanted::Listener(at)).iter().all(|found| found.owner() == Some(listening)));
            assert_eq!(of_server(at, own).unwrap(), Some(listening), "its listener's queue holds it");

            let (accepted, _) = listener.accept().unwrap();
            let server = SocketOwner { uid: us(), inode: inode(&accepted) };
            assert!(both(waiting).iter().all(|found| found.owner() == Some(server)), "{:?}", both(waiting));
            assert_eq!(of_server(at, own).unwrap(), Some(server));
            let calling = SocketOwner { uid: us(), inode: inode(&client) };
            assert_eq!(
                of_connection(accepted.peer_addr().unwrap(), accepted.local_addr().unwrap()).unwrap(),
                Some(calling)
            );
            let link = std::fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", calling.inode));
            drop(client);
            assert_eq!(of_connection(own, at).unwrap(), None, "it has been closed");
            drop((listener, accepted));
            assert_eq!(of_listener(at).unwrap(), None);
        }
    }

    #[test]
    fn ipv4_reaches_a_listener_of_both_families_and_one_of_every_address() {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let Ok(client) = TcpStream::connect(at) else { continue };
            let listening = SocketOwner { uid: us(), inode: inode(&listener) };
            assert!(both(Wanted::Listener(at)).iter().all(|found| found.owner() == Some(listening)));
            let (accepted, _) = listener.accept().unwrap();
            let calling = SocketOwner { uid: us(), inode: inode(&client) };
            // With the listener of both families the peer's address is ::ffff:127.0.0.1.
            let (peer, own) = (accepted.peer_addr().unwrap(), accepted.local_addr().unwrap());
            assert_eq!(of_connection(peer, own).unwrap(), Some(calling), "{peer} {own}");
            let wanted = Wanted::Connection { local: at, remote: client.local_addr().unwrap() };
            let server = SocketOwner { uid: us(), inode: inode(&accepted) };
            assert!(both(wanted).iter().all(|found| found.owner() == Some(server)), "{:?}", both(wanted));
        }
    }

    #[test]
    fn a_server_that_accepts_and_leaves_does_not_pass_for_the_next_listener() {
        let held = |owner| SocketEntry::Held(SocketOrigin { owner, control_group: None });
        let squatter = SocketOwner { uid: 666, inode: 1 };
        let trusted = SocketOwner { uid: 0, inode: 2 };
        let ask = |looks: [SocketEntry; 2], listener: Option<SocketOwner>| {
            let mut looks = looks.into_iter();
            decide_server(|| Ok(looks.next().unwrap()), || Ok(listener)).unwrap()
        };
        assert_eq!(ask([SocketEntry::Unheld, held(squatter)], Some(trusted)), Some(squatter));
        assert_eq!(ask([SocketEntry::Unheld, SocketEntry::Absent], Some(trusted)), None);
        assert_eq!(ask([SocketEntry::Unheld, SocketEntry::Unheld], Some(trusted)), Some(trusted));
        assert_eq!(ask([SocketEntry::Unheld, SocketEntry::Unheld], None), None);
        assert_eq!(ask([held(squatter), SocketEntry::Absent], Some(trusted)), Some(squatter));
    }
}
