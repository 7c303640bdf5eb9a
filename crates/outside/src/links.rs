//! Which socket is connected to which, and which end called the other. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;

use machineid_sockets::{Listing, TcpSocket, UnixSocket};

/// The sockets of this host at one moment.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Unix sockets.
    pub unix: Listing<UnixSocket>,
    /// TCP sockets on loopback.
    pub tcp: Listing<TcpSocket>,
}

impl Sockets {
    pub(super) const fn is_complete(&self) -> bool {
        self.unix.complete && self.tcp.complete
    }

    /// The inodes of all sockets.
    pub(super) fn inodes(&self) -> HashSet<u64> {
        let unix = self.unix.sockets.iter().map(|socket| socket.inode);
        unix.chain(self.tcp.sockets.iter().map(|socket| socket.inode)).collect()
    }
}

/// By which address a process outside was called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The name of a unix socket; an abstract one begins with a zero byte.
    Unix(Vec<u8>),
    /// An address on loopback.
    Tcp(SocketAddr),
}

impl Via {
    /// The path of a unix socket; `None` for an abstract name and for TCP.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::Unix(name) if name.first() != Some(&0) => std::str::from_utf8(name).ok(),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(name) => {
                let (abstract_, rest) = match name.split_first() {
                    Some((0, rest)) => ("@", rest),
                    Some(_) | None => ("", name.as_slice()),
                };
                let text = String::from_utf8_lossy(rest);
                let text: String = machineid_protocol::printable::printable(&text, '?').take(200).collect();
                write!(f, "unix:{abstract_}{text}")
            }
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// A connection: its client's end, and what is known of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The inode of the client's socket.
    pub(super) client: u64,
    /// The inode of the accepted socket; `None` while no process has accepted it.
    pub(super) server: Option<u64>,
    /// The inode of the listening socket; `None` when it was closed.
    pub(super) listener: Option<u64>,
    /// The user that made the server's socket.
    pub(super) uid: Option<u32>,
    pub(super) via: Via,
}

impl Link {
    /// The socket by which the owner is remembered: the listening one, which outlives connections.
    pub(super) const fn key(&self) -> u64 {
        match (self.listener, self.server) {
            (Some(inode), _) | (None, Some(inode)) => inode,
            (None, None) => 0,
        }
    }
}

/// Every connection of these sockets, each once.
pub(super) fn of(sockets: &Sockets) -> Vec<Link> {
    let mut links = Vec::new();
    of_unix(&sockets.unix.sockets, &mut links);
    of_tcp(&sockets.tcp.sockets, &mut links);
    links
}

fn of_unix(sockets: &[UnixSocket], links: &mut Vec<Link>) {
    let by_inode: HashMap<u64, &UnixSocket> = sockets.iter().map(|socket| (socket.inode, socket)).collect();
    let listening = sockets.iter().filter(|socket| socket.listens);
    let listeners: HashMap<&[u8], &UnixSocket> =
        listening.clone().filter_map(|socket| Some((socket.name.as_deref()?, socket))).collect();
    for socket in sockets.iter().filter(|socket| !socket.listens) {
        let Some(server) = socket.peer.and_then(|peer| by_inode.get(&peer)) else { continue };
        // An accepted socket has its listener's name. A pair of sockets has none; a client has one only if it bound one.
        let Some(name) = server.name.as_deref() else { continue };
        let listener = listeners.get(name);
        let own = socket.name.as_deref();
        if own.is_some_and(|own| listeners.contains_key(own) || listener.is_none()) {
            continue;
        }
        links.push(Link {
            client: socket.inode,
            server: Some(server.inode),
            listener: listener.map(|listener| listener.inode),
            uid: server.uid.or_else(|| listener?.uid),
            via: Via::Unix(name.to_vec()),
        });
    }
    for listener in listening {
        let Some(name) = listener.name.as_deref() else { continue };
        links.extend(listener.waiting.iter().map(|&client| Link {
            client,
            server: None,
            listener: Some(listener.inode),
            uid: listener.uid,
            via: Via::Unix(name.to_vec()),
        }));
    }
}

