//! Which user's process has the other end of a connection on loopback.
//!
//! The kernel is asked about the very socket at the other end, so that no process can take the place of another between the
//! look and the first byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use machineid_blocking::{Bounds, CallOwner, Pool};

use super::listener::{ListenerOwner, Untold};

/// Pauses for the kernel to complete the handshake at the other end.
const PAUSES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);
/// Bounds of the calls: where `sock_diag` is not available, a list of many sockets takes milliseconds.
const BOUNDS: Bounds = Bounds { at_a_time: 2, most: 8 };

/// The two addresses of a connection, as its client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// Finds the owner of the server's end. Blocking calls are made on threads of their own.
#[derive(Debug)]
pub(super) struct PortOwners(Pool);

impl PortOwners {
    pub(super) fn new() -> Self {
        Self(Pool::new("port-owner", BOUNDS))
    }

    pub(super) async fn of(&self, ends: Ends) -> ListenerOwner {
        let Ends { client, server } = ends;
        for _ in 0..PAUSES {
            let found = self.0.call(CallOwner::DAEMON, move || machineid_sockets::of_server(server, client)).await;
            match found.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
                Ok(Some(owner)) => return ListenerOwner::User(owner.uid),
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Err(error) => return ListenerOwner::Unknown(Untold::Unasked(error.kind())),
            }
        }
        ListenerOwner::Unknown(Untold::Elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_belongs_to_its_acceptor_or_listener_and_an_unknown_one_to_no_user() {
        let own = ListenerOwner::User(rustix::process::geteuid().as_raw());
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listening.local_addr().unwrap();
        let stream = TcpStream::connect(server).unwrap();
        let (owners, ends) = (PortOwners::new(), Ends { client: stream.local_addr().unwrap(), server });
        assert_eq!(owners.of(ends).await, own);
        let _accepted = listening.accept().unwrap();
        assert_eq!(owners.of(ends).await, own);
        let another = Ends { client: SocketAddr::new(ends.client.ip(), 1), server };
        assert_eq!(owners.of(another).await, ListenerOwner::Unknown(Untold::Elsewhere));
    }
}
