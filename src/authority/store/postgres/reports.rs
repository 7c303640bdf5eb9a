//! Reports of sidecars: what each last said about each device, the newest stops, and what happened.
//!
//! Nothing is decided by them, so they are kept as the JSON they came as. They lock no organisation: reports of a
//! thousand sidecars must not keep a revoke waiting.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use sqlx::Row;

use super::super::{
    Aftermath, Filter, FleetRows, Heard, HeardOf, KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS, StoreError, count,
    reports_of, time,
};
use super::devices::page;
use super::rows::any_account;
use super::{Db, OPERATION, Postgres, Transaction};
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::reports::{HeardReport, KnownEvent, KnownStop};

impl Postgres {
    pub(in super::super) async fn save_reports(&self, mut reports: Vec<HeardReport>) -> Result<(), StoreError> {
        // In one order on every server, so that no two wait for each other. Stable: of one sidecar the first stays first.
        reports.sort_by_key(|report| (report.org, report.sidecar));
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            for report in &reports {
                save_devices(&mut tx, report).await?;
                save_stops(&mut tx, report).await?;
                save_events(&mut tx, report).await?;
            }
            self.commit(tx, Change::reports(&reports)).await
        })
        .await
    }

    pub(in super::super) async fn forget_reports(&self, before: Timestamp) -> Result<(), StoreError> {
        self.within(OPERATION, async {
            for statement in [
                "DELETE FROM reports WHERE heard_at < $1",
                "DELETE FROM stops WHERE began_at < $1",
                "DELETE FROM timeline WHERE at < $1",
            ] {
                sqlx::query(statement).bind(before.as_microsecond()).execute(&self.pool).await?;
            }
            Ok(())
        })
        .await
    }

    pub(in super::super) async fn fleet(&self, org: OrgId, filter: Filter) -> Result<Option<FleetRows>, StoreError> {
        self.within(OPERATION, async {
            // All statements of one snapshot.
            let mut snapshot = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let account = any_account(&mut *snapshot, org).await?.filter(|account| !account.org.deleted);
            if account.is_none() {
                return Ok(None);
            }
            let page = page(&mut snapshot, org, &filter).await?;
            let ids: Vec<&str> = page.devices.iter().map(|device| device.id.as_str()).collect();
            let mut heard: HashMap<String, Vec<Heard>> = HashMap::new();
            let found = sqlx::query(
                "SELECT device_id, sidecar_id, heard_at, body FROM reports
                 WHERE org_id = $1 AND device_id = ANY($2) ORDER BY heard_at DESC, sidecar_id",
            );
            for row in found.bind(org.to_string()).bind(&ids).fetch_all(&mut *snapshot).await? {
                let said = Heard { sidecar: row.try_get(1)?, at: row.try_get(2)?, body: row.try_get(3)? };
                heard.entry(row.try_get(0)?).or_default().push(said);
            }
            let mut stops: HashMap<String, (i64, String)> = HashMap::new();
            let found = sqlx::query(
                "SELECT DISTINCT ON (device_id) device_id, began_at, body FROM stops
                 WHERE org_id = $1 AND device_id = ANY($2) ORDER BY device_id, began_at DESC, seq DESC",
            );
            for row in found.bind(org.to_string()).bind(&ids).fetch_all(&mut *snapshot).await? {
                stops.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
            }
            // Each row of a sidecar says how many it has.
            let (sidecars, agents): (i64, i64) = if filter.counted {
                sqlx::query_as(
                    "SELECT COUNT(*), COALESCE(SUM(agents), 0)::bigint FROM
                 (SELECT MAX(agents) AS agents FROM reports WHERE org_id = $1 GROUP BY sidecar_id) AS each",
                )
                .bind(org.to_string())
                .fetch_one(&mut *snapshot)
                .await?
            } else {
                (0, 0)
            };
            let (sidecars, agents) = (count(sidecars)?, count(agents)?);
            let mut rows = FleetRows { devices: Vec::new(), more: page.more, sidecars, agents };
            for device in page.devices {
                let said = heard.remove(&device.id).unwrap_or_default();
                let stop = stops.remove(&device.id);
                rows.devices.push(reports_of(device, said, stop)?);
            }
            Ok(Some(rows))
        })
        .await
    }

    pub(in super::super) async fn stops(&self, org: OrgId, device: String) -> Result<Vec<KnownStop>, StoreError> {
        self.within(OPERATION, async {
            let rows: Vec<(i64, String)> = sqlx::query_as(
                "SELECT began_at, body FROM stops WHERE org_id = $1 AND device_id = $2
                 ORDER BY began_at DESC, seq DESC",
            )
            .bind(org.to_string())
            .bind(device)
            .fetch_all(&self.pool)
            .await?;
            rows.into_iter().map(|(at, body)| Ok(KnownStop::read(time(at)?, &body)?)).collect()
        })
        .await
    }

    pub(in super::super) async fn timeline(&self, org: OrgId, device: String) -> Result<Vec<KnownEvent>, StoreError> {
        self.within(OPERATION, async {
            let rows: Vec<(String, i64, String)> = sqlx::query_as(
                "SELECT sidecar_id, at, body FROM timeline WHERE org_id = $1 AND device_id = $2
                 ORDER BY at DESC, seq DESC",
            )
            .bind(org.to_string())
            .bind(device)
            .fetch_all(&self.pool)
            .await?;
            let read = |(sidecar, at, body): (String, i64, String)| Ok(KnownEvent::read(&sidecar, time(at)?, &body)?);
            rows.into_iter().map(read).collect()
        })
        .await
    }

    pub(in super::super) async fn aftermath(&self, org: OrgId, at: Timestamp) -> Result<Option<Aftermath>, StoreError> {
        self.within(OPERATION, async {
            // All statements of one snapshot.
            let mut snapshot = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let account = any_account(&mut *snapshot, org).await?.filter(|account| !account.org.deleted);
            if account.is_none() {
                return Ok(None);
            }
            let (org, at) = (org.to_string(), at.as_microsecond());
            let (devices, reason): (i64, _) = sqlx::query_as(
                "SELECT COUNT(*), MAX(revoke_reason) FROM devices WHERE org_id = $1 AND revoked_at = $2",
            )
            .bind(&org)
            .bind(at)
            .fetch_one(&mut *snapshot)
            .await?;
            let mut after = Aftermath { devices: count(devices)?, reason, heard: Vec::new(), stops: Vec::new() };
            let found = sqlx::query(
                "SELECT r.device_id, device_seen.at, r.sidecar_id, r.heard_at, r.body FROM reports AS r
                 JOIN devices AS d USING (org_id, device_id) LEFT JOIN device_seen USING (seq)
                 WHERE r.org_id = $1 AND d.revoked_at = $2 AND r.heard_at >= d.created_at
                 ORDER BY r.device_id, r.sidecar_id",
            );
            for row in found.bind(&org).bind(at).fetch_all(&mut *snapshot).await? {
                let heard = Heard { sidecar: row.try_get(2)?, at: row.try_get(3)?, body: row.try_get(4)? };
                after.heard.push(HeardOf::read(row.try_get(0)?, row.try_get(1)?, &heard)?);
            }
            let stops: Vec<(i64, String)> = sqlx::query_as(
                "SELECT s.began_at, s.body FROM stops AS s JOIN devices AS d USING (org_id, device_id)
                 WHERE s.org_id = $1 AND s.began_at >= $2 AND d.revoked_at = $2",
            )
            .bind(&org)
            .bind(at)
            .fetch_all(&mut *snapshot)
            .await?;
            for (began_at, body) in stops {
                after.stops.push(KnownStop::read(time(began_at)?, &body)?);
            }
            Ok(Some(after))
        })
        .await
    }
}

