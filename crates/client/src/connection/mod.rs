//! The connections to one authority: HTTP/1.1, through the proxy from the environment, encrypted when the URL says so.
//!
//! | file | concept |
//! |---|---|
//! | `own_host` | plain connections to this host, which are checked before their first byte |
//! | `listener` | which users may listen for a key on this host |
//! | `port_owner` | which user has the other end of a connection on loopback |
//! | `names` | host names |
//! | `pieces` | the body of a long request |
//!
//! reqwest makes and keeps all connections to other hosts, and encrypted ones.

mod listener;
mod names;
mod own_host;
mod pieces;
mod port_owner;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use reqwest::{Client, Response, redirect, retry};
use rustls::ClientConfig;

pub(super) use listener::TrustedUsers;
pub use listener::{ForeignListener, KEY_NOT_SENT};
pub(super) use names::NoAddress;
use names::Resolver;
use own_host::{OwnHostClient, PortConnector, SocketConnector};
pub(super) use pieces::outgoing;
use port_owner::PortOwners;

use super::failure::SendError;

/// The maximum number of idle connections. A thousand devices need fewer when they validate in turn; a burst (all of
/// them asked at once) must not leave a thousand open.
const MOST: usize = 16;
/// How long an idle connection is kept. Proxies and servers close theirs after one or a few minutes.
const LONGEST: Duration = Duration::from_secs(90);

/// The proxies that may be used.
#[derive(Clone)]
pub(super) enum Proxies {
    /// The proxy from the environment, if one applies to the authority.
    Environment,
    /// No proxy: the authority is on this host.
    None,
    #[cfg(test)]
    Only(Box<reqwest::Proxy>),
}

/// Where the authority is.
#[derive(Clone, Debug)]
pub(super) enum AuthorityPlace {
    /// Behind reqwest's connections: another host, or an encrypted port of this one, whose certificate tells whose it is.
    Elsewhere,
    /// A plain port on loopback.
    Port,
    /// A unix socket.
    Socket(Arc<Path>),
}

/// The options of connections to one authority.
pub(super) struct Way {
    pub(super) place: AuthorityPlace,
    /// The users whose processes may listen on this host.
    pub(super) trusted: TrustedUsers,
    pub(super) proxies: Proxies,
    /// Contains the trusted certificates, so that new connections read no files.
    pub(super) tls: ClientConfig,
    /// The `User-Agent`.
    pub(super) user_agent: HeaderValue,
    /// The limit for one attempt to connect. It is divided among the addresses of a name, for each address family.
    pub(super) timeout: Duration,
}

/// The connections to one authority: kept ones, and those for a single request.
pub(super) struct Connections {
    way: Way,
    names: Arc<Resolver>,
    owners: Arc<PortOwners>,
    kept: RwLock<Arc<KeptConnections>>,
    single: HttpClient,
}

/// Sends requests, each on a connection that it keeps or makes.
#[derive(Clone)]
pub(super) enum HttpClient {
    Elsewhere(Client),
    Port(OwnHostClient<PortConnector>),
    Socket(OwnHostClient<SocketConnector>),
}

impl HttpClient {
    /// Sends the request and reads the head of its answer.
    pub(super) async fn send(&self, request: http::Request<reqwest::Body>) -> Result<Response, SendError> {
        Ok(match self {
            Self::Elsewhere(client) => client.execute(reqwest::Request::try_from(request)?).await?,
            Self::Port(client) => client.request(request).await?.map(reqwest::Body::wrap).into(),
            Self::Socket(client) => client.request(request).await?.map(reqwest::Body::wrap).into(),
        })
    }
}

/// A set of kept connections, which are closed together.
pub(super) struct KeptConnections {
    pub(super) http: HttpClient,
    /// Whether an answer arrived on one of them. Only then can a kept connection have died since.
    answered: AtomicBool,
}

impl Connections {
    /// Prepares the connections; connects to nothing yet.
    pub(super) fn new(way: Way) -> reqwest::Result<Self> {
        let (names, owners) = (Arc::new(Resolver::new()), Arc::new(PortOwners::new()));
        let single = way.client(&names, &owners, 0)?;
        let kept = RwLock::new(Arc::new(KeptConnections::new(way.client(&names, &owners, MOST)?)));
        Ok(Self { way, names, owners, kept, single })
    }

    /// The `User-Agent` of requests.
    pub(super) fn user_agent(&self) -> HeaderValue {
        self.way.user_agent.clone()
    }

    /// A client that makes a new connection for each request and keeps none.
    pub(super) const fn single(&self) -> &HttpClient {
        &self.single
    }

    pub(super) fn kept(&self) -> Arc<KeptConnections> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses new connections from now on. The old ones are closed when their requests have been answered.
    pub(super) fn forget(&self) {
        self.replace(|_| true);
    }

    /// Replaces these connections, unless another request that failed on one of them has already done so.
    pub(super) fn forget_these(&self, these: &Arc<KeptConnections>) {
        self.replace(|kept| Arc::ptr_eq(kept, these));
    }

    fn replace(&self, condition: impl FnOnce(&Arc<KeptConnections>) -> bool) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // The client was created once, so this should succeed again. If it fails, the old connections stay in use.
        if condition(&kept)
            && let Ok(http) = self.way.client(&self.names, &self.owners, MOST)
        {
            *kept = Arc::new(KeptConnections::new(http));
        }
    }
}

impl KeptConnections {
    const fn new(http: HttpClient) -> Self {
        Self { http, answered: AtomicBool::new(false) }
    }

    /// Records that an answer arrived on one of these connections, which now waits for the next request.
    pub(super) fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether a request may have been sent on a connection that had died since its last answer.
    pub(super) fn may_hold_a_dead_one(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Way {
    fn client(&self, names: &Arc<Resolver>, owners: &Arc<PortOwners>, most_idle: usize) -> reqwest::Result<HttpClient> {
        let (trusted, timeout) = (self.trusted, self.timeout);
        Ok(match &self.place {
            AuthorityPlace::Elsewhere => HttpClient::Elsewhere(self.reqwest(names, most_idle)?),
            AuthorityPlace::Port => {
                let (names, owners) = (Arc::clone(names), Arc::clone(owners));
                let connector = PortConnector { names, owners, trusted, timeout };
                HttpClient::Port(own_host::client(connector, most_idle, LONGEST))
            }
            AuthorityPlace::Socket(path) => {
                let connector = SocketConnector { path: Arc::clone(path), trusted, timeout };
                HttpClient::Socket(own_host::client(connector, most_idle, LONGEST))
            }
        })
    }

    fn reqwest(&self, names: &Arc<Resolver>, most_idle: usize) -> reqwest::Result<Client> {
        let builder = Client::builder()
            .http1_only()
            // A redirect would send the key to another origin.
            .redirect(redirect::Policy::none())
            .referer(false)
            // The exchange decides whether a request is repeated.
            .retry(retry::never())
            // Requests have it already; a proxy is sent it as well.
            .user_agent(self.user_agent.clone())
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Arc::clone(names))
            // The exchange has the only timeout; an attempt to connect must not outlive it in the background.
            .connect_timeout(self.timeout)
            .pool_max_idle_per_host(most_idle)
            .pool_idle_timeout(LONGEST);
        match &self.proxies {
            Proxies::Environment => builder,
            Proxies::None => builder.no_proxy(),
            #[cfg(test)]
            Proxies::Only(proxy) => builder.proxy(proxy.as_ref().clone()),
        }
        .build()
    }
}

impl fmt::Debug for Connections {
    /// Formats without the clients, which name the proxy: its URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
