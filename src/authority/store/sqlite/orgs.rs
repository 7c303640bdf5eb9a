//! Organisations and purchases.

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use super::super::{
    Checkout, CheckoutKey, KnownDevice, NewCheckout, OldKey, OrgChange, Presented, StoreError, held_key, status,
    stored_limit, time,
};
use super::Sqlite;
use super::audit::record;
use super::reports::forget;
use super::rows::{ORG_COLUMNS, account, any_account, live_account, optional_time, org, org_columns};
use crate::authority::audit::{Call, Record, Verb};
use crate::authority::changes::Change;
use crate::authority::keys::SecretHash;
use crate::authority::org::{Org, OrgId};
use crate::authority::plan::Account;
use crate::protocol::DeviceId;

impl Sqlite {
    pub(in super::super) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        self.deciders.ask(move |db| look_up(db, key, device.as_ref())).await
    }

    pub(in super::super) async fn any_account(&self, id: OrgId) -> Result<Option<Account>, StoreError> {
        self.browsers.ask(move |db| any_account(db, id)).await
    }

    pub(in super::super) async fn orgs(&self) -> Result<Vec<Account>, StoreError> {
        self.browsers
            .ask(|db| {
                let mut statement = db.prepare_cached(concat!(
                    "SELECT ",
                    org_columns!(),
                    " FROM orgs WHERE deleted_at IS NULL ORDER BY created_at, id"
                ))?;
                let mut rows = statement.query([])?;
                let mut orgs = Vec::new();
                while let Some(row) = rows.next()? {
                    orgs.push(account(row)?);
                }
                Ok(orgs)
            })
            .await
    }

    pub(in super::super) async fn ended(&self, after: Timestamp, now: Timestamp) -> Result<Vec<Change>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT id, old_key_ends > ?1 AND old_key_ends <= ?2 FROM orgs
                     WHERE (access_until > ?1 AND access_until <= ?2 AND deleted_at IS NULL)
                     OR (old_key_ends > ?1 AND old_key_ends <= ?2)",
                )?;
                let ended = statement.query_map((after.as_microsecond(), now.as_microsecond()), |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<bool>>(1)?))
                })?;
                ended
                    .map(|row| row.map_err(StoreError::from).and_then(|(id, key)| super::super::ended(&id, key)))
                    .collect()
            })
            .await
    }

    pub(in super::super) async fn old_keys(&self, after: Timestamp) -> Result<Vec<OldKey>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT orgs.id, orgs.old_key_ends, COUNT(device_seen.seq) FROM orgs
                     LEFT JOIN devices ON devices.org_id = orgs.id
                     LEFT JOIN device_seen ON device_seen.seq = devices.seq
                         AND device_seen.key_mark <> substr(orgs.key_hash, 1, 6)
                     WHERE orgs.old_key_ends > ?1 AND orgs.deleted_at IS NULL GROUP BY orgs.id ORDER BY orgs.id",
                )?;
                let mut rows = statement.query([after.as_microsecond()])?;
                let mut old = Vec::new();
                while let Some(row) = rows.next()? {
                    old.push(OldKey::read(&row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)?);
                }
                Ok(old)
            })
            .await
    }

    pub(in super::super) async fn create_org(&self, org: Org, key: SecretHash, call: Call) -> Result<(), StoreError> {
        self.writer
            .change(move |db| {
                db.prepare_cached(
                    "INSERT INTO orgs (id, name, key_hash, plan, device_limit, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute((
                    org.id.to_string(),
                    &org.name,
                    key.as_bytes(),
                    org.tier.as_str(),
                    stored_limit(org.device_limit),
                    org.created_at.as_microsecond(),
                ))?;
                record(db, &call, Record::ok(org.id, Verb::CreateOrg).with("plan", org.tier.as_str()))?;
                Ok(((), None))
            })
            .await
    }

    pub(in super::super) async fn change_org(
        &self,
        id: OrgId,
        change: OrgChange,
        call: Call,
    ) -> Result<Option<Account>, StoreError> {
        self.writer
            .change(move |db| {
                if live_account(db, id)?.is_none() {
                    return Ok((None, None));
                }
                if let OrgChange::Key(_, _, Some(expected)) = &change
                    && !db
                        .prepare_cached("SELECT 1 FROM orgs WHERE id = ?1 AND key_hash = ?2")?
                        .exists((id.to_string(), expected.as_bytes()))?
                {
                    return Ok((None, None));
                }
                apply(db, id, &change, &call)?;
                record(db, &call, change.record(id))?;
                Ok((any_account(db, id)?, Some(change.news(id))))
            })
            .await
    }

    pub(in super::super) async fn create_checkout(
        &self,
        id: OrgId,
        new: NewCheckout,
        call: Call,
    ) -> Result<Option<Account>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(account) = live_account(db, id)? else { return Ok((None, None)) };
                db.prepare_cached("DELETE FROM checkouts WHERE expires_at <= ?1")?
                    .execute([call.at.as_microsecond()])?;
                db.prepare_cached(
                    "INSERT INTO checkouts (token_hash, number, org_id, plan, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((
                    new.token.as_bytes(),
                    &new.number,
                    id.to_string(),
                    new.wanted.as_str(),
                    new.expires_at.as_microsecond(),
                ))?;
                record(db, &call, new.record(id))?;
                Ok((Some(account), None))
            })
            .await
    }

    pub(in super::super) async fn checkout(&self, key: CheckoutKey) -> Result<Option<Checkout>, StoreError> {
        self.browsers.ask(move |db| checkout(db, &key)).await
    }

    pub(in super::super) async fn checkouts(&self, now: Timestamp) -> Result<Vec<Checkout>, StoreError> {
        self.browsers
            .ask(move |db| {
                let mut statement = db.prepare_cached(concat!(
                    "SELECT ",
                    org_columns!(),
                    ", checkouts.number, checkouts.plan, checkouts.expires_at, checkouts.used_at
                     FROM checkouts JOIN orgs ON orgs.id = checkouts.org_id
                     WHERE checkouts.used_at IS NULL AND checkouts.expires_at > ?1 AND orgs.deleted_at IS NULL
                     ORDER BY checkouts.expires_at, checkouts.number"
                ))?;
                let mut rows = statement.query([now.as_microsecond()])?;
                let mut open = Vec::new();
                while let Some(row) = rows.next()? {
                    open.push(read_checkout(row)?);
                }
                Ok(open)
            })
            .await
    }

    pub(in super::super) async fn link_checkout(
        &self,
        number: String,
        confirm: SecretHash,
        call: Call,
    ) -> Result<Option<Checkout>, StoreError> {
        self.writer
            .change(move |db| {
                let open = checkout(db, &CheckoutKey::Number(number))?.filter(|found| found.open(call.at));
                let Some(found) = open else { return Ok((None, None)) };
                db.prepare_cached("UPDATE checkouts SET confirm_hash = ?2 WHERE number = ?1")?
                    .execute((&found.number, confirm.as_bytes()))?;
                record(db, &call, found.record(Verb::LinkCheckout))?;
                Ok((Some(found), None))
            })
            .await
    }

    pub(in super::super) async fn confirm_checkout(
        &self,
        key: CheckoutKey,
        call: Call,
    ) -> Result<Option<Checkout>, StoreError> {
        self.writer
            .change(move |db| {
                let Some(found) = checkout(db, &key)?.filter(|found| found.open(call.at)) else {
                    return Ok((None, None));
                };
                db.prepare_cached("UPDATE checkouts SET used_at = ?2 WHERE number = ?1")?
                    .execute((&found.number, call.at.as_microsecond()))?;
                apply(db, found.org.id, &OrgChange::Plan(found.wanted, None), &call)?;
                record(db, &call, found.record(Verb::ConfirmCheckout))?;
                let change = Change::Org(found.org.id);
                Ok((Some(found), Some(change)))
            })
            .await
    }
}

