//! What an event of the stream means. Pure. What it cannot mean ends the stream; what another version may mean is nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use machineid_client::ServerSentEvent;
use machineid_protocol::DeviceId;
use serde::Deserialize;

/// The heartbeats believed: neither a stream that is given up all the time nor one that is never missed.
const BEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The subscription stands; something comes at least this often.
    Ready { heartbeat: Duration },
    /// Validate these now.
    Validate(BTreeSet<DeviceId>, HintKind),
    /// Validate all of them now.
    ValidateAll(HintKind),
    /// The other end lives.
    Alive,
    /// Something of another version.
    Other,
}

/// What a hint says it is about. Believed for nothing but the budget it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HintKind {
    /// Anything may have changed.
    Change,
    /// The answer will be a deny.
    Deny,
}

/// An event of a known name that says nothing.
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
            // An invalid id names no device of ours.
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
