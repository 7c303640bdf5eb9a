//! Results of forms. A form is answered with a redirect to the page that shows its result, so that reloading or
//! revisiting the page shows the result again and repeats nothing.
//!
//! Results are kept in memory, with a size limit, and only for the session that sent the form. A new key is shown once,
//! and only for a short time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;

use super::sessions::SessionHash;
use crate::org::OrgId;
use crate::role_keys::KeyReport;

/// How long a result can be shown: the maximum duration of a session.
const LIFE: Duration = Duration::from_hours(8);

/// How long a new key waits to be shown. A browser follows a redirect at once.
const KEY_LIFE: Duration = Duration::from_mins(2);

/// The maximum number of results of one session. The oldest is removed for a new one.
const MOST_OF_ONE: usize = 50;

/// The maximum memory of all results, in bytes. The oldest are removed for new ones.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The result for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) id: String,
    pub(crate) word: &'static str,
    /// Whether the device is now in the requested state.
    pub(crate) well: bool,
}

/// The result of a form.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// An action on these devices was done.
    Devices { title: &'static str, help: &'static str, results: Vec<Done> },
    /// Nothing was done yet: the user must confirm the removal of these devices.
    AskRemove {
        ids: Vec<String>,
        /// The devices that are revoked.
        revoked: Vec<String>,
        reason: String,
        /// The user was asked before, and typed a wrong number.
        wrong: bool,
    },
    /// The devices of a stop were restored.
    Restored { stop: String, restored: u64, left: u64 },
    /// The organisation has a new key; `None` when it was already shown.
    NewKey { key: Option<OrgKey>, old_key_ends: Option<Timestamp>, older_key_ended: bool },
    /// A key with a role was made; `None` when it was already shown. `old_key_ends` is there when it took the place of
    /// another key.
    /// With `waits` it is valid only after a second key has confirmed the request of that number.
    RoleKey { key: Option<OrgKey>, made: Box<KeyReport>, old_key_ends: Option<Timestamp>, waits: Option<String> },
    /// A new organisation with its key; `None` when the key was already shown.
    NewOrg { key: Option<OrgKey> },
}

impl Outcome {
    /// The approximate memory of the result, in bytes.
    fn size(&self) -> usize {
        const FIXED: usize = 256;
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
        FIXED
            + match self {
                Self::Devices { results, .. } => {
                    results.iter().map(|done| done.id.len() + size_of::<Done>()).sum::<usize>()
                }
                Self::AskRemove { ids, revoked, reason, .. } => texts(ids) + texts(revoked) + reason.len(),
                Self::Restored { stop, .. } => stop.len(),
                Self::RoleKey { made, .. } => {
                    size_of::<KeyReport>()
                        + [&made.name, &made.devices].into_iter().flatten().map(String::len).sum::<usize>()
                }
                Self::NewKey { .. } | Self::NewOrg { .. } => 0,
            }
    }

