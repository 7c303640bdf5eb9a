//! A report as it is taken in and kept. Foreign text is cut and made printable here, once.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::authority::org::OrgId;
use crate::protocol::DeviceId;
use crate::protocol::api::LARGEST_WATCH;
use crate::protocol::report::{Bound, MOST_STOPS, MOST_SURVIVORS, Report, ReportedDevice, ReportedStop, SidecarId};

/// The longest text kept of each, in characters.
const LONGEST_NAME: usize = 100;
const LONGEST_VERSION: usize = 40;

/// A report, ready to be kept.
#[derive(Clone, Debug)]
pub(in crate::authority) struct HeardReport {
    pub(in crate::authority) org: OrgId,
    pub(in crate::authority) sidecar: SidecarId,
    pub(in crate::authority) heard_at: Timestamp,
    /// Each device with what is kept about it.
    pub(in crate::authority) devices: Vec<(DeviceId, String)>,
    pub(in crate::authority) stops: Vec<KnownStop>,
}

/// What one sidecar last said about one device.
#[derive(Clone, Debug)]
pub(in crate::authority) struct HeardDevice {
    pub(in crate::authority) sidecar: SidecarId,
    pub(in crate::authority) heard_at: Timestamp,
    pub(in crate::authority) said: Said,
}

/// The part of a report that is kept with each device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::authority) struct Said {
    pub(in crate::authority) version: String,
    pub(in crate::authority) host: DeviceId,
    pub(in crate::authority) bound: Bound,
    pub(in crate::authority) push: bool,
    pub(in crate::authority) device: ReportedDevice,
}

/// A stop, on the authority's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::authority) struct KnownStop {
    pub(in crate::authority) began_at: Timestamp,
    pub(in crate::authority) sidecar: SidecarId,
    pub(in crate::authority) stop: ReportedStop,
}

#[derive(Serialize, Deserialize)]
struct StopBody {
    sidecar: SidecarId,
    stop: ReportedStop,
}

impl HeardReport {
    /// Takes a report in. `None` when it tells of more than a sidecar can have.
    pub(in crate::authority) fn take(org: OrgId, report: Report, now: Timestamp) -> Option<Self> {
        if report.devices.len() > LARGEST_WATCH || report.stops.len() > MOST_STOPS {
            return None;
        }
        let Report { sidecar_id: sidecar, version, host_device_id: host, stop_bound: bound, push, devices, stops } =
            report;
        let version = printable(&version, LONGEST_VERSION);
        let kept = |mut device: ReportedDevice| {
            device.revoked_at = device.revoked_at.map(|stamp| printable(&stamp, LONGEST_VERSION));
            let id = device.device_id.clone();
            let said = Said { version: version.clone(), host: host.clone(), bound, push, device };
            serde_json::to_string(&said).ok().map(|body| (id, body))
        };
        let devices = devices.into_iter().filter_map(kept).collect();
        let stops = stops.into_iter().map(|stop| KnownStop::take(sidecar, stop, now)).collect();
        Some(Self { org, sidecar, heard_at: now, devices, stops })
    }
}

impl HeardDevice {
    /// Reads what was kept.
    pub(in crate::authority) fn read(sidecar: &str, heard_at: Timestamp, body: &str) -> Option<Self> {
        Some(Self { sidecar: sidecar.parse().ok()?, heard_at, said: serde_json::from_str(body).ok()? })
    }
}

impl KnownStop {
    fn take(sidecar: SidecarId, mut stop: ReportedStop, now: Timestamp) -> Self {
        stop.name = stop.name.map(|name| printable(&name, LONGEST_NAME));
        stop.survivors.truncate(MOST_SURVIVORS);
        for survivor in &mut stop.survivors {
            survivor.reason = printable(&survivor.reason, LONGEST_NAME);
        }
        let began_at = now.saturating_sub(Duration::from_millis(stop.ago_ms)).unwrap_or(now);
        Self { began_at, sidecar, stop }
    }

    /// Reads what was kept.
    pub(in crate::authority) fn read(began_at: Timestamp, body: &str) -> Option<Self> {
        let StopBody { sidecar, stop } = serde_json::from_str(body).ok()?;
        Some(Self { began_at, sidecar, stop })
    }

    /// What is kept.
    pub(in crate::authority) fn body(&self) -> String {
        serde_json::to_string(&StopBody { sidecar: self.sidecar, stop: self.stop.clone() }).unwrap_or_default()
    }
}

/// Characters that move a cursor, reorder or hide text are no part of a name, wherever it is shown.
fn printable(text: &str, longest: usize) -> String {
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().take(longest).map(|c| if hostile(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;
    use crate::protocol::report::ReportedSurvivor;
    use crate::protocol::status::StandingKind;

    fn report() -> Report {
        Report {
            sidecar_id: SidecarId::random(1),
            version: "1\u{1b}[2J".to_owned(),
            host_device_id: "host:1".parse().unwrap(),
            stop_bound: Bound { connected_ms: 1, cut_off_ms: 2 },
            push: true,
            devices: vec![ReportedDevice {
                device_id: "a".parse().unwrap(),
                standing: StandingKind::Denied,
                code: Some(Code::DeviceRevoked),
                revoked_at: Some("x".repeat(1_000)),
                lease_left_ms: None,
                agents: 0,
                stopping: 0,
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
            }],
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_printable_and_reads_back() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let heard = HeardReport::take(OrgId::random(), report(), now).unwrap();
        let (_, body) = &heard.devices[0];
        assert!(body.len() < 400 && !body.contains('\u{1b}'), "{body}");
        let read = HeardDevice::read(&heard.sidecar.to_string(), now, body).unwrap();
        assert_eq!((read.said.version.as_str(), read.said.bound.cut_off_ms), ("1\u{fffd}[2J", 2));
        let stop = &heard.stops[0];
        assert!(stop.body().len() < 8_000, "{}", stop.body().len());
        assert!(!stop.stop.name.as_deref().unwrap().contains('\u{202e}'));
        assert_eq!(KnownStop::read(stop.began_at, &stop.body()).as_ref(), Some(stop));
    }

    #[test]
    fn a_report_of_more_than_a_sidecar_can_have_is_refused() {
        let many = Report { stops: vec![report().stops.remove(0); MOST_STOPS + 1], ..report() };
        assert!(HeardReport::take(OrgId::random(), many, Timestamp::UNIX_EPOCH).is_none());
    }
}