/// One statement, so one snapshot.
fn look_up(db: &Connection, key: SecretHash, device: Option<&DeviceId>) -> Result<Option<Presented>, StoreError> {
    let mut statement = db.prepare_cached(concat!(
        "SELECT ",
        org_columns!(),
        ", devices.seq, devices.revoked_at, devices.revoke_reason FROM orgs
         LEFT JOIN devices ON devices.org_id = orgs.id AND devices.device_id = ?2
         WHERE orgs.key_hash = ?1 OR orgs.old_key_hash = ?1"
    ))?;
    let mut rows = statement.query((key.as_bytes(), device.map(DeviceId::as_str)))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let corrupt = |_| StoreError::Corrupt("key hash");
    let current = row.get_ref(2)?.as_blob().map_err(corrupt)?;
    let old = row.get_ref(11)?.as_blob_or_null().map_err(corrupt)?;
    let Some(held) = held_key(key, current, old, row.get(12)?)? else { return Ok(None) };
    let seq: Option<i64> = row.get(ORG_COLUMNS)?;
    let device = match seq {
        None => None,
        Some(seq) => Some(KnownDevice {
            seq,
            status: status(row.get(ORG_COLUMNS + 1)?),
            revoked_at: optional_time(row.get(ORG_COLUMNS + 1)?)?,
            revoke_reason: row.get(ORG_COLUMNS + 2)?,
        }),
    };
    Ok(Some(Presented::new(held, org(row)?, device)))
}

