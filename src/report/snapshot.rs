//! What is told: each device with what is held about it and how many agents it has, and the stops not yet told of. No
//! command, no path, no secret.

use std::collections::HashSet;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::api::LARGEST_WATCH;
use machineid_protocol::report::{
    Bound, MOST_STOPS, MOST_SURVIVORS, Report, ReportedDevice, ReportedStop, ReportedSurvivor, SidecarId,
};
use machineid_protocol::status::{StandingKind, StopReport};
use machineid_protocol::{DeviceId, RunId};

use super::{Reporter, happened};
use crate::config::Settings;
use crate::gate::handle::GateView;
use crate::gate::{EndedDevice, Standing};
use crate::registry::DeviceAgents;
use crate::telemetry::ring::EventNumber;

/// A report, and every stop that is still remembered here.
pub(super) struct Snapshot {
    pub(super) report: Report,
    pub(super) stops: HashSet<(RunId, bool)>,
    /// Where to go on with what happened.
    pub(super) next: EventNumber,
}

/// Looks at everything once. `told`: the stops the authority knows of.
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
    // Before the devices: what is held and runs is told as it is after all that.
    let (events, next) = happened::since(journal, next, now);
    let (used, ended) = gates.used_and_ended(now);
    // What is held first, who runs second: a deny that is seen here keeps anybody from starting in between.
    let held: Vec<_> = used.iter().map(|gate| (gate.device(), gate.view())).collect();
    let census = runs.census();
    let bound = settings.stop_bound().with(census.all as usize);
    let used = held.into_iter().map(|(device, held)| device_of(device, &held, census.of(device), now));
    let ended = ended.iter().map(|end| device_that_ended(end, census.of(&end.device)));
    let devices = used.chain(ended).take(LARGEST_WATCH).collect();
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
    }
}

/// It was revoked when the last who used it left: nobody can start on it but by a gate, which it would have again.
fn device_that_ended(end: &EndedDevice, DeviceAgents { agents, stopping }: DeviceAgents) -> ReportedDevice {
    ReportedDevice {
        device_id: end.device.clone(),
        standing: StandingKind::Denied,
        code: Some(end.denial.code.clone()),
        revoked_at: end.denial.revoked_at.clone(),
        lease_left_ms: None,
        agents,
        stopping,
    }
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
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
