//! A report as it is received and stored. Text from outside is shortened and made printable here, once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use machineid_protocol::api::LARGEST_WATCH;
use machineid_protocol::report::{
    Bound, MOST_EVENTS, MOST_OUTSIDE, MOST_STOPS, MOST_SURVIVORS, Report, ReportedDevice, ReportedEvent,
    ReportedHelper, ReportedStop, SidecarId,
};
use machineid_protocol::{DeviceId, DevicePattern};
use serde::{Deserialize, Serialize};

use crate::access::covers;
use crate::org::OrgId;
use crate::proofs::Proof;

/// The longest stored name, in characters.
const LONGEST_NAME: usize = 100;
const LONGEST_HELPER: usize = 60;
const LONGEST_VERSION: usize = 40;
const LONGEST_REASON: usize = 200;

/// How long a report can be in transit: longer than any client waits for its answer. After that much silence any report
/// is accepted as newer, so that neither a host whose hypervisor set its clock back nor a forged sequence number is
/// ignored for long.
const UNDER_WAY: Duration = Duration::from_mins(1);

/// The longest age that is accepted. Nothing older is stored anyway.
const LONGEST_AGO: Duration = Duration::from_hours(24 * 30);

/// A report, ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct HeardReport {
    pub(crate) org: OrgId,
    pub(crate) sidecar: SidecarId,
    pub(crate) heard_at: Timestamp,
    pub(crate) sequence: i64,
    /// What is known of the sidecar's validations and may not be stored yet.
    pub(crate) proofs: Vec<Proof>,
    pub(crate) agents: u32,
    /// The devices that the key of the report may work for; `None` for all.
    pub(crate) within: Option<DevicePattern>,
    /// Each device once, with the stored text about it.
    pub(crate) devices: Vec<(DeviceId, String)>,
    pub(crate) stops: Vec<KnownStop>,
    pub(crate) events: Vec<KnownEvent>,
}

/// The last report of one sidecar about one device.
#[derive(Clone, Debug)]
pub(crate) struct HeardDevice {
    pub(crate) sidecar: SidecarId,
    pub(crate) heard_at: Timestamp,
    /// When the sidecar, having proved itself, last validated the device, as far as that is recorded.
    pub(crate) validated_at: Option<Timestamp>,
    pub(crate) said: Said,
}

/// The part of a report that is stored with each device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) version: String,
    pub(crate) host: DeviceId,
    pub(crate) bound: Bound,
    pub(crate) push: bool,
    pub(crate) device: ReportedDevice,
}

/// A stop, with times by the authority's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownStop {
    pub(crate) began_at: Timestamp,
    pub(crate) sidecar: SidecarId,
    pub(crate) stop: ReportedStop,
}

/// An event, with times by the authority's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownEvent {
    pub(crate) at: Timestamp,
    pub(crate) sidecar: SidecarId,
    pub(crate) event: ReportedEvent,
}

/// Stored data cannot be decoded by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

#[derive(Serialize, Deserialize)]
struct StopBody {
    sidecar: SidecarId,
    stop: ReportedStop,
}

impl HeardReport {
    /// Converts a report that came with a key for devices that match `within`, or for all. What it says about others is left
    /// out: refused whole, one foreign device would silence the sidecar. `None` when it contains more than one sidecar can
    /// have.
    pub(crate) fn take(org: OrgId, report: Report, within: Option<&DevicePattern>, now: Timestamp) -> Option<Self> {
        let Report { devices, stops, events, .. } = &report;
        if devices.len() > LARGEST_WATCH || stops.len() > MOST_STOPS || events.len() > MOST_EVENTS {
            return None;
        }
        let Report { sidecar_id: sidecar, version, host_device_id: host, stop_bound: bound, push, .. } = report;
        let version = printable(&version, LONGEST_VERSION);
        let kept = |mut device: ReportedDevice| {
            device.revoked_at = device.revoked_at.map(|stamp| printable(&stamp, LONGEST_VERSION));
            bound_outside(&mut device.outside);
            let id = device.device_id.clone();
            let said = Said { version: version.clone(), host: host.clone(), bound, push, device };
            serde_json::to_string(&said).ok().map(|body| (id, body))
        };
        let own = |device: &DeviceId| covers(within, device);
        let devices = report.devices.into_iter().filter(|device| own(&device.device_id));
        let devices: BTreeMap<_, _> = devices.filter_map(kept).collect();
        let stops = report.stops.into_iter().filter(|stop| own(&stop.device_id));
        let events = report.events.into_iter().filter(|event| own(&event.device_id));
        Some(Self {
            org,
            sidecar,
            heard_at: now,
            agents: report.agents,
            sequence: i64::try_from(report.sequence).unwrap_or(i64::MAX),
            devices: devices.into_iter().collect(),
            within: within.cloned(),
            proofs: Vec::new(),
            stops: stops.map(|stop| KnownStop::take(sidecar, stop, now)).collect(),
            events: events.map(|event| KnownEvent::take(sidecar, event, now)).collect(),
        })
    }

