//! Reports of sidecars in the store: what each last said about each device, and the newest stops.
//!
//! Nothing is decided by them, so they are kept as the JSON they came as, and the same plain statements do for every
//! database.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::rows::time;
use super::{Filter, ListedDevice, Store, StoreError};
use crate::authority::org::OrgId;
use crate::authority::reports::{HeardDevice, HeardReport, KnownStop};

/// Sidecars remembered for one device: a device is one agent's or one host's, so more are a mistake or mischief.
const SIDECARS_OF_ONE: i64 = 64;

/// Stops remembered for one device.
const STOPS_OF_ONE: i64 = 20;

/// A page of the fleet: devices with what was heard about them and their newest stop, and whether there are more.
#[derive(Clone, Debug)]
pub(in crate::authority) struct FleetRows {
    pub(in crate::authority) devices: Vec<ListedDevice>,
    pub(in crate::authority) heard: HashMap<String, Vec<HeardDevice>>,
    pub(in crate::authority) stops: HashMap<String, KnownStop>,
    pub(in crate::authority) more: bool,
}

impl Store {
    /// Keeps these reports, all or none: what each sidecar says now takes the place of what it said before. Devices that
    /// the organisation does not have are left out.
    pub(in crate::authority) async fn save_reports(&self, reports: &[HeardReport]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for report in reports {
            save(&mut tx, report).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Forgets what was last heard before `before`, and stops that began before it.
    pub(in crate::authority) async fn forget_reports(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for statement in ["DELETE FROM reports WHERE heard_at < ?", "DELETE FROM stops WHERE began_at < ?"] {
            sqlx::query(statement).bind(before.as_microsecond()).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// A page of devices with what their sidecars said. `None` when the organisation is gone.
    pub(in crate::authority) async fn fleet(
        &self,
        org: OrgId,
        filter: &Filter,
    ) -> Result<Option<FleetRows>, StoreError> {
        let Some((page, _)) = self.list(org, filter).await? else { return Ok(None) };
        let (Some(first), Some(last)) = (page.devices.first(), page.devices.last()) else {
            return Ok(Some(FleetRows {
                devices: Vec::new(),
                heard: HashMap::new(),
                stops: HashMap::new(),
                more: page.more,
            }));
        };
        let heard: Vec<(String, String, i64, String)> = sqlx::query_as(
            "SELECT device_id, sidecar_id, heard_at, body FROM reports
             WHERE org_id = ? AND device_id >= ? AND device_id <= ? ORDER BY device_id, heard_at DESC",
        )
        .bind(org.to_string())
        .bind(&first.id)
        .bind(&last.id)
        .fetch_all(&self.readers)
        .await?;
        let mut devices: HashMap<String, Vec<HeardDevice>> = HashMap::new();
        for (device, sidecar, at, body) in heard {
            let heard = HeardDevice::read(&sidecar, time(at)?, &body).ok_or(StoreError::Corrupt("report"))?;
            devices.entry(device).or_default().push(heard);
        }
        let newest: Vec<(String, i64, String)> = sqlx::query_as(
            "SELECT device_id, began_at, body FROM stops
             WHERE org_id = ? AND device_id >= ? AND device_id <= ? ORDER BY device_id, began_at",
        )
        .bind(org.to_string())
        .bind(&first.id)
        .bind(&last.id)
        .fetch_all(&self.readers)
        .await?;
        let mut stops = HashMap::new();
        for (device, at, body) in newest {
            stops.insert(device, KnownStop::read(time(at)?, &body).ok_or(StoreError::Corrupt("stop"))?);
        }
        Ok(Some(FleetRows { devices: page.devices, heard: devices, stops, more: page.more }))
    }

    /// The newest stops of a device, the newest first.
    pub(in crate::authority) async fn stops(&self, org: OrgId, device: &str) -> Result<Vec<KnownStop>, StoreError> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT began_at, body FROM stops WHERE org_id = ? AND device_id = ? ORDER BY began_at DESC, run_id",
        )
        .bind(org.to_string())
        .bind(device)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(at, body)| KnownStop::read(time(at)?, &body).ok_or(StoreError::Corrupt("stop")))
            .collect()
    }
}

async fn save(tx: &mut Transaction<'_, Sqlite>, report: &HeardReport) -> Result<(), StoreError> {
    let org = report.org.to_string();
    let sidecar = report.sidecar.to_string();
    let known: Vec<String> = sqlx::query_scalar("SELECT device_id FROM reports WHERE org_id = ? AND sidecar_id = ?")
        .bind(&org)
        .bind(&sidecar)
        .fetch_all(&mut **tx)
        .await?;
    let said: HashSet<&str> = report.devices.iter().map(|(device, _)| device.as_str()).collect();
    let known: HashSet<&str> = known.iter().map(String::as_str).collect();
    for gone in known.difference(&said) {
        sqlx::query("DELETE FROM reports WHERE org_id = ? AND device_id = ? AND sidecar_id = ?")
            .bind(&org)
            .bind(*gone)
            .bind(&sidecar)
            .execute(&mut **tx)
            .await?;
    }
    for (device, body) in &report.devices {
        if known.contains(device.as_str()) {
            sqlx::query(
                "UPDATE reports SET heard_at = ?, body = ? WHERE org_id = ? AND device_id = ? AND sidecar_id = ?",
            )
            .bind(report.heard_at.as_microsecond())
            .bind(body)
            .bind(&org)
            .bind(device.as_str())
            .bind(&sidecar)
            .execute(&mut **tx)
            .await?;
            continue;
        }
        sqlx::query(
            "INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, body)
             SELECT org_id, device_id, ?, ?, ? FROM devices WHERE org_id = ? AND device_id = ?",
        )
        .bind(&sidecar)
        .bind(report.heard_at.as_microsecond())
        .bind(body)
        .bind(&org)
        .bind(device.as_str())
        .execute(&mut **tx)
        .await?;
        sqlx::query(
            "DELETE FROM reports WHERE org_id = ?1 AND device_id = ?2 AND sidecar_id NOT IN
             (SELECT sidecar_id FROM reports WHERE org_id = ?1 AND device_id = ?2 ORDER BY heard_at DESC LIMIT ?3)",
        )
        .bind(&org)
        .bind(device.as_str())
        .bind(SIDECARS_OF_ONE)
        .execute(&mut **tx)
        .await?;
    }
    for stop in &report.stops {
        save_stop(tx, &org, stop).await?;
    }
    Ok(())
}

/// A stop told of again is the same one, further along: when it began stays what was first told.
async fn save_stop(tx: &mut Transaction<'_, Sqlite>, org: &str, stop: &KnownStop) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO stops (org_id, device_id, run_id, began_at, body)
         SELECT org_id, device_id, ?, ?, ? FROM devices WHERE org_id = ? AND device_id = ?
         ON CONFLICT (org_id, device_id, run_id) DO UPDATE SET body = excluded.body",
    )
    .bind(stop.stop.run_id.to_string())
    .bind(stop.began_at.as_microsecond())
    .bind(stop.body())
    .bind(org)
    .bind(stop.stop.device_id.as_str())
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "DELETE FROM stops WHERE org_id = ?1 AND device_id = ?2 AND run_id NOT IN
         (SELECT run_id FROM stops WHERE org_id = ?1 AND device_id = ?2 ORDER BY began_at DESC, run_id LIMIT ?3)",
    )
    .bind(org)
    .bind(stop.stop.device_id.as_str())
    .bind(STOPS_OF_ONE)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
