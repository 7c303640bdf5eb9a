//! How many connections are served at once, and for whom.
//!
//! Two pools, counted separately, so that neither can starve the other: the streams of supervised runs, which stay for as
//! long as an agent lives, and all other connections, which are over in a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

/// Streams of supervised runs served at once, when there are descriptors for them.
const MOST_STREAMS: usize = 4096;
/// Other connections served at once, when there are descriptors for them.
const MOST_OTHERS: usize = 1024;
/// Of each, kept for root and the daemon's own user, so that an operator gets through.
const RESERVED: usize = 16;
/// Descriptors a stream may take: itself, its peer, and an agent's leader, guardian and wrapper.
const DESCRIPTORS_OF_A_STREAM: u64 = 5;
/// Descriptors another connection may take: itself and its peer.
const DESCRIPTORS_OF_ANOTHER: u64 = 2;
/// Descriptors that no connection may take: a stop, the authority and the gates need them.
const DESCRIPTORS_KEPT: u64 = 256;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A wrapper's question, and the events that answer it.
    Stream,
    /// Anything else.
    Other,
}

/// The places for connections.
#[derive(Debug)]
pub(super) struct Places {
    streams: SeatPool,
    others: SeatPool,
}

#[derive(Debug)]
struct SeatPool {
    most: usize,
    taken: Mutex<HashMap<u32, usize>>,
}

/// One connection's place, given back when dropped.
///
/// What a connection is for shows when its first request has come. Until then it sits among the others, or, when those
/// are full, among the streams: a thousand wrappers that start at once must not be turned away as a flood of checks.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    uid: u32,
    privileged: bool,
    used: Mutex<Use>,
}

impl Places {
    /// As many as the process's descriptors allow.
    pub(super) fn of_this_process() -> Arc<Self> {
        Self::with_descriptors(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn with_descriptors(limit: u64) -> Arc<Self> {
        let wanted = DESCRIPTORS_OF_A_STREAM * MOST_STREAMS as u64 + DESCRIPTORS_OF_ANOTHER * MOST_OTHERS as u64;
        let affordable = limit.saturating_sub(DESCRIPTORS_KEPT).min(wanted);
        let share = |most: usize| {
            let share = most as u64 * affordable / wanted;
            usize::try_from(share).unwrap_or(most).max(2 * RESERVED)
        };
        Self::new(share(MOST_STREAMS), share(MOST_OTHERS))
    }

    fn new(streams: usize, others: usize) -> Arc<Self> {
        let pool = |most| SeatPool { most, taken: Mutex::default() };
        Arc::new(Self { streams: pool(streams), others: pool(others) })
    }

    /// A place for a new connection of this user; `None` when there is none left for it. One user gets half of each pool
    /// at most, so that a greedy one leaves room for others; `privileged` ones are exempt.
    pub(super) fn seat(self: &Arc<Self>, uid: u32, privileged: bool) -> Option<Seat> {
        let used = [Use::Other, Use::Stream].into_iter().find(|used| self.pool(*used).take(uid, privileged))?;
        Some(Seat { places: Arc::clone(self), uid, privileged, used: Mutex::new(used) })
    }

    const fn pool(&self, used: Use) -> &SeatPool {
        match used {
            Use::Stream => &self.streams,
            Use::Other => &self.others,
        }
    }
}

impl Seat {
    /// Whether the next request, which is of this use, has its place. When it has none it must be refused, and the
    /// connection closed.
    pub(super) fn suits(&self, next: Use) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if *used == next {
            return true;
        }
        // First the new one, then the old one back: refused, the connection still has a place to say so from.
        let fits = self.places.pool(next).take(self.uid, self.privileged);
        if fits {
            self.places.pool(*used).give_back(self.uid);
            *used = next;
        }
        fits
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let used = *self.used.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.places.pool(used).give_back(self.uid);
    }
}

impl SeatPool {
    fn take(&self, uid: u32, privileged: bool) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let fits = if privileged { all < self.most } else { all < self.most - RESERVED && own < self.most / 2 };
        if fits {
            taken.insert(uid, own + 1);
        }
        fits
    }

    fn give_back(&self, uid: u32) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&uid).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.remove(&uid);
        } else {
            taken.insert(uid, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(places: &Arc<Places>, uid: u32, privileged: bool) -> Vec<Seat> {
        std::iter::from_fn(|| places.seat(uid, privileged)).take(1000).collect()
    }

    #[test]
    fn one_user_gets_half_and_the_last_places_are_the_operators() {
        let places = Places::new(200, 100);
        let greedy = seats(&places, 1, false);
        assert_eq!(greedy.len(), 50 + 100, "half of each");
        let others: Vec<_> = (2..1000).map_while(|uid| places.seat(uid, false)).collect();
        assert_eq!(others.len(), 300 - 150 - 2 * RESERVED);
        assert_eq!(seats(&places, 0, true).len(), 2 * RESERVED);
        drop((greedy, others));
        assert!(places.streams.taken.lock().unwrap().is_empty() && places.others.taken.lock().unwrap().is_empty());
        assert!(places.seat(1, false).is_some());
    }

    #[test]
    fn there_are_as_many_as_promised_and_fewer_of_both_with_fewer_descriptors() {
        let most = |descriptors| {
            let places = Places::with_descriptors(descriptors);
            (places.streams.most, places.others.most)
        };
        assert_eq!(most(65_536), (4096, 1024));
        assert_eq!(most(256 + 22_528 / 4), (1024, 256));
        assert_eq!(most(0), (2 * RESERVED, 2 * RESERVED));
    }

    #[test]
    fn streams_and_others_do_not_take_each_others_places() {
        let places = Places::new(200, 100);
        let streams: Vec<_> = seats(&places, 1, false).into_iter().filter(|seat| seat.suits(Use::Stream)).collect();
        assert_eq!(streams.len(), 100, "half of the streams");
        let checks: Vec<_> = seats(&places, 1, false).into_iter().filter(|seat| seat.suits(Use::Other)).collect();
        assert_eq!(checks.len(), 50, "half of the others, although no stream is left");
        drop(streams);
        let late = places.seat(1, false).unwrap();
        assert!(!late.suits(Use::Other), "there is a place among the streams, and none for a check");
        assert!(late.suits(Use::Stream));
        drop(checks);
        assert!(late.suits(Use::Other), "a connection may change its use");
        assert_eq!(places.streams.taken.lock().unwrap().len(), 0);
    }
}
