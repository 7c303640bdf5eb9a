//! Sessions. The browser stores 256 random bits and the server their hash: the content of the server's memory gives no
//! access.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;
use subtle::ConstantTimeEq;

use crate::keys::{NoRandomness, SecretHash, new_token};
use crate::org::OrgId;

/// How long a session lasts without a request of its user.
const IDLE: Duration = Duration::from_mins(30);

/// The maximum duration of a session.
const LIFE: Duration = Duration::from_hours(8);

/// The maximum number of sessions. The one that was idle longest is removed for a new one.
const MOST: usize = 10_000;

/// The owner of a session. The owner's rights are looked up again for each request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder {
    /// A user who signed in with this key of this organisation.
    Key(OrgId, SecretHash),
    /// The operator: the user with this uid who requested the link.
    Operator(u32),
}

impl Holder {
    /// Whether both are the same owner: the same operator, and of an organisation's keys those within this reach.
    fn same(&self, other: &Self, reach: SignOutReach) -> bool {
        match (self, other) {
            (Self::Key(one, key), Self::Key(two, other)) => {
                one == two && (reach == SignOutReach::Organisation || key.matches(other.as_bytes()))
            }
            (Self::Operator(one), Self::Operator(two)) => one == two,
            (Self::Key(..), Self::Operator(_)) | (Self::Operator(_), Self::Key(..)) => false,
        }
    }
}

/// Which sessions of an organisation end when a user signs out everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignOutReach {
    /// Those that began with the same key. A key that may only look must not sign out the holder of one that may stop.
    Key,
    /// Those of every key.
    Organisation,
}

/// The hash of a session's id, by which the server finds the session.
pub(crate) type SessionHash = [u8; 32];

/// An open session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) hash: SessionHash,
    pub(crate) holder: Holder,
    /// The token that every form carries.
    pub(crate) csrf: String,
    began: BootTime,
    used: BootTime,
}

/// All sessions, by the hashes of their ids.
#[derive(Default)]
pub(crate) struct Sessions {
    // A std mutex: held for one look into a map, never across an await.
    open: Mutex<HashMap<SessionHash, Session>>,
}

impl Sessions {
    /// Begins a session under a new id, which no client could know before. The id exists only in the answer.
    pub(crate) fn begin(&self, holder: Holder, now: BootTime) -> Result<String, NoRandomness> {
        let (id, csrf) = (new_token()?, new_token()?);
        let mut open = self.lock();
        if open.len() >= MOST {
            open.retain(|_, session| session.lasts(now));
        }
        if open.len() >= MOST {
            let oldest = open.iter().min_by_key(|(_, session)| session.used.as_millis()).map(|(hash, _)| *hash);
            oldest.and_then(|hash| open.remove(&hash));
        }
        let hash = SecretHash::of_session(&id).bytes();
        open.insert(hash, Session { hash, holder, csrf, began: now, used: now });
        Ok(id)
    }

    /// Finds the session with this id. `by_person` keeps it from going idle; requests of a page's script do not.
    pub(crate) fn find(&self, id: &str, now: BootTime, by_person: bool) -> Option<Session> {
        let hash = SecretHash::of_session(id).bytes();
        let mut open = self.lock();
        let session = open.get_mut(&hash)?;
        if !session.lasts(now) {
            open.remove(&hash);
            return None;
        }
        if by_person {
            session.used = now;
        }
        Some(session.clone())
    }

    /// Ends the session, if there is one, and returns its hash.
    pub(crate) fn end(&self, id: &str) -> Option<SessionHash> {
        self.lock().remove(&SecretHash::of_session(id).bytes()).map(|session| session.hash)
    }

