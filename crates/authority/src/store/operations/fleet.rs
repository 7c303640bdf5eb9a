//! Lists devices together with what their sidecars reported.

use std::collections::HashMap;

use jiff::Timestamp;

use super::super::columns::Row;
use super::super::transaction::ReadTransaction;
use super::super::values::{Value, values};
use super::super::{
    Aftermath, FLEET_PAGE, FLEET_STEP, Filter, FleetRow, FleetRows, Heard, HeardOf, LatelyRevoked, ListedDevice, Page,
    StoreError,
};
use super::list::page;
use super::orgs::live_account;
use super::reports::stop;
use crate::org::OrgId;

pub(in super::super) async fn fleet<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    filter: &Filter,
) -> Result<Option<FleetRows>, StoreError> {
    if live_account(tx, org).await?.is_none() {
        return Ok(None);
    }
    let Page { devices, more } = page(tx, org, filter).await?;
    let (sidecars, agents) = if filter.counted { sidecars(tx, org).await? } else { (0, 0) };
    let mut rows = FleetRows { devices: Vec::new(), more, sidecars, agents };
    let (mut left, mut bytes) = (devices.into_iter().peekable(), 0);
    // A few at a time, so that no more than a page is ever in memory, whatever sidecars report.
    while left.peek().is_some() {
        if bytes > FLEET_PAGE {
            rows.more = true;
            break;
        }
        bytes += told(tx, org, left.by_ref().take(FLEET_STEP).collect(), &mut rows.devices).await?;
    }
    Ok(Some(rows))
}

/// Adds what sidecars told of these devices, and returns its size in bytes.
async fn told<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    devices: Vec<ListedDevice>,
    rows: &mut Vec<FleetRow>,
) -> Result<usize, StoreError> {
    let ids = Value::Texts(devices.iter().map(|device| device.id.clone()).collect());
    let among = T::DIALECT.among("$2");
    let select = format!(
        "SELECT r.device_id, r.sidecar_id, r.heard_at, r.body, v.at FROM reports AS r LEFT JOIN validators AS v
             ON v.org_id = r.org_id AND v.device_id = r.device_id AND v.sidecar_id = r.sidecar_id
         WHERE r.org_id = $1 AND r.device_id {among} ORDER BY r.heard_at DESC, r.sidecar_id"
    );
    let mut bytes = 0;
    let mut heard: HashMap<String, Vec<Heard>> = HashMap::new();
    for row in tx.rows(&select, values![org, ids.clone()]).await? {
        let said = Heard { sidecar: row.get(1)?, at: row.get(2)?, body: row.get(3)?, validated_at: row.maybe(4)? };
        bytes += said.body.len();
        heard.entry(row.get(0)?).or_default().push(said);
    }
    let select = format!(
        "SELECT devices.device_id, stops.began_at, stops.body FROM devices JOIN stops ON stops.seq =
             (SELECT seq FROM stops AS newest WHERE newest.org_id = devices.org_id
              AND newest.device_id = devices.device_id ORDER BY began_at DESC, seq DESC LIMIT 1)
         WHERE devices.org_id = $1 AND devices.device_id {among}"
    );
    let mut stops: HashMap<String, (Timestamp, String)> = HashMap::new();
    for row in tx.rows(&select, values![org, ids]).await? {
        let stop: (Timestamp, String) = (row.get(1)?, row.get(2)?);
        bytes += stop.1.len();
        stops.insert(row.get(0)?, stop);
    }
    for device in devices {
        let said = heard.remove(&device.id).unwrap_or_default();
        let stop = stops.remove(&device.id);
        rows.push(FleetRow::read(device, &said, stop)?);
    }
    Ok(bytes)
}

/// The most reports that are read about devices that were revoked lately.
const LATELY: i64 = 4_096;

