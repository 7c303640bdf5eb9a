//! Limits of the connections served at once.
//!
//! Two pools are counted separately, so that neither can starve the other: the streams of supervised runs, which last as long
//! as an agent, and all other connections, which are short. How users share a pool is `shares`' concern.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::closing::Closing;
use super::shares::{Granted, SeatId, Shares};
use super::wire::Patience;

/// The most streams of supervised runs, when there are descriptors for them.
const MOST_STREAMS: usize = 4096;
/// The most other connections, when there are descriptors for them.
const MOST_OTHERS: usize = 1024;
/// Places in each pool reserved for root and the daemon's own user, so that an operator can always connect.
const RESERVED: usize = 16;
/// Descriptors a stream may take: itself, its peer, and an agent's leader, guardian and wrapper.
const DESCRIPTORS_OF_A_STREAM: u64 = 5;
/// Descriptors another connection may take: itself and its peer.
const DESCRIPTORS_OF_ANOTHER: u64 = 2;
/// Descriptors that no connection may take: a stop, the authority and the gates need them.
const DESCRIPTORS_KEPT: u64 = 256;

/// The use of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A wrapper's start request, and the events that answer it.
    Stream,
    /// Anything else.
    Other,
}

/// The places for connections.
#[derive(Debug)]
pub(super) struct Places {
    streams: Mutex<SeatPool>,
    others: Mutex<SeatPool>,
    next: AtomicU64,
}

#[derive(Debug)]
struct SeatPool {
    shares: Shares,
    occupants: HashMap<SeatId, Occupant>,
}

/// What the places know of a connection.
#[derive(Clone, Debug)]
struct Occupant {
    patience: Arc<Patience>,
    /// Begins when the connection has lost its place to another.
    displaced: Closing,
}

/// One connection's place, released when dropped.
///
/// The use of a connection is known when its first request has arrived. Until then it counts among the others, or, when those
/// are full, among the streams: a thousand wrappers that start at once must not be refused as a flood of checks.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    id: SeatId,
    uid: u32,
    privileged: bool,
    occupant: Occupant,
    used: Mutex<Use>,
}

impl Places {
    /// Places for as many connections as the process's descriptors allow.
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

    /// Places for a port that serves no streams.
    pub(super) fn of_port(most: usize) -> Arc<Self> {
        Self::new(0, most)
    }

    fn new(streams: usize, others: usize) -> Arc<Self> {
        let pool = |most| Mutex::new(SeatPool { shares: Shares::new(most, RESERVED), occupants: HashMap::new() });
        Arc::new(Self { streams: pool(streams), others: pool(others), next: AtomicU64::new(0) })
    }

    /// A place for a new connection of this user, with its client's time limit; `None` when none is left for it. `privileged`
    /// users have places that are kept for them, and no share.
    pub(super) fn seat(self: &Arc<Self>, uid: u32, privileged: bool, patience: &Arc<Patience>) -> Option<Seat> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let occupant = Occupant { patience: Arc::clone(patience), displaced: Closing::default() };
        let used = [Use::Other, Use::Stream]
            .into_iter()
            .find(|used| SeatPool::take(self.pool(*used), id, uid, privileged, &occupant))?;
        Some(Seat { places: Arc::clone(self), id, uid, privileged, occupant, used: Mutex::new(used) })
    }

    const fn pool(&self, used: Use) -> &Mutex<SeatPool> {
        match used {
            Use::Stream => &self.streams,
            Use::Other => &self.others,
        }
    }
}

