//! What a server listens on: TCP ports and unix sockets, its own and those that a service manager holds for it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use listenfd::ListenFd;
use machineid_sockets::{PortHolder, holder_of};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::forwarded::ClientAddress;
use super::socket_file::{BindError, SocketFile, SocketKind};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket, at this absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether other hosts can reach it.
    pub(super) fn is_beyond_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

/// The text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write an address with a port, as in 127.0.0.1:8424, or unix: with an absolute path, as in unix:/run/machineid-authority/api.sock"
)]
pub(super) struct ListenAddressError;

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        match text.strip_prefix("unix:").map(PathBuf::from) {
            Some(path) if path.is_absolute() && path.file_name().is_some() => Ok(Self::Unix(path)),
            Some(_) => Err(ListenAddressError),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenAddressError),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("cannot listen on {address}: {source}\nIs another program using that port? --listen names another one.")]
    Port { address: SocketAddr, source: io::Error },
    #[error("cannot listen on {address}: {holder} uses that port\nEnd it, or name another port with --listen.")]
    Taken { address: SocketAddr, holder: PortHolder },
    #[error(
        "cannot listen on {address}: the service manager holds {held} for this server\n\
         Name the address in the socket unit instead of --listen: systemctl edit machineid-authority.socket, with an empty \
         ListenStream= first."
    )]
    Held { address: SocketAddr, held: SocketAddr },
    #[error(
        "cannot use socket {number} of those that the service manager hands over: {source}\nA socket unit for this server has only ListenStream= lines, and Accept=no."
    )]
    Handed { number: usize, source: io::Error },
    #[error(transparent)]
    Socket(#[from] BindError),
}

/// A socket that a service manager made and holds: no other program can take its place while this server is stopped.
#[derive(Debug)]
pub(super) enum HandedSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl HandedSocket {
    /// Takes the sockets that were passed to this process. To be called once, while the process has one thread.
    pub(super) fn take_all() -> Result<Vec<Self>, ListenError> {
        #[expect(clippy::disallowed_methods, reason = "the protocol of service managers is a part of the environment")]
        let pid = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.trim().parse().ok());
        // Without a pid, or with another one, the variables are left over from the start of another process.
        if pid != Some(std::process::id()) {
            return Ok(Vec::new());
        }
        let mut handed = ListenFd::from_env();
        (0..handed.len())
            .map(|number| {
                let wrong = |source| ListenError::Handed { number, source };
                let missing = || wrong(io::ErrorKind::NotFound.into());
                if let Ok(socket) = handed.take_unix_listener(number) {
                    let socket = socket.ok_or_else(missing)?;
                    listens(&socket).and_then(|()| socket.set_nonblocking(true)).map_err(wrong)?;
                    return Ok(Self::Unix(socket));
                }
                let socket = handed.take_tcp_listener(number).map_err(wrong)?.ok_or_else(missing)?;
                listens(&socket).and_then(|()| socket.set_nonblocking(true)).map_err(wrong)?;
                Ok(Self::Tcp(socket))
            })
            .collect()
    }

    /// The address that it was given.
    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(ListenAddress::Tcp),
            Self::Unix(socket) => {
                let address = socket.local_addr()?;
                Ok(ListenAddress::Unix(address.as_pathname().map_or_else(PathBuf::new, PathBuf::from)))
            }
        }
    }
}

fn listens(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    if rustix::net::sockopt::socket_acceptconn(socket)? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"))
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// A unix socket whose file this server keeps.
    Unix(SocketFile),
    /// A unix socket whose file is the service manager's.
    HandedUnix(UnixListener),
}

/// A new connection, with its origin.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream, ClientAddress),
}

impl Accepted {
    pub(super) fn peer(&self) -> ClientAddress {
        match self {
            Self::Tcp(_, address) => ClientAddress::Host(address.ip()),
            Self::Unix(_, peer) => *peer,
        }
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let stream = match self {
            Self::Tcp(listener) => return listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Self::Unix(file) => file.accept().await?,
            Self::HandedUnix(listener) => listener.accept().await?.0,
        };
        let uid = stream.peer_cred()?.uid();
        Ok(Accepted::Unix(stream, ClientAddress::User(uid)))
    }

