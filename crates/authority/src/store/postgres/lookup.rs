//! What validations ask, all that wait together in one statement.

use machineid_protocol::DeviceId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::{KnownDevice, Presented, StoreError, held_key, status, time};
use super::rows::{ORG_COLUMNS, org, org_columns};
use crate::keys::SecretHash;

/// One validation's question.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: SecretHash,
    pub(super) device: Option<DeviceId>,
}

/// What was found for one of them.
pub(super) type Found = Result<Option<Presented>, StoreError>;

/// Answers all of them from one snapshot, which begins after this call. Fails when the server is not the one that
/// decides: on a standby, a revoke that was answered may not have arrived yet.
///
/// Each question makes one row, so that there is always one that says where the statement ran.
pub(super) async fn look_up(connection: &mut PgConnection, asked: &[&Asked]) -> Result<Vec<Found>, StoreError> {
    let keys: Vec<&[u8]> = asked.iter().map(|asked| asked.key.as_bytes()).collect();
    let devices: Vec<Option<&str>> = asked.iter().map(|asked| asked.device.as_ref().map(DeviceId::as_str)).collect();
    let rows = sqlx::query(concat!(
        "SELECT ",
        org_columns!(),
        ", devices.seq, devices.revoked_at, devices.revoke_reason, asked.number,
           pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'
         FROM UNNEST($1::bytea[], $2::text[]) WITH ORDINALITY AS asked (key_hash, device_id, number)
         LEFT JOIN orgs ON orgs.key_hash = asked.key_hash OR orgs.old_key_hash = asked.key_hash
         LEFT JOIN devices ON devices.org_id = orgs.id AND devices.device_id = asked.device_id"
    ))
    .bind(keys)
    .bind(devices)
    .fetch_all(connection)
    .await?;
    let first = rows.first().ok_or(StoreError::Corrupt("answer"))?;
    if first.try_get(ORG_COLUMNS + 4)? {
        return Err(StoreError::Standby);
    }
    if first.try_get(ORG_COLUMNS + 5)? {
        return Err(StoreError::ReadOnly);
    }
    let mut found: Vec<Found> = asked.iter().map(|_| Err(StoreError::Corrupt("answer"))).collect();
    for row in &rows {
        let number: i64 = row.try_get(ORG_COLUMNS + 3)?;
        let place = usize::try_from(number - 1).map_err(|_| StoreError::Corrupt("answer"))?;
        if let (Some(found), Some(asked)) = (found.get_mut(place), asked.get(place)) {
            *found = read(row, &asked.key);
        }
    }
    Ok(found)
}

fn read(row: &PgRow, key: &SecretHash) -> Found {
    let Some(current) = row.try_get::<Option<&[u8]>, _>(2)? else { return Ok(None) };
    let Some(held) = held_key(*key, current, row.try_get(11)?, row.try_get(12)?)? else { return Ok(None) };
    let seq: Option<i64> = row.try_get(ORG_COLUMNS)?;
    let device = match seq {
        None => None,
        Some(seq) => Some(KnownDevice {
            seq,
            status: status(row.try_get(ORG_COLUMNS + 1)?),
            revoked_at: row.try_get::<Option<i64>, _>(ORG_COLUMNS + 1)?.map(time).transpose()?,
            revoke_reason: row.try_get(ORG_COLUMNS + 2)?,
        }),
    };
    Ok(Some(Presented::new(held, org(row)?, device)))
}
