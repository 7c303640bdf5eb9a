//! Organisations and purchases in the store.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::audit::record;
use super::rows::{OrgRow, count, org_columns, status, time};
use super::{Checkout, KnownDevice, LookUp, OrgChange, Store, StoreError};
use crate::authority::audit::{Call, Record, Verb};
use crate::authority::changes::Change;
use crate::authority::keys::SecretHash;
use crate::authority::org::{Org, OrgId, PlanTier};
use crate::authority::plan::Account;
use crate::protocol::DeviceId;

#[derive(sqlx::FromRow)]
struct LookUpRow {
    #[sqlx(flatten)]
    org: OrgRow,
    seq: Option<i64>,
    revoked_at: Option<i64>,
    revoke_reason: Option<String>,
}

#[derive(sqlx::FromRow)]
struct CheckoutRow {
    #[sqlx(flatten)]
    org: OrgRow,
    wanted: String,
    expires_at: i64,
    used_at: Option<i64>,
}

impl Store {
    /// Whose key this is, and that organisation's device `device`: one statement, so one snapshot.
    pub(in crate::authority) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<&DeviceId>,
    ) -> Result<Option<LookUp>, StoreError> {
        let row: Option<LookUpRow> = sqlx::query_as(concat!(
            "SELECT ",
            org_columns!(),
            ", devices.seq, devices.revoked_at, devices.revoke_reason FROM orgs
             LEFT JOIN devices ON devices.org_id = orgs.id AND devices.device_id = ?2 WHERE orgs.key_hash = ?1"
        ))
        .bind(key.as_bytes())
        .bind(device.map(DeviceId::as_str))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row.filter(|row| key.matches(&row.org.key_hash)) else { return Ok(None) };
        let revoked_at = row.revoked_at.map(time).transpose()?;
        let device = row.seq.map(|seq| KnownDevice {
            seq,
            status: status(row.revoked_at),
            revoked_at,
            revoke_reason: row.revoke_reason,
        });
        Ok(Some(LookUp { org: row.org.into_org()?, device }))
    }

    /// The organisation and its usage; `None` when it was deleted.
    pub(in crate::authority) async fn account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        Ok(self.any_account(id).await?.filter(|account| !account.org.deleted))
    }

    /// The organisation and its usage, a deleted one too.
    pub(in crate::authority) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        let mut snapshot = self.readers.begin().await?;
        read_account(&mut snapshot, id).await
    }

    /// Adds an organisation.
    pub(in crate::authority) async fn create_org(
        &self,
        org: &Org,
        key: SecretHash,
        call: &Call,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO orgs (id, name, key_hash, plan, created_at) VALUES (?, ?, ?, ?, ?)")
            .bind(org.id.to_string())
            .bind(&org.name)
            .bind(key.as_bytes())
            .bind(org.tier.as_str())
            .bind(org.created_at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        record(&mut tx, call, Record::ok(org.id, Verb::CreateOrg).with("plan", org.tier.as_str())).await?;
        Ok(tx.commit().await?)
    }

    /// Every organisation that was not deleted, the oldest first.
    pub(in crate::authority) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            #[sqlx(flatten)]
            org: OrgRow,
            used: i64,
        }
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT ",
            org_columns!(),
            ", (SELECT COUNT(*) FROM devices WHERE devices.org_id = orgs.id AND devices.revoked_at IS NULL) AS used
             FROM orgs WHERE orgs.deleted_at IS NULL ORDER BY orgs.created_at, orgs.id"
        ))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|row| Ok(Account { used: count(row.used)?, org: row.org.into_org()? })).collect()
    }

    /// Changes an organisation; `None` when there is none or it was deleted.
    pub(in crate::authority) async fn change_org(
        &self,
        id: OrgId,
        change: &OrgChange,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let mut tx = self.begin().await?;
        if live_account(&mut tx, id).await?.is_none() {
            return Ok(None);
        }
        let statement = match change {
            OrgChange::Disabled(on) => {
                sqlx::query("UPDATE orgs SET disabled = ?2 WHERE id = ?1").bind(id.to_string()).bind(*on)
            }
            OrgChange::Frozen(on) => {
                sqlx::query("UPDATE orgs SET frozen = ?2 WHERE id = ?1").bind(id.to_string()).bind(*on)
            }
            OrgChange::AccessUntil(end) => sqlx::query("UPDATE orgs SET access_until = ?2 WHERE id = ?1")
                .bind(id.to_string())
                .bind(end.map(Timestamp::as_microsecond)),
            OrgChange::Plan(tier) => {
                // Whoever sets a plan means it to hold, as after a checkout.
                sqlx::query("UPDATE orgs SET plan = ?2, access_until = NULL WHERE id = ?1")
                    .bind(id.to_string())
                    .bind(tier.as_str())
            }
            OrgChange::Key(hash) => sqlx::query("UPDATE orgs SET key_hash = ?2 WHERE id = ?1")
                .bind(id.to_string())
                .bind(hash.as_bytes().to_vec()),
            OrgChange::Delete => {
                sqlx::query("DELETE FROM devices WHERE org_id = ?").bind(id.to_string()).execute(&mut *tx).await?;
                sqlx::query("DELETE FROM checkouts WHERE org_id = ?").bind(id.to_string()).execute(&mut *tx).await?;
                sqlx::query("UPDATE orgs SET deleted_at = ?2 WHERE id = ?1")
                    .bind(id.to_string())
                    .bind(call.at.as_microsecond())
            }
        };
        statement.execute(&mut *tx).await?;
        let account = read_account(&mut tx, id).await?;
        record(&mut tx, call, change.record(id)).await?;
        tx.commit().await?;
        self.changes.tell(match change {
            OrgChange::Key(_) | OrgChange::Delete => Change::Key(id),
            OrgChange::Disabled(_) | OrgChange::Frozen(_) | OrgChange::AccessUntil(_) | OrgChange::Plan(_) => {
                Change::Org(id)
            }
        });
        Ok(account)
    }

    /// Keeps a purchase that waits to be confirmed, and forgets those that can no longer be.
    pub(in crate::authority) async fn create_checkout(
        &self,
        id: OrgId,
        wanted: PlanTier,
        token: SecretHash,
        expires_at: Timestamp,
        call: &Call,
    ) -> Result<Option<Account>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(account) = live_account(&mut tx, id).await? else { return Ok(None) };
        sqlx::query("DELETE FROM checkouts WHERE expires_at <= ?")
            .bind(call.at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO checkouts (token_hash, org_id, plan, expires_at) VALUES (?, ?, ?, ?)")
            .bind(token.as_bytes())
            .bind(id.to_string())
            .bind(wanted.as_str())
            .bind(expires_at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        record(&mut tx, call, Record::ok(id, Verb::Checkout).with("plan", wanted.as_str())).await?;
        tx.commit().await?;
        Ok(Some(account))
    }

    /// A purchase, for its page.
    pub(in crate::authority) async fn checkout(&self, token: SecretHash) -> Result<Option<Checkout>, StoreError> {
        let mut snapshot = self.readers.begin().await?;
        read_checkout(&mut snapshot, token).await
    }

    /// Confirms a purchase: the plan is the wanted one and the entitlement active. Once; `None` when it is not open.
    pub(in crate::authority) async fn confirm_checkout(
        &self,
        token: SecretHash,
        call: &Call,
    ) -> Result<Option<Checkout>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(checkout) = read_checkout(&mut tx, token).await?.filter(|checkout| checkout.open(call.at)) else {
            return Ok(None);
        };
        sqlx::query("UPDATE checkouts SET used_at = ?2 WHERE token_hash = ?1")
            .bind(token.as_bytes())
            .bind(call.at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE orgs SET plan = ?2, access_until = NULL WHERE id = ?1")
            .bind(checkout.org.id.to_string())
            .bind(checkout.wanted.as_str())
            .execute(&mut *tx)
            .await?;
        let confirmed = Record::ok(checkout.org.id, Verb::ConfirmCheckout).with("plan", checkout.wanted.as_str());
        record(&mut tx, call, confirmed).await?;
        tx.commit().await?;
        self.changes.tell(Change::Org(checkout.org.id));
        Ok(Some(checkout))
    }
}

