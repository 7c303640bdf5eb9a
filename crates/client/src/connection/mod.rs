//! The connections to one authority, made and kept by reqwest: HTTP/1.1, through the proxy from the environment,
//! encrypted when the URL says so.

mod names;
mod pieces;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, redirect, retry};
use rustls::ClientConfig;

pub(super) use names::NoAddress;
use names::Resolver;
pub(super) use pieces::outgoing;

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

/// The options of connections to one authority.
pub(super) struct Way {
    pub(super) proxies: Proxies,
    /// Contains the trusted certificates, so that new connections read no files.
    pub(super) tls: ClientConfig,
    pub(super) user_agent: String,
    /// The limit for one attempt to connect. It is divided among the addresses of a name, for each address family.
    pub(super) timeout: Duration,
}

/// The connections to one authority: kept ones, and those for a single request.
pub(super) struct Connections {
    way: Way,
    names: Arc<Resolver>,
    kept: RwLock<Arc<Kept>>,
    single: Client,
}

/// A set of kept connections, which are closed together.
pub(super) struct Kept {
    pub(super) http: Client,
    /// Whether an answer arrived on one of them. Only then can a kept connection have died since.
    answered: AtomicBool,
}

impl Connections {
    /// Prepares the connections; connects to nothing yet. Fails when the user agent is not a valid header value.
    pub(super) fn new(way: Way) -> reqwest::Result<Self> {
        let names = Arc::new(Resolver::new());
        let single = way.client(&names, 0)?;
        let kept = RwLock::new(Arc::new(Kept::new(way.client(&names, MOST)?)));
        Ok(Self { way, names, kept, single })
    }

    /// A client that makes a new connection for each request and keeps none.
    pub(super) const fn single(&self) -> &Client {
        &self.single
    }

    pub(super) fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses new connections from now on. The old ones are closed when their requests have been answered.
    pub(super) fn forget(&self) {
        self.replace(|_| true);
    }

    /// Replaces these connections, unless another request that failed on one of them has already done so.
    pub(super) fn forget_these(&self, these: &Arc<Kept>) {
        self.replace(|kept| Arc::ptr_eq(kept, these));
    }

    fn replace(&self, condition: impl FnOnce(&Arc<Kept>) -> bool) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // The client was created once, so this should succeed again. If it fails, the old connections stay in use.
        if condition(&kept)
            && let Ok(http) = self.way.client(&self.names, MOST)
        {
            *kept = Arc::new(Kept::new(http));
        }
    }
}

impl Kept {
    const fn new(http: Client) -> Self {
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
    fn client(&self, names: &Arc<Resolver>, most_idle: usize) -> reqwest::Result<Client> {
        let builder = Client::builder()
            .http1_only()
            // A redirect would send the key to another origin.
            .redirect(redirect::Policy::none())
            .referer(false)
            // The exchange decides whether a request is repeated.
            .retry(retry::never())
            .user_agent(&self.user_agent)
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
