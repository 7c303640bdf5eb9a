//! Devices in the store.

use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::audit::record;
use super::orgs::live_account;
use super::rows::{status, time};
use super::{Admitted, Filter, ListedDevice, Outcome, Page, Restorations, RestoredAll, Store, StoreError, Suspensions};
use crate::authority::audit::{Call, Reason, Record, Verb};
use crate::authority::batch::Named;
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::authority::plan::{self, Account, Admission, Restoration, Suspension};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

#[derive(sqlx::FromRow)]
struct DeviceRow {
    device_id: String,
    created_at: i64,
    last_seen_at: Option<i64>,
    revoked_at: Option<i64>,
    revoke_reason: Option<String>,
}

impl Store {
    /// Makes a device known, where there is a place.
    pub(in crate::authority) async fn register(
        &self,
        org: OrgId,
        id: &DeviceId,
        call: &Call,
    ) -> Result<Option<Admitted>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let admission = plan::admit(held(&mut tx, org, id).await?, account.used, account.org.tier.limit());
        if admission == Admission::New {
            sqlx::query("INSERT INTO devices (org_id, device_id, created_at) VALUES (?, ?, ?)")
                .bind(org.to_string())
                .bind(id.as_str())
                .bind(call.at.as_microsecond())
                .execute(&mut *tx)
                .await?;
            record(&mut tx, call, Record::ok(org, Verb::Register).about(id.as_str())).await?;
            tx.commit().await?;
            account.used += 1;
            self.changes.tell(Change::Devices(org, vec![id.clone()]));
        }
        Ok(Some((admission, account)))
    }

    /// Revokes each of them, all or none in case of failure.
    pub(in crate::authority) async fn revoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Suspensions, Account)>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut changed = Vec::new();
        for named in batch {
            let Some(id) = &named.id else {
                outcomes.push(Outcome::Invalid);
                continue;
            };
            let suspension = plan::suspend(held(&mut tx, org, id).await?);
            if suspension == Suspension::Revoked {
                set_revoked(&mut tx, org, id.as_str(), Some(call)).await?;
                account.used = account.used.saturating_sub(1);
                changed.push(id.clone());
            }
            outcomes.push(Outcome::Did(suspension));
        }
        record(&mut tx, call, Record::revoke(org, verb, batch, &outcomes)).await?;
        tx.commit().await?;
        self.changes.tell(Change::Devices(org, changed));
        Ok(Some((outcomes, account)))
    }

    /// Revokes every active device and says how many those were.
    pub(in crate::authority) async fn revoke_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<(u64, Account)>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let done = sqlx::query(
            "UPDATE devices SET revoked_at = ?2, revoke_reason = ?3 WHERE org_id = ?1 AND revoked_at IS NULL",
        )
        .bind(org.to_string())
        .bind(call.at.as_microsecond())
        .bind(call.reason.as_ref().map(Reason::as_str))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let all = Record::ok(org, Verb::RevokeBatch).with("scope", "all_active").with("revoked", done);
        record(&mut tx, call, all).await?;
        tx.commit().await?;
        account.used = 0;
        self.changes.tell(Change::Org(org));
        Ok(Some((done, account)))
    }

    /// Takes revokes back in this order, while there are places; all or none in case of failure.
    pub(in crate::authority) async fn unrevoke(
        &self,
        org: OrgId,
        batch: &[Named],
        verb: Verb,
        call: &Call,
    ) -> Result<Option<(Restorations, Account)>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut changed = Vec::new();
        for named in batch {
            let Some(id) = &named.id else {
                outcomes.push(Outcome::Invalid);
                continue;
            };
            let restoration = plan::restore(held(&mut tx, org, id).await?, account.used, account.org.tier.limit());
            if restoration == Restoration::Restored {
                set_revoked(&mut tx, org, id.as_str(), None).await?;
                account.used += 1;
                changed.push(id.clone());
            }
            outcomes.push(Outcome::Did(restoration));
        }
        record(&mut tx, call, Record::unrevoke(org, verb, batch, &outcomes)).await?;
        tx.commit().await?;
        self.changes.tell(Change::Devices(org, changed));
        Ok(Some((outcomes, account)))
    }

    /// Takes revokes back, the newest first, while there are places.
    pub(in crate::authority) async fn unrevoke_all(
        &self,
        org: OrgId,
        call: &Call,
    ) -> Result<Option<(RestoredAll, Account)>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let revoked: Vec<String> = sqlx::query_scalar(
            "SELECT device_id FROM devices WHERE org_id = ? AND revoked_at IS NOT NULL ORDER BY revoked_at DESC, seq DESC",
        )
        .bind(org.to_string())
        .fetch_all(&mut *tx)
        .await?;
        let mut all = RestoredAll::default();
        for id in revoked {
            match plan::restore(Some(DeviceStatus::Revoked), account.used, account.org.tier.limit()) {
                Restoration::Restored => {
                    set_revoked(&mut tx, org, &id, None).await?;
                    account.used += 1;
                    all.restored.push(id);
                }
                Restoration::AlreadyActive | Restoration::NotFound | Restoration::Full => all.left += 1,
            }
        }
        let done = Record::ok(org, Verb::UnrevokeBatch).with("scope", "all_revoked");
        record(&mut tx, call, done.with("unrevoked", all.restored.len()).with("left", all.left)).await?;
        tx.commit().await?;
        self.changes.tell(Change::Org(org));
        Ok(Some((all, account)))
    }

    /// Forgets a device; `false` when there was none.
    pub(in crate::authority) async fn remove(
        &self,
        org: OrgId,
        id: &DeviceId,
        call: &Call,
    ) -> Result<Option<(bool, Account)>, StoreError> {
        let mut tx = self.begin().await?;
        if live_account(&mut tx, org).await?.is_none() {
            return Ok(None);
        }
        let done = sqlx::query("DELETE FROM devices WHERE org_id = ? AND device_id = ?")
            .bind(org.to_string())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        let Some(account) = live_account(&mut tx, org).await? else { return Ok(None) };
        let removed = done.rows_affected() > 0;
        let outcome = if removed { Record::OK } else { "not_found" };
        record(&mut tx, call, Record { outcome, ..Record::ok(org, Verb::Remove).about(id.as_str()) }).await?;
        tx.commit().await?;
        self.changes.tell(Change::Devices(org, vec![id.clone()]));
        Ok(Some((removed, account)))
    }

    /// The organisation's devices in the order of their ids, with its usage from the same snapshot.
    pub(in crate::authority) async fn list(
        &self,
        org: OrgId,
        filter: &Filter,
    ) -> Result<Option<(Page, Account)>, StoreError> {
        let mut snapshot = self.readers.begin().await?;
        let Some(account) = live_account(&mut snapshot, org).await? else { return Ok(None) };
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(
            "SELECT device_id, created_at, last_seen_at, revoked_at, revoke_reason FROM devices WHERE org_id = ",
        );
        query.push_bind(org.to_string());
        match filter.status {
            Some(DeviceStatus::Active) => drop(query.push(" AND revoked_at IS NULL")),
            Some(DeviceStatus::Revoked) => drop(query.push(" AND revoked_at IS NOT NULL")),
            None => {}
        }
        if let Some(part) = &filter.containing {
            query.push(" AND instr(device_id, ").push_bind(part).push(") > 0");
        }
        if let Some(after) = &filter.after {
            query.push(" AND device_id > ").push_bind(after.as_str());
        }
        query.push(" ORDER BY device_id");
        if let Some(limit) = filter.limit {
            // One more than asked for tells whether there are more.
            query.push(" LIMIT ").push_bind(i64::from(limit) + 1);
        }
        let rows: Vec<DeviceRow> = query.build_query_as().fetch_all(&mut *snapshot).await?;
        let wanted = filter.limit.map_or(rows.len(), |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let more = rows.len() > wanted;
        let devices = rows.into_iter().take(wanted).map(DeviceRow::into_device).collect::<Result<_, _>>()?;
        Ok(Some((Page { devices, more }, account)))
    }

    /// Records when devices, by their numbers, last asked (microseconds since 1970). Unknown numbers are removed ones.
    pub(in crate::authority) async fn touch(&self, seen: &[(i64, i64)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (seq, at) in seen {
            sqlx::query("UPDATE devices SET last_seen_at = MAX(IFNULL(last_seen_at, ?2), ?2) WHERE seq = ?1")
                .bind(seq)
                .bind(at)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }
}

impl DeviceRow {
    fn into_device(self) -> Result<ListedDevice, StoreError> {
        Ok(ListedDevice {
            id: self.device_id,
            created_at: time(self.created_at)?,
            last_seen_at: self.last_seen_at.map(time).transpose()?,
            revoked_at: self.revoked_at.map(time).transpose()?,
            revoke_reason: self.revoke_reason,
        })
    }
}

async fn held(tx: &mut Transaction<'_, Sqlite>, org: OrgId, id: &DeviceId) -> Result<Option<DeviceStatus>, StoreError> {
    let row: Option<(Option<i64>,)> =
        sqlx::query_as("SELECT revoked_at FROM devices WHERE org_id = ? AND device_id = ?")
            .bind(org.to_string())
            .bind(id.as_str())
            .fetch_optional(&mut **tx)
            .await?;
    Ok(row.map(|(revoked_at,)| status(revoked_at)))
}

async fn set_revoked(
    tx: &mut Transaction<'_, Sqlite>,
    org: OrgId,
    id: &str,
    call: Option<&Call>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET revoked_at = ?3, revoke_reason = ?4 WHERE org_id = ?1 AND device_id = ?2")
        .bind(org.to_string())
        .bind(id)
        .bind(call.map(|call| call.at.as_microsecond()))
        .bind(call.and_then(|call| call.reason.as_ref()).map(Reason::as_str))
        .execute(&mut **tx)
        .await?;
    Ok(())
}