/// The organisation and its usage inside a transaction; `None` when it is gone.
pub(super) async fn live_account(tx: &mut Transaction<'_, Sqlite>, id: OrgId) -> Result<Option<Account>, StoreError> {
    Ok(read_account(tx, id).await?.filter(|account| !account.org.deleted))
}

async fn read_account(tx: &mut Transaction<'_, Sqlite>, id: OrgId) -> Result<Option<Account>, StoreError> {
    let row: Option<OrgRow> = sqlx::query_as(concat!("SELECT ", org_columns!(), " FROM orgs WHERE id = ?"))
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let used: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE org_id = ? AND revoked_at IS NULL")
        .bind(id.to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok(Some(Account { org: row.into_org()?, used: count(used)? }))
}

async fn read_checkout(tx: &mut Transaction<'_, Sqlite>, token: SecretHash) -> Result<Option<Checkout>, StoreError> {
    let row: Option<CheckoutRow> = sqlx::query_as(concat!(
        "SELECT ",
        org_columns!(),
        ", checkouts.plan AS wanted, checkouts.expires_at, checkouts.used_at FROM checkouts
         JOIN orgs ON orgs.id = checkouts.org_id WHERE checkouts.token_hash = ?"
    ))
    .bind(token.as_bytes())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| {
        Ok(Checkout {
            org: row.org.into_org()?,
            wanted: row.wanted.parse().map_err(|_| StoreError::Corrupt("plan"))?,
            expires_at: super::rows::time(row.expires_at)?,
            used: row.used_at.is_some(),
        })
    })
    .transpose()
}
