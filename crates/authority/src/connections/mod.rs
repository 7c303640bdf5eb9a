//! A bound for the connections of a listener, so that no client can use up the descriptors of the database, the admin socket
//! and those who hold a key.
//!
//! | file | concept |
//! |---|---|
//! | `book` | pure: who gets a place, and which connection is closed for it |
//! | `descriptors` | how many connections the process can serve |
//! | this file | places of real connections, and the mark by which a request makes its connection known |

mod book;
mod descriptors;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Extensions;
use machineid_clock::BootTime;
use tokio_util::sync::CancellationToken;

use book::{Admitted, Book};

pub(super) use book::{ConnectionBounds, Origin};
pub(super) use descriptors::ProcessDescriptors;

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    // A std mutex: held for one change of the book, never across an await.
    inside: Mutex<Inside>,
    counts: Counts,
}

#[derive(Debug)]
struct Inside {
    book: Book,
    /// What ends each open connection.
    ends: HashMap<u64, CancellationToken>,
}

/// How many connections came to what, since the start.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

/// A state of the connections, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionCounts {
    pub(super) bound: usize,
    pub(super) anonymous: usize,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// Closed for another one.
    pub(super) closed: u64,
}

/// The place of a connection, given up when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace(Arc<Ticket>);

/// What the requests of a connection know of it.
#[derive(Debug)]
pub(super) struct Ticket {
    connections: Arc<Connections>,
    number: u64,
    end: CancellationToken,
    known: AtomicBool,
    under_way: AtomicUsize,
    /// When the last request ended, in milliseconds of the boot clock.
    quiet_since: AtomicU64,
}

/// The connection of a request, in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Asking(Arc<Ticket>);

impl Connections {
    pub(super) fn new(bounds: ConnectionBounds) -> Self {
        let inside = Inside { book: Book::new(bounds), ends: HashMap::new() };
        Self { inside: Mutex::new(inside), counts: Counts::default() }
    }

    /// A place for a new connection; `None` when it has to be closed.
    pub(super) fn admit(self: &Arc<Self>, origin: Origin, now: BootTime) -> Option<ConnectionPlace> {
        let mut inside = self.lock();
        let Ok(Admitted { number, closed }) = inside.book.admit(origin, now) else {
            drop(inside);
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if let Some(end) = closed.and_then(|closed| inside.ends.remove(&closed)) {
            end.cancel();
            self.counts.closed.fetch_add(1, Ordering::Relaxed);
        }
        let end = CancellationToken::new();
        inside.ends.insert(number, end.clone());
        drop(inside);
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let known = match origin {
            Origin::Proxy => true,
            Origin::Client(_) => false,
        };
        Some(ConnectionPlace(Arc::new(Ticket {
            connections: Arc::clone(self),
            number,
            end,
            known: AtomicBool::new(known),
            under_way: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(now.as_millis()),
        })))
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let inside = self.lock();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ConnectionCounts {
            bound: inside.book.bound(),
            anonymous: inside.book.anonymous(),
            accepted: count(&self.counts.accepted),
            refused: count(&self.counts.refused),
            closed: count(&self.counts.closed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPlace {
    pub(super) fn ticket(&self) -> Arc<Ticket> {
        Arc::clone(&self.0)
    }

    /// Waits until the connection has to be closed for another.
    pub(super) async fn is_taken(&self) {
        self.0.end.cancelled().await;
    }

    /// Waits until the connection has sent nothing for `patience` without having presented a valid key.
    pub(super) async fn is_silent(&self, patience: Duration) {
        let mut wait = patience;
        loop {
            tokio::time::sleep(wait).await;
            if self.0.known.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let since = BootTime::from_millis(self.0.quiet_since.load(Ordering::Relaxed));
            let quiet = BootTime::now().saturating_since(since);
            wait = match self.0.under_way.load(Ordering::Relaxed) {
                0 if quiet >= patience => return,
                0 => patience.saturating_sub(quiet),
                _ => patience,
            };
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut inside = self.0.connections.lock();
        inside.book.leave(self.0.number);
        inside.ends.remove(&self.0.number);
    }
}

impl Ticket {
    /// A request begins; `extensions` are the request's.
    pub(super) fn asks(self: &Arc<Self>, extensions: &mut Extensions) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().book.asked(self.number, BootTime::now());
        extensions.insert(Asking(Arc::clone(self)));
    }

    /// Its answer is there. One that `lasts` is a stream, which runs as long as the connection.
    pub(super) fn is_answered(&self, lasts: bool) {
        if lasts {
            return;
        }
        let now = BootTime::now();
        self.quiet_since.store(now.as_millis(), Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.connections.lock().book.answered(self.number, now);
    }
}

/// Notes that the connection of the request with these extensions has presented a valid key.
pub(super) fn recognise(extensions: &Extensions) {
    if let Some(Asking(ticket)) = extensions.get()
        && !ticket.known.swap(true, Ordering::Relaxed)
    {
        ticket.connections.lock().book.recognised(ticket.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarded::ClientAddress;

    #[test]
    fn a_place_is_given_up_once_and_a_request_makes_its_connection_known() {
        let connections = Arc::new(Connections::new(ConnectionBounds::new(16)));
        let origin = Origin::of(ClientAddress::Host("192.0.2.1".parse().unwrap()));
        let place = connections.admit(origin, BootTime::now()).unwrap();
        let mut extensions = Extensions::new();
        place.ticket().asks(&mut extensions);
        assert_eq!(connections.counts().anonymous, 1);
        recognise(&extensions);
        recognise(&extensions);
        assert_eq!(connections.counts().anonymous, 0);
        place.ticket().is_answered(false);
        // The share of an address without a key is two.
        let others: Vec<_> = (0..3).filter_map(|_| connections.admit(origin, BootTime::now())).collect();
        assert_eq!((others.len(), connections.counts().closed, connections.counts().anonymous), (3, 1, 2));
        assert!(others[0].0.end.is_cancelled() && !place.0.end.is_cancelled());
        drop(others);
        drop(place);
        let left = connections.lock();
        assert!(left.book.count() == 0 && left.ends.is_empty());
    }
}
