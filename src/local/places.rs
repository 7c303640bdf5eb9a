//! How many connections are served at once, and for whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

/// Connections served at once, when there are descriptors for them.
const MOST: usize = 4096 + 1024;
/// Kept for root and the daemon's own user, so that an operator gets through.
const RESERVED: usize = 16;
/// Descriptors one connection may take: itself, its peer, and an agent's leader and wrapper.
const DESCRIPTORS_EACH: u64 = 4;
/// Descriptors that no connection may take: a stop, the authority and the gates need them.
const DESCRIPTORS_KEPT: u64 = 256;

/// The places for connections.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<HashMap<u32, usize>>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// As many as the process's descriptors allow.
    pub(super) fn of_this_process() -> Arc<Self> {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let affordable = descriptors.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH;
        Self::new(usize::try_from(affordable).unwrap_or(MOST).clamp(2 * RESERVED, MOST))
    }

    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for this user; `None` when there is none left for it. One user gets half of them at most, so that a greedy
    /// one leaves room for others; `privileged` ones are exempt.
    pub(super) fn take(self: &Arc<Self>, uid: u32, privileged: bool) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let fits = if privileged { all < self.most } else { all < self.most - RESERVED && own < self.most / 2 };
        fits.then(|| {
            taken.insert(uid, own + 1);
            Place { places: Arc::clone(self), uid }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.uid).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.remove(&self.uid);
        } else {
            taken.insert(self.uid, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_half_and_the_last_places_are_the_operators() {
        let places = Places::new(100);
        let greedy: Vec<_> = (0..100).map_while(|_| places.take(1, false)).collect();
        assert_eq!(greedy.len(), 50);
        let others: Vec<_> = (2..100).map_while(|uid| places.take(uid, false)).collect();
        assert_eq!(others.len(), 100 - 50 - RESERVED);
        let operator: Vec<_> = (0..100).map_while(|_| places.take(0, true)).collect();
        assert_eq!(operator.len(), RESERVED);
        drop((greedy, others, operator));
        assert!(places.taken.lock().unwrap().is_empty());
        assert!(places.take(1, false).is_some());
    }
}
