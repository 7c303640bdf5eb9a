//! Addresses that sign an operator in: made on the admin socket, good for minutes, and once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

use crate::keys::{NoRandomness, SecretHash, new_token};
use crate::org::OrgId;

/// How long an address is good.
pub(crate) const LIFE: Duration = Duration::from_mins(5);

/// The most at a time. The oldest makes room.
const MOST: usize = 100;

/// What an address is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Who asked for it.
    pub(crate) uid: u32,
    /// Whose pages it leads to; `None` for the list of all organisations.
    pub(crate) org: Option<OrgId>,
    made: BootTime,
}

/// All of them, by the hashes of their secrets.
#[derive(Default)]
pub(crate) struct Links {
    // A std mutex: held for one look into a map, never across an await.
    open: Mutex<HashMap<[u8; 32], Link>>,
}

impl Links {
    /// Makes one. The secret is nowhere but in the answer.
    pub(crate) fn make(&self, uid: u32, org: Option<OrgId>, now: BootTime) -> Result<String, NoRandomness> {
        let secret = new_token()?;
        let mut open = self.lock();
        open.retain(|_, link| link.lasts(now));
        if open.len() >= MOST {
            let oldest = open.iter().min_by_key(|(_, link)| link.made.as_millis()).map(|(hash, _)| *hash);
            oldest.and_then(|hash| open.remove(&hash));
        }
        open.insert(SecretHash::of_console_link(&secret).bytes(), Link { uid, org, made: now });
        Ok(secret)
    }

    /// Whether it is good. To look uses nothing up: programs that preview addresses do.
    pub(crate) fn is_good(&self, secret: &str, now: BootTime) -> bool {
        self.lock().get(&SecretHash::of_console_link(secret).bytes()).is_some_and(|link| link.lasts(now))
    }

    /// Uses it up.
    pub(crate) fn take(&self, secret: &str, now: BootTime) -> Option<Link> {
        self.lock().remove(&SecretHash::of_console_link(secret).bytes()).filter(|link| link.lasts(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Link>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn lasts(&self, now: BootTime) -> bool {
        now.saturating_since(self.made) < LIFE
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_millis(seconds * 1000)
    }

    #[test]
    fn a_link_is_good_once_and_for_minutes() {
        let links = Links::default();
        let org = Some(OrgId::random());
        let secret = links.make(7, org, at(0)).unwrap();
        assert!(links.is_good(&secret, at(299)) && links.is_good(&secret, at(299)), "to look uses nothing up");
        assert!(!links.is_good(&secret, at(300)) && !links.is_good("", at(0)));
        let link = links.take(&secret, at(299)).unwrap();
        assert_eq!((link.uid, link.org), (7, org));
        assert!(links.take(&secret, at(299)).is_none() && !links.is_good(&secret, at(299)));
        let late = links.make(7, None, at(0)).unwrap();
        assert!(links.take(&late, at(300)).is_none());
    }

    #[test]
    fn a_hundred_links_are_kept() {
        let links = Links::default();
        let first = links.make(0, None, at(0)).unwrap();
        for _ in 0..MOST {
            links.make(0, None, at(1)).unwrap();
        }
        assert!(links.lock().len() == MOST && !links.is_good(&first, at(1)));
    }
}
