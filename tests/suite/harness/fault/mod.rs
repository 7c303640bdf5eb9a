//! A proxy between daemon and authority that breaks what passes through it, and can be told another way while it runs.
//!
//! It takes requests apart, asks the real authority, and gives back what the fault of the moment makes of its answer. Threads
//! and blocking calls: nothing of it shares a runtime, a client or a parser with what it tests.
//!
//! | file | concept |
//! |---|---|
//! | `message` | HTTP messages: read whole, written as they are |
//! | `serve` | one connection, and what each fault does to it |

mod message;
mod serve;

use machineid_testing::certificates;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::PATIENCE;
use super::wait::until;
pub(crate) use message::Answer;

/// What happens to a connection or an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: what the authority says arrives.
    None,
    /// Nothing listens; existing connections are cut.
    Refuse,
    /// Connections are accepted and requests read, and nothing more.
    Silent,
    /// A byte of the answer at a time, so far apart.
    Drip(Duration),
    /// The connection is reset (RST) in the middle of the head, before the authority is asked anything.
    ResetInHead,
    /// The same in the middle of the body of a real answer.
    ResetInBody,
    /// The connection ends (FIN) in the middle of the body.
    Truncate,
    /// A complete HTTP message with the first half of the JSON.
    HalfJson,
    /// The answer grown to this many bytes, still an ALLOW in its form; its length announced or not.
    Inflate { bytes: usize, announced: bool },
    /// The real answer, so much later.
    Delay(Duration),
    /// The answer to the next validation is kept until it is released; those after it, and other requests, pass.
    HoldNext,
    /// This instead of the authority's answer.
    Replace(Answer),
    /// These bytes instead of an answer.
    Raw(&'static [u8]),
    /// Another server's certificate. Only with [`Injector::encrypted`], as the next two.
    WrongCertificate,
    /// Bytes that are no TLS.
    NoTls,
    /// The handshake is never answered.
    SilentHandshake,
}

impl Fault {
    /// Whether it shows on new connections only, so that those there are must be cut.
    const fn is_of_connections(&self) -> bool {
        matches!(self, Self::Refuse | Self::WrongCertificate | Self::NoTls | Self::SilentHandshake)
    }
}

/// The running proxy. Ends when dropped.
pub(crate) struct Injector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    listener: TcpListener,
    authority: SocketAddr,
    encrypted: Option<Certificates>,
    state: Mutex<State>,
    changed: Condvar,
}

struct Certificates {
    right: Arc<rustls::ServerConfig>,
    wrong: Arc<rustls::ServerConfig>,
}

struct State {
    fault: Fault,
    ended: bool,
    connections: Vec<TcpStream>,
    validations: Validations,
    held: usize,
    releases: usize,
}

/// What was counted of the validations that came by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Validations {
    pub(crate) begun: usize,
    pub(crate) in_flight: usize,
    pub(crate) most_in_flight: usize,
}

impl Injector {
    /// Before this authority, in clear.
    pub(crate) fn start(authority: SocketAddr) -> Self {
        Self::listen(authority, None, "127.0.0.1:0")
    }

    /// The same at an address of the caller's choice, such as one of a network namespace.
    pub(crate) fn start_at(address: &str, authority: SocketAddr) -> Self {
        Self::listen(authority, None, address)
    }

    /// The same with TLS between daemon and proxy, by a certificate for 127.0.0.1 that [`CA`] vouches for.
    pub(crate) fn encrypted(authority: SocketAddr) -> Self {
        machineid_client::install_provider();
        let certificates = Certificates {
            right: serve::tls(certificates::SERVER, certificates::SERVER_KEY),
            wrong: serve::tls(include_bytes!("stranger.pem"), include_bytes!("stranger.key.der")),
        };
        Self::listen(authority, Some(certificates), "127.0.0.1:0")
    }

    fn listen(authority: SocketAddr, encrypted: Option<Certificates>, address: &str) -> Self {
        // Twice: the kernel takes a port of its own choice back when the socket no longer listens, and one that was named
        // stays.
        let listener = until("a port that no process takes between the two", || {
            let named = TcpListener::bind(address).and_then(|first| first.local_addr()).unwrap();
            TcpListener::bind(named).ok()
        });
        let address = listener.local_addr().unwrap();
        let state = State {
            fault: Fault::None,
            ended: false,
            connections: Vec::new(),
            validations: Validations::default(),
            held: 0,
            releases: 0,
        };
        let shared =
            Arc::new(Shared { listener, authority, encrypted, state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept());
        Self { address, shared }
    }

    /// Where the daemon finds the authority.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.shared.encrypted.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// From now on this. A connection that hangs in an earlier fault goes on hanging.
    pub(crate) fn set(&self, fault: Fault) {
        let mut state = self.shared.lock();
        let was_refusing = matches!(state.fault, Fault::Refuse);
        let refuses = matches!(fault, Fault::Refuse);
        if refuses && !was_refusing {
            // Still bound, so that no other process gets the port.
            rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both).unwrap();
        }
        if fault.is_of_connections() || state.fault.is_of_connections() {
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        state.fault = fault;
        if was_refusing && !refuses {
            rustix::net::listen(&self.shared.listener, 128).unwrap();
        }
        self.shared.changed.notify_all();
    }

    /// What was counted of the validations so far.
    pub(crate) fn validations(&self) -> Validations {
        self.shared.lock().validations
    }

    /// Counts anew from now on.
    pub(crate) fn count_anew(&self) {
        let mut state = self.shared.lock();
        let in_flight = state.validations.in_flight;
        state.validations = Validations { begun: 0, in_flight, most_in_flight: in_flight };
    }

    /// Waits until the answer to a validation is held back ([`Fault::HoldNext`]).
    pub(crate) fn wait_for_held(&self) {
        let state = self.shared.lock();
        let (_state, late) = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.held == 0).unwrap();
        assert!(!late.timed_out(), "no answer to hold came by");
    }

    /// Lets the answer go that was held back.
    pub(crate) fn release(&self) {
        let mut state = self.shared.lock();
        state.releases += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: Arc<Self>) {
        loop {
            if let Ok((connection, _)) = self.listener.accept() {
                let mut state = self.lock();
                if state.ended {
                    return;
                }
                state.connections.extend(connection.try_clone());
                drop(state);
                let shared = Arc::clone(&self);
                std::thread::spawn(move || shared.serve(&connection));
            } else {
                // Nothing listens for now.
                let state = self.lock();
                let refusing = |state: &mut State| matches!(state.fault, Fault::Refuse) && !state.ended;
                let (state, _) = self.changed.wait_timeout_while(state, PATIENCE * 10, refusing).unwrap();
                if state.ended {
                    return;
                }
            }
        }
    }
}
