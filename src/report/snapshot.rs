//! The content of a report: each device with its standing and number of agents, and the stops not reported yet. It contains
//! no command, path or secret.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::api::LARGEST_WATCH;
use machineid_protocol::outside::OutsideHelper;
use machineid_protocol::report::{
    Bound, MOST_OUTSIDE, MOST_STOPS, MOST_SURVIVORS, Report, ReportedDevice, ReportedHelper, ReportedStop,
    ReportedSurvivor, SidecarId,
};
use machineid_protocol::status::{StandingKind, StopReport};
use machineid_protocol::{DeviceId, RunId};

use super::{Reporter, happened};
use crate::config::Settings;
use crate::gate::handle::GateView;
use crate::gate::{EndedDevice, Standing};
use crate::registry::DeviceAgents;
use crate::telemetry::ring::EventNumber;

/// A report, and every stop that the daemon still keeps.
pub(super) struct Snapshot {
    pub(super) report: Report,
    pub(super) stops: HashSet<(RunId, bool)>,
    /// The number of the next event to report.
    pub(super) next: EventNumber,
}

/// Makes a report of the present state. `told`: the stops that the authority knows of.
pub(super) fn take(
    id: SidecarId,
    from: &Reporter,
    settings: &Settings,
    told: &HashSet<(RunId, bool)>,
    next: EventNumber,
) -> Snapshot {
    let Reporter { gates, runs, journal, .. } = from;
    let now = BootTime::now();
    let remembered = runs.stops_before(now);
    // The newest first: they matter most when there are too many.
    let fresh = remembered.iter().rev().filter(|(_, stop)| !told.contains(&(stop.run_id, stop.confirmed)));
    let stops = fresh.take(MOST_STOPS).map(|(ago, stop)| stop_of(stop, *ago)).collect();
    // Before the devices: their state is then reported as it is after these events.
    let (events, next) = happened::since(journal, next, now);
    let (used, ended) = gates.used_and_ended(now);
    // Standings before agents: when a standing read here is a deny, no agent can start between the two reads.
    let held: Vec<_> = used.iter().map(|gate| (gate.device(), gate.view())).collect();
    let census = runs.census();
    let bound = settings.stop_bound().with(census.all as usize);
    let used = held.into_iter().map(|(device, held)| device_of(device, &held, census.of(device), now));
    let ended = ended.iter().map(|end| device_that_ended(end, census.of(&end.device)));
    let mut devices: Vec<ReportedDevice> = used.chain(ended).take(LARGEST_WATCH).collect();
    add_outside(&mut devices, remembered.iter().map(|(_, stop)| stop));
    let report = Report {
        sidecar_id: id,
        sequence: now.as_millis(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host_device_id: gates.host().device().clone(),
        stop_bound: Bound { connected_ms: millis(bound.connected), cut_off_ms: millis(bound.cut_off) },
        push: gates.authority().status().push,
        agents: census.all,
        devices,
        stops,
        events,
    };
    Snapshot { report, stops: remembered.iter().map(|(_, stop)| (stop.run_id, stop.confirmed)).collect(), next }
}

fn device_of(
    device: &DeviceId,
    held: &GateView,
    DeviceAgents { agents, stopping }: DeviceAgents,
    now: BootTime,
) -> ReportedDevice {
    let (standing, code, revoked_at) = match &held.standing {
        Standing::Unknown => (StandingKind::Unknown, None, None),
        Standing::Allowed { .. } => (StandingKind::Allowed, None, None),
        Standing::Unavailable { .. } => (StandingKind::Unavailable, None, None),
        Standing::Denied { refusal, .. } => {
            (StandingKind::Denied, Some(refusal.denial.code.clone()), refusal.denial.revoked_at.clone())
        }
    };
    ReportedDevice {
        device_id: device.clone(),
        standing,
        code,
        revoked_at,
        lease_left_ms: held.lease_until.map(|until| millis(until.saturating_since(now))),
        agents,
        stopping,
        outside: Vec::new(),
    }
}

/// A device whose last agent left while it was revoked. An agent can start on it only through a gate, which the device would
/// then have again.
fn device_that_ended(end: &EndedDevice, DeviceAgents { agents, stopping }: DeviceAgents) -> ReportedDevice {
    ReportedDevice {
        device_id: end.device.clone(),
        standing: StandingKind::Denied,
        code: Some(end.denial.code.clone()),
        revoked_at: end.denial.revoked_at.clone(),
        lease_left_ms: None,
        agents,
        stopping,
        outside: Vec::new(),
    }
}

/// Adds to each denied device the helpers that its stopped agents used outside their trees and that run on.
fn add_outside<'a>(devices: &mut [ReportedDevice], stops: impl Iterator<Item = &'a StopReport>) {
    let mut left: HashMap<&DeviceId, Vec<ReportedHelper>> = HashMap::new();
    for stop in stops.filter(|stop| !stop.outside.is_empty()) {
        let of_device = left.entry(&stop.device_id).or_default();
        for helper in stop.outside.iter().map(helper_of) {
            if of_device.len() < MOST_OUTSIDE && !of_device.contains(&helper) {
                of_device.push(helper);
            }
        }
    }
    for device in devices.iter_mut().filter(|device| device.standing == StandingKind::Denied) {
        device.outside = left.remove(&device.device_id).unwrap_or_default();
    }
}

fn helper_of(helper: &OutsideHelper) -> ReportedHelper {
    let OutsideHelper { pid, name, kind, ending, .. } = helper;
    ReportedHelper { name: name.clone(), pid: *pid, kind: *kind, ending: *ending }
}

fn stop_of(stop: &StopReport, ago: Duration) -> ReportedStop {
    ReportedStop {
        device_id: stop.device_id.clone(),
        run_id: stop.run_id,
        name: stop.name.clone(),
        code: stop.code.clone(),
        request_id: stop.request_id.clone(),
        ago_ms: millis(ago),
        took_ms: stop.took_ms,
        signalled: stop.signalled as u64,
        killed: stop.killed as u64,
        confirmed: stop.confirmed,
        survivors: stop
            .survivors
            .iter()
            .take(MOST_SURVIVORS)
            .map(|survivor| ReportedSurvivor { pid: survivor.pid, reason: survivor.reason.clone() })
            .collect(),
        outside: stop.outside.iter().take(MOST_OUTSIDE).map(helper_of).collect(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