impl Seat {
    /// Whether the next request, of this use, has a place. Without one it must be refused, and the connection closed.
    pub(super) fn suits(&self, next: Use) -> bool {
        if self.occupant.displaced.has_begun() {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if *used == next {
            return true;
        }
        // The new place is taken before the old one is released: when refused, the connection still has a place from which to
        // say so.
        let fits = SeatPool::take(self.places.pool(next), self.id, self.uid, self.privileged, &self.occupant);
        if fits {
            SeatPool::give_back(self.places.pool(*used), self.id, self.uid);
            *used = next;
        }
        fits
    }

    /// Begins when the connection has lost its place to a user who holds fewer.
    pub(super) fn displaced(&self) -> Closing {
        self.occupant.displaced.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let used = *self.used.get_mut().unwrap_or_else(PoisonError::into_inner);
        SeatPool::give_back(self.places.pool(used), self.id, self.uid);
    }
}

impl SeatPool {
    fn take(pool: &Mutex<Self>, id: SeatId, uid: u32, privileged: bool, occupant: &Occupant) -> bool {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { shares, occupants } = &mut *pool;
        let idle_since = |seat| occupants.get(&seat).and_then(|held: &Occupant| held.patience.idle_since());
        match shares.take(id, uid, privileged, idle_since) {
            None => return false,
            Some(Granted::Free) => {}
            Some(Granted::InsteadOf(victim)) => {
                if let Some(victim) = occupants.remove(&victim) {
                    victim.displaced.begin();
                }
            }
        }
        occupants.insert(id, occupant.clone());
        true
    }

    fn give_back(pool: &Mutex<Self>, id: SeatId, uid: u32) {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.shares.give_back(id, uid);
        pool.occupants.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(places: &Arc<Places>, uid: u32, privileged: bool) -> Vec<Seat> {
        std::iter::from_fn(|| places.seat(uid, privileged, &busy())).take(1000).collect()
    }

    /// The time limit of a connection that is being answered.
    fn busy() -> Arc<Patience> {
        let patience = Patience::new();
        patience.head_came();
        patience
    }

    fn taken(pool: &Mutex<SeatPool>) -> usize {
        pool.lock().unwrap().occupants.len()
    }

    #[test]
    fn one_user_gets_half_and_the_last_places_are_the_operators() {
        let places = Places::new(200, 100);
        let greedy = seats(&places, 1, false);
        assert_eq!(greedy.len(), 50 + 100, "half of each");
        let others: Vec<_> = (2..1000).map_while(|uid| places.seat(uid, false, &busy())).collect();
        assert_eq!(others.len(), 300 - 150 - 2 * RESERVED);
        assert_eq!(seats(&places, 0, true).len(), 2 * RESERVED);
        drop((greedy, others));
        assert_eq!((taken(&places.streams), taken(&places.others)), (0, 0));
        assert!(places.seat(1, false, &busy()).is_some());
    }

    #[test]
    fn there_are_as_many_as_promised_and_fewer_of_both_with_fewer_descriptors() {
        let most = |descriptors| {
            let places = Places::with_descriptors(descriptors);
            let of = |pool: &Mutex<SeatPool>| pool.lock().unwrap().shares.most();
            (of(&places.streams), of(&places.others))
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
        let late = places.seat(1, false, &busy()).unwrap();
        assert!(!late.suits(Use::Other), "there is a place among the streams, and none for a check");
        assert!(late.suits(Use::Stream));
        drop(checks);
        assert!(late.suits(Use::Other), "a connection may change its use");
        assert_eq!(taken(&places.streams), 0);
    }

    #[test]
    fn an_idle_connection_loses_its_place_to_a_user_with_fewer_and_is_told() {
        let places = Places::of_port(100);
        let mut idle = Vec::new();
        for uid in [1, 2] {
            idle.extend(std::iter::from_fn(|| places.seat(uid, false, &Patience::new())).take(1000));
        }
        assert_eq!(idle.len(), 50 + 33);
        let two: Vec<_> = std::iter::from_fn(|| places.seat(3, false, &busy())).take(25).collect();
        assert_eq!(two.len(), 25);
        let displaced = idle.iter().filter(|seat| seat.displaced().has_begun()).count();
        assert_eq!(displaced, 50 + 33 + 25 - (100 - RESERVED));
        assert!(idle.iter().all(|seat| seat.suits(Use::Other) != seat.displaced().has_begun()));
        drop(idle);
        assert_eq!(taken(&places.others), 25);
    }
}
