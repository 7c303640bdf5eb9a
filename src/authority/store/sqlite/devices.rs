//! Devices.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::{
    AGED_AT_ONCE, Admitted, Filter, ListedDevice, Page, Restorations, RestoredAll, StoreError, Suspensions, parsed,
    time,
};
use super::Sqlite;
use super::audit::record;
use super::rows::{held, live_account, optional_time, set_used};
use crate::authority::audit::{Call, Reason, Record, Verb};
use crate::authority::batch::Named;
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::plan::{self, Account, Admission, Removal};
use crate::authority::seen::LastSeen;
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// Active ephemeral devices that were last seen before `?1`, or made known before it and never seen.
macro_rules! aged {
    () => {
        " FROM devices LEFT JOIN device_seen USING (seq) WHERE ephemeral AND revoked_at IS NULL
          AND MAX(created_at, COALESCE(device_seen.at, created_at)) < ?1"
    };
}

impl Sqlite {
    pub(in super::super) async fn register(
        &self,
        org: OrgId,
        id: DeviceId,
        ephemeral: Option<bool>,
        call: Call,
    ) -> Result<Option<Admitted>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let admission = plan::admit(held(db, org, id.as_str())?, account.used, account.org.limit());
                if admission != Admission::New {
                    if let Some(ephemeral) = ephemeral {
                        db.prepare_cached(
                            "UPDATE devices SET ephemeral = ?3
                             WHERE org_id = ?1 AND device_id = ?2 AND ephemeral <> ?3",
                        )?
                        .execute((org.to_string(), id.as_str(), ephemeral))?;
                    }
                    // One that comes back after a long time must not age out before it validates.
                    db.prepare_cached(
                        "INSERT INTO device_seen (seq, at) SELECT seq, ?3 FROM devices
                         WHERE org_id = ?1 AND device_id = ?2 AND ephemeral AND revoked_at IS NULL
                         ON CONFLICT (seq) DO UPDATE SET at = excluded.at WHERE excluded.at > at",
                    )?
                    .execute((org.to_string(), id.as_str(), call.at.as_microsecond()))?;
                    return Ok((Some((admission, account)), None));
                }
                db.prepare_cached(
                    "INSERT INTO devices (org_id, device_id, created_at, ephemeral) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((
                    org.to_string(),
                    id.as_str(),
                    call.at.as_microsecond(),
                    ephemeral.unwrap_or(false),
                ))?;
                account.used += 1;
                set_used(db, &account)?;
                record(db, &call, Record::ok(org, Verb::Register).about(id.as_str()))?;
                Ok((Some((admission, account)), Some(Change::Devices(org, vec![id]))))
            })
            .await
    }

    pub(in super::super) async fn revoke(
        &self,
        org: OrgId,
        batch: Vec<Named>,
        verb: Verb,
        call: Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let (outcomes, changed) = plan::suspend_batch(&batch, &all_held(db, org, &batch)?);
                for id in &changed {
                    set_revoked(db, org, id.as_str(), Some(&call))?;
                }
                account.used = account.used.saturating_sub(changed.len() as u64);
                set_used(db, &account)?;
                record(db, &call, Record::revoke(org, verb, &batch, &outcomes))?;
                let denied = Change::Denied(org, Some(plan::suspended(&batch, &outcomes)));
                Ok((Some((outcomes, account)), Some(denied)))
            })
            .await
    }

    pub(in super::super) async fn revoke_all(
        &self,
        org: OrgId,
        call: Call,
    ) -> Result<Option<(u64, Account)>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let done = db
                    .prepare_cached(
                        "UPDATE devices SET revoked_at = ?2, revoke_reason = ?3, was_revoked = TRUE
                         WHERE org_id = ?1 AND revoked_at IS NULL",
                    )?
                    .execute((org.to_string(), call.at.as_microsecond(), call.reason.as_ref().map(Reason::as_str)))?
                    as u64;
                account.used = 0;
                set_used(db, &account)?;
                let all = Record::ok(org, Verb::RevokeBatch).with("scope", "all_active").with("revoked", done);
                record(db, &call, all)?;
                Ok((Some((done, account)), Some(Change::Denied(org, None))))
            })
            .await
    }

    pub(in super::super) async fn unrevoke(
        &self,
        org: OrgId,
        batch: Vec<Named>,
        verb: Verb,
        call: Call,
    ) -> Result<Option<(Restorations, Account)>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let known = all_held(db, org, &batch)?;
                let (outcomes, changed) = plan::restore_batch(&batch, &known, account.used, account.org.limit());
                for id in &changed {
                    set_revoked(db, org, id.as_str(), None)?;
                }
                account.used += changed.len() as u64;
                set_used(db, &account)?;
                record(db, &call, Record::unrevoke(org, verb, &batch, &outcomes))?;
                Ok((Some((outcomes, account)), Some(Change::Devices(org, changed))))
            })
            .await
    }

    pub(in super::super) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let revoked: i64 = db
                    .prepare_cached("SELECT COUNT(*) FROM devices WHERE org_id = ?1 AND revoked_at IS NOT NULL")?
                    .query_row([org.to_string()], |row| row.get(0))?;
                let places = i64::try_from(account.places()).unwrap_or(i64::MAX);
                let restored: Vec<String> = db
                    .prepare_cached(
                        "SELECT device_id FROM devices WHERE org_id = ?1 AND revoked_at IS NOT NULL
                         ORDER BY revoked_at DESC, seq DESC LIMIT ?2",
                    )?
                    .query_map((org.to_string(), places), |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                for id in &restored {
                    set_revoked(db, org, id, None)?;
                }
                account.used += restored.len() as u64;
                set_used(db, &account)?;
                let left = super::super::count(revoked)?.saturating_sub(restored.len() as u64);
                let all = RestoredAll { restored, left };
                record(db, &call, all.record(org))?;
                Ok((Some((all, account)), Some(Change::Org(org))))
            })
            .await
    }

    pub(in super::super) async fn remove(
        &self,
        org: OrgId,
        id: DeviceId,
        only_active: bool,
        call: Call,
    ) -> Result<Option<(Removal, Account)>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((None, None)) };
                let known = held(db, org, id.as_str())?;
                let removal = plan::remove(known, only_active);
                record(db, &call, Record::remove(org, id.as_str(), removal))?;
                if removal != Removal::Removed {
                    return Ok((Some((removal, account)), None));
                }
                remove(db, org, id.as_str())?;
                if known == Some(DeviceStatus::Active) {
                    account.used = account.used.saturating_sub(1);
                    set_used(db, &account)?;
                }
                Ok((Some((removal, account)), Some(Change::Denied(org, Some(vec![id])))))
            })
            .await
    }

    pub(in super::super) async fn age_out(&self, org: OrgId, before: Timestamp, call: Call) -> Result<u64, StoreError> {
        self.writer
            .change(move |db| {
                let Some(mut account) = live_account(db, org)? else { return Ok((0, None)) };
                let ids: Vec<String> = db
                    .prepare_cached(concat!("SELECT device_id", aged!(), " AND org_id = ?2 ORDER BY seq LIMIT ?3"))?
                    .query_map((before.as_microsecond(), org.to_string(), AGED_AT_ONCE), |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                let ids = parsed(ids)?;
                if ids.is_empty() {
                    return Ok((0, None));
                }
                // Nothing is written between this and the look: there is one writer.
                for id in &ids {
                    remove(db, org, id.as_str())?;
                }
                let gone = ids.len() as u64;
                account.used = account.used.saturating_sub(gone);
                set_used(db, &account)?;
                record(db, &call, Record::age_out(org, &ids, before))?;
                Ok((gone, Some(Change::Denied(org, Some(ids)))))
            })
            .await
    }

    pub(in super::super) async fn aged(&self, before: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(concat!("SELECT DISTINCT org_id", aged!()))?;
                let orgs = statement.query_map([before.as_microsecond()], |row| row.get::<_, String>(0))?;
                orgs.map(|org| org?.parse().map_err(|_| StoreError::Corrupt("organisation id"))).collect()
            })
            .await
    }

    pub(in super::super) async fn list(
        &self,
        org: OrgId,
        filter: Filter,
    ) -> Result<Option<(Page, Account)>, StoreError> {
        self.browsers
            .ask(move |db| {
                // Two statements of one snapshot.
                let snapshot = db.unchecked_transaction();
                let Some(account) = live_account(db, org)? else { return Ok(None) };
                let page = page(db, org, &filter)?;
                drop(snapshot);
                Ok(Some((page, account)))
            })
            .await
    }

    pub(in super::super) async fn touch(&self, seen: Vec<LastSeen>) -> Result<(), StoreError> {
        self.writer
            .change(move |db| {
                let mut statement = db.prepare_cached(
                    "INSERT INTO device_seen (seq, at, key_mark) SELECT seq, ?2, ?3 FROM devices WHERE seq = ?1
                     ON CONFLICT (seq) DO UPDATE SET at = excluded.at, key_mark = excluded.key_mark
                     WHERE excluded.at >= at",
                )?;
                for LastSeen { seq, at, key } in seen {
                    statement.execute((seq, at, key))?;
                }
                Ok(((), None))
            })
            .await
    }
}

