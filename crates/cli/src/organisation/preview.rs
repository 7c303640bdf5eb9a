//! `--dry-run`: shows which devices would be affected.

use std::collections::HashMap;

use machineid_client::ListFilter;
use machineid_protocol::Exit;
use machineid_protocol::api::DeviceStatus;
use serde::Serialize;

use super::connect::OrgClient;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::table::{self, Cell, Column};
use crate::words::count;

/// The effect of a change on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect {
    Revoke,
    Unrevoke,
    Remove,
    /// The device already has the wanted status.
    None,
    /// The authority does not know the device.
    NotFound,
}

impl Effect {
    /// The word in the preview for a device with this status.
    const fn word(self, status: Option<DeviceStatus>) -> &'static str {
        match self {
            Self::Revoke => "would be revoked",
            Self::Unrevoke => "would be unrevoked, if the plan has a place",
            Self::Remove => "would be removed",
            Self::None => match status {
                Some(DeviceStatus::Revoked) => "unchanged (already revoked)",
                Some(DeviceStatus::Active) => "unchanged (already active)",
                None => "unchanged",
            },
            Self::NotFound => "not found",
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    device_id: String,
    status: Option<DeviceStatus>,
    effect: Effect,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PreviewReport {
    dry_run: bool,
    results: Vec<Preview>,
    affected: usize,
}

/// Lists the effect on these ids; without ids, on every device that `filter` selects.
pub(super) async fn show(
    org: &OrgClient,
    ids: Option<&[String]>,
    filter: ListFilter,
    effect: fn(DeviceStatus) -> Effect,
    json: bool,
    printer: &mut Printer,
) -> Result<Exit, Problem> {
    let list = org.client.list(&org.key, &filter).await.map_err(|failure| org.problem(&failure))?;
    let preview = |id: String, status: Option<DeviceStatus>| Preview {
        device_id: id,
        status,
        effect: status.map_or(Effect::NotFound, effect),
    };
    let results: Vec<Preview> = match ids {
        None => list.devices.into_iter().map(|device| preview(device.device_id, Some(device.status))).collect(),
        Some(ids) => {
            let known: HashMap<String, DeviceStatus> =
                list.devices.into_iter().map(|device| (device.device_id, device.status)).collect();
            ids.iter().map(|id| preview(id.clone(), known.get(id).copied())).collect()
        }
    };
    let affected = results.iter().filter(|one| !matches!(one.effect, Effect::None | Effect::NotFound)).count();
    if json {
        printer.json(&PreviewReport { dry_run: true, results, affected });
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<Cell>> =
        results.iter().map(|one| vec![Cell::new(&one.device_id), Cell::new(one.effect.word(one.status))]).collect();
    for line in table::layout(&[Column::keep(""), Column::keep("")], &rows, printer.width()).into_iter().skip(1) {
        printer.line(line);
    }
    printer.note(&format!("dry run: {} would be affected; nothing was changed", count(affected, "device", "devices")));
    Ok(Exit::Success)
}
