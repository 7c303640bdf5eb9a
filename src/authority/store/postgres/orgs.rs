//! Organisations and purchases.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};

use super::super::{Checkout, CheckoutKey, NewCheckout, OldKey, OrgChange, StoreError, stored_limit, time};
use super::audit::record;
use super::rows::{ORG_COLUMNS, account, any_account, locked_account, org, org_columns};
use super::{Db, OPERATION, Postgres, Transaction};
use crate::authority::audit::{Call, Record, Verb};
use crate::authority::changes::Change;
use crate::authority::keys::SecretHash;
use crate::authority::org::{Org, OrgId};
use crate::authority::plan::Account;

/// What is selected of a purchase.
macro_rules! checkout_columns {
    () => {
        concat!(
            "SELECT ",
            org_columns!(),
            ", checkouts.number, checkouts.plan, checkouts.expires_at, checkouts.used_at
             FROM checkouts JOIN orgs ON orgs.id = checkouts.org_id WHERE "
        )
    };
}

impl Postgres {
    pub(in super::super) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        self.within(OPERATION, any_account(&self.pool, id)).await
    }

    pub(in super::super) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        self.within(OPERATION, async {
            let rows = sqlx::query(concat!(
                "SELECT ",
                org_columns!(),
                " FROM orgs WHERE deleted_at IS NULL ORDER BY created_at, id"
            ))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(account).collect()
        })
        .await
    }

    pub(in super::super) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<Change>, StoreError> {
        self.within(OPERATION, async {
            let ended: Vec<(String, Option<bool>)> = sqlx::query_as(
                "SELECT id, old_key_ends > $1 AND old_key_ends <= $2 FROM orgs
                 WHERE (access_until > $1 AND access_until <= $2 AND deleted_at IS NULL)
                 OR (old_key_ends > $1 AND old_key_ends <= $2)",
            )
            .bind(after.as_microsecond())
            .bind(now.as_microsecond())
            .fetch_all(&self.pool)
            .await?;
            ended.into_iter().map(|(id, key)| super::super::ended(&id, key)).collect()
        })
        .await
    }

    pub(in super::super) async fn old_keys(&self, after: Timestamp) -> Result<Vec<OldKey>, StoreError> {
        self.within(OPERATION, async {
            let rows: Vec<(String, i64, i64)> = sqlx::query_as(
                "SELECT orgs.id, orgs.old_key_ends, COUNT(device_seen.seq) FROM orgs
                 LEFT JOIN devices ON devices.org_id = orgs.id
                 LEFT JOIN device_seen ON device_seen.seq = devices.seq
                     AND device_seen.key_mark <> substring(orgs.key_hash FROM 1 FOR 6)
                 WHERE orgs.old_key_ends > $1 AND orgs.deleted_at IS NULL GROUP BY orgs.id ORDER BY orgs.id",
            )
            .bind(after.as_microsecond())
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(|(org, ends, devices)| OldKey::read(org, *ends, *devices)).collect()
        })
        .await
    }

    pub(in super::super) async fn create_org(&self, org: Org, key: SecretHash, call: Call) -> Result<(), StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            sqlx::query(
                "INSERT INTO orgs (id, name, key_hash, plan, device_limit, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(org.id.to_string())
            .bind(&org.name)
            .bind(key.as_bytes())
            .bind(org.tier.as_str())
            .bind(stored_limit(org.device_limit))
            .bind(org.created_at.as_microsecond())
            .execute(&mut **tx)
            .await?;
            record(&mut tx, &call, Record::ok(org.id, Verb::CreateOrg).with("plan", org.tier.as_str())).await?;
            tx.commit().await
        })
        .await
    }

    pub(in super::super) async fn change_org(
        &self,
        id: OrgId,
        change: OrgChange,
        call: Call,
    ) -> Result<Option<Account>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            if locked_account(&mut tx, id).await?.is_none() {
                return Ok(None);
            }
            if let OrgChange::Key(_, _, Some(expected)) = &change {
                let current: bool =
                    sqlx::query_scalar("SELECT EXISTS (SELECT FROM orgs WHERE id = $1 AND key_hash = $2)")
                        .bind(id.to_string())
                        .bind(expected.as_bytes())
                        .fetch_one(&mut **tx)
                        .await?;
                if !current {
                    return Ok(None);
                }
            }
            apply(&mut tx, id, &change, &call).await?;
            record(&mut tx, &call, change.record(id)).await?;
            let account = any_account(&mut **tx, id).await?;
            self.commit(tx, [change.news(id)]).await?;
            Ok(account)
        })
        .await
    }

    pub(in super::super) async fn create_checkout(
        &self,
        id: OrgId,
        new: NewCheckout,
        call: Call,
    ) -> Result<Option<Account>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(account) = locked_account(&mut tx, id).await? else { return Ok(None) };
            sqlx::query("DELETE FROM checkouts WHERE expires_at <= $1")
                .bind(call.at.as_microsecond())
                .execute(&mut **tx)
                .await?;
            sqlx::query(
                "INSERT INTO checkouts (token_hash, number, org_id, plan, expires_at) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(new.token.as_bytes())
            .bind(&new.number)
            .bind(id.to_string())
            .bind(new.wanted.as_str())
            .bind(new.expires_at.as_microsecond())
            .execute(&mut **tx)
            .await?;
            record(&mut tx, &call, new.record(id)).await?;
            tx.commit().await?;
            Ok(Some(account))
        })
        .await
    }

    pub(in super::super) async fn checkout(&self, key: CheckoutKey) -> Result<Option<Checkout>, StoreError> {
        self.within(OPERATION, checkout(&self.pool, &key)).await
    }

    pub(in super::super) async fn checkouts(&self, now: Timestamp) -> Result<Vec<Checkout>, StoreError> {
        self.within(OPERATION, async {
            let rows = sqlx::query(concat!(
                checkout_columns!(),
                "checkouts.used_at IS NULL AND checkouts.expires_at > $1 AND orgs.deleted_at IS NULL
                 ORDER BY checkouts.expires_at, checkouts.number"
            ))
            .bind(now.as_microsecond())
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(read_checkout).collect()
        })
        .await
    }

    pub(in super::super) async fn link_checkout(
        &self,
        number: String,
        confirm: SecretHash,
        call: Call,
    ) -> Result<Option<Checkout>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(found) = open_checkout(&mut tx, &CheckoutKey::Number(number), &call).await? else {
                return Ok(None);
            };
            sqlx::query("UPDATE checkouts SET confirm_hash = $2 WHERE number = $1")
                .bind(&found.number)
                .bind(confirm.as_bytes())
                .execute(&mut **tx)
                .await?;
            record(&mut tx, &call, found.record(Verb::LinkCheckout)).await?;
            tx.commit().await?;
            Ok(Some(found))
        })
        .await
    }

    pub(in super::super) async fn confirm_checkout(
        &self,
        key: CheckoutKey,
        call: Call,
    ) -> Result<Option<Checkout>, StoreError> {
        self.within(OPERATION, async {
            let mut tx = self.begin().await?;
            let Some(found) = open_checkout(&mut tx, &key, &call).await? else { return Ok(None) };
            sqlx::query("UPDATE checkouts SET used_at = $2 WHERE number = $1")
                .bind(&found.number)
                .bind(call.at.as_microsecond())
                .execute(&mut **tx)
                .await?;
            apply(&mut tx, found.org.id, &OrgChange::Plan(found.wanted, None), &call).await?;
            record(&mut tx, &call, found.record(Verb::ConfirmCheckout)).await?;
            self.commit(tx, [Change::Org(found.org.id)]).await?;
            Ok(Some(found))
        })
        .await
    }
}

