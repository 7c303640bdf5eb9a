//! Reports of sidecars: what each last said about each device, the newest stops, and what happened.
//!
//! Nothing is decided by them, so they are kept as the JSON they came as.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::Connection;

use super::super::{
    Aftermath, Filter, FleetRows, Heard, HeardOf, KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS, Page, StoreError, count,
    reports_of, time,
};
use super::Sqlite;
use super::devices::page;
use super::rows::live_account;
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::reports::{HeardReport, KnownEvent, KnownStop};

/// How many rows are forgotten in one transaction: a revoke waits for one of these at most.
const FORGOTTEN_AT_ONCE: usize = 1_000;

impl Sqlite {
    pub(in super::super) async fn save_reports(&self, reports: Vec<HeardReport>) -> Result<(), StoreError> {
        self.writer
            .change(move |db| {
                for report in &reports {
                    save(db, report)?;
                }
                Ok(((), Change::reports(&reports)))
            })
            .await
    }

    pub(in super::super) async fn forget_reports(&self, before: Timestamp) -> Result<(), StoreError> {
        for (table, column) in [("reports", "heard_at"), ("stops", "began_at"), ("timeline", "at")] {
            let old = format!("SELECT rowid FROM {table} WHERE {column} < ?1 LIMIT {FORGOTTEN_AT_ONCE}");
            let forget = format!("DELETE FROM {table} WHERE rowid = ?1 AND {column} < ?2");
            let before = before.as_microsecond();
            loop {
                // Looked for where nobody waits for it: a table of a large fleet takes seconds to read.
                let old = old.clone();
                let rows: Vec<i64> = self
                    .browsers
                    .ask(move |db| {
                        Ok(db.prepare_cached(&old)?.query_map([before], |row| row.get(0))?.collect::<Result<_, _>>()?)
                    })
                    .await?;
                let found = rows.len();
                let forget = forget.clone();
                self.writer
                    .change(move |db| {
                        let mut statement = db.prepare_cached(&forget)?;
                        for row in rows {
                            statement.execute((row, before))?;
                        }
                        Ok(((), None))
                    })
                    .await?;
                if found < FORGOTTEN_AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(in super::super) async fn fleet(&self, org: OrgId, filter: Filter) -> Result<Option<FleetRows>, StoreError> {
        self.browsers
            .ask(move |db| {
                // All statements of one snapshot.
                let snapshot = db.unchecked_transaction();
                if live_account(db, org)?.is_none() {
                    return Ok(None);
                }
                let rows = fleet(db, org, page(db, org, &filter)?, filter.counted)?;
                drop(snapshot);
                Ok(Some(rows))
            })
            .await
    }

    pub(in super::super) async fn stops(&self, org: OrgId, device: String) -> Result<Vec<KnownStop>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT began_at, body FROM stops WHERE org_id = ?1 AND device_id = ?2
                     ORDER BY began_at DESC, seq DESC",
                )?;
                let mut rows = statement.query((org.to_string(), device))?;
                let mut stops = Vec::new();
                while let Some(row) = rows.next()? {
                    stops.push(KnownStop::read(time(row.get(0)?)?, &row.get::<_, String>(1)?)?);
                }
                Ok(stops)
            })
            .await
    }

    pub(in super::super) async fn timeline(&self, org: OrgId, device: String) -> Result<Vec<KnownEvent>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT sidecar_id, at, body FROM timeline WHERE org_id = ?1 AND device_id = ?2
                     ORDER BY at DESC, seq DESC",
                )?;
                let mut rows = statement.query((org.to_string(), device))?;
                let mut events = Vec::new();
                while let Some(row) = rows.next()? {
                    let (sidecar, body) = (row.get::<_, String>(0)?, row.get::<_, String>(2)?);
                    events.push(KnownEvent::read(&sidecar, time(row.get(1)?)?, &body)?);
                }
                Ok(events)
            })
            .await
    }

    pub(in super::super) async fn aftermath(&self, org: OrgId, at: Timestamp) -> Result<Option<Aftermath>, StoreError> {
        self.browsers
            .ask(move |db| {
                // All statements of one snapshot.
                let snapshot = db.unchecked_transaction();
                if live_account(db, org)?.is_none() {
                    return Ok(None);
                }
                let after = aftermath(db, &org.to_string(), at.as_microsecond())?;
                drop(snapshot);
                Ok(Some(after))
            })
            .await
    }
}

