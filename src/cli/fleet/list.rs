//! `machineid list`.

use jiff::Timestamp;

use super::connect::Fleet;
use crate::cli::Env;
use crate::cli::args::ListArgs;
use crate::cli::printer::{Colour, Printer};
use crate::cli::problem::Problem;
use crate::cli::table::{self, Cell, Column};
use crate::cli::words::{ago, count};
use crate::client::ListFilter;
use crate::clock;
use crate::protocol::Exit;
use crate::protocol::api::{Device, DeviceStatus, PlanFields};

const COLUMNS: [Column; 4] =
    [Column::keep("DEVICE"), Column::keep("STATUS"), Column::drop_at("LAST SEEN", 1), Column::drop_at("REGISTERED", 2)];

pub(in crate::cli) async fn run(args: &ListArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let fleet = Fleet::new(&args.key, env)?;
    let status = match (args.active, args.revoked) {
        (true, _) => Some(DeviceStatus::Active),
        (false, true) => Some(DeviceStatus::Revoked),
        (false, false) => None,
    };
    let filter = ListFilter { status, search: args.query.clone() };
    let list = fleet.client.list(&fleet.key, &filter).await.map_err(|failure| fleet.problem(&failure))?;
    if args.json {
        printer.json(&list);
        return Ok(Exit::Success);
    }
    if list.devices.is_empty() {
        printer.note("no devices");
        return Ok(Exit::Success);
    }
    let now = clock::wall_now();
    let rows: Vec<Vec<Cell>> = list.devices.iter().map(|device| row(device, now)).collect();
    for line in table::layout(&COLUMNS, &rows, printer.width()) {
        printer.line(line);
    }
    printer.note(&summary(list.devices.len(), &list.plan));
    Ok(Exit::Success)
}

fn row(device: &Device, now: Timestamp) -> Vec<Cell> {
    let time = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), |text| ago(text, now));
    let status = match device.status {
        DeviceStatus::Active => Cell::coloured("active", Colour::Good),
        DeviceStatus::Revoked => Cell::coloured("revoked", Colour::Bad),
    };
    vec![
        Cell::new(&device.device_id),
        status,
        Cell::new(time(device.last_seen_at.as_ref())),
        Cell::new(time(device.created_at.as_ref())),
    ]
}

fn summary(shown: usize, plan: &PlanFields) -> String {
    let shown = count(shown, "device", "devices");
    match (plan.devices_used, plan.limit) {
        (Some(used), Some(limit)) => format!("{shown}; the plan has {used} of {limit} places in use"),
        _ => shown,
    }
}
