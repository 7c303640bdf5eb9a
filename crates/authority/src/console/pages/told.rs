//! The sidecars' reports about a device, prepared for display. Pure.

use jiff::Timestamp;
use machineid_protocol::report::{Bound, Doubt, StopState};
use machineid_protocol::status::StandingKind;

use crate::console::words::{When, span};
use crate::reports::{HeardDevice, Judged, Notes, RevokedDevice, judge_all};
use crate::store::ListedDevice;

/// The summary of all sidecars of a device.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Their versions, the one of the newest report first.
    pub(super) versions: String,
    pub(super) agents: u64,
    pub(super) stopping: u64,
    /// Their longest bound.
    pub(super) bound: String,
    /// The progress of the stop requested by the device's revoke.
    pub(super) progress: Option<ToldStop>,
}

/// One sidecar.
#[derive(Clone, Debug)]
pub(super) struct SidecarRow {
    pub(super) host: String,
    pub(super) version: String,
    pub(super) standing: &'static str,
    pub(super) code: String,
    pub(super) agents: u32,
    pub(super) stopping: u32,
    pub(super) bound: String,
    pub(super) push: bool,
    pub(super) heard: When,
    pub(super) progress: Option<ToldStop>,
}

/// The progress of a stop: as a word, a shape, and a colour.
#[derive(Clone, Debug)]
pub(super) struct ToldStop {
    state: StopState,
    doubt: Option<Doubt>,
    pub(super) word: &'static str,
    /// The number of helpers outside the trees that run on.
    pub(super) outside: usize,
    pub(super) shape: &'static str,
    pub(super) class: &'static str,
    /// The time by which the lease alone has stopped everything.
    by: Timestamp,
    pub(super) by_when: When,
    /// Whether that time is still relevant.
    pub(super) waits: bool,
}

impl Told {
    /// `None` when no sidecar has reported.
    pub(super) fn of(device: &ListedDevice, heard: &[HeardDevice], now: Timestamp) -> Option<Self> {
        let mut versions: Vec<&str> = Vec::new();
        for heard in heard {
            if !versions.contains(&heard.said.version.as_str()) {
                versions.push(&heard.said.version);
            }
        }
        let sum = |count: fn(&HeardDevice) -> u32| heard.iter().map(|heard| u64::from(count(heard))).sum();
        let longest = heard.iter().map(|heard| heard.said.bound).max_by_key(|bound| bound.cut_off_ms)?;
        let all = ToldStop::of_all(device, heard, now).into_iter().flatten();
        Some(Self {
            versions: versions.join(", "),
            agents: sum(|heard| heard.said.device.agents),
            stopping: sum(|heard| heard.said.device.stopping),
            bound: bound(longest),
            progress: all.max_by_key(|progress| (progress.rank(), progress.outside, progress.by)),
        })
    }
}

impl SidecarRow {
    /// A row for each sidecar of the device.
    pub(super) fn of_all(device: &ListedDevice, heard: &[HeardDevice], now: Timestamp) -> Vec<Self> {
        let all = ToldStop::of_all(device, heard, now);
        heard.iter().zip(all).map(|(heard, progress)| Self::new(heard, progress, now)).collect()
    }

    fn new(heard: &HeardDevice, progress: Option<ToldStop>, now: Timestamp) -> Self {
        let said = &heard.said;
        Self {
            host: said.host.to_string(),
            version: said.version.clone(),
            standing: standing(said.device.standing),
            code: said.device.code.as_ref().map_or_else(String::new, |code| code.as_str().to_owned()),
            agents: said.device.agents,
            stopping: said.device.stopping,
            bound: bound(said.bound),
            push: said.push,
            heard: When::new(heard.heard_at, now),
            progress,
        }
    }
}

impl ToldStop {
    /// Of each sidecar of the device; `None` when the device is not revoked.
    fn of_all(device: &ListedDevice, heard: &[HeardDevice], now: Timestamp) -> Vec<Option<Self>> {
        let Some(revoked_at) = device.revoked_at else { return vec![None; heard.len()] };
        let known = RevokedDevice { revoked_at, last_seen_at: device.last_seen_at, notes: Notes::in_time(now) };
        let judged = judge_all(&known, &heard.iter().collect::<Vec<_>>(), now);
        let outside = heard.iter().map(|heard| heard.said.device.outside.len());
        judged.into_iter().zip(outside).map(|(judged, outside)| Some(Self::new(judged, outside, now))).collect()
    }