async fn save_devices(tx: &mut Transaction<'static, Db>, report: &HeardReport) -> Result<(), StoreError> {
    let (org, sidecar) = (report.org.to_string(), report.sidecar.to_string());
    let newest: Option<(i64, i64)> = sqlx::query_as(
        "SELECT sequence, heard_at FROM reports WHERE org_id = $1 AND sidecar_id = $2
         ORDER BY sequence DESC, heard_at DESC LIMIT 1",
    )
    .bind(&org)
    .bind(&sidecar)
    .fetch_optional(&mut **tx)
    .await?;
    if report.is_late(newest) {
        return Ok(());
    }
    let (devices, bodies): (Vec<&str>, Vec<&str>) =
        report.devices.iter().map(|(device, body)| (device.as_str(), body.as_str())).unzip();
    sqlx::query("DELETE FROM reports WHERE org_id = $1 AND sidecar_id = $2 AND NOT device_id = ANY($3)")
        .bind(&org)
        .bind(&sidecar)
        .bind(&devices)
        .execute(&mut **tx)
        .await?;
    // `xmax = 0` is a row that was not there before: only those can be too many.
    let new: Vec<String> = sqlx::query_scalar(
        "WITH saved AS (
             INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, sequence, agents, body)
             SELECT org_id, device_id, $2, $3, $4, $5, body FROM UNNEST($6::text[], $7::text[]) AS said (device_id, body)
             JOIN devices USING (device_id) WHERE org_id = $1 ORDER BY device_id
             ON CONFLICT (org_id, device_id, sidecar_id)
             DO UPDATE SET heard_at = excluded.heard_at, sequence = excluded.sequence, agents = excluded.agents,
                           body = excluded.body
             RETURNING device_id, xmax = 0 AS new)
         SELECT device_id FROM saved WHERE new",
    )
    .bind(&org)
    .bind(&sidecar)
    .bind(report.heard_at.as_microsecond())
    .bind(report.sequence)
    .bind(i64::from(report.agents))
    .bind(&devices)
    .bind(&bodies)
    .fetch_all(&mut **tx)
    .await?;
    for device in new {
        sqlx::query(
            "DELETE FROM reports WHERE org_id = $1 AND device_id = $2 AND sidecar_id IN
             (SELECT sidecar_id FROM reports WHERE org_id = $1 AND device_id = $2
              ORDER BY heard_at DESC, sidecar_id OFFSET $3)",
        )
        .bind(&org)
        .bind(device)
        .bind(KEPT_SIDECARS)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

async fn save_stops(tx: &mut Transaction<'static, Db>, report: &HeardReport) -> Result<(), StoreError> {
    let org = report.org.to_string();
    let mut stopped = BTreeSet::new();
    for stop in &report.stops {
        // A stop told of again is the same one, further along: when it began stays what was first told.
        sqlx::query(
            "INSERT INTO stops (org_id, device_id, run_id, began_at, body)
             SELECT org_id, device_id, $1, $2, $3 FROM devices WHERE org_id = $4 AND device_id = $5
             ON CONFLICT (org_id, device_id, run_id) DO UPDATE SET body = excluded.body",
        )
        .bind(stop.stop.run_id.to_string())
        .bind(stop.began_at.as_microsecond())
        .bind(stop.body())
        .bind(&org)
        .bind(stop.stop.device_id.as_str())
        .execute(&mut **tx)
        .await?;
        stopped.insert(stop.stop.device_id.as_str());
    }
    for device in stopped {
        sqlx::query(
            "DELETE FROM stops WHERE seq IN (SELECT seq FROM stops WHERE org_id = $1 AND device_id = $2
             ORDER BY began_at DESC, seq DESC OFFSET $3)",
        )
        .bind(&org)
        .bind(device)
        .bind(KEPT_STOPS)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

async fn save_events(tx: &mut Transaction<'static, Db>, report: &HeardReport) -> Result<(), StoreError> {
    let org = report.org.to_string();
    let mut happened = BTreeSet::new();
    for event in &report.events {
        sqlx::query(
            "INSERT INTO timeline (org_id, device_id, sidecar_id, life, number, at, body)
             SELECT org_id, device_id, $1, $2, $3, $4, $5 FROM devices WHERE org_id = $6 AND device_id = $7
             ON CONFLICT DO NOTHING",
        )
        .bind(report.sidecar.to_string())
        .bind(i64::from(event.event.id.life))
        .bind(event.number())
        .bind(event.at.as_microsecond())
        .bind(event.body())
        .bind(&org)
        .bind(event.event.device_id.as_str())
        .execute(&mut **tx)
        .await?;
        happened.insert(event.event.device_id.as_str());
    }
    for device in happened {
        sqlx::query(
            "DELETE FROM timeline WHERE seq IN (SELECT seq FROM timeline WHERE org_id = $1 AND device_id = $2
             ORDER BY at DESC, seq DESC OFFSET $3)",
        )
        .bind(&org)
        .bind(device)
        .bind(KEPT_EVENTS)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
