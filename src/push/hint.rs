//! What an event of the stream means. Pure. What it cannot mean ends the stream; what another version may mean is nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::client::Event;
use crate::protocol::DeviceId;

/// The heartbeats believed: neither a stream that is given up all the time nor one that is never missed.
const BEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The subscription stands; something comes at least this often.
    Ready { heartbeat: Duration },
    /// Validate these now.
    Validate(BTreeSet<DeviceId>),
    /// Validate all of them now.
    ValidateAll,
    /// The other end lives.
    Alive,
    /// Something of another version.
    Other,
}

/// An event of a known name that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Senseless;

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
}

/// Reads an event.
pub(super) fn read(event: &Event) -> Result<Heard, Senseless> {
    let Event::Named { name, data } = event else { return Ok(Heard::Alive) };
    match name.as_str() {
        "ready" => {
            let ready: Ready = serde_json::from_str(data).map_err(|_| Senseless)?;
            let beat = Duration::from_millis(ready.heartbeat_ms);
            Ok(Heard::Ready { heartbeat: beat.clamp(*BEATS.start(), *BEATS.end()) })
        }
        "validate" => {
            let validate: Validate = serde_json::from_str(data).map_err(|_| Senseless)?;
            if validate.all {
                return Ok(Heard::ValidateAll);
            }
            // An id that is none is nobody's of ours.
            let devices: BTreeSet<DeviceId> = validate.device_ids.iter().filter_map(|id| id.parse().ok()).collect();
            if devices.is_empty() { Err(Senseless) } else { Ok(Heard::Validate(devices)) }
        }
        _ => Ok(Heard::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, data: &str) -> Result<Heard, Senseless> {
        read(&Event::Named { name: name.to_owned(), data: data.to_owned() })
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_else_is() {
        let beat = |millis| Ok(Heard::Ready { heartbeat: Duration::from_millis(millis) });
        assert_eq!(of("ready", r#"{"heartbeatMs":5000}"#), beat(5_000));
        assert_eq!(of("ready", r#"{"heartbeatMs":0}"#), beat(1_000));
        assert_eq!(of("ready", r#"{"heartbeatMs":99999999999}"#), beat(30_000));
        assert_eq!(of("validate", r#"{"all":true}"#), Ok(Heard::ValidateAll));
        let some = BTreeSet::from(["a".parse().unwrap()]);
        assert_eq!(of("validate", r#"{"deviceIds":["a","not an id","a"]}"#), Ok(Heard::Validate(some)));
        assert_eq!(of("allow", r#"{"allowed":true}"#), Ok(Heard::Other));
        assert_eq!(read(&Event::Alive), Ok(Heard::Alive));
        for (name, data) in [("ready", ""), ("validate", "{}"), ("validate", "[1]"), ("validate", r#"{"all":"yes"}"#)] {
            assert_eq!(of(name, data), Err(Senseless), "{name} {data}");
        }
    }
}