    /// Ends every session of the same operator, or of an organisation within this reach, and returns their hashes.
    pub(crate) fn end_all(&self, of: &Session, reach: SignOutReach) -> Vec<SessionHash> {
        self.lock().extract_if(|_, session| session.holder.same(&of.holder, reach)).map(|(hash, _)| hash).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn lasts(&self, now: BootTime) -> bool {
        now.saturating_since(self.used) < IDLE && now.saturating_since(self.began) < LIFE
    }

    /// Whether `csrf` is this session's token.
    pub(crate) fn wrote(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: Holder = Holder::Operator(0);

    fn at(minutes: u64) -> BootTime {
        BootTime::from_millis(minutes * 60_000)
    }

    #[test]
    fn a_session_ends_when_it_is_idle_when_it_is_old_and_when_it_is_told_to() {
        let sessions = Sessions::default();
        let idle = sessions.begin(HOLDER, at(0)).unwrap();
        assert!(sessions.find(&idle, at(29), false).is_some());
        assert!(sessions.find(&idle, at(30), true).is_none(), "what a page asks by itself keeps nothing alive");
        let busy = sessions.begin(HOLDER, at(0)).unwrap();
        for minutes in (0..8 * 60).step_by(20) {
            assert!(sessions.find(&busy, at(minutes), true).is_some(), "{minutes}");
        }
        assert!(sessions.find(&busy, at(8 * 60), true).is_none());
        let ended = sessions.begin(HOLDER, at(0)).unwrap();
        sessions.end(&ended);
        assert!(sessions.find(&ended, at(0), true).is_none());
        assert!(sessions.lock().is_empty(), "nothing is left behind");
    }

    #[test]
    fn no_two_sessions_share_anything_and_only_their_ids_open_them() {
        let sessions = Sessions::default();
        let (one, two) = (sessions.begin(HOLDER, at(0)).unwrap(), sessions.begin(HOLDER, at(0)).unwrap());
        let csrf = |id: &str| sessions.find(id, at(0), true).unwrap().csrf;
        assert!(one != two && csrf(&one) != csrf(&two) && one != csrf(&one));
        assert!(sessions.find("", at(0), true).is_none() && sessions.find(&csrf(&one), at(0), true).is_none());
        let session = sessions.find(&one, at(0), true).unwrap();
        assert!(session.wrote(&csrf(&one)) && !session.wrote(&csrf(&two)) && !session.wrote(""));
        let shown = format!("{session:?} {sessions:?}");
        assert!(!shown.contains(&one) && !shown.contains(&csrf(&one)), "{shown}");
    }

    #[test]
    fn all_sessions_of_one_holder_end_together_and_nobody_elses() {
        let sessions = Sessions::default();
        let key = |org| Holder::Key(org, SecretHash::of_session("key"));
        let (own, other) = (OrgId::random(), OrgId::random());
        let begin = |holder| sessions.begin(holder, at(0)).unwrap();
        let (one, two) = (begin(key(own)), begin(key(own)));
        let kept = [begin(key(other)), begin(HOLDER)];
        sessions.end_all(&sessions.find(&one, at(0), true).unwrap(), SignOutReach::Organisation);
        assert!([one, two].iter().all(|id| sessions.find(id, at(0), true).is_none()));
        assert!(kept.iter().all(|id| sessions.find(id, at(0), true).is_some()));
        sessions.end_all(&sessions.find(&kept[1], at(0), true).unwrap(), SignOutReach::Key);
        assert!(sessions.find(&kept[0], at(0), true).is_some() && sessions.find(&kept[1], at(0), true).is_none());
    }

    #[test]
    fn a_key_that_may_only_look_ends_its_own_sessions_and_those_of_no_other_key() {
        let sessions = Sessions::default();
        let org = OrgId::random();
        let begin = |key| sessions.begin(Holder::Key(org, SecretHash::of_session(key)), at(0)).unwrap();
        let (one, two, oncall) = (begin("read"), begin("read"), begin("stop"));
        sessions.end_all(&sessions.find(&one, at(0), true).unwrap(), SignOutReach::Key);
        assert!([one, two].iter().all(|id| sessions.find(id, at(0), true).is_none()));
        assert!(sessions.find(&oncall, at(0), true).is_some());
    }

    #[test]
    fn there_is_always_room_for_one_more() {
        let sessions = Sessions::default();
        let first = sessions.begin(HOLDER, at(0)).unwrap();
        let second = sessions.begin(HOLDER, at(1)).unwrap();
        for _ in 2..=MOST {
            sessions.begin(HOLDER, at(2)).unwrap();
        }
        assert_eq!(sessions.lock().len(), MOST);
        assert!(sessions.find(&first, at(2), true).is_none() && sessions.find(&second, at(2), true).is_some());
    }
}
