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

/// How many sessions there may be.
#[derive(Clone, Copy, Debug)]
struct SessionBounds {
    key: usize,
    org: usize,
    /// Of all organisations.
    all_orgs: usize,
    /// Of the server's operators, who take no place of an organisation's and lose none to one.
    operators: usize,
}

const BOUNDS: SessionBounds = SessionBounds { key: 16, org: 256, all_orgs: 10_000, operators: 256 };

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
pub(crate) struct Sessions {
    // A std mutex: held for one look into a map, never across an await.
    open: Mutex<HashMap<SessionHash, Session>>,
    bounds: SessionBounds,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { open: Mutex::default(), bounds: BOUNDS }
    }
}

impl Sessions {
    /// Begins a session under a new id, which no client could know before. The id exists only in the answer.
    pub(crate) fn begin(&self, holder: Holder, now: BootTime) -> Result<String, NoRandomness> {
        let (id, csrf) = (new_token()?, new_token()?);
        let mut open = self.lock();
        open.retain(|_, session| session.lasts(now));
        if let Some(hash) = replaced(&open, holder, &self.bounds) {
            open.remove(&hash);
        }
        let hash = SecretHash::of_session(&id).bytes();
        open.insert(hash, Session { hash, holder, csrf, began: now, used: now });
        Ok(id)
    }

