//! The look-up for a validation.

use machineid_protocol::DeviceId;
use rusqlite::Connection;

use super::super::columns::{Row, held_key, status};
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
}

/// Looks up a key and a device in one statement, and so in one snapshot.
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
    let Some(held) = held_key(key, current, old, row.integer(12)?)? else { return Ok(None) };
    let seq: Option<i64> = row.integer(ORG_COLUMNS)?;
    let device = match seq {
        None => None,
        Some(seq) => Some(KnownDevice {
            seq,
            status: status(row.integer(ORG_COLUMNS + 1)?),
            revoked_at: row.maybe(ORG_COLUMNS + 1)?,
            revoke_reason: row.maybe(ORG_COLUMNS + 2)?,
        }),
    };
    Ok(Some(Presented::new(held, org(row)?, device)))
}
