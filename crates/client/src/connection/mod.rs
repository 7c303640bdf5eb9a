//! The connections to one authority, as reqwest makes and keeps them: HTTP/1.1, by way of the proxy that the environment
//! names, encrypted when the address says so.

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

/// Connections that are kept while idle. More than a thousand devices need at once when each takes its turn; a burst
/// (all of them asked about on one signal) must not leave a thousand behind.
const MOST: usize = 16;
/// How long one is kept. Proxies and servers forget theirs after a minute or a few.
const LONGEST: Duration = Duration::from_secs(90);

/// Which proxies may be asked on the way.
#[derive(Clone)]
pub(super) enum Proxies {
    /// The one that the environment names for the authority, if any.
    Environment,
    /// None: the authority is on this host.
    Nobody,
    #[cfg(test)]
    Only(Box<reqwest::Proxy>),
}

/// How connections to one authority are made.
pub(super) struct Way {
    pub(super) proxies: Proxies,
    /// Holds the certificates that are trusted, so that making new connections reads no files.
    pub(super) tls: ClientConfig,
    pub(super) user_agent: String,
    /// The time for one attempt to connect. It is divided among the addresses of a name, those of each family apart.
    pub(super) timeout: Duration,
}

/// The connections to one authority: those that are kept for the next request, and those for one request alone.
pub(super) struct Connections {
    way: Way,
    names: Arc<Resolver>,
    kept: RwLock<Arc<Kept>>,
    single: Client,
}

/// Connections that are kept and forgotten together.
pub(super) struct Kept {
    pub(super) http: Client,
    /// Whether an answer came on one of them. Only then one that was kept can have died since.
    answered: AtomicBool,
}

impl Connections {
    /// Connects to nothing yet. Fails when the user agent is no header's value.
    pub(super) fn new(way: Way) -> reqwest::Result<Self> {
        let names = Arc::new(Resolver::new());
        let single = way.client(&names, 0)?;
        let kept = RwLock::new(Arc::new(Kept::new(way.client(&names, MOST)?)));
        Ok(Self { way, names, kept, single })
    }

    /// A client that makes a connection for each request and keeps none.
    pub(super) const fn single(&self) -> &Client {
        &self.single
    }

    pub(super) fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes new connections from now on. The old ones are closed once the requests that were begun on them are answered.
    pub(super) fn forget(&self) {
        self.replace(|_| true);
    }

    /// Forgets these connections, unless another request that died on one of them has done so.
    pub(super) fn forget_these(&self, these: &Arc<Kept>) {
        self.replace(|kept| Arc::ptr_eq(kept, these));
    }

    fn replace(&self, condition: impl FnOnce(&Arc<Kept>) -> bool) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // What could be made once can be made again. If not, the old connections are as good as any.
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

    /// Takes note that an answer came on one of these connections, which waits for the next request now.
    pub(super) fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether a request may have gone out on a connection that had died since the answer before.
    pub(super) fn may_hold_a_dead_one(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Way {
    fn client(&self, names: &Arc<Resolver>, most_idle: usize) -> reqwest::Result<Client> {
        let builder = Client::builder()
            .http1_only()
            // A redirect would take the key along.
            .redirect(redirect::Policy::none())
            .referer(false)
            // Whether a request is repeated is the exchange's decision.
            .retry(retry::never())
            .user_agent(&self.user_agent)
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Arc::clone(names))
            // The one timeout is the exchange's; an attempt to connect must not outlive it in the background.
            .connect_timeout(self.timeout)
            .pool_max_idle_per_host(most_idle)
            .pool_idle_timeout(LONGEST);
        match &self.proxies {
            Proxies::Environment => builder,
            Proxies::Nobody => builder.no_proxy(),
            #[cfg(test)]
            Proxies::Only(proxy) => builder.proxy(proxy.as_ref().clone()),
        }
        .build()
    }
}

impl fmt::Debug for Connections {
    /// Without the clients, which name the proxy: its address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