    /// Whether a report that was made later is already stored: `newest` has its sequence number and time (microseconds
    /// since 1970). The late report's statements about devices are then obsolete.
    pub(crate) fn is_late(&self, newest: Option<(i64, i64)>) -> bool {
        let under_way = i64::try_from(UNDER_WAY.as_micros()).unwrap_or(i64::MAX);
        newest.is_some_and(|(sequence, heard_at)| {
            let silent = self.heard_at.as_microsecond().saturating_sub(heard_at);
            sequence > self.sequence && (0..under_way).contains(&silent)
        })
    }

    /// The devices that the report is about.
    pub(crate) fn concerned(&self) -> impl Iterator<Item = &DeviceId> {
        let stopped = self.stops.iter().map(|stop| &stop.stop.device_id);
        let happened = self.events.iter().map(|event| &event.event.device_id);
        self.devices.iter().map(|(device, _)| device).chain(stopped).chain(happened)
    }

    /// How many rows the report writes.
    pub(crate) fn rows(&self) -> usize {
        1 + self.proofs.len() + self.devices.len() + self.stops.len() + self.events.len()
    }
}

impl HeardDevice {
    /// Decodes a stored report.
    pub(crate) fn read(sidecar: &str, heard_at: Timestamp, body: &str) -> Result<Self, Unreadable> {
        let said = serde_json::from_str(body).map_err(|_| Unreadable)?;
        Ok(Self { sidecar: sidecar.parse().map_err(|_| Unreadable)?, heard_at, validated_at: None, said })
    }
}

impl KnownStop {
    fn take(sidecar: SidecarId, mut stop: ReportedStop, now: Timestamp) -> Self {
        stop.name = stop.name.map(|name| printable(&name, LONGEST_NAME));
        stop.survivors.truncate(MOST_SURVIVORS);
        for survivor in &mut stop.survivors {
            survivor.reason = printable(&survivor.reason, LONGEST_NAME);
        }
        bound_outside(&mut stop.outside);
        Self { began_at: ago(now, stop.ago_ms), sidecar, stop }
    }

    /// Decodes a stored stop.
    pub(crate) fn read(began_at: Timestamp, body: &str) -> Result<Self, Unreadable> {
        let StopBody { sidecar, stop } = serde_json::from_str(body).map_err(|_| Unreadable)?;
        Ok(Self { began_at, sidecar, stop })
    }

    /// Encodes the stop for the database.
    pub(crate) fn body(&self) -> String {
        serde_json::to_string(&StopBody { sidecar: self.sidecar, stop: self.stop.clone() }).unwrap_or_default()
    }
}

impl KnownEvent {
    fn take(sidecar: SidecarId, mut event: ReportedEvent, now: Timestamp) -> Self {
        event.reason = event.reason.map(|reason| printable(&reason, LONGEST_REASON));
        event.name = event.name.map(|name| printable(&name, LONGEST_NAME));
        event.outside = event.outside.map(|outside| printable(&outside, LONGEST_REASON));
        Self { at: ago(now, event.ago_ms), sidecar, event }
    }

    /// Decodes a stored event.
    pub(crate) fn read(sidecar: &str, at: Timestamp, body: &str) -> Result<Self, Unreadable> {
        let event = serde_json::from_str(body).map_err(|_| Unreadable)?;
        Ok(Self { at, sidecar: sidecar.parse().map_err(|_| Unreadable)?, event })
    }

    /// Encodes the event for the database.
    pub(crate) fn body(&self) -> String {
        serde_json::to_string(&self.event).unwrap_or_default()
    }

    /// The event's number, as the database's integer type.
    pub(crate) fn number(&self) -> i64 {
        i64::try_from(self.event.id.number).unwrap_or(i64::MAX)
    }
}

fn bound_outside(helpers: &mut Vec<ReportedHelper>) {
    helpers.truncate(MOST_OUTSIDE);
    for helper in helpers {
        helper.name = printable(&helper.name, LONGEST_HELPER);
    }
}

/// The time `millis` before `now`: a duration reported by the sidecar, on the authority's clock.
fn ago(now: Timestamp, millis: u64) -> Timestamp {
    now.saturating_sub(Duration::from_millis(millis).min(LONGEST_AGO)).unwrap_or(now)
}

