//! Which look-ups use the way of the stops: those of known keys always, those of unknown ones a few at a time, so that no
//! crowd of invented keys makes a stop wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::keys::SecretHash;

/// How many look-ups of unknown keys may wait there at once: less than a millisecond's work.
const UNKNOWN: usize = 16;

/// The most keys remembered.
const KNOWN: usize = 100_000;

/// The keys that may stop agents, as far as this server saw them in use. They decide nothing but where a look-up waits.
#[derive(Debug)]
pub(super) struct StopKeys {
    // A std mutex: held for one look, never across an await.
    known: Mutex<HashSet<[u8; 32]>>,
    unknown: Arc<Semaphore>,
}

/// Where a look-up waits.
#[derive(Debug)]
pub(super) enum Way {
    /// Before all others: the key is known.
    Known,
    /// Among the few of unknown keys, for as long as this is held.
    AsOneOfFew(OwnedSemaphorePermit),
    /// With the validations.
    Usual,
}

impl StopKeys {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), unknown: Arc::new(Semaphore::new(UNKNOWN)) }
    }

    pub(super) fn way(&self, key: SecretHash) -> Way {
        if self.lock().contains(&key.bytes()) {
            return Way::Known;
        }
        Arc::clone(&self.unknown).try_acquire_owned().map_or(Way::Usual, Way::AsOneOfFew)
    }

    /// The key is valid and may stop agents.
    pub(super) fn know(&self, key: SecretHash) {
        let mut known = self.lock();
        if known.len() >= KNOWN && !known.contains(&key.bytes()) {
            known.clear();
        }
        known.insert(key.bytes());
    }

    /// The key is not valid any more.
    pub(super) fn forget(&self, key: SecretHash) {
        self.lock().remove(&key.bytes());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_has_its_way_however_many_unknown_ones_ask() {
        let keys = StopKeys::new();
        let of = |text: String| SecretHash::of_token(&text);
        let known = of("known".to_owned());
        keys.know(known);
        let invented: Vec<Way> = (0..UNKNOWN + 5).map(|number| keys.way(of(number.to_string()))).collect();
        let few = |ways: &[Way]| ways.iter().filter(|way| matches!(way, Way::AsOneOfFew(_))).count();
        assert_eq!(few(&invented), UNKNOWN);
        assert!(matches!(invented.last(), Some(Way::Usual)) && matches!(keys.way(known), Way::Known));
        drop(invented);
        keys.forget(known);
        assert!(matches!(keys.way(known), Way::AsOneOfFew(_)), "an answered one makes room");
    }
}
