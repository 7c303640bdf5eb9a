//! A TCP port that serves a few paths to every client that can reach it, with a limit of connections; closed with the daemon.
//!
//! A port that another program has is no reason to end: agents would be stopped because of it. The daemon warns, tries again,
//! and serves it as soon as it can. A service manager can hold the port instead, so that no program takes it while the
//! daemon is stopped.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use machineid_log::Vital;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::wire::REQUEST_TIMEOUT;

/// How long an answer may stay unread, in milliseconds, before its connection is closed.
const UNREAD: u32 = 30_000;
/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;
/// Pause before a port that another program has is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A port that the configuration names.
#[derive(Debug)]
pub(crate) struct Port {
    /// The setting that names it.
    setting: &'static str,
    wanted: SocketAddr,
    state: Mutex<PortState>,
}

#[derive(Debug)]
enum PortState {
    /// The daemon listens, on this address.
    Open(SocketAddr),
    /// The daemon cannot listen, for this reason.
    Taken(String),
}

/// The ports of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) compat: Option<Arc<Port>>,
    pub(crate) metrics: Option<Arc<Port>>,
    /// Addresses of sockets that a service manager handed over and that no setting names.
    pub(crate) unclaimed: Vec<SocketAddr>,
}

impl Ports {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Port> {
        self.compat.iter().chain(&self.metrics).map(|port| &**port)
    }

    /// The address that agents ask instead of the authority; `None` while the daemon does not have the port. An agent that
    /// was told of a port of another program would send its token there, and believe the answers.
    pub(crate) fn compat_address(&self) -> Option<SocketAddr> {
        self.compat.as_ref().and_then(|port| port.address())
    }

    /// What is wrong with them, for the operator.
    pub(crate) fn problems(&self) -> Vec<String> {
        let unclaimed = self.unclaimed.iter().map(|address| {
            format!(
                "the service manager hands over a socket at {address}, which neither compat.listen nor metrics.listen names; \
                 write the same address there and in ListenStream="
            )
        });
        self.all().filter_map(Port::problem).chain(unclaimed).collect()
    }
}

impl Port {
    /// Listens on the port, by the socket that was handed over if there is one. If the port is taken, [`serve`] tries again.
    pub(crate) fn open(
        setting: &'static str,
        wanted: SocketAddr,
        handed: Option<std::net::TcpListener>,
    ) -> (Arc<Self>, Option<TcpListener>) {
        let listening = match handed {
            Some(listener) => adopt(listener),
            None => std::net::TcpListener::bind(wanted).and_then(adopt),
        };
        match listening {
            Ok((listener, address)) => {
                let state = Mutex::new(PortState::Open(address));
                (Arc::new(Self { setting, wanted, state }), Some(listener))
            }
            Err(error) => {
                let problem = describe(setting, wanted, &error);
                warn!(setting, address = %wanted, %error, "cannot listen; trying again until the port is free");
                (Arc::new(Self { setting, wanted, state: Mutex::new(PortState::Taken(problem)) }), None)
            }
        }
    }

    /// The setting that names it.
    pub(crate) fn setting(&self) -> &'static str {
        self.setting
    }

    /// The address, while the daemon listens on it.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            PortState::Open(address) => Some(*address),
            PortState::Taken(_) => None,
        }
    }

    /// Why the daemon does not listen, and what to do.
    fn problem(&self) -> Option<String> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            PortState::Open(_) => None,
            PortState::Taken(problem) => Some(problem.clone()),
        }
    }

    /// The listener and its address. Without a listener, waits for the port first; `None` at `shutdown`.
    pub(super) async fn listening(
        &self,
        listener: Option<TcpListener>,
        shutdown: &CancellationToken,
    ) -> Option<(TcpListener, SocketAddr)> {
        match (listener, self.address()) {
            (Some(listener), Some(address)) => Some((listener, address)),
            (Some(_) | None, _) => shutdown.run_until_cancelled(self.take()).await,
        }
    }

    /// Tries until the port is free.
    async fn take(&self) -> (TcpListener, SocketAddr) {
        loop {
            tokio::time::sleep(RETRY).await;
            match std::net::TcpListener::bind(self.wanted).and_then(adopt) {
                Ok((listener, address)) => {
                    info!(setting = self.setting, %address, "the port is free; listening");
                    *self.state.lock().unwrap_or_else(PoisonError::into_inner) = PortState::Open(address);
                    return (listener, address);
                }
                Err(error) => {
                    let problem = describe(self.setting, self.wanted, &error);
                    *self.state.lock().unwrap_or_else(PoisonError::into_inner) = PortState::Taken(problem);
                }
            }
        }
    }
}

fn adopt(listener: std::net::TcpListener) -> io::Result<(TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

fn describe(setting: &str, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    format!(
        "{setting}: cannot listen on {address}: {error}; stop the program that has the port (ss -ltnp 'sport = {port}'), or \
         name another one; the daemon tries again every {} s",
        RETRY.as_secs()
    )
}

/// Serves until `shutdown`, at most `most` connections at once. Clients of other hosts cannot be told apart, so all share one limit.
/// Without a listener, waits for the port first. `make` is told the port's address.
pub(crate) async fn serve(
    port: Arc<Port>,
    listener: Option<TcpListener>,
    make: impl FnOnce(SocketAddr) -> Router,
    most: usize,
    shutdown: CancellationToken,
) {
    let _vital = Vital;
    let Some((listener, address)) = port.listening(listener, &shutdown).await else { return };
    let (what, router) = (port.setting, make(address));
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The process is out of descriptors or memory: a connection that ends may release some.
                warn!(%error, port = what, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A client that reads no answers keeps its place no longer.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        // Without this option answers are only a little later.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let closing = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        debug!(%error, port = what, "a connection failed");
                    }
                },
                () = closing.cancelled() => {},
            }
        });
    }
}