    /// Checks what may be lost while the server runs. To be called every [`super::socket_file::LOOK`].
    pub(super) async fn keep(&mut self) {
        match self {
            Self::Unix(file) => file.keep().await,
            Self::Tcp(_) | Self::HandedUnix(_) => {}
        }
    }
}

/// A listening socket with its address.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) address: ListenAddress,
    pub(super) listener: Listener,
}

/// Listens on all of these addresses; those that were handed over are taken as they are. Needs a runtime.
pub(super) async fn bind_all(
    wanted: &[ListenAddress],
    handed: Vec<HandedSocket>,
) -> Result<Vec<BoundListener>, ListenError> {
    let mut all = Vec::new();
    for (number, socket) in handed.into_iter().enumerate() {
        let wrong = |source| ListenError::Handed { number, source };
        let address = socket.address().map_err(wrong)?;
        let listener = match socket {
            HandedSocket::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
            HandedSocket::Unix(socket) => UnixListener::from_std(socket).map(Listener::HandedUnix),
        };
        all.push(BoundListener { address, listener: listener.map_err(wrong)? });
    }
    let held: Vec<_> = all.iter().map(|bound| bound.address.clone()).collect();
    for address in wanted.iter().filter(|address| !held.contains(address)) {
        all.push(match address {
            ListenAddress::Tcp(address) => bind_port(*address).await.map_err(|error| name_holder(error, &held))?,
            ListenAddress::Unix(path) => BoundListener {
                address: address.clone(),
                listener: Listener::Unix(SocketFile::open(SocketKind::Api, path)?),
            },
        });
    }
    Ok(all)
}

/// Listens on a TCP port; the address found is the one with the port that the kernel chose.
pub(super) async fn bind_port(address: SocketAddr) -> Result<BoundListener, ListenError> {
    let failed = |source| ListenError::Port { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = ListenAddress::Tcp(listener.local_addr().map_err(failed)?);
    Ok(BoundListener { address, listener: Listener::Tcp(listener) })
}

/// Names what has the port: the service manager, for this very server, or another process.
fn name_holder(error: ListenError, held: &[ListenAddress]) -> ListenError {
    let ListenError::Port { address, source } = &error else { return error };
    let holder = held.iter().find_map(|held| match held {
        ListenAddress::Tcp(held) if held.port() == address.port() => Some(*held),
        ListenAddress::Tcp(_) | ListenAddress::Unix(_) => None,
    });
    if source.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    match (holder, holder_of(*address)) {
        (Some(held), _) => ListenError::Held { address: *address, held },
        (None, Some(holder)) => ListenError::Taken { address: *address, holder },
        (None, None) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_the_absolute_path_of_a_socket() {
        for text in ["127.0.0.1:8424", "[::1]:0", "unix:/run/a/api.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "8424", "localhost:8424", "unix:", "unix:a.sock", "unix:/", "/run/a/api.sock"] {
            assert_eq!(text.parse::<ListenAddress>(), Err(ListenAddressError), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_handed_over_is_not_bound_again_and_a_conflict_with_it_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let held = socket.local_addr().unwrap();
        let copy = || HandedSocket::Tcp(socket.try_clone().unwrap());
        let bound = bind_all(&[ListenAddress::Tcp(held)], vec![copy()]).await.unwrap();
        assert_eq!(bound.len(), 1);
        let everywhere = SocketAddr::from(([0, 0, 0, 0], held.port()));
        let error = bind_all(&[ListenAddress::Tcp(everywhere)], vec![copy()]).await.unwrap_err();
        assert!(matches!(error, ListenError::Held { .. }), "{error}");
        let error = bind_all(&[ListenAddress::Tcp(held)], Vec::new()).await.unwrap_err().to_string();
        let pid = format!("(pid {}) uses that port", std::process::id());
        assert!(error.contains(&pid) && error.contains("--listen"), "{error}");
    }
}
