//! The look-up for a validation.

use machineid_protocol::DeviceId;
use rusqlite::Connection;

use super::super::columns::{Row, held_key, key_columns, role_key, status};
use super::super::rows::{ORG_COLUMNS, org, org_columns};
use super::super::{KnownDevice, Presented, StoreError};
use super::Sqlite;
use crate::keys::SecretHash;

impl Sqlite {
    pub(in super::super) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        self.deciders.ask(move |db| look_up(db, key, device.as_ref())).await
    }

    /// The same for a key that stops agents.
    pub(in super::super) async fn look_up_first(&self, key: SecretHash) -> Result<Option<Presented>, StoreError> {
        self.stoppers.ask(move |db| look_up(db, key, None)).await
    }
}

/// A key is in one of the two places for as long as it exists, so that one snapshot for each is enough.
fn look_up(db: &Connection, key: SecretHash, device: Option<&DeviceId>) -> Result<Option<Presented>, StoreError> {
    match own_key(db, key, device)? {
        Some(found) => Ok(Some(found)),
        None => with_role(db, key, device),
    }
}

/// The organisation whose own key this is, and the device, of one moment.
fn own_key(db: &Connection, key: SecretHash, device: Option<&DeviceId>) -> Result<Option<Presented>, StoreError> {
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
    let Some(held) = held_key(key, current, old, row.integer(12)?)? else { return Ok(None) };
    Ok(Some(Presented::new(held, org(row)?, known(row)?)))
}

/// The same for a key with a role.
fn with_role(db: &Connection, key: SecretHash, device: Option<&DeviceId>) -> Result<Option<Presented>, StoreError> {
    let mut statement = db.prepare_cached(concat!(
        "SELECT ",
        org_columns!(),
        ", devices.seq, devices.revoked_at, devices.revoke_reason, org_keys.key_hash, ",
        key_columns!(),
        " FROM org_keys JOIN orgs ON orgs.id = org_keys.org_id
         LEFT JOIN devices ON devices.org_id = orgs.id AND devices.device_id = ?2
         WHERE org_keys.key_hash = ?1"
    ))?;
    let mut rows = statement.query((key.as_bytes(), device.map(DeviceId::as_str)))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let stored = row.get_ref(ORG_COLUMNS + 3)?.as_blob().map_err(|_| StoreError::Corrupt("key hash"))?;
    if !key.matches(stored) {
        return Ok(None);
    }
    Ok(Some(Presented::new(role_key(row, ORG_COLUMNS + 4)?, org(row)?, known(row)?)))
}

/// The device behind the columns of the organisation.
fn known(row: &rusqlite::Row<'_>) -> Result<Option<KnownDevice>, StoreError> {
    let seq: Option<i64> = row.integer(ORG_COLUMNS)?;
    let Some(seq) = seq else { return Ok(None) };
    Ok(Some(KnownDevice {
        seq,
        status: status(row.integer(ORG_COLUMNS + 1)?),
        revoked_at: row.maybe(ORG_COLUMNS + 1)?,
        revoke_reason: row.maybe(ORG_COLUMNS + 2)?,
    }))
}
