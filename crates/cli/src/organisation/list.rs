//! `machineid list`: shows the organisation's devices.

use std::collections::HashMap;

use jiff::Timestamp;
use machineid_client::ListFilter;
use machineid_clock as clock;
use machineid_protocol::Exit;
use machineid_protocol::api::{Device, DeviceStatus, PlanUsage};
use machineid_protocol::report::{Doubt, FleetDevice, StopState};

use super::connect::OrgClient;
use crate::Env;
use crate::args::ListArgs;
use crate::printer::{Colour, Printer};
use crate::problem::Problem;
use crate::table::{self, Cell, Column};
use crate::words::{ago, count, millis};

const COLUMNS: [Column; 7] = [
    Column::keep("DEVICE"),
    Column::keep("STATUS"),
    Column::drop_at("AGENTS", 3),
    Column::drop_at("STOP", 2),
    Column::drop_at("LAST SEEN", 1),
    Column::drop_at("REGISTERED", 4),
    Column::keep("KEY"),
];

pub(crate) async fn run(args: &ListArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let status = match (args.active, args.revoked) {
        (true, _) => Some(DeviceStatus::Active),
        (false, true) => Some(DeviceStatus::Revoked),
        (false, false) => None,
    };
    let filter = ListFilter { status, search: args.query.clone() };
    let list = org.client.list(&org.key, &filter).await.map_err(|failure| org.problem(&failure))?;
    let reports = reports(&org, status, printer).await;
    if args.json {
        let mut whole = serde_json::to_value(&list).unwrap_or_default();
        for device in whole["devices"].as_array_mut().into_iter().flatten() {
            let known = device["deviceId"].as_str().and_then(|id| reports.get(id));
            if let Some(known) = known {
                device["sidecars"] = serde_json::to_value(&known.sidecars).unwrap_or_default();
                device["lastStop"] = serde_json::to_value(&known.last_stop).unwrap_or_default();
            }
        }
        printer.json(&whole);
        return Ok(Exit::Success);
    }
    if list.devices.is_empty() {
        printer.note("no devices");
        return Ok(Exit::Success);
    }
    let now = clock::wall_now();
    let row = |device| row(device, reports.get(&device.device_id), now);
    let mut rows: Vec<Vec<Cell>> = list.devices.iter().map(row).collect();
    let mut columns = COLUMNS.to_vec();
    let on_old_key = list.devices.iter().filter(|device| device.old_key).count();
    if on_old_key == 0 {
        columns.pop();
        for row in &mut rows {
            row.pop();
        }
    }
    if reports.is_empty() {
        // This authority accepts no reports, so these columns are empty.
        columns.drain(2..4);
        for row in &mut rows {
            row.drain(2..4);
        }
    }
    for line in table::layout(&columns, &rows, printer.width()) {
        printer.line(line);
    }
    printer.note(&summary(list.devices.len(), &list.plan));
    if let Some(ends) = list.old_key_ends.as_ref().filter(|_| on_old_key > 0) {
        let over = ends.parse::<Timestamp>().is_ok_and(|ends| ends <= now);
        let ends = if over { format!("ended at {ends}") } else { format!("ends at {ends}") };
        let devices = count(on_old_key, "device", "devices");
        printer.note(&format!("{devices} last used the old org key, which {ends}"));
    }
    Ok(Exit::Success)
}

/// The sidecars' reports about the devices; empty without reports. The list itself does not depend on them.
async fn reports(org: &OrgClient, status: Option<DeviceStatus>, printer: &mut Printer) -> HashMap<String, FleetDevice> {
    match org.client.whole_fleet(&org.key, status).await {
        Ok(devices) => {
            let reported = devices.into_iter().flatten().filter(|device| !device.sidecars.is_empty());
            reported.map(|device| (device.device_id.clone(), device)).collect()
        }
        Err(failure) => {
            printer.note(&format!("machineid: the reports of sidecars cannot be shown: {}", org.explain(&failure)));
            HashMap::new()
        }
    }
}

/// The number of agents on the device, and the progress or the bound of their stop.
fn told(known: Option<&FleetDevice>) -> (Cell, Cell) {
    let Some(known) = known else { return (Cell::new("-"), Cell::new("-")) };
    let agents: u64 =
        known.sidecars.iter().map(|sidecar| u64::from(sidecar.agents) + u64::from(sidecar.stopping)).sum();
    let slowest = known.sidecars.iter().map(|sidecar| sidecar.stop_bound.connected_ms).max().unwrap_or_default();
    let stops = known.sidecars.iter().filter_map(|sidecar| sidecar.stop.as_ref());
    let worst = stops.map(|stop| (stop.doubt, stop.state)).max_by_key(|(doubt, state)| {
        let rank = match state {
            StopState::Confirmed | StopState::Lapsed => 0,
            StopState::Stopping => 1,
            StopState::Pending => 2,
        };
        (*doubt, rank)
    });
    let stop = match worst {
        None => Cell::new(format!("within {}", millis(slowest))),
        Some((Some(Doubt::Contradictory), _)) => Cell::coloured("contradictory", Colour::Bad),
        Some((Some(Doubt::Unproven), _)) => Cell::coloured("not proven", Colour::Bad),
        Some((None, StopState::Confirmed)) => Cell::coloured("confirmed", Colour::Good),
        Some((None, StopState::Lapsed)) => Cell::coloured("by its lease", Colour::Good),
        Some((None, StopState::Stopping)) => Cell::coloured("under way", Colour::Unclear),
        Some((None, StopState::Pending)) => Cell::coloured("not confirmed", Colour::Bad),
    };
    (Cell::new(agents.to_string()), stop)
}

fn row(device: &Device, known: Option<&FleetDevice>, now: Timestamp) -> Vec<Cell> {
    let (agents, stop) = told(known);
    let time = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), |text| ago(text, now));
    let status = match device.status {
        DeviceStatus::Active => Cell::coloured("active", Colour::Good),
        DeviceStatus::Revoked if device.unwritten => Cell::coloured("revoked, not written yet", Colour::Bad),
        DeviceStatus::Revoked => Cell::coloured("revoked", Colour::Bad),
    };
    vec![
        Cell::new(&device.device_id),
        status,
        agents,
        stop,
        Cell::new(time(device.last_seen_at.as_ref())),
        Cell::new(time(device.created_at.as_ref())),
        if device.old_key { Cell::coloured("old", Colour::Unclear) } else { Cell::new("-") },
    ]
}

fn summary(shown: usize, plan: &PlanUsage) -> String {
    let shown = count(shown, "device", "devices");
    match (plan.devices_used, plan.limit) {
        (Some(used), Some(limit)) => format!("{shown}; the plan has {used} of {limit} places in use"),
        _ => shown,
    }
}