/// Forgets the device. What was told of its stops outlives it when it was ever revoked, and so does what was told of an
/// earlier device of that name.
fn remove(db: &Connection, org: OrgId, id: &str) -> Result<(), StoreError> {
    let org = org.to_string();
    let (seq, created_at, was_revoked): (i64, i64, bool) = db
        .prepare_cached(
            "SELECT seq, created_at, was_revoked OR revoked_at IS NOT NULL FROM devices
             WHERE org_id = ?1 AND device_id = ?2",
        )?
        .query_row((&org, id), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    db.prepare_cached("DELETE FROM reports WHERE org_id = ?1 AND device_id = ?2")?.execute((&org, id))?;
    if !was_revoked {
        db.prepare_cached("DELETE FROM stops WHERE org_id = ?1 AND device_id = ?2 AND began_at >= ?3")?
            .execute((&org, id, created_at))?;
        db.prepare_cached("DELETE FROM timeline WHERE org_id = ?1 AND device_id = ?2 AND at >= ?3")?
            .execute((&org, id, created_at))?;
    }
    db.prepare_cached("DELETE FROM device_seen WHERE seq = ?1")?.execute([seq])?;
    db.prepare_cached("DELETE FROM devices WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

/// Whether a device asked last with another key than that of the organisation `?1`; NULL when it never asked.
const OLD_KEY: &str = "device_seen.key_mark <> (SELECT substr(key_hash, 1, 6) FROM orgs WHERE orgs.id = ?1)";

pub(super) fn page(db: &Connection, org: OrgId, filter: &Filter) -> Result<Page, StoreError> {
    let status = match filter.status {
        Some(DeviceStatus::Active) => " AND revoked_at IS NULL",
        Some(DeviceStatus::Revoked) => " AND revoked_at IS NOT NULL",
        None => "",
    };
    let old_key = if filter.old_key { format!(" AND {OLD_KEY}") } else { String::new() };
    let mut sql = format!(
        "SELECT device_id, created_at, device_seen.at, revoked_at, revoke_reason, ephemeral, {OLD_KEY} FROM devices
         LEFT JOIN device_seen USING (seq) WHERE org_id = ?1{status}{old_key}"
    );
    let mut values = vec![Value::Text(org.to_string())];
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
    };
    if let Some(part) = &filter.containing {
        add(" AND instr(device_id, ?) > 0", Value::Text(part.clone()));
    }
    if let Some(after) = &filter.after {
        add(" AND device_id > ?", Value::Text(after.to_string()));
    }
    if let Some(among) = &filter.among {
        // One parameter for any number of them, so that the statement stays prepared.
        let ids: Vec<&str> = among.iter().map(DeviceId::as_str).collect();
        add(" AND device_id IN (SELECT value FROM json_each(?))", Value::Text(serde_json::json!(ids).to_string()));
    }
    if let Some(only) = &filter.only {
        add(" AND device_id = ?", Value::Text(only.to_string()));
    }
    if let Some(at) = filter.revoked_at {
        add(" AND revoked_at = ?", Value::Integer(at.as_microsecond()));
    }
    add(" ORDER BY device_id LIMIT ?", Value::Integer(filter.fetch()));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        devices.push(ListedDevice {
            id: row.get(0)?,
            created_at: time(row.get(1)?)?,
            last_seen_at: optional_time(row.get(2)?)?,
            revoked_at: optional_time(row.get(3)?)?,
            revoke_reason: row.get(4)?,
            ephemeral: row.get(5)?,
            old_key: row.get::<_, Option<bool>>(6)?.unwrap_or(false),
        });
    }
    Ok(filter.page(devices))
}

/// What is held of each device that the batch names.
fn all_held(db: &Connection, org: OrgId, batch: &[Named]) -> Result<HashMap<DeviceId, DeviceStatus>, StoreError> {
    let mut known = HashMap::with_capacity(batch.len());
    for id in batch.iter().filter_map(|named| named.id.as_ref()) {
        if let Some(status) = held(db, org, id.as_str())? {
            known.insert(id.clone(), status);
        }
    }
    Ok(known)
}

/// Revokes the device by this call, or takes its revoke back.
fn set_revoked(db: &Connection, org: OrgId, id: &str, call: Option<&Call>) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE devices SET revoked_at = ?3, revoke_reason = ?4, was_revoked = was_revoked OR ?3 IS NOT NULL
         WHERE org_id = ?1 AND device_id = ?2",
    )?
    .execute((
        org.to_string(),
        id,
        call.map(|call| call.at.as_microsecond()),
        call.and_then(|call| call.reason.as_ref()).map(Reason::as_str),
    ))?;
    Ok(())
}
