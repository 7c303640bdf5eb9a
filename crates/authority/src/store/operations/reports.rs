//! Reports of sidecars: the latest about each device, the last stops, and the events.
//!
//! No decision depends on reports, so they are stored as the JSON in which they arrived. They take no lock on the
//! organisation: the reports of a thousand sidecars must not delay a revoke.

use std::collections::{BTreeMap, BTreeSet};

use machineid_protocol::DeviceId;

use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::values;
use super::super::{KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS, StoreError};
use crate::access::covers;
use crate::changes::Change;
use crate::org::OrgId;
use crate::proofs::{Pair, Proof};
use crate::reports::{HeardReport, KnownEvent, KnownStop};

/// How long a sidecar keeps its place among those that validated a device, in microseconds.
const LATELY: i64 = 600_000_000;

/// A condition on a device: what the sidecar of this parameter says of its stops and events is stored. Where sidecars proved
/// that they use the device, only theirs is.
macro_rules! heeded {
    ($sidecar:literal) => {
        concat!(
            " AND (EXISTS (SELECT 1 FROM validators AS v WHERE v.org_id = devices.org_id
                  AND v.device_id = devices.device_id AND v.sidecar_id = ",
            $sidecar,
            ") OR NOT EXISTS (SELECT 1 FROM validators AS v WHERE v.org_id = devices.org_id
                  AND v.device_id = devices.device_id))"
        )
    };
}

pub(in super::super) async fn save<T: Transaction>(tx: &mut T, reports: &[HeardReport]) -> Result<(), StoreError> {
    tx.grow()?;
    // Every server uses the same order, so that two servers cannot deadlock. The sort is stable: it keeps the order of
    // one sidecar's reports.
    let mut ordered: Vec<&HeardReport> = reports.iter().collect();
    ordered.sort_by_key(|report| (report.org, report.sidecar));
    for report in ordered {
        prove(tx, &report.proofs).await?;
        save_devices(tx, report).await?;
        save_stops(tx, report).await?;
        save_events(tx, report).await?;
    }
    for change in Change::reports(reports) {
        tx.tell(change);
    }
    Ok(())
}

/// Writes that these sidecars validated these devices, and tells the observers: a confirmation of one of these sidecars may count now.
pub(in super::super) async fn save_proofs<T: Transaction>(tx: &mut T, proofs: &[Proof]) -> Result<(), StoreError> {
    prove(tx, proofs).await?;
    let mut orgs: BTreeMap<OrgId, BTreeSet<&DeviceId>> = BTreeMap::new();
    for Proof { pair, .. } in proofs {
        orgs.entry(pair.org).or_default().insert(&pair.device);
    }
    for (org, devices) in orgs {
        tx.tell(Change::Reports(org, devices.into_iter().cloned().collect()));
    }
    Ok(())
}

/// Writes these validations. A device has a limited number of places for sidecars that validated it lately, which their
/// holders keep: whatever number of others a key's holder makes up, they take none away.
async fn prove<T: Transaction>(tx: &mut T, proofs: &[Proof]) -> Result<(), StoreError> {
    for Proof { pair: Pair { org, device, sidecar }, at } in proofs {
        let sidecar = sidecar.to_string();
        let update = "UPDATE validators SET at = CASE WHEN at < $4 THEN $4 ELSE at END
             WHERE org_id = $1 AND device_id = $2 AND sidecar_id = $3";
        if tx.run(update, values![*org, device, sidecar.as_str(), *at]).await? > 0 {
            continue;
        }
        let lately = at.saturating_sub(LATELY);
        let insert = "INSERT INTO validators (org_id, device_id, sidecar_id, at)
             SELECT org_id, device_id, $3, $4 FROM devices WHERE org_id = $1 AND device_id = $2
                 AND (SELECT COUNT(*) FROM validators AS v
                      WHERE v.org_id = $1 AND v.device_id = $2 AND v.at >= $5) < $6
             ON CONFLICT DO NOTHING";
        let values = values![*org, device, sidecar, *at, lately, KEPT_SIDECARS];
        if tx.run(insert, values).await? > 0 {
            tx.run(
                "DELETE FROM validators WHERE org_id = $1 AND device_id = $2 AND at < $3 AND sidecar_id NOT IN
                 (SELECT sidecar_id FROM reports WHERE org_id = $1 AND device_id = $2)",
                values![*org, device, lately],
            )
            .await?;
        }
    }
    Ok(())
}

