//! What is told: each device with what is held about it and how many agents it has, and the stops not yet told of. No
//! command, no path, no secret.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{self, BootTime};
use crate::config::Settings;
use crate::gate::driver::GateHandle;
use crate::gate::{Gates, Standing};
use crate::protocol::RunId;
use crate::protocol::api::LARGEST_WATCH;
use crate::protocol::report::{
    Bound, MOST_STOPS, MOST_SURVIVORS, Report, ReportedDevice, ReportedStop, ReportedSurvivor, SidecarId,
};
use crate::protocol::status::{StandingKind, StopReport};
use crate::runs::Runs;

/// A report, and every stop that is still remembered here.
pub(super) struct Snapshot {
    pub(super) report: Report,
    pub(super) stops: HashSet<(RunId, bool)>,
}

/// Looks at everything once. `told`: the stops the authority knows of.
pub(super) fn take(
    id: SidecarId,
    gates: &Gates,
    runs: &Runs,
    settings: &Settings,
    told: &HashSet<(RunId, bool)>,
) -> Snapshot {
    let now = BootTime::now();
    let bound = settings.stop_bound();
    let remembered: Vec<StopReport> = runs.recent_stops().into_iter().map(|(_, stop)| stop).collect();
    let wall = clock::wall_now();
    // The newest first: they matter most when there are too many.
    let fresh = remembered.iter().rev().filter(|stop| !told.contains(&(stop.run_id, stop.confirmed)));
    let stops = fresh.take(MOST_STOPS).map(|stop| stop_of(stop, wall)).collect();
    let devices = gates.all().iter().take(LARGEST_WATCH).map(|gate| device_of(gate, runs, now)).collect();
    let report = Report {
        sidecar_id: id,
        sequence: now.as_millis(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host_device_id: gates.host().device().clone(),
        stop_bound: Bound { connected_ms: millis(bound.connected), cut_off_ms: millis(bound.cut_off) },
        push: gates.authority().status().push,
        agents: runs.count_all(),
        devices,
        stops,
        events: Vec::new(),
    };
    Snapshot { report, stops: remembered.iter().map(|stop| (stop.run_id, stop.confirmed)).collect() }
}

fn device_of(gate: &GateHandle, runs: &Runs, now: BootTime) -> ReportedDevice {
    let device = gate.device();
    // What is held first, who runs second: a deny that is seen here keeps anybody from starting in between.
    let held = gate.report();
    let (agents, stopping) = runs.count_of(device);
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

fn stop_of(stop: &StopReport, wall: Timestamp) -> ReportedStop {
    let began = stop.began_at.parse::<Timestamp>().unwrap_or(wall);
    ReportedStop {
        device_id: stop.device_id.clone(),
        run_id: stop.run_id,
        name: stop.name.clone(),
        code: stop.code.clone(),
        request_id: stop.request_id.clone(),
        ago_ms: millis(Duration::try_from(wall.duration_since(began)).unwrap_or_default()),
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
