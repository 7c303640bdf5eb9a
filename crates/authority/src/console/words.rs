//! Times, states and addresses in a readable form. Pure.

use jiff::Timestamp;
use machineid_protocol::api::DeviceStatus;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::audit::AuditEntry;
use crate::decide::{Asker, Subject, ValidationVerdict, decide};
use crate::org::Org;

/// A time, exact and relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::console) struct When {
    /// The time in RFC 3339.
    pub(in crate::console) exact: String,
    /// The time of day, `14:03:20 UTC`, with the date when it is not today.
    pub(in crate::console) clock: String,
    /// The relative time: `2 min ago`, or `in 2 min`.
    pub(in crate::console) ago: String,
}

impl When {
    pub(in crate::console) fn new(at: Timestamp, now: Timestamp) -> Self {
        let format =
            if at.strftime("%F").to_string() == now.strftime("%F").to_string() { "%T UTC" } else { "%F %T UTC" };
        Self { exact: format!("{at:.3}"), clock: at.strftime(format).to_string(), ago: ago(at, now) }
    }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second());
    let span = span(seconds.unsigned_abs());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{span} ago"),
        _ => format!("in {span}"),
    }
}

/// A number of seconds in the largest unit that fits.
pub(in crate::console) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The result of a validation of a device now: as a word, a shape, and a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::console) struct State {
    pub(in crate::console) word: &'static str,
    pub(in crate::console) shape: &'static str,
    /// The class in the style sheet.
    pub(in crate::console) class: &'static str,
}

impl State {
    pub(in crate::console) fn of(verdict: ValidationVerdict) -> Self {
        let (word, shape, class) = match verdict {
            ValidationVerdict::Allow => ("Allowed", "●", "allowed"),
            ValidationVerdict::DeviceRevoked => ("Revoked", "■", "revoked"),
            ValidationVerdict::OrgDisabled => ("Switched off", "▲", "halted"),
            ValidationVerdict::PlanFrozen => ("Frozen", "▲", "halted"),
            ValidationVerdict::EntitlementExpired => ("Expired", "▲", "halted"),
            ValidationVerdict::InvalidOrgKey
            | ValidationVerdict::NotPermitted
            | ValidationVerdict::OrgNotFound
            | ValidationVerdict::InvalidDeviceId
            | ValidationVerdict::DeviceNotFound
            | ValidationVerdict::Unavailable
            | ValidationVerdict::WrongMethod => ("Denied", "▲", "halted"),
        };
        Self { word, shape, class }
    }
}

/// The result of a validation of this device now.
pub(in crate::console) fn verdict(org: &Org, revoked: bool, now: Timestamp) -> ValidationVerdict {
    let status = if revoked { DeviceStatus::Revoked } else { DeviceStatus::Active };
    decide(&Asker::Org(org.clone()), Subject::Known(status), now)
}

/// An audit entry, as shown.
#[derive(Clone, Debug)]
pub(in crate::console) struct Deed {
    pub(in crate::console) at: When,
    pub(in crate::console) actor: String,
    pub(in crate::console) verb: String,
    pub(in crate::console) outcome: String,
    pub(in crate::console) reason: Option<String>,
    pub(in crate::console) request_id: String,
    /// The device of the entry, and its part of an address.
    pub(in crate::console) device: Option<(String, String)>,
    /// Other details of the entry.
    pub(in crate::console) details: String,
}

impl Deed {
    pub(in crate::console) fn new(entry: AuditEntry, now: Timestamp) -> Self {
        let details = entry.details.into_iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            Value::Array(all) if all.len() > SHOWN => {
                let some: Vec<_> = all.iter().take(SHOWN).map(text).collect();
                format!("{name} {} and {} more", some.join(", "), grouped((all.len() - SHOWN) as u64))
            }
            Value::Array(all) => format!("{name} {}", all.iter().map(text).collect::<Vec<_>>().join(", ")),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => format!("{name} {other}"),
        });
        Self {
            at: When::new(entry.at, now),
            actor: entry.actor,
            verb: entry.verb,
            outcome: entry.outcome,
            reason: entry.reason,
            request_id: entry.request_id,
            device: entry.device_id.map(|id| (encoded(&id), id)).map(|(address, id)| (id, address)),
            details: details.collect::<Vec<_>>().join(" · "),
        }
    }
}

/// How many items of a list are shown in a line.
const SHOWN: usize = 5;

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Percent-encodes text for an address.
pub(in crate::console) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Formats a number with separators: `1,234,567`.
pub(in crate::console) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_exact_and_read_at_a_glance() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let when = When::new(at(0), at(125));
        assert_eq!(
            (when.exact.as_str(), when.clock.as_str(), when.ago.as_str()),
            ("2027-01-15T08:00:00.000Z", "08:00:00 UTC", "2 min ago")
        );
        assert_eq!(When::new(at(-86_400), at(0)).clock, "2027-01-14 08:00:00 UTC");
        for (from, to, text) in [
            (0, 0, "now"),
            (0, 59, "59 s ago"),
            (0, 3_599, "59 min ago"),
            (0, 172_799, "47 h ago"),
            (0, 172_800, "2 days ago"),
            (20, 0, "in 20 s"),
        ] {
            assert_eq!(When::new(at(from), at(to)).ago, text);
        }
    }

    #[test]
    fn numbers_are_grouped_and_addresses_encoded() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(encoded("a:b/c d&é"), "a%3Ab%2Fc%20d%26%C3%A9");
    }
}
