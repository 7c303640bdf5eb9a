//! Links that sign an operator in: made through the admin socket, valid for minutes, and once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

use crate::keys::{NoRandomness, SecretHash, new_token};
use crate::org::OrgId;

/// How long a link is valid.
pub(crate) const LIFE: Duration = Duration::from_mins(5);

/// The maximum number of links. The oldest is removed for a new one.
const MOST: usize = 100;

/// The rights of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The user who requested it.
    pub(crate) uid: u32,
    /// The organisation whose pages it opens; `None` for the list of all.
    pub(crate) org: Option<OrgId>,
    made: BootTime,
}

/// All links, by the hashes of their secrets.
#[derive(Default)]
pub(crate) struct Links {
    // A std mutex: held for one look into a map, never across an await.
    open: Mutex<HashMap<[u8; 32], Link>>,
}

impl Links {
    /// Makes a link. Its secret exists only in the answer.
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

    /// Whether the link is valid. This does not use it up, since programs that preview addresses fetch it.
    pub(crate) fn is_good(&self, secret: &str, now: BootTime) -> bool {
        self.lock().get(&SecretHash::of_console_link(secret).bytes()).is_some_and(|link| link.lasts(now))
    }

    /// Uses the link up.
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
