//! A batch: the distinct ids to act on, valid or not.

use std::collections::HashSet;

use machineid_protocol::DeviceId;
use machineid_protocol::api::LARGEST_BATCH;

/// One distinct entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The entry as the client sent it; the result is reported under it.
    pub(super) sent: String,
    /// The device id, if the entry is valid.
    pub(super) id: Option<DeviceId>,
}

/// Why a list of ids is not a valid batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchError {
    /// The list is empty: refused, since that is far more likely a mistake of the caller than a wish to do nothing.
    Empty,
    /// More than [`LARGEST_BATCH`] distinct valid ids.
    TooLarge,
}

/// The result for one entry of a batch; `Invalid` when the entry is not a device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    Invalid,
    Did(T),
}

/// Removes repetitions, in the order of first mention. `" a "` and `"a"` are the same device and so one entry.
pub(super) fn distinct(sent: Vec<String>) -> Result<Vec<Named>, BatchError> {
    if sent.is_empty() {
        return Err(BatchError::Empty);
    }
    let mut devices = HashSet::new();
    let mut invalid = HashSet::new();
    let mut batch = Vec::with_capacity(sent.len());
    for sent in sent {
        let id: Option<DeviceId> = sent.parse().ok();
        let first = match &id {
            Some(id) => devices.insert(id.clone()),
            None => invalid.insert(sent.clone()),
        };
        if first {
            batch.push(Named { sent, id });
        }
    }
    if devices.len() > LARGEST_BATCH { Err(BatchError::TooLarge) } else { Ok(batch) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn each_device_once_in_the_order_of_first_mention() {
        let batch = distinct(texts(&["b", " a ", "a", "no no", "b", "no no"])).unwrap();
        let seen: Vec<_> = batch.iter().map(|n| (n.sent.as_str(), n.id.as_ref().map(DeviceId::as_str))).collect();
        assert_eq!(seen, [("b", Some("b")), (" a ", Some("a")), ("no no", None)]);
    }

    #[test]
    fn only_distinct_valid_ids_count_against_the_limit() {
        let mut ids: Vec<String> = (0..LARGEST_BATCH).map(|n| format!("d{n}")).collect();
        ids.extend(texts(&["d0", "d1", "", "!"]));
        assert_eq!(distinct(ids.clone()).unwrap().len(), LARGEST_BATCH + 2);
        ids.push("one-more".to_owned());
        assert_eq!(distinct(ids), Err(BatchError::TooLarge));
        assert_eq!(distinct(Vec::new()), Err(BatchError::Empty));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_repeated(sent in proptest::collection::vec("[ab !]{0,3}", 1..40)) {
            let batch = distinct(sent.clone()).unwrap();
            let key = |text: &str| text.parse::<DeviceId>().map_or_else(|_| format!("!{text}"), |id| id.to_string());
            let expected: HashSet<_> = sent.iter().map(|text| key(text)).collect();
            prop_assert_eq!(batch.len(), expected.len());
            let got: HashSet<_> = batch.iter().map(|named| key(&named.sent)).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
