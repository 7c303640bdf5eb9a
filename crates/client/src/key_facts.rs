//! What an authority tells about the org key in use, beside its decisions: its role, and when it ends.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use machineid_org_key::OrgKey;
use machineid_protocol::KeyRole;
use machineid_protocol::api::{KEY_ENDS_HEADER, KEY_ROLE_HEADER};

/// What is known of a key. Nothing, where the authority says nothing: that is an extension of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// The key's role.
    pub role: Option<KeyRole>,
    /// When it ends, if that is soon or another key has taken its place.
    pub ends: Option<Timestamp>,
}

/// The newest facts, and the key that they are about.
#[derive(Debug, Default)]
pub(super) struct KnownKey {
    // A std mutex: held for one comparison, never across an await.
    newest: Mutex<Option<(OrgKey, KeyFacts)>>,
}

impl KeyFacts {
    /// Reads the headers of a decision. An invalid time and an unknown role are ignored.
    fn read(headers: &HeaderMap) -> Self {
        fn value<T: std::str::FromStr>(headers: &HeaderMap, name: &'static str) -> Option<T> {
            headers.get(HeaderName::from_static(name))?.to_str().ok()?.parse().ok()
        }
        Self { role: value(headers, KEY_ROLE_HEADER), ends: value(headers, KEY_ENDS_HEADER) }
    }
}

impl KnownKey {
    /// Records the headers of a decision for this key.
    pub(super) fn note(&self, key: &OrgKey, headers: &HeaderMap) {
        let facts = KeyFacts::read(headers);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.as_mut() {
            Some((about, known)) if about == key => *known = facts,
            // An answer for another key that says nothing leaves what is recorded.
            Some(_) | None if facts == KeyFacts::default() => {}
            Some(_) | None => *newest = Some((key.clone(), facts)),
        }
    }

    /// What the authority told of this key.
    pub(super) fn of(&self, key: &OrgKey) -> KeyFacts {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().filter(|(about, _)| about == key).map(|(_, facts)| *facts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn key(digit: &str) -> OrgKey {
        format!("org_{}", digit.repeat(64)).parse().unwrap()
    }

    #[test]
    fn an_end_is_that_of_the_key_it_was_said_of_until_that_key_is_answered_without_one() {
        let (old, new, known) = (key("1"), key("2"), KnownKey::default());
        known.note(&old, &headers(&[(KEY_ENDS_HEADER, "2027-01-15T08:00:00Z")]));
        let at = "2027-01-15T08:00:00Z".parse().unwrap();
        assert_eq!((known.of(&old).ends, known.of(&new).ends), (Some(at), None));
        known.note(&new, &HeaderMap::new());
        assert_eq!(known.of(&old).ends, Some(at));
        known.note(&old, &headers(&[(KEY_ENDS_HEADER, "soon")]));
        assert_eq!(known.of(&old).ends, None);
    }

    #[test]
    fn a_role_is_that_of_the_key_it_was_said_of_and_an_unknown_one_is_none() {
        let (first, second, known) = (key("1"), key("2"), KnownKey::default());
        known.note(&first, &headers(&[(KEY_ROLE_HEADER, "admin")]));
        assert_eq!((known.of(&first).role, known.of(&second).role), (Some(KeyRole::Admin), None));
        known.note(&second, &headers(&[(KEY_ROLE_HEADER, "host")]));
        assert_eq!((known.of(&first).role, known.of(&second).role), (None, Some(KeyRole::Host)));
        known.note(&second, &headers(&[(KEY_ROLE_HEADER, "emperor")]));
        assert_eq!(known.of(&second).role, None);
    }
}
