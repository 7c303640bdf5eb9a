//! Parses the events of the stream. Pure. An invalid event ends the stream; an event of another version is ignored.

use std::collections::BTreeSet;
use std::time::Duration;

use machineid_client::ServerSentEvent;
use machineid_protocol::DeviceId;
use serde::Deserialize;

/// The accepted heartbeat periods: shorter ones would end streams all the time, longer ones would never detect a lost one.
const BEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// A parsed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The subscription is active; an event comes at least this often.
    Ready { heartbeat: Duration },
    /// Validate these now.
    Validate(BTreeSet<DeviceId>, HintKind),
    /// Validate all of them now.
    ValidateAll(HintKind),
    /// The authority is alive.
    Alive,
    /// An event of another version.
    Other,
}

/// The claimed subject of a hint. It only selects the budget that is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HintKind {
    /// Anything may have changed.
    Change,
    /// The answer will be a deny.
    Deny,
}

/// An event with a known name and invalid content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedEvent;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    heartbeat_ms: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Validate {
    device_ids: Vec<String>,
    all: bool,
    deny: bool,
}

/// Reads an event.
pub(super) fn read(event: &ServerSentEvent) -> Result<Heard, MalformedEvent> {
    let ServerSentEvent::Named { name, data } = event else { return Ok(Heard::Alive) };
    match name.as_str() {
        "ready" => {
            let ready: Ready = serde_json::from_str(data).map_err(|_| MalformedEvent)?;
            let beat = Duration::from_millis(ready.heartbeat_ms);
            Ok(Heard::Ready { heartbeat: beat.clamp(*BEATS.start(), *BEATS.end()) })
        }
        "validate" => {
            let validate: Validate = serde_json::from_str(data).map_err(|_| MalformedEvent)?;
            let why = if validate.deny { HintKind::Deny } else { HintKind::Change };
            if validate.all {
                return Ok(Heard::ValidateAll(why));
            }
            // An invalid id names no device of this host.
            let devices: BTreeSet<DeviceId> = validate.device_ids.iter().filter_map(|id| id.parse().ok()).collect();
            if devices.is_empty() { Err(MalformedEvent) } else { Ok(Heard::Validate(devices, why)) }
        }
        _ => Ok(Heard::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, data: &str) -> Result<Heard, MalformedEvent> {
        read(&ServerSentEvent::Named { name: name.to_owned(), data: data.to_owned() })
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_else_is() {
        let beat = |millis| Ok(Heard::Ready { heartbeat: Duration::from_millis(millis) });
        assert_eq!(of("ready", r#"{"heartbeatMs":5000}"#), beat(5_000));
        assert_eq!(of("ready", r#"{"heartbeatMs":0}"#), beat(1_000));
        assert_eq!(of("ready", r#"{"heartbeatMs":99999999999}"#), beat(30_000));
        assert_eq!(of("validate", r#"{"all":true}"#), Ok(Heard::ValidateAll(HintKind::Change)));
        assert_eq!(of("validate", r#"{"all":true,"deny":true}"#), Ok(Heard::ValidateAll(HintKind::Deny)));
        let some = |why| Ok(Heard::Validate(BTreeSet::from(["a".parse().unwrap()]), why));
        assert_eq!(of("validate", r#"{"deviceIds":["a","not an id","a"]}"#), some(HintKind::Change));
        assert_eq!(of("validate", r#"{"deviceIds":["a"],"deny":true}"#), some(HintKind::Deny));
        assert_eq!(of("allow", r#"{"allowed":true}"#), Ok(Heard::Other));
        assert_eq!(read(&ServerSentEvent::Alive), Ok(Heard::Alive));
        for (name, data) in [("ready", ""), ("validate", "{}"), ("validate", "[1]"), ("validate", r#"{"all":"yes"}"#)] {
            assert_eq!(of(name, data), Err(MalformedEvent), "{name} {data}");
        }
    }
}