/// Removes characters that move a cursor, or reorder or hide text: they must not be part of a name, wherever it is
/// shown.
fn printable(text: &str, longest: usize) -> String {
    machineid_protocol::printable::printable(text, char::REPLACEMENT_CHARACTER).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::Code;
    use machineid_protocol::report::{EventId, EventKind, ReportedSurvivor};
    use machineid_protocol::status::StandingKind;

    fn helper() -> ReportedHelper {
        let kind = machineid_protocol::outside::OutsideKind::AgentDaemon;
        ReportedHelper { name: "\u{1b}".repeat(900), pid: Some(1), kind, ending: false }
    }

    fn report() -> Report {
        Report {
            sidecar_id: SidecarId::random(1),
            sequence: 7,
            version: "1\u{1b}[2J".to_owned(),
            host_device_id: "host:1".parse().unwrap(),
            stop_bound: Bound { connected_ms: 1, cut_off_ms: 2 },
            push: true,
            agents: 1,
            devices: vec![ReportedDevice {
                device_id: "a".parse().unwrap(),
                standing: StandingKind::Denied,
                code: Some(Code::DeviceRevoked),
                revoked_at: Some("x".repeat(1_000)),
                lease_left_ms: None,
                agents: 0,
                stopping: 0,
                outside: vec![helper(); 40],
            }],
            stops: vec![ReportedStop {
                device_id: "a".parse().unwrap(),
                run_id: "00000000000000000000000000000001".parse().unwrap(),
                name: Some("<b>\u{202e}".repeat(100)),
                code: Code::DeviceRevoked,
                request_id: None,
                ago_ms: u64::MAX,
                took_ms: 5,
                signalled: 1,
                killed: 1,
                confirmed: false,
                survivors: vec![ReportedSurvivor { pid: 1, reason: "\n".repeat(200) }; 40],
                outside: vec![helper(); 40],
            }],
            events: vec![ReportedEvent {
                id: EventId { life: u32::MAX, number: u64::MAX },
                device_id: "a".parse().unwrap(),
                ago_ms: u64::MAX,
                event: EventKind::AgentStopped,
                standing: None,
                code: Some(Code::DeviceRevoked),
                request_id: None,
                reason: Some("\u{1b}[2J<script>".repeat(500)),
                run_id: None,
                name: Some("\u{feff}".repeat(500)),
                took_ms: Some(u64::MAX),
                killed: None,
                survivors: None,
                outside: Some("\u{1b}".repeat(5_000)),
            }],
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_printable_and_reads_back() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let heard = HeardReport::take(OrgId::random(), report(), None, now).unwrap();
        let (_, body) = &heard.devices[0];
        assert!(body.len() < 4_000 && !body.contains('\u{1b}'), "{body}");
        let read = HeardDevice::read(&heard.sidecar.to_string(), now, body).unwrap();
        assert_eq!((read.said.version.as_str(), read.said.bound.cut_off_ms), ("1\u{fffd}[2J", 2));
        let stop = &heard.stops[0];
        assert!(stop.body().len() < 8_000, "{}", stop.body().len());
        assert!(!stop.stop.name.as_deref().unwrap().contains('\u{202e}'));
        assert_eq!(KnownStop::read(stop.began_at, &stop.body()).as_ref(), Ok(stop));
        let event = &heard.events[0];
        assert!(event.body().len() < 2_000 && !event.body().contains(['\u{1b}', '\u{feff}']), "{}", event.body());
        assert!(event.number() > 0 && event.at > Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(KnownEvent::read(&heard.sidecar.to_string(), event.at, &event.body()).as_ref(), Ok(event));
    }

    #[test]
    fn of_a_device_that_is_named_twice_the_last_word_counts() {
        let mut twice = report();
        let first = ReportedDevice { agents: 1, ..twice.devices[0].clone() };
        twice.devices.insert(0, first);
        let heard = HeardReport::take(OrgId::random(), twice, None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(heard.devices.len(), 1);
        assert!(heard.devices[0].1.contains(r#""agents":0"#), "{:?}", heard.devices);
    }

    #[test]
    fn an_older_report_is_late_only_as_long_as_it_can_have_been_under_way() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let heard = HeardReport::take(OrgId::random(), report(), None, at(1_000)).unwrap();
        let before = |sequence, second| Some((sequence, at(second).as_microsecond()));
        assert!(heard.is_late(before(8, 999)) && heard.is_late(before(i64::MAX, 941)));
        assert!(!heard.is_late(None) && !heard.is_late(before(7, 999)) && !heard.is_late(before(6, 999)));
        assert!(!heard.is_late(before(8, 940)), "its clock was set back");
        assert!(!heard.is_late(before(8, 1_001)), "our clock was set back");
    }

    #[test]
    fn a_report_of_more_than_a_sidecar_can_have_is_refused() {
        let many = Report { stops: vec![report().stops.remove(0); MOST_STOPS + 1], ..report() };
        assert!(HeardReport::take(OrgId::random(), many, None, Timestamp::UNIX_EPOCH).is_none());
        let many = Report { events: vec![report().events.remove(0); MOST_EVENTS + 1], ..report() };
        assert!(HeardReport::take(OrgId::random(), many, None, Timestamp::UNIX_EPOCH).is_none());
    }
}