async fn save_devices<T: Transaction>(tx: &mut T, report: &HeardReport) -> Result<(), StoreError> {
    let (org, sidecar) = (report.org, report.sidecar.to_string());
    let select = "SELECT device_id, sequence, heard_at FROM reports WHERE org_id = $1 AND sidecar_id = $2";
    let mut newest = None;
    let mut gone = BTreeSet::new();
    for row in tx.rows(select, values![org, sidecar.as_str()]).await? {
        newest = newest.max(Some((row.get(1)?, row.get(2)?)));
        // A key says nothing about devices outside its pattern, not even that they are gone.
        let device: DeviceId = row.get(0)?;
        if covers(report.within.as_ref(), &device) {
            gone.insert(device.to_string());
        }
    }
    if report.is_late(newest) {
        return Ok(());
    }
    for (device, _) in &report.devices {
        gone.remove(device.as_str());
    }
    if !gone.is_empty() {
        // Delete by the device ids that the report no longer names: with a condition on the named ones, SQLite would
        // read all rows of the organisation.
        let among = T::DIALECT.among("$2");
        let delete = format!("DELETE FROM reports WHERE org_id = $1 AND sidecar_id = $3 AND device_id {among}");
        tx.run(&delete, values![org, gone.into_iter().collect::<Vec<_>>(), sidecar]).await?;
    }
    // The maximum can only be exceeded where this sidecar had not reported before.
    for device in tx.keep_said(report).await? {
        tx.run(
            // Sidecars that proved themselves stay first: no number of made-up ones takes a place of theirs.
            "DELETE FROM reports WHERE org_id = $1 AND device_id = $2 AND sidecar_id NOT IN
             (SELECT r.sidecar_id FROM reports AS r LEFT JOIN validators AS v
                  ON v.org_id = r.org_id AND v.device_id = r.device_id AND v.sidecar_id = r.sidecar_id
              WHERE r.org_id = $1 AND r.device_id = $2
              ORDER BY v.at IS NULL, r.heard_at DESC, r.sidecar_id LIMIT $3)",
            values![org, device, KEPT_SIDECARS],
        )
        .await?;
    }
    Ok(())
}

async fn save_stops<T: Transaction>(tx: &mut T, report: &HeardReport) -> Result<(), StoreError> {
    let sidecar = report.sidecar.to_string();
    let mut stopped = BTreeSet::new();
    for known in &report.stops {
        // A stop that is reported again is the same stop, further along: its start stays as first reported.
        tx.run(
            concat!(
                "INSERT INTO stops (org_id, device_id, sidecar_id, run_id, began_at, body)
                 SELECT org_id, device_id, $1, $2, $3, $4 FROM devices WHERE org_id = $5 AND device_id = $6",
                heeded!("$1"),
                " ON CONFLICT (org_id, device_id, sidecar_id, run_id) DO UPDATE SET body = excluded.body"
            ),
            values![
                sidecar.as_str(),
                known.stop.run_id.to_string(),
                known.began_at,
                known.body(),
                report.org,
                &known.stop.device_id
            ],
        )
        .await?;
        stopped.insert(&known.stop.device_id);
    }
    for device in stopped {
        tx.run(
            "DELETE FROM stops WHERE org_id = $1 AND device_id = $2 AND sidecar_id = $4 AND seq NOT IN
             (SELECT seq FROM stops WHERE org_id = $1 AND device_id = $2 AND sidecar_id = $4
              ORDER BY began_at DESC, seq DESC LIMIT $3)",
            values![report.org, device, KEPT_STOPS, sidecar.as_str()],
        )
        .await?;
    }
    Ok(())
}

async fn save_events<T: Transaction>(tx: &mut T, report: &HeardReport) -> Result<(), StoreError> {
    let mut happened = BTreeSet::new();
    for known in &report.events {
        tx.run(
            concat!(
                "INSERT INTO timeline (org_id, device_id, sidecar_id, life, number, at, body)
                 SELECT org_id, device_id, $1, $2, $3, $4, $5 FROM devices WHERE org_id = $6 AND device_id = $7",
                heeded!("$1"),
                " ON CONFLICT DO NOTHING"
            ),
            values![
                report.sidecar.to_string(),
                i64::from(known.event.id.life),
                known.number(),
                known.at,
                known.body(),
                report.org,
                &known.event.device_id,
            ],
        )
        .await?;
        happened.insert(&known.event.device_id);
    }
    for device in happened {
        tx.run(
            "DELETE FROM timeline WHERE org_id = $1 AND device_id = $2 AND seq NOT IN
             (SELECT seq FROM timeline WHERE org_id = $1 AND device_id = $2 ORDER BY at DESC, seq DESC LIMIT $3)",
            values![report.org, device, KEPT_EVENTS],
        )
        .await?;
    }
    Ok(())
}

pub(in super::super) async fn stops<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    device: &DeviceId,
) -> Result<Vec<KnownStop>, StoreError> {
    let select = "SELECT began_at, body FROM stops WHERE org_id = $1 AND device_id = $2
         ORDER BY began_at DESC, seq DESC";
    tx.rows(select, values![org, device]).await?.iter().map(stop).collect()
}

/// Decodes a stop from its time and its body.
pub(super) fn stop(row: &impl Row) -> Result<KnownStop, StoreError> {
    Ok(KnownStop::read(row.get(0)?, row.text(1)?.unwrap_or_default())?)
}

pub(in super::super) async fn timeline<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    device: &DeviceId,
) -> Result<Vec<KnownEvent>, StoreError> {
    let select = "SELECT sidecar_id, at, body FROM timeline WHERE org_id = $1 AND device_id = $2
         ORDER BY at DESC, seq DESC";
    let event = |row: &T::Row| {
        let (sidecar, body) = (row.text(0)?.unwrap_or_default(), row.text(2)?.unwrap_or_default());
        Ok(KnownEvent::read(sidecar, row.get(1)?, body)?)
    };
    tx.rows(select, values![org, device]).await?.iter().map(event).collect()
}
