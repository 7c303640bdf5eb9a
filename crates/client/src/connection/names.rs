//! Resolves host names with the system's resolver.
//!
//! A resolver whose name server does not answer blocks for tens of seconds, so it is called on its own kind of threads
//! ([`machineid_blocking`]). A thousand devices that connect at once share one call.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use machineid_blocking::{Bounds, CallOwner, Pool};
use machineid_clock::BootTime;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

const BOUNDS: Bounds = Bounds { at_a_time: 8, most: 32 };
/// How long a call is shared. An older call may hang on a name server that has been replaced meanwhile: the system's
/// resolver reads its configuration at each call.
const SHARED_FOR: Duration = Duration::from_millis(250);

type RawAnswer = Result<Arc<[SocketAddr]>, NoAddress>;
type NameLookup = Pin<Box<dyn Future<Output = RawAnswer> + Send>>;

/// The system's resolver, with errors that can be recognised.
#[derive(Debug)]
pub(super) struct Resolver {
    pool: Pool,
    /// The newest call for each name. Not kept alive: without a waiter, a call need not be made.
    under_way: Mutex<HashMap<String, UnderWay>>,
}

#[derive(Debug)]
struct UnderWay {
    began: BootTime,
    call: WeakShared<NameLookup>,
}

/// The name has no address.
#[derive(Clone, Debug)]
pub(crate) struct NoAddress(Arc<io::Error>);

impl Resolver {
    pub(super) fn new() -> Self {
        Self { pool: Pool::new("names", BOUNDS), under_way: Mutex::default() }
    }

    fn find(&self, name: &str) -> Shared<NameLookup> {
        self.share(name, |name| (name, 0).to_socket_addrs().map(Iterator::collect))
    }

    /// The addresses of a name.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        self.find(name).await.map(|found| found.iter().map(SocketAddr::ip).collect())
    }

    /// The answer of a call that has just begun, or begins now.
    fn share(
        &self,
        name: &str,
        find: impl FnOnce(&str) -> io::Result<Arc<[SocketAddr]>> + Send + 'static,
    ) -> Shared<NameLookup> {
        let now = BootTime::now();
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, known| now < known.began + SHARED_FOR);
        if let Some(call) = under_way.get(name).and_then(|known| known.call.upgrade()) {
            return call;
        }
        let (pool, of_call) = (self.pool.clone(), name.to_owned());
        let call = async move {
            let found = pool.call(CallOwner::DAEMON, move || find(&of_call)).await;
            found.map_err(io::Error::other).flatten().map_err(|error| NoAddress(Arc::new(error)))
        };
        let call = (Box::pin(call) as NameLookup).shared();
        if let Some(weak) = call.downgrade() {
            under_way.insert(name.to_owned(), UnderWay { began: now, call: weak });
        }
        call
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.find(name.as_str());
        Box::pin(async move { Ok(Box::new(found.await?.to_vec().into_iter()) as Addrs) })
    }
}

impl NoAddress {
    pub(super) fn new(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NoAddress {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_ask_together_share_one_call_and_a_later_one_makes_its_own() {
        let names = Resolver::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let mut wait = Some(wait);
        let mut find = |name: &str| {
            let (calls, wait) = (Arc::clone(&calls), wait.take());
            names.share(name, move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                // The first call hangs until it is released.
                let _ = wait.map(|wait| wait.recv());
                Ok([SocketAddr::from(([127, 0, 0, 1], 0))].into())
            })
        };
        let together: Vec<_> = (0..100).map(|_| find("a.test")).collect();
        assert!(find("b.test").await.is_ok(), "another name");
        tokio::time::sleep(2 * SHARED_FOR).await;
        assert!(find("a.test").await.is_ok(), "it does not wait for the one that hangs");
        drop(release);
        for answer in together {
            assert_eq!(answer.await.unwrap().len(), 1);
        }
        assert!(calls.load(Ordering::SeqCst) <= 3, "{calls:?}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_from_other_failures() {
        let names = Resolver::new();
        assert!(names.find("localhost").await.is_ok_and(|found| !found.is_empty()));
        assert!(names.find("name with blanks").await.is_err());
    }
}