async fn apply(
    tx: &mut Transaction<'static, Db>,
    id: OrgId,
    change: &OrgChange,
    call: &Call,
) -> Result<(), StoreError> {
    let id = id.to_string();
    let statement = match change {
        OrgChange::Disabled(on) => sqlx::query("UPDATE orgs SET disabled = $2 WHERE id = $1").bind(id).bind(*on),
        OrgChange::Frozen(on) => sqlx::query("UPDATE orgs SET frozen = $2 WHERE id = $1").bind(id).bind(*on),
        OrgChange::AccessUntil(end) => sqlx::query("UPDATE orgs SET access_until = $2 WHERE id = $1")
            .bind(id)
            .bind(end.map(Timestamp::as_microsecond)),
        OrgChange::Plan(tier, limit) => {
            // Whoever sets a plan means it to hold, as after a checkout.
            sqlx::query("UPDATE orgs SET plan = $2, device_limit = $3, access_until = NULL WHERE id = $1")
                .bind(id)
                .bind(tier.as_str())
                .bind(stored_limit(*limit))
        }
        OrgChange::Key(hash, until, _) => sqlx::query(
            "UPDATE orgs SET old_key_hash = CASE WHEN $3::bigint IS NULL THEN NULL ELSE key_hash END,
             old_key_ends = COALESCE($3, $4), key_hash = $2 WHERE id = $1",
        )
        .bind(id)
        .bind(hash.as_bytes().to_vec())
        .bind(until.map(Timestamp::as_microsecond))
        .bind(call.at.as_microsecond()),
        OrgChange::EndOldKey => sqlx::query(
            "UPDATE orgs SET old_key_hash = NULL,
             old_key_ends = CASE WHEN old_key_ends > $2 THEN $2 ELSE old_key_ends END WHERE id = $1",
        )
        .bind(id)
        .bind(call.at.as_microsecond()),
        OrgChange::Delete => {
            for statement in [
                "DELETE FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = $1)",
                "DELETE FROM devices WHERE org_id = $1",
                "DELETE FROM checkouts WHERE org_id = $1",
                "DELETE FROM reports WHERE org_id = $1",
                "DELETE FROM stops WHERE org_id = $1",
                "DELETE FROM timeline WHERE org_id = $1",
            ] {
                sqlx::query(statement).bind(&id).execute(&mut **tx).await?;
            }
            sqlx::query("UPDATE orgs SET deleted_at = $2, active = 0 WHERE id = $1")
                .bind(id)
                .bind(call.at.as_microsecond())
        }
    };
    statement.execute(&mut **tx).await?;
    Ok(())
}

