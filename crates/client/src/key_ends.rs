//! The end of the org key in use, as told by an authority that accepts an old key for a while.

use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use jiff::Timestamp;
use machineid_org_key::OrgKey;
use machineid_protocol::api::KEY_ENDS_HEADER;

/// The latest information about the key in use.
#[derive(Debug, Default)]
pub(super) struct KeyEnds {
    // A std mutex: held for one comparison, never across an await.
    said: Mutex<Option<(OrgKey, Timestamp)>>,
}

impl KeyEnds {
    /// Records the header of a decision for this key. An invalid time is ignored.
    pub(super) fn note(&self, key: &OrgKey, headers: &HeaderMap) {
        let text = headers.get(KEY_ENDS_HEADER).and_then(|value| value.to_str().ok());
        let ends: Option<Timestamp> = text.and_then(|text| text.parse().ok());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match ends {
            Some(ends) => *said = Some((key.clone(), ends)),
            // An answer for another key says nothing about the recorded one.
            None if said.as_ref().is_some_and(|(about, _)| about == key) => *said = None,
            None => {}
        }
    }

    /// When this key ends, if the authority told it.
    pub(super) fn of(&self, key: &OrgKey) -> Option<Timestamp> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().filter(|(about, _)| about == key).map(|(_, ends)| *ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(KEY_ENDS_HEADER), text.parse().unwrap())])
    }

    #[test]
    fn an_end_is_that_of_the_key_it_was_said_of_until_that_key_is_answered_without_one() {
        let key = |digit: &str| format!("org_{}", digit.repeat(64)).parse::<OrgKey>().unwrap();
        let (old, new, ends) = (key("1"), key("2"), KeyEnds::default());
        ends.note(&old, &headers("2027-01-15T08:00:00Z"));
        let at = "2027-01-15T08:00:00Z".parse().unwrap();
        assert_eq!((ends.of(&old), ends.of(&new)), (Some(at), None));
        ends.note(&new, &HeaderMap::new());
        assert_eq!(ends.of(&old), Some(at));
        ends.note(&old, &headers("soon"));
        assert_eq!(ends.of(&old), None);
    }
}