/// The devices of all organisations that were revoked in this time and still are, with the reports since they registered.
pub(in super::super) async fn lately_revoked<T: ReadTransaction>(
    tx: &mut T,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<LatelyRevoked>, StoreError> {
    let select = "SELECT d.seq, d.revoked_at, device_seen.at, r.sidecar_id, r.heard_at, r.body, v.at FROM devices AS d
         JOIN reports AS r ON r.org_id = d.org_id AND r.device_id = d.device_id AND r.heard_at >= d.created_at
         LEFT JOIN device_seen ON device_seen.seq = d.seq
         LEFT JOIN validators AS v
             ON v.org_id = r.org_id AND v.device_id = r.device_id AND v.sidecar_id = r.sidecar_id
         WHERE d.revoked_at >= $1 AND d.revoked_at <= $2 ORDER BY d.seq LIMIT $3";
    let mut found: Vec<(i64, LatelyRevoked)> = Vec::new();
    for row in tx.rows(select, values![since, until, LATELY]).await? {
        let seq: i64 = row.get(0)?;
        if found.last().is_none_or(|(last, _)| *last != seq) {
            let device = LatelyRevoked { revoked_at: row.get(1)?, last_seen_at: row.maybe(2)?, heard: Vec::new() };
            found.push((seq, device));
        }
        let heard = Heard { sidecar: row.get(3)?, at: row.get(4)?, body: row.get(5)?, validated_at: row.maybe(6)? };
        if let Some((_, device)) = found.last_mut() {
            device.heard.push(heard.read()?);
        }
    }
    Ok(found.into_iter().map(|(_, device)| device).collect())
}

/// The number of sidecars of the organisation that report, and of their agents.
async fn sidecars<T: ReadTransaction>(tx: &mut T, org: OrgId) -> Result<(u64, u64), StoreError> {
    // Each row of a sidecar holds the sidecar's number of agents.
    let select = "SELECT COUNT(*), CAST(COALESCE(SUM(agents), 0) AS BIGINT) FROM
         (SELECT MAX(agents) AS agents FROM reports WHERE org_id = $1 GROUP BY sidecar_id) AS each_sidecar";
    match tx.row(select, values![org]).await? {
        Some(row) => Ok((row.get(0)?, row.get(1)?)),
        None => Ok((0, 0)),
    }
}

pub(in super::super) async fn aftermath<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    at: Timestamp,
) -> Result<Option<Aftermath>, StoreError> {
    if live_account(tx, org).await?.is_none() {
        return Ok(None);
    }
    let mut after = Aftermath { devices: 0, reason: None, heard: Vec::new(), stops: Vec::new() };
    let select = "SELECT COUNT(*), MAX(revoke_reason) FROM devices WHERE org_id = $1 AND revoked_at = $2";
    if let Some(row) = tx.row(select, values![org, at]).await? {
        (after.devices, after.reason) = (row.get(0)?, row.maybe(1)?);
    }
    // CROSS JOIN makes SQLite begin with the reports, of which there are as many as sidecars, and not with the revoked
    // devices. PostgreSQL chooses the order of joins itself.
    let select = "SELECT r.device_id, device_seen.at, r.sidecar_id, r.heard_at, r.body, v.at FROM reports AS r
         CROSS JOIN devices AS d LEFT JOIN device_seen ON device_seen.seq = d.seq
         LEFT JOIN validators AS v
             ON v.org_id = r.org_id AND v.device_id = r.device_id AND v.sidecar_id = r.sidecar_id
         WHERE d.org_id = r.org_id AND d.device_id = r.device_id
         AND r.org_id = $1 AND d.revoked_at = $2 AND r.heard_at >= d.created_at
         ORDER BY r.device_id, r.sidecar_id";
    for row in tx.rows(select, values![org, at]).await? {
        let heard = Heard { sidecar: row.get(2)?, at: row.get(3)?, body: row.get(4)?, validated_at: row.maybe(5)? };
        after.heard.push(HeardOf { device: row.get(0)?, last_seen_at: row.maybe(1)?, heard: heard.read()? });
    }
    let select = "SELECT s.began_at, s.body FROM stops AS s CROSS JOIN devices AS d
         WHERE d.org_id = s.org_id AND d.device_id = s.device_id
         AND s.org_id = $1 AND s.began_at >= $2 AND d.revoked_at = $2";
    after.stops = tx.rows(select, values![org, at]).await?.iter().map(stop).collect::<Result<_, _>>()?;
    Ok(Some(after))
}