    fn key(&mut self) -> Option<&mut Option<OrgKey>> {
        match self {
            Self::NewKey { key, .. } | Self::RoleKey { key, .. } | Self::NewOrg { key } => Some(key),
            Self::Devices { .. } | Self::AskRemove { .. } | Self::Restored { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Kept {
    session: SessionHash,
    org: OrgId,
    made: BootTime,
    size: usize,
    outcome: Outcome,
}

/// All results, by their numbers, which grow with time.
#[derive(Default)]
pub(crate) struct Results {
    // A std mutex: held for one look into a map, never across an await.
    kept: Mutex<BTreeMap<i64, Kept>>,
}

impl Results {
    /// Stores a result and returns its number, which is about the time `at`.
    pub(crate) fn keep(&self, session: SessionHash, org: OrgId, outcome: Outcome, at: Timestamp, now: BootTime) -> i64 {
        let mut kept = self.lock();
        kept.retain(|_, one| now.saturating_since(one.made) < LIFE);
        forget_keys(&mut kept, |one| now.saturating_since(one.made) >= KEY_LIFE);
        let own: Vec<i64> = kept.iter().filter(|(_, one)| one.session == session).map(|(name, _)| *name).collect();
        for name in own.iter().take((own.len() + 1).saturating_sub(MOST_OF_ONE)) {
            kept.remove(name);
        }
        let size = outcome.size();
        let mut total: usize = kept.values().map(|one| one.size).sum::<usize>() + size;
        while total > MOST_BYTES
            && let Some((_, oldest)) = kept.pop_first()
        {
            total -= oldest.size;
        }
        let newest = kept.last_key_value().map_or(i64::MIN, |(name, _)| *name);
        let name = at.as_microsecond().max(newest.saturating_add(1));
        kept.insert(name, Kept { session, org, made: now, size, outcome });
        name
    }

    /// Finds a result by its number, if it belongs to this session and organisation. With `to_show`, a new key is
    /// returned with it and then deleted.
    pub(crate) fn look(
        &self,
        session: SessionHash,
        org: OrgId,
        name: i64,
        to_show: bool,
        now: BootTime,
    ) -> Option<Outcome> {
        let mut kept = self.lock();
        forget_keys(&mut kept, |one| now.saturating_since(one.made) >= KEY_LIFE);
        let one = kept.get_mut(&name).filter(|one| one.session == session && one.org == org)?;
        if now.saturating_since(one.made) >= LIFE {
            return None;
        }
        let mut shown = one.outcome.clone();
        let keys = (one.outcome.key(), shown.key());
        if let (Some(held), Some(given)) = keys {
            *(if to_show { held } else { given }) = None;
        }
        Some(shown)
    }

    /// Deletes the keys that wait to be shown to these sessions, which have ended.
    pub(crate) fn end(&self, sessions: &[SessionHash]) {
        forget_keys(&mut self.lock(), |one| sessions.contains(&one.session));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_keys(kept: &mut BTreeMap<i64, Kept>, which: impl Fn(&Kept) -> bool) {
    for one in kept.values_mut().filter(|one| which(one)) {
        one.outcome.key().map(Option::take);
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Results")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> BootTime {
        BootTime::from_millis(seconds * 1000)
    }

    fn at() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn session(number: u8) -> SessionHash {
        [number; 32]
    }

    fn done(ids: usize) -> Outcome {
        let one = |number| Done { id: format!("{number:0128}"), word: "revoked", well: true };
        Outcome::Devices { title: "Revoked", help: "", results: (0..ids).map(one).collect() }
    }

    fn key() -> OrgKey {
        crate::keys::new_key().unwrap()
    }

    #[test]
    fn a_result_is_shown_to_its_own_session_and_organisation_as_often_as_it_is_asked_for() {
        let (results, org) = (Results::default(), OrgId::random());
        let one = results.keep(session(1), org, done(2), at(), now(0));
        let two = results.keep(session(1), org, done(1), at(), now(0));
        assert_ne!(one, two, "two of one moment are two");
        for _ in 0..3 {
            let shown = results.look(session(1), org, one, true, now(60)).unwrap();
            assert!(matches!(shown, Outcome::Devices { results, .. } if results.len() == 2));
        }
        assert!(results.look(session(2), org, one, true, now(60)).is_none());
        assert!(results.look(session(1), OrgId::random(), one, true, now(60)).is_none());
        assert!(results.look(session(1), org, one + 17, true, now(60)).is_none());
        assert!(results.look(session(1), org, one, true, now(8 * 3600)).is_none());
    }

    #[test]
    fn a_key_is_given_out_once_and_only_to_be_shown() {
        let (results, org) = (Results::default(), OrgId::random());
        let keep = || results.keep(session(1), org, Outcome::NewOrg { key: Some(key()) }, at(), now(0));
        let look = |name, to_show, seconds| match results.look(session(1), org, name, to_show, now(seconds)) {
            Some(Outcome::NewOrg { key }) => key.is_some(),
            other => panic!("{other:?}"),
        };
        let one = keep();
        assert!(!look(one, false, 1), "what a browser fetches ahead shows nobody anything");
        assert!(look(one, true, 1) && !look(one, true, 1));
        let late = keep();
        assert!(!look(late, true, 120));
    }

    #[test]
    fn a_key_that_nobody_fetched_is_forgotten_when_it_is_old_and_when_its_session_ends() {
        let (results, org) = (Results::default(), OrgId::random());
        let keep = |number, seconds| {
            results.keep(session(number), org, Outcome::NewOrg { key: Some(key()) }, at(), now(seconds));
        };
        let held = || results.lock().values_mut().filter_map(|one| one.outcome.key()).flatten().count();
        keep(1, 0);
        keep(1, 60);
        keep(2, 60);
        assert_eq!(held(), 3);
        results.keep(session(3), org, done(1), at(), now(120));
        assert_eq!(held(), 2, "another's form is enough");
        results.end(&[session(2)]);
        assert_eq!(held(), 1);
        assert!(results.look(session(3), org, 0, false, now(180)).is_none());
        assert_eq!(held(), 0, "and so is another's look");
    }

    #[test]
    fn what_is_kept_is_bounded_for_one_session_and_for_all() {
        let (results, org) = (Results::default(), OrgId::random());
        let other = results.keep(session(2), org, done(1), at(), now(0));
        let first = results.keep(session(1), org, done(1), at(), now(0));
        for _ in 0..MOST_OF_ONE {
            results.keep(session(1), org, done(1), at(), now(0));
        }
        assert!(results.look(session(1), org, first, true, now(0)).is_none());
        assert!(results.look(session(2), org, other, true, now(0)).is_some());
        for number in 0..=255 {
            for _ in 0..4 {
                results.keep(session(number), org, done(500), at(), now(0));
            }
        }
        let kept = results.lock();
        let bytes: usize = kept.values().map(|one| one.size).sum();
        assert!(bytes <= MOST_BYTES && bytes > MOST_BYTES / 2, "{bytes}");
    }
}