fn of_tcp(sockets: &[TcpSocket], links: &mut Vec<Link>) {
    let connected = || sockets.iter().filter(|socket| !socket.listens);
    let ends: HashMap<(SocketAddr, SocketAddr), &TcpSocket> =
        connected().map(|socket| ((socket.local, socket.remote), socket)).collect();
    let listening = sockets.iter().filter(|socket| socket.listens);
    let listeners: HashMap<u16, &TcpSocket> = listening.map(|socket| (socket.local.port(), socket)).collect();
    for socket in connected().filter(|socket| socket.inode != 0) {
        let Some(server) = ends.get(&(socket.remote, socket.local)) else { continue };
        let (own, theirs) = (socket.local.port(), socket.remote.port());
        let calls = match (listeners.contains_key(&own), listeners.contains_key(&theirs)) {
            (false, true) => true,
            (true, false) => false,
            // The listener was closed, or both ports have one: a client's port is one of the high ones.
            (false, false) | (true, true) => own > theirs,
        };
        if !calls {
            continue;
        }
        let listener = listeners.get(&theirs);
        links.push(Link {
            client: socket.inode,
            server: (server.inode != 0).then_some(server.inode),
            listener: listener.map(|listener| listener.inode),
            uid: if server.inode == 0 { listener.map(|listener| listener.uid) } else { Some(server.uid) },
            via: Via::Tcp(socket.remote),
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn unix(inode: u64, peer: u64, name: Option<&str>) -> UnixSocket {
        let name = name.map(|name| name.as_bytes().to_vec());
        let peer = (peer != 0).then_some(peer);
        UnixSocket { inode, listens: false, name, peer, uid: Some(7), waiting: Vec::new() }
    }

    fn listening(inode: u64, name: &str) -> UnixSocket {
        UnixSocket { listens: true, ..unix(inode, 0, Some(name)) }
    }

    fn tcp(inode: u64, local: u16, remote: u16) -> TcpSocket {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        TcpSocket { inode, uid: 7, listens: remote == 0, local: at(local), remote: at(remote) }
    }

    pub(in super::super) fn sockets(unix: Vec<UnixSocket>, tcp: Vec<TcpSocket>) -> Sockets {
        Sockets { unix: Listing { sockets: unix, complete: true }, tcp: Listing { sockets: tcp, complete: true } }
    }

    /// A server with listener 100 and a connection of it: client 1, server 2.
    pub(in super::super) fn called() -> Vec<UnixSocket> {
        vec![listening(100, "/broker"), unix(1, 2, None), unix(2, 1, Some("/broker"))]
    }

    fn ends(links: &[Link]) -> Vec<(u64, Option<u64>, Option<u64>)> {
        links.iter().map(|link| (link.client, link.server, link.listener)).collect()
    }

    #[test]
    fn the_end_that_called_is_the_client() {
        let links = of(&sockets(called(), vec![tcp(200, 80, 0), tcp(3, 5000, 80), tcp(4, 80, 5000)]));
        assert_eq!(ends(&links), [(1, Some(2), Some(100)), (3, Some(4), Some(200))]);
        assert_eq!((links[0].via.to_string(), links[0].uid), ("unix:/broker".to_owned(), Some(7)));
        assert_eq!(links[1].via.to_string(), "tcp:127.0.0.1:80");
        // The listener was closed since.
        let links = of(&sockets(called().split_off(1), vec![tcp(3, 5000, 80), tcp(4, 80, 5000)]));
        assert_eq!(ends(&links), [(1, Some(2), None), (3, Some(4), None)]);
    }

    #[test]
    fn a_pair_of_sockets_and_a_lost_end_are_no_use_of_a_process() {
        let pair = vec![unix(1, 2, None), unix(2, 1, None), unix(3, 4, None)];
        assert_eq!(of(&sockets(pair, vec![tcp(5, 5000, 80)])), []);
    }

    #[test]
    fn a_client_with_a_name_of_its_own_is_still_the_client() {
        let named = vec![listening(100, "/broker"), unix(1, 2, Some("/own")), unix(2, 1, Some("/broker"))];
        assert_eq!(ends(&of(&sockets(named, Vec::new()))), [(1, Some(2), Some(100))]);
    }

    #[test]
    fn a_connection_that_waits_belongs_to_the_listener() {
        let broker = UnixSocket { waiting: vec![1], ..listening(100, "/broker") };
        let waiting =
            sockets(vec![broker, unix(1, 0, None)], vec![tcp(200, 80, 0), tcp(3, 5000, 80), tcp(0, 80, 5000)]);
        assert_eq!(ends(&of(&waiting)), [(1, None, Some(100)), (3, None, Some(200))]);
    }

    #[test]
    fn a_name_is_shown_without_what_moves_a_cursor() {
        assert_eq!(Via::Unix(b"\0a\x1b[2J".to_vec()).to_string(), "unix:@a?[2J");
        assert_eq!(Via::Unix(vec![b'x'; 900]).to_string().len(), 205);
    }
}
