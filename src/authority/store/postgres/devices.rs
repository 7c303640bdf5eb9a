//! Devices.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row};

use super::super::{
    AGED_AT_ONCE, Admitted, Filter, ListedDevice, Page, Restorations, RestoredAll, StoreError, Suspensions, count,
    parsed, status, time,
};
use super::audit::record;
use super::rows::{any_account, locked_account, set_used, sought};
use super::{Db, OPERATION, Postgres, Transaction};
use crate::authority::audit::{Call, Reason, Record, Verb};
use crate::authority::batch::Named;
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::plan::{self, Account, Admission, Removal};
use crate::authority::seen::LastSeen;
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

/// Active ephemeral devices that were last seen before `$1`, or made known before it and never seen.
macro_rules! aged {
    () => {
        " FROM devices LEFT JOIN device_seen USING (seq) WHERE ephemeral AND revoked_at IS NULL
          AND GREATEST(created_at, device_seen.at) < $1"
    };
}

impl Postgres {
    pub(in super::super) async fn register(
        &self,
        org: OrgId,
        id: DeviceId,
        ephemeral: Option<bool>,
        call: Call,
    ) -> Result<Option<Admitted>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let known = held(&mut tx, org, std::slice::from_ref(&id)).await?;
            let admission = plan::admit(known.get(&id).copied(), account.used, account.org.limit());
            if admission != Admission::New {
                if let Some(ephemeral) = ephemeral {
                    sqlx::query(
                        "UPDATE devices SET ephemeral = $3 WHERE org_id = $1 AND device_id = $2 AND ephemeral <> $3",
                    )
                    .bind(org.to_string())
                    .bind(id.as_str())
                    .bind(ephemeral)
                    .execute(&mut **tx)
                    .await?;
                }
                // One that comes back after a long time must not age out before it validates.
                let seen = sqlx::query(
                    "INSERT INTO device_seen (seq, at) SELECT seq, $3 FROM devices
                     WHERE org_id = $1 AND device_id = $2 AND ephemeral AND revoked_at IS NULL
                     ON CONFLICT (seq) DO UPDATE SET at = excluded.at WHERE excluded.at > device_seen.at",
                )
                .bind(org.to_string())
                .bind(id.as_str())
                .bind(call.at.as_microsecond())
                .execute(&mut **tx)
                .await?;
                if ephemeral.is_some() || seen.rows_affected() > 0 {
                    tx.commit().await?;
                }
                return Ok(Some((admission, account)));
            }
            sqlx::query("INSERT INTO devices (org_id, device_id, created_at, ephemeral) VALUES ($1, $2, $3, $4)")
                .bind(org.to_string())
                .bind(id.as_str())
                .bind(call.at.as_microsecond())
                .bind(ephemeral.unwrap_or(false))
                .execute(&mut **tx)
                .await?;
            account.used += 1;
            set_used(&mut tx, &account).await?;
            record(&mut tx, &call, Record::ok(org, Verb::Register).about(id.as_str())).await?;
            self.commit(tx, [Change::Devices(org, vec![id])]).await?;
            Ok(Some((admission, account)))
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
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let (outcomes, changed) = plan::suspend_batch(&batch, &held(&mut tx, org, &ids(&batch)).await?);
            set_revoked(&mut tx, org, changed.iter().map(DeviceId::as_str), Some(&call)).await?;
            account.used = account.used.saturating_sub(changed.len() as u64);
            set_used(&mut tx, &account).await?;
            record(&mut tx, &call, Record::revoke(org, verb, &batch, &outcomes)).await?;
            self.commit(tx, [Change::Denied(org, Some(plan::suspended(&batch, &outcomes)))]).await?;
            Ok(Some((outcomes, account)))
        })
        .await
    }

    pub(in super::super) async fn revoke_all(
        &self,
        org: OrgId,
        call: Call,
    ) -> Result<Option<(u64, Account)>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let done = sqlx::query(
                "UPDATE devices SET revoked_at = $2, revoke_reason = $3, was_revoked = TRUE
                 WHERE org_id = $1 AND revoked_at IS NULL",
            )
            .bind(org.to_string())
            .bind(call.at.as_microsecond())
            .bind(call.reason.as_ref().map(Reason::as_str))
            .execute(&mut **tx)
            .await?
            .rows_affected();
            account.used = 0;
            set_used(&mut tx, &account).await?;
            let all = Record::ok(org, Verb::RevokeBatch).with("scope", "all_active").with("revoked", done);
            record(&mut tx, &call, all).await?;
            self.commit(tx, [Change::Denied(org, None)]).await?;
            Ok(Some((done, account)))
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
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let known = held(&mut tx, org, &ids(&batch)).await?;
            let (outcomes, changed) = plan::restore_batch(&batch, &known, account.used, account.org.limit());
            set_revoked(&mut tx, org, changed.iter().map(DeviceId::as_str), None).await?;
            account.used += changed.len() as u64;
            set_used(&mut tx, &account).await?;
            record(&mut tx, &call, Record::unrevoke(org, verb, &batch, &outcomes)).await?;
            self.commit(tx, [Change::Devices(org, changed)]).await?;
            Ok(Some((outcomes, account)))
        })
        .await
    }

    pub(in super::super) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let revoked: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL")
                    .bind(org.to_string())
                    .fetch_one(&mut **tx)
                    .await?;
            let restored: Vec<String> = sqlx::query_scalar(
                "SELECT device_id FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL
                 ORDER BY revoked_at DESC, seq DESC LIMIT $2",
            )
            .bind(org.to_string())
            .bind(i64::try_from(account.places()).unwrap_or(i64::MAX))
            .fetch_all(&mut **tx)
            .await?;
            set_revoked(&mut tx, org, restored.iter().map(String::as_str), None).await?;
            account.used += restored.len() as u64;
            set_used(&mut tx, &account).await?;
            let left = count(revoked)?.saturating_sub(restored.len() as u64);
            let all = RestoredAll { restored, left };
            record(&mut tx, &call, all.record(org)).await?;
            self.commit(tx, [Change::Org(org)]).await?;
            Ok(Some((all, account)))
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
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let known = held(&mut tx, org, std::slice::from_ref(&id)).await?.get(&id).copied();
            let removal = plan::remove(known, only_active);
            record(&mut tx, &call, Record::remove(org, id.as_str(), removal)).await?;
            if removal != Removal::Removed {
                tx.commit().await?;
                return Ok(Some((removal, account)));
            }
            remove(&mut tx, org, &[id.as_str()]).await?;
            if known == Some(DeviceStatus::Active) {
                account.used = account.used.saturating_sub(1);
                set_used(&mut tx, &account).await?;
            }
            self.commit(tx, [Change::Denied(org, Some(vec![id]))]).await?;
            Ok(Some((removal, account)))
        })
        .await
    }

    pub(in super::super) async fn age_out(&self, org: OrgId, before: Timestamp, call: Call) -> Result<u64, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(0) };
            let ids: Vec<String> =
                sqlx::query_scalar(concat!("SELECT device_id", aged!(), " AND org_id = $2 ORDER BY seq LIMIT $3"))
                    .bind(before.as_microsecond())
                    .bind(org.to_string())
                    .bind(AGED_AT_ONCE)
                    .fetch_all(&mut **tx)
                    .await?;
            if ids.is_empty() {
                return Ok(0);
            }
            // Notes are written without the organisation's lock. Once theirs are locked (in the order in which notes are
            // written), those are left out that were seen since the look.
            sqlx::query(
                "SELECT FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = $1 AND device_id = ANY($2))
                 ORDER BY seq FOR UPDATE",
            )
            .bind(org.to_string())
            .bind(&ids)
            .execute(&mut **tx)
            .await?;
            let ids: Vec<String> =
                sqlx::query_scalar(concat!("SELECT device_id", aged!(), " AND org_id = $2 AND device_id = ANY($3)"))
                    .bind(before.as_microsecond())
                    .bind(org.to_string())
                    .bind(&ids)
                    .fetch_all(&mut **tx)
                    .await?;
            let ids = parsed(ids)?;
            if ids.is_empty() {
                return Ok(0);
            }
            remove(&mut tx, org, &ids.iter().map(DeviceId::as_str).collect::<Vec<_>>()).await?;
            let gone = ids.len() as u64;
            account.used = account.used.saturating_sub(gone);
            set_used(&mut tx, &account).await?;
            record(&mut tx, &call, Record::age_out(org, &ids, before)).await?;
            self.commit(tx, [Change::Denied(org, Some(ids))]).await?;
            Ok(gone)
        })
        .await
    }

    pub(in super::super) async fn aged(&self, before: Timestamp) -> Result<Vec<OrgId>, StoreError> {
        self.within(OPERATION, async {
            let orgs: Vec<String> = sqlx::query_scalar(concat!("SELECT DISTINCT org_id", aged!()))
                .bind(before.as_microsecond())
                .fetch_all(&self.pool)
                .await?;
            orgs.iter().map(|org| org.parse().map_err(|_| StoreError::Corrupt("organisation id"))).collect()
        })
        .await
    }

    pub(in super::super) async fn list(
        &self,
        org: OrgId,
        filter: Filter,
    ) -> Result<Option<(Page, Account)>, StoreError> {
        self.within(OPERATION, async {
            // Two statements of one snapshot.
            let mut snapshot = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let account = any_account(&mut *snapshot, org).await?.filter(|account| !account.org.deleted);
            let Some(account) = account else { return Ok(None) };
            Ok(Some((page(&mut snapshot, org, &filter).await?, account)))
        })
        .await
    }

    pub(in super::super) async fn touch(&self, seen: Vec<LastSeen>) -> Result<(), StoreError> {
        let numbers: Vec<i64> = seen.iter().map(|seen| seen.seq).collect();
        let times: Vec<i64> = seen.iter().map(|seen| seen.at).collect();
        let keys: Vec<&[u8]> = seen.iter().map(|seen| seen.key.as_slice()).collect();
        self.within(OPERATION, async {
            sqlx::query(
                // In one order everywhere, so that no two servers wait for each other.
                "INSERT INTO device_seen (seq, at, key_mark)
                 SELECT seq, at, key_mark FROM UNNEST($1::bigint[], $2::bigint[], $3::bytea[]) AS seen (seq, at, key_mark)
                 JOIN devices USING (seq) ORDER BY seq
                 ON CONFLICT (seq) DO UPDATE SET at = excluded.at, key_mark = excluded.key_mark
                 WHERE excluded.at >= device_seen.at",
            )
            .bind(&numbers)
            .bind(&times)
            .bind(&keys)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }
}

/// Forgets these devices. What was told of its stops outlives a device that was ever revoked, and so does what was told of
/// an earlier device of its name.
async fn remove(tx: &mut Transaction<'static, Db>, org: OrgId, ids: &[&str]) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM reports WHERE org_id = $1 AND device_id = ANY($2)",
        "DELETE FROM stops USING devices AS d WHERE stops.org_id = $1 AND stops.device_id = ANY($2)
         AND d.org_id = stops.org_id AND d.device_id = stops.device_id AND stops.began_at >= d.created_at
         AND NOT d.was_revoked AND d.revoked_at IS NULL",
        "DELETE FROM timeline USING devices AS d WHERE timeline.org_id = $1 AND timeline.device_id = ANY($2)
         AND d.org_id = timeline.org_id AND d.device_id = timeline.device_id AND timeline.at >= d.created_at
         AND NOT d.was_revoked AND d.revoked_at IS NULL",
        "DELETE FROM device_seen USING devices AS d WHERE d.org_id = $1 AND d.device_id = ANY($2)
         AND device_seen.seq = d.seq",
        "DELETE FROM devices WHERE org_id = $1 AND device_id = ANY($2)",
    ] {
        sqlx::query(statement).bind(org.to_string()).bind(ids).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Whether a device asked last with another key than the organisation's; NULL when it never asked.
fn push_old_key(query: &mut QueryBuilder<Db>, org: OrgId) {
    query.push("device_seen.key_mark <> (SELECT substring(key_hash FROM 1 FOR 6) FROM orgs WHERE orgs.id = ");
    query.push_bind(org.to_string()).push(")");
}

/// A page of devices.
pub(super) async fn page(
    snapshot: &mut Transaction<'static, Db>,
    org: OrgId,
    filter: &Filter,
) -> Result<Page, StoreError> {
    let mut query: QueryBuilder<Db> =
        QueryBuilder::new("SELECT device_id, created_at, device_seen.at, revoked_at, revoke_reason, ephemeral, ");
    push_old_key(&mut query, org);
    query.push(" FROM devices LEFT JOIN device_seen USING (seq) WHERE org_id = ").push_bind(org.to_string());
    if filter.old_key {
        query.push(" AND ");
        push_old_key(&mut query, org);
    }
    match filter.status {
        Some(DeviceStatus::Active) => drop(query.push(" AND revoked_at IS NULL")),
        Some(DeviceStatus::Revoked) => drop(query.push(" AND revoked_at IS NOT NULL")),
        None => {}
    }
    if let Some(part) = &filter.containing {
        query.push(" AND strpos(device_id, ").push_bind(sought(part)).push(") > 0");
    }
    if let Some(after) = &filter.after {
        query.push(" AND device_id > ").push_bind(after.to_string());
    }
    if let Some(among) = &filter.among {
        let ids: Vec<String> = among.iter().map(ToString::to_string).collect();
        query.push(" AND device_id = ANY(").push_bind(ids).push(")");
    }
    if let Some(only) = &filter.only {
        query.push(" AND device_id = ").push_bind(only.to_string());
    }
    if let Some(at) = filter.revoked_at {
        query.push(" AND revoked_at = ").push_bind(at.as_microsecond());
    }
    query.push(" ORDER BY device_id LIMIT ").push_bind(filter.fetch());
    let mut devices = Vec::new();
    for row in query.build().fetch_all(&mut **snapshot).await? {
        devices.push(ListedDevice {
            id: row.try_get(0)?,
            created_at: time(row.try_get(1)?)?,
            last_seen_at: row.try_get::<Option<i64>, _>(2)?.map(time).transpose()?,
            revoked_at: row.try_get::<Option<i64>, _>(3)?.map(time).transpose()?,
            revoke_reason: row.try_get(4)?,
            ephemeral: row.try_get(5)?,
            old_key: row.try_get::<Option<bool>, _>(6)?.unwrap_or(false),
        });
    }
    Ok(filter.page(devices))
}

fn ids(batch: &[Named]) -> Vec<DeviceId> {
    batch.iter().filter_map(|named| named.id.clone()).collect()
}

/// What is held of each of these devices.
async fn held(
    tx: &mut Transaction<'static, Db>,
    org: OrgId,
    ids: &[DeviceId],
) -> Result<HashMap<DeviceId, DeviceStatus>, StoreError> {
    let texts: Vec<&str> = ids.iter().map(DeviceId::as_str).collect();
    let rows: Vec<(String, Option<i64>)> =
        sqlx::query_as("SELECT device_id, revoked_at FROM devices WHERE org_id = $1 AND device_id = ANY($2)")
            .bind(org.to_string())
            .bind(&texts)
            .fetch_all(&mut **tx)
            .await?;
    let known = |(id, revoked_at): (String, Option<i64>)| {
        Ok((id.parse().map_err(|_| StoreError::Corrupt("device id"))?, status(revoked_at)))
    };
    rows.into_iter().map(known).collect()
}

/// Revokes these devices by this call, or takes their revokes back.
async fn set_revoked(
    tx: &mut Transaction<'static, Db>,
    org: OrgId,
    ids: impl Iterator<Item = &str>,
    call: Option<&Call>,
) -> Result<(), StoreError> {
    let ids: Vec<&str> = ids.collect();
    sqlx::query(
        "UPDATE devices SET revoked_at = $3, revoke_reason = $4, was_revoked = was_revoked OR $3 IS NOT NULL
         WHERE org_id = $1 AND device_id = ANY($2)",
    )
    .bind(org.to_string())
    .bind(&ids)
    .bind(call.map(|call| call.at.as_microsecond()))
    .bind(call.and_then(|call| call.reason.as_ref()).map(Reason::as_str))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