async fn checkout<'a>(db: impl Executor<'a, Database = Db>, key: &CheckoutKey) -> Result<Option<Checkout>, StoreError> {
    let query = match key {
        CheckoutKey::Address(hash) => {
            sqlx::query(concat!(checkout_columns!(), "checkouts.token_hash = $1")).bind(hash.as_bytes().to_vec())
        }
        CheckoutKey::Link(hash) => {
            sqlx::query(concat!(checkout_columns!(), "checkouts.confirm_hash = $1")).bind(hash.as_bytes().to_vec())
        }
        CheckoutKey::Number(number) => {
            sqlx::query(concat!(checkout_columns!(), "checkouts.number = $1")).bind(number.clone())
        }
    };
    query.fetch_optional(db).await?.as_ref().map(read_checkout).transpose()
}

/// An open purchase, with no other change of its organisation until the transaction ends.
async fn open_checkout(
    tx: &mut Transaction<'static, Db>,
    key: &CheckoutKey,
    call: &Call,
) -> Result<Option<Checkout>, StoreError> {
    let Some(found) = checkout(&mut **tx, key).await? else { return Ok(None) };
    locked_account(tx, found.org.id).await?;
    // Once more: another server may have confirmed it while this one waited.
    Ok(checkout(&mut **tx, key).await?.filter(|found| found.open(call.at)))
}

fn read_checkout(row: &PgRow) -> Result<Checkout, StoreError> {
    Ok(Checkout {
        org: org(row)?,
        number: row.try_get(ORG_COLUMNS)?,
        wanted: row.try_get::<&str, _>(ORG_COLUMNS + 1)?.parse().map_err(|_| StoreError::Corrupt("plan"))?,
        expires_at: time(row.try_get(ORG_COLUMNS + 2)?)?,
        used: row.try_get::<Option<i64>, _>(ORG_COLUMNS + 3)?.is_some(),
    })
}