    /// Finds the session with this id. `in_use` keeps it from going idle.
    pub(crate) fn find(&self, id: &str, now: BootTime, in_use: bool) -> Option<Session> {
        let hash = SecretHash::of_session(id).bytes();
        let mut open = self.lock();
        let session = open.get_mut(&hash)?;
        if !session.lasts(now) {
            open.remove(&hash);
            return None;
        }
        if in_use {
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

/// The session that ends so that a new one of `holder` can begin; `None` while there is room.
///
/// A key, an organisation and all organisations have a bound each, and so have the operators. Where one is reached, the
/// session ends that was not used for longest: of the key itself, of the organisation's key with the most sessions, or of the
/// organisation with the most. So a flood of sign-ins ends its own sessions.
fn replaced(open: &HashMap<SessionHash, Session>, holder: Holder, bounds: &SessionBounds) -> Option<SessionHash> {
    let Holder::Key(org, key) = holder else {
        let operators: Vec<_> = open.values().filter(|session| session.key().is_none()).collect();
        return (operators.len() >= bounds.operators).then(|| longest_unused(&operators)).flatten();
    };
    let with_key: Vec<_> = open.values().filter_map(|session| Some((session.key()?, session))).collect();
    let own_org: Vec<_> = with_key.iter().filter(|((other, _), _)| *other == org).copied().collect();
    let own_key: Vec<_> = own_org.iter().filter(|((_, other), _)| *other == key.bytes()).map(|(_, own)| *own).collect();
    if own_key.len() >= bounds.key {
        longest_unused(&own_key)
    } else if own_org.len() >= bounds.org {
        of_largest_key(&own_org)
    } else if with_key.len() >= bounds.all_orgs {
        let mut orgs: HashMap<OrgId, Vec<(KeyOf, &Session)>> = HashMap::new();
        for (key, session) in with_key {
            orgs.entry(key.0).or_default().push((key, session));
        }
        let weight = |sessions: &Vec<(KeyOf, &Session)>| crowding(sessions.iter().map(|(_, session)| *session));
        orgs.values().max_by_key(|sessions| weight(sessions)).and_then(|most| of_largest_key(most))
    } else {
        None
    }
}

/// An organisation and the hash of a key of it.
type KeyOf = (OrgId, [u8; 32]);

/// The longest unused session of the key that has the most.
fn of_largest_key(sessions: &[(KeyOf, &Session)]) -> Option<SessionHash> {
    let mut keys: HashMap<KeyOf, Vec<&Session>> = HashMap::new();
    for (key, session) in sessions {
        keys.entry(*key).or_default().push(session);
    }
    let weight = |sessions: &Vec<&Session>| crowding(sessions.iter().copied());
    keys.values().max_by_key(|sessions| weight(sessions)).and_then(|most| longest_unused(most))
}

/// How much these sessions crowd others out: by their number, and of as many by the latest sign-in, since a flood goes on.
fn crowding<'a>(sessions: impl Iterator<Item = &'a Session>) -> (usize, Option<u64>) {
    sessions.fold((0, None), |(count, latest), session| (count + 1, latest.max(Some(session.began.as_millis()))))
}

fn longest_unused(sessions: &[&Session]) -> Option<SessionHash> {
    sessions.iter().min_by_key(|session| session.used.as_millis()).map(|session| session.hash)
}

impl Session {
    /// The key that it began with; `None` for an operator's.
    fn key(&self) -> Option<KeyOf> {
        match self.holder {
            Holder::Key(org, key) => Some((org, key.bytes())),
            Holder::Operator(_) => None,
        }
    }

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
        assert!(sessions.find(&idle, at(30), true).is_none(), "what is not use keeps nothing alive");
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

    fn key(org: OrgId, key: &str) -> Holder {
        Holder::Key(org, SecretHash::of_session(key))
    }

    const SMALL: SessionBounds = SessionBounds { key: 4, org: 12, all_orgs: 40, operators: 6 };

    #[test]
    fn a_flood_of_sign_ins_ends_sessions_of_its_own_key_alone() {
        let sessions = Sessions::default();
        let org = OrgId::random();
        let begin = |holder, minute| sessions.begin(holder, at(minute)).unwrap();
        let others = [begin(HOLDER, 0), begin(key(org, "oncall"), 0), begin(key(OrgId::random(), "other"), 0)];
        let first = begin(key(org, "read"), 1);
        for _ in 0..BOUNDS.key {
            begin(key(org, "read"), 2);
        }
        assert!(sessions.find(&first, at(3), true).is_none(), "its longest unused one ends");
        assert!(others.iter().all(|id| sessions.find(id, at(3), true).is_some()));
        assert_eq!(sessions.lock().len(), BOUNDS.key + others.len());
    }

    #[test]
    fn a_flood_of_keys_and_of_organisations_ends_sessions_of_those_that_have_the_most() {
        let sessions = Sessions { bounds: SMALL, ..Sessions::default() };
        let (org, other) = (OrgId::random(), OrgId::random());
        let begin = |holder, minute| sessions.begin(holder, at(minute)).unwrap();
        let kept = [begin(key(org, "oncall"), 0), begin(key(other, "key"), 0), begin(HOLDER, 0)];
        for number in 0..SMALL.org + 10 {
            begin(key(org, &(number / 2).to_string()), 1);
        }
        assert_eq!(sessions.lock().len(), SMALL.org + 2);
        for _ in 0..SMALL.all_orgs / SMALL.org + 2 {
            let flooding = OrgId::random();
            for each in 0..SMALL.org {
                begin(key(flooding, &(each / SMALL.key).to_string()), 2);
            }
        }
        assert_eq!(sessions.lock().len(), SMALL.all_orgs + 1);
        assert!(kept.iter().all(|id| sessions.find(id, at(4), true).is_some()), "none of those with few has lost one");
    }

    #[test]
    fn operators_have_a_bound_of_their_own() {
        let sessions = Sessions { bounds: SMALL, ..Sessions::default() };
        let org = sessions.begin(key(OrgId::random(), "key"), at(0)).unwrap();
        let first = sessions.begin(HOLDER, at(1)).unwrap();
        for uid in (0..).take(SMALL.operators) {
            sessions.begin(Holder::Operator(uid), at(2)).unwrap();
        }
        assert_eq!(sessions.lock().len(), SMALL.operators + 1);
        assert!(sessions.find(&first, at(2), true).is_none() && sessions.find(&org, at(2), true).is_some());
    }
}
