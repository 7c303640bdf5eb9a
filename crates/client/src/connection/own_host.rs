//! Connections to an authority on this host, in plain HTTP: to a loopback port, or to a unix socket. Each is given up before
//! its first byte when a process of the wrong user listens there.
//!
//! reqwest gives no access to a connection before it is used, so that these are made here and kept by hyper-util, on which
//! reqwest is built as well.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use super::listener::{ListenerOwner, TrustedUsers};
use super::names::{NoAddress, Resolver};
use super::port_owner::{Ends, PortOwners};

/// A client that keeps its connections.
pub(super) type OwnHostClient<C> = legacy::Client<C, reqwest::Body>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<TokioIo<T>, BoxError>> + Send>>;

/// Connects to a port on loopback.
#[derive(Clone, Debug)]
pub(crate) struct PortConnector {
    pub(super) names: Arc<Resolver>,
    pub(super) owners: Arc<PortOwners>,
    pub(super) trusted: TrustedUsers,
    pub(super) timeout: Duration,
}

/// Connects to a unix socket.
#[derive(Clone, Debug)]
pub(crate) struct SocketConnector {
    pub(super) path: Arc<Path>,
    pub(super) trusted: TrustedUsers,
    pub(super) timeout: Duration,
}

/// A client that keeps this number of idle connections, each for this time.
pub(super) fn client<C>(connector: C, most_idle: usize, longest_idle: Duration) -> OwnHostClient<C>
where
    C: legacy::connect::Connect + Clone,
{
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(most_idle)
        .pool_idle_timeout(longest_idle)
        .build(connector)
}

impl PortConnector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(80);
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            // The name `localhost`, which the host's files may give to any address.
            Err(_) => self.names.addresses(host).await?.into_iter().filter(IpAddr::is_loopback).collect(),
        };
        let mut last: Option<BoxError> = None;
        for address in addresses {
            match self.connect_to(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                // A listener of the wrong user says more than an address where none listens.
                Err(error) => last = Some(last.filter(|last| !last.is::<io::Error>()).unwrap_or(error)),
            }
        }
        let none = || NoAddress::new(io::Error::new(io::ErrorKind::NotFound, "the name has no loopback address"));
        Err(last.unwrap_or_else(|| none().into()))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<TcpStream, BoxError> {
        let stream = TcpStream::connect(address).await?;
        let ends = Ends { client: stream.local_addr()?, server: stream.peer_addr()? };
        let owner = self.owners.of(ends).await;
        self.trusted.check(|| format!("the port {}", ends.server), owner)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl SocketConnector {
    async fn connect(self) -> Result<TokioIo<UnixStream>, BoxError> {
        let stream = UnixStream::connect(&self.path).await?;
        // Of the process that called listen(2), at that moment.
        let owner = ListenerOwner::User(stream.peer_cred()?.uid());
        self.trusted.check(|| format!("the socket {}", self.path.display()), owner)?;
        Ok(TokioIo::new(stream))
    }
}

/// The result of an attempt within its time: an attempt must not outlive its request in the background.
async fn within<T>(limit: Duration, attempt: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(late().into()))
}

impl Service<Uri> for PortConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting<TcpStream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(within(self.timeout, self.clone().connect(uri)))
    }
}

impl Service<Uri> for SocketConnector {
    type Response = TokioIo<UnixStream>;
    type Error = BoxError;
    type Future = Connecting<UnixStream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(within(self.timeout, self.clone().connect()))
    }
}