fn apply(db: &Connection, id: OrgId, change: &OrgChange, call: &Call) -> Result<(), StoreError> {
    let org = id;
    let id = id.to_string();
    match change {
        OrgChange::Disabled(on) => {
            db.prepare_cached("UPDATE orgs SET disabled = ?2 WHERE id = ?1")?.execute((id, on))?;
        }
        OrgChange::Frozen(on) => {
            db.prepare_cached("UPDATE orgs SET frozen = ?2 WHERE id = ?1")?.execute((id, on))?;
        }
        OrgChange::AccessUntil(end) => {
            db.prepare_cached("UPDATE orgs SET access_until = ?2 WHERE id = ?1")?
                .execute((id, end.map(Timestamp::as_microsecond)))?;
        }
        OrgChange::Plan(tier, limit) => {
            // Whoever sets a plan means it to hold, as after a checkout.
            db.prepare_cached("UPDATE orgs SET plan = ?2, device_limit = ?3, access_until = NULL WHERE id = ?1")?
                .execute((id, tier.as_str(), stored_limit(*limit)))?;
        }
        OrgChange::Key(hash, until, _) => {
            db.prepare_cached(
                "UPDATE orgs SET old_key_hash = CASE WHEN ?3 IS NULL THEN NULL ELSE key_hash END,
                 old_key_ends = COALESCE(?3, ?4), key_hash = ?2 WHERE id = ?1",
            )?
            .execute((
                id,
                hash.as_bytes(),
                until.map(Timestamp::as_microsecond),
                call.at.as_microsecond(),
            ))?;
        }
        OrgChange::EndOldKey => {
            db.prepare_cached(
                "UPDATE orgs SET old_key_hash = NULL, old_key_ends = MIN(old_key_ends, ?2) WHERE id = ?1",
            )?
            .execute((id, call.at.as_microsecond()))?;
        }
        OrgChange::Delete => {
            forget(db, org)?;
            db.prepare_cached("DELETE FROM device_seen WHERE seq IN (SELECT seq FROM devices WHERE org_id = ?1)")?
                .execute([&id])?;
            db.prepare_cached("DELETE FROM devices WHERE org_id = ?1")?.execute([&id])?;
            db.prepare_cached("DELETE FROM checkouts WHERE org_id = ?1")?.execute([&id])?;
            db.prepare_cached("UPDATE orgs SET deleted_at = ?2, active = 0 WHERE id = ?1")?
                .execute((id, call.at.as_microsecond()))?;
        }
    }
    Ok(())
}

fn checkout(db: &Connection, key: &CheckoutKey) -> Result<Option<Checkout>, StoreError> {
    let select = concat!(
        "SELECT ",
        org_columns!(),
        ", checkouts.number, checkouts.plan, checkouts.expires_at, checkouts.used_at
         FROM checkouts JOIN orgs ON orgs.id = checkouts.org_id WHERE "
    );
    let (condition, value): (_, &dyn rusqlite::ToSql) = match key {
        CheckoutKey::Address(hash) => ("checkouts.token_hash = ?1", &hash.as_bytes()),
        CheckoutKey::Link(hash) => ("checkouts.confirm_hash = ?1", &hash.as_bytes()),
        CheckoutKey::Number(number) => ("checkouts.number = ?1", number),
    };
    let mut statement = db.prepare_cached(&format!("{select}{condition}"))?;
    let mut rows = statement.query([value])?;
    rows.next()?.map(read_checkout).transpose()
}

fn read_checkout(row: &Row<'_>) -> Result<Checkout, StoreError> {
    Ok(Checkout {
        org: org(row)?,
        number: row.get(ORG_COLUMNS)?,
        wanted: row.get::<_, String>(ORG_COLUMNS + 1)?.parse().map_err(|_| StoreError::Corrupt("plan"))?,
        expires_at: time(row.get(ORG_COLUMNS + 2)?)?,
        used: row.get::<_, Option<i64>>(ORG_COLUMNS + 3)?.is_some(),
    })
}