fn aftermath(db: &Connection, org: &str, at: i64) -> Result<Aftermath, StoreError> {
    let (devices, reason): (i64, _) = db
        .prepare_cached("SELECT COUNT(*), MAX(revoke_reason) FROM devices WHERE org_id = ?1 AND revoked_at = ?2")?
        .query_row((org, at), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut after = Aftermath { devices: count(devices)?, reason, heard: Vec::new(), stops: Vec::new() };
    // CROSS JOIN: by what was reported, which is as much as there are sidecars, and not by what is revoked.
    let mut statement = db.prepare_cached(
        "SELECT r.device_id, device_seen.at, r.sidecar_id, r.heard_at, r.body FROM reports AS r
         CROSS JOIN devices AS d ON d.org_id = r.org_id AND d.device_id = r.device_id
         LEFT JOIN device_seen ON device_seen.seq = d.seq
         WHERE r.org_id = ?1 AND d.revoked_at = ?2 AND r.heard_at >= d.created_at
         ORDER BY r.device_id, r.sidecar_id",
    )?;
    let mut rows = statement.query((org, at))?;
    while let Some(row) = rows.next()? {
        let heard = Heard { sidecar: row.get(2)?, at: row.get(3)?, body: row.get(4)? };
        after.heard.push(HeardOf::read(row.get(0)?, row.get(1)?, &heard)?);
    }
    let mut statement = db.prepare_cached(
        "SELECT s.began_at, s.body FROM stops AS s
         CROSS JOIN devices AS d ON d.org_id = s.org_id AND d.device_id = s.device_id
         WHERE s.org_id = ?1 AND s.began_at >= ?2 AND d.revoked_at = ?2",
    )?;
    let mut rows = statement.query((org, at))?;
    while let Some(row) = rows.next()? {
        after.stops.push(KnownStop::read(time(row.get(0)?)?, &row.get::<_, String>(1)?)?);
    }
    Ok(after)
}

fn fleet(db: &Connection, org: OrgId, page: Page, counted: bool) -> Result<FleetRows, StoreError> {
    let org = org.to_string();
    // Each row of a sidecar says how many it has.
    let (sidecars, agents): (i64, i64) = if counted {
        db.prepare_cached(
            "SELECT COUNT(*), COALESCE(SUM(agents), 0) FROM
             (SELECT MAX(agents) AS agents FROM reports WHERE org_id = ?1 GROUP BY sidecar_id)",
        )?
        .query_row([&org], |row| Ok((row.get(0)?, row.get(1)?)))?
    } else {
        (0, 0)
    };
    let mut rows =
        FleetRows { devices: Vec::new(), more: page.more, sidecars: count(sidecars)?, agents: count(agents)? };
    let mut heard = db.prepare_cached(
        "SELECT sidecar_id, heard_at, body FROM reports WHERE org_id = ?1 AND device_id = ?2
         ORDER BY heard_at DESC, sidecar_id",
    )?;
    let mut stop = db.prepare_cached(
        "SELECT began_at, body FROM stops WHERE org_id = ?1 AND device_id = ?2
         ORDER BY began_at DESC, seq DESC LIMIT 1",
    )?;
    // By device: a page of a search may span the whole fleet, of which it shows a few.
    for device in page.devices {
        let mut found = heard.query((&org, &device.id))?;
        let mut said = Vec::new();
        while let Some(row) = found.next()? {
            said.push(Heard { sidecar: row.get(0)?, at: row.get(1)?, body: row.get(2)? });
        }
        let mut found = stop.query((&org, &device.id))?;
        let last = found.next()?.map(|row| Ok::<_, StoreError>((row.get(0)?, row.get(1)?))).transpose()?;
        rows.devices.push(reports_of(device, said, last)?);
    }
    Ok(rows)
}

fn save(db: &Connection, report: &HeardReport) -> Result<(), StoreError> {
    let (org, sidecar) = (report.org.to_string(), report.sidecar.to_string());
    save_devices(db, report, &org, &sidecar)?;
    let mut stopped = HashSet::new();
    for stop in &report.stops {
        // A stop told of again is the same one, further along: when it began stays what was first told.
        db.prepare_cached(
            "INSERT INTO stops (org_id, device_id, run_id, began_at, body)
             SELECT org_id, device_id, ?1, ?2, ?3 FROM devices WHERE org_id = ?4 AND device_id = ?5
             ON CONFLICT (org_id, device_id, run_id) DO UPDATE SET body = excluded.body",
        )?
        .execute((
            stop.stop.run_id.to_string(),
            stop.began_at.as_microsecond(),
            stop.body(),
            &org,
            stop.stop.device_id.as_str(),
        ))?;
        stopped.insert(stop.stop.device_id.as_str());
    }
    for device in stopped {
        db.prepare_cached(
            "DELETE FROM stops WHERE seq IN (SELECT seq FROM stops WHERE org_id = ?1 AND device_id = ?2
             ORDER BY began_at DESC, seq DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute((&org, device, KEPT_STOPS))?;
    }
    let mut happened = HashSet::new();
    for event in &report.events {
        db.prepare_cached(
            "INSERT INTO timeline (org_id, device_id, sidecar_id, life, number, at, body)
             SELECT org_id, device_id, ?1, ?2, ?3, ?4, ?5 FROM devices WHERE org_id = ?6 AND device_id = ?7
             ON CONFLICT DO NOTHING",
        )?
        .execute((
            &sidecar,
            event.event.id.life,
            event.number(),
            event.at.as_microsecond(),
            event.body(),
            &org,
            event.event.device_id.as_str(),
        ))?;
        happened.insert(event.event.device_id.as_str());
    }
    for device in happened {
        db.prepare_cached(
            "DELETE FROM timeline WHERE seq IN (SELECT seq FROM timeline WHERE org_id = ?1 AND device_id = ?2
             ORDER BY at DESC, seq DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute((&org, device, KEPT_EVENTS))?;
    }
    Ok(())
}

fn save_devices(db: &Connection, report: &HeardReport, org: &str, sidecar: &str) -> Result<(), StoreError> {
    let mut known = HashMap::new();
    let mut newest = None;
    let mut statement =
        db.prepare_cached("SELECT device_id, sequence, heard_at FROM reports WHERE org_id = ?1 AND sidecar_id = ?2")?;
    let mut rows = statement.query((org, sidecar))?;
    while let Some(row) = rows.next()? {
        let before = (row.get(1)?, row.get(2)?);
        newest = newest.max(Some(before));
        known.insert(row.get::<_, String>(0)?, before);
    }
    if report.is_late(newest) {
        return Ok(());
    }
    let said: HashSet<&str> = report.devices.iter().map(|(device, _)| device.as_str()).collect();
    for gone in known.keys().filter(|device| !said.contains(device.as_str())) {
        db.prepare_cached("DELETE FROM reports WHERE org_id = ?1 AND device_id = ?2 AND sidecar_id = ?3")?
            .execute((org, gone, sidecar))?;
    }
    let heard_at = report.heard_at.as_microsecond();
    for (device, body) in &report.devices {
        let device = device.as_str();
        if known.contains_key(device) {
            db.prepare_cached(
                "UPDATE reports SET heard_at = ?4, sequence = ?5, agents = ?6, body = ?7
                 WHERE org_id = ?1 AND device_id = ?2 AND sidecar_id = ?3",
            )?
            .execute((org, device, sidecar, heard_at, report.sequence, report.agents, body))?;
            continue;
        }
        db.prepare_cached(
            "INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, sequence, agents, body)
             SELECT org_id, device_id, ?3, ?4, ?5, ?6, ?7 FROM devices WHERE org_id = ?1 AND device_id = ?2
             ON CONFLICT DO UPDATE SET body = excluded.body",
        )?
        .execute((org, device, sidecar, heard_at, report.sequence, report.agents, body))?;
        db.prepare_cached(
            "DELETE FROM reports WHERE org_id = ?1 AND device_id = ?2 AND sidecar_id IN
             (SELECT sidecar_id FROM reports WHERE org_id = ?1 AND device_id = ?2
              ORDER BY heard_at DESC, sidecar_id LIMIT -1 OFFSET ?3)",
        )?
        .execute((org, device, KEPT_SIDECARS))?;
    }
    Ok(())
}

/// Forgets everything that was told about an organisation.
pub(super) fn forget(db: &Connection, org: OrgId) -> Result<(), StoreError> {
    for table in ["reports", "stops", "timeline"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE org_id = ?1"))?.execute([org.to_string()])?;
    }
    Ok(())
}