    fn new(Judged { state, by, doubt }: Judged, outside: usize, now: Timestamp) -> Self {
        let (word, shape, class, waits) = match (doubt, state) {
            (Some(Doubt::Contradictory), _) => ("contradictory reports", "▲", "revoked", true),
            (Some(Doubt::Unproven), _) => ("confirmation not proven", "△", "halted", true),
            (None, StopState::Confirmed) => {
                ("stopped, confirmed", "✓", if outside == 0 { "confirmed" } else { "halted" }, false)
            }
            (None, StopState::Stopping) => ("stopping", "◐", "halted", true),
            (None, StopState::Pending) => ("not confirmed", "○", "halted", true),
            (None, StopState::Lapsed) => ("not confirmed, lease ended", "◌", "halted", false),
        };
        Self { state, doubt, word, outside, shape, class, by, by_when: When::new(by, now), waits }
    }

    /// The rank in order of progress, for comparison.
    fn rank(&self) -> u8 {
        match (self.doubt, self.state) {
            (None, StopState::Confirmed) => 0,
            (None, StopState::Lapsed) => 1,
            (None, StopState::Stopping) => 2,
            (None, StopState::Pending) => 3,
            (Some(Doubt::Unproven), _) => 4,
            (Some(Doubt::Contradictory), _) => 5,
        }
    }
}

pub(super) fn standing(kind: StandingKind) -> &'static str {
    match kind {
        StandingKind::Unknown => "unknown",
        StandingKind::Allowed => "allowed",
        StandingKind::Denied => "denied",
        StandingKind::Unavailable => "unavailable",
    }
}

/// The text of a bound, such as `16 s, cut off 41 s`: the worst time from a revoke to the end of the last process.
fn bound(bound: Bound) -> String {
    let seconds = |millis: u64| span(millis.div_ceil(1000));
    format!("{}, cut off {}", seconds(bound.connected_ms), seconds(bound.cut_off_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn heard(number: u8, standing: &str, stamp: Option<i64>, agents: u32, version: &str) -> HeardDevice {
        let said = serde_json::json!({
            "version": version, "host": format!("host:{number}"), "bound": {"connectedMs": 15_500, "cutOffMs": 41_000}, "push": true,
            "device": {"deviceId": "a", "standing": standing, "revokedAt": stamp.map(|second| at(second).to_string()),
                "agents": agents, "stopping": 0},
        });
        HeardDevice::read(&format!("{number:032x}"), at(101), &said.to_string()).unwrap()
    }

    #[test]
    fn a_device_is_as_far_as_the_last_of_its_sidecars() {
        let device = |revoked_at: Option<i64>| ListedDevice {
            id: "a".to_owned(),
            seq: 1,
            created_at: at(0),
            last_seen_at: Some(at(102)),
            revoked_at: revoked_at.map(at),
            revoke_reason: None,
            ephemeral: false,
            old_key: false,
            unwritten: false,
        };
        let done = heard(1, "denied", Some(100), 0, "1.0");
        let silent = heard(2, "allowed", None, 2, "1.1");
        let told = Told::of(&device(Some(100)), &[done.clone(), silent.clone()], at(105)).unwrap();
        let progress = told.progress.unwrap();
        assert_eq!((told.agents, told.versions.as_str()), (2, "1.0, 1.1"));
        assert_eq!(told.bound, "16 s, cut off 41 s");
        assert_eq!((progress.word, progress.by, progress.waits), ("not confirmed", at(141), true));
        let told = Told::of(&device(Some(100)), &[done.clone(), done.clone()], at(105)).unwrap();
        assert_eq!((told.progress.unwrap().word, told.versions.as_str()), ("stopped, confirmed", "1.0"));
        assert!(Told::of(&device(None), &[done], at(105)).unwrap().progress.is_none());
        assert!(Told::of(&device(Some(100)), &[], at(105)).is_none());
    }
}
