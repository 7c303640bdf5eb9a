//! Devices.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row};

use super::super::{
    Admitted, Filter, ListedDevice, Page, Restorations, RestoredAll, StoreError, Suspensions, count, status, time,
};
use super::audit::record;
use super::reports::forget;
use super::rows::{any_account, locked_account, set_used, sought};
use super::{Db, OPERATION, Postgres, Transaction};
use crate::authority::audit::{Call, Reason, Record, Verb};
use crate::authority::batch::Named;
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::plan::{self, Account, Admission};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

impl Postgres {
    pub(in super::super) async fn register(
        &self,
        org: OrgId,
        id: DeviceId,
        call: Call,
    ) -> Result<Option<Admitted>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let known = held(&mut tx, org, std::slice::from_ref(&id)).await?;
            let admission = plan::admit(known.get(&id).copied(), account.used, account.org.limit());
            if admission != Admission::New {
                return Ok(Some((admission, account)));
            }
            sqlx::query("INSERT INTO devices (org_id, device_id, created_at) VALUES ($1, $2, $3)")
                .bind(org.to_string())
                .bind(id.as_str())
                .bind(call.at.as_microsecond())
                .execute(&mut *tx)
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
            self.commit(tx, [Change::Denied(org, Some(changed))]).await?;
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
                "UPDATE devices SET revoked_at = $2, revoke_reason = $3 WHERE org_id = $1 AND revoked_at IS NULL",
            )
            .bind(org.to_string())
            .bind(call.at.as_microsecond())
            .bind(call.reason.as_ref().map(Reason::as_str))
            .execute(&mut *tx)
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
                    .fetch_one(&mut *tx)
                    .await?;
            let restored: Vec<String> = sqlx::query_scalar(
                "SELECT device_id FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL
                 ORDER BY revoked_at DESC, seq DESC LIMIT $2",
            )
            .bind(org.to_string())
            .bind(i64::try_from(account.places()).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
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
        call: Call,
    ) -> Result<Option<(bool, Account)>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(mut account) = locked_account(&mut tx, org).await? else { return Ok(None) };
            let gone: Option<(i64, Option<i64>)> =
                sqlx::query_as("DELETE FROM devices WHERE org_id = $1 AND device_id = $2 RETURNING seq, revoked_at")
                    .bind(org.to_string())
                    .bind(id.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
            if let Some((seq, revoked_at)) = gone {
                sqlx::query("DELETE FROM device_seen WHERE seq = $1").bind(seq).execute(&mut *tx).await?;
                forget(&mut tx, org, &id).await?;
                if revoked_at.is_none() {
                    account.used = account.used.saturating_sub(1);
                    set_used(&mut tx, &account).await?;
                }
            }
            record(&mut tx, &call, Record::remove(org, id.as_str(), gone.is_some())).await?;
            self.commit(tx, [Change::Denied(org, Some(vec![id]))]).await?;
            Ok(Some((gone.is_some(), account)))
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

    pub(in super::super) async fn touch(&self, seen: Vec<(i64, i64)>) -> Result<(), StoreError> {
        let (numbers, times): (Vec<i64>, Vec<i64>) = seen.into_iter().unzip();
        self.within(OPERATION, async {
            sqlx::query(
                // In one order everywhere, so that no two servers wait for each other.
                "INSERT INTO device_seen (seq, at)
                 SELECT seq, at FROM UNNEST($1::bigint[], $2::bigint[]) AS seen (seq, at)
                 JOIN devices USING (seq) ORDER BY seq
                 ON CONFLICT (seq) DO UPDATE SET at = GREATEST(device_seen.at, excluded.at)",
            )
            .bind(&numbers)
            .bind(&times)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }
}

/// A page of devices.
pub(super) async fn page(
    snapshot: &mut Transaction<'static, Db>,
    org: OrgId,
    filter: &Filter,
) -> Result<Page, StoreError> {
    let mut query: QueryBuilder<Db> = QueryBuilder::new(
        "SELECT device_id, created_at, device_seen.at, revoked_at, revoke_reason FROM devices
         LEFT JOIN device_seen USING (seq) WHERE org_id = ",
    );
    query.push_bind(org.to_string());
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
    sqlx::query("UPDATE devices SET revoked_at = $3, revoke_reason = $4 WHERE org_id = $1 AND device_id = ANY($2)")
        .bind(org.to_string())
        .bind(&ids)
        .bind(call.map(|call| call.at.as_microsecond()))
        .bind(call.and_then(|call| call.reason.as_ref()).map(Reason::as_str))
        .execute(&mut **tx)
        .await?;
    Ok(())
}
