//! Decodes column values, the same way for both databases.

use jiff::Timestamp;
use machineid_protocol::api::DeviceStatus;
use machineid_protocol::{DeviceId, DevicePattern, KeyRole};

use super::super::keys::{KeyMark, SecretHash};
use super::super::org::{HeldKey, KeyName, OrgId, PlanTier};
use super::StoreError;

/// A row returned by a database. `None` is NULL.
pub(super) trait Row {
    fn integer(&self, column: usize) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: usize) -> Result<Option<bool>, StoreError>;
    fn text(&self, column: usize) -> Result<Option<&str>, StoreError>;
    fn bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError>;

    /// Decodes a column that is never NULL.
    fn get<C: Column>(&self, column: usize) -> Result<C, StoreError>
    where
        Self: Sized,
    {
        self.maybe(column)?.ok_or(StoreError::Corrupt("column"))
    }

    /// Decodes a column that may be NULL.
    fn maybe<C: Column>(&self, column: usize) -> Result<Option<C>, StoreError>
    where
        Self: Sized,
    {
        C::read(self, column)
    }
}

/// A type that a column decodes to.
pub(super) trait Column: Sized {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError>;
}

impl Column for i64 {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        row.integer(column)
    }
}

impl Column for u64 {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        row.integer(column)?.map(|number| Self::try_from(number).map_err(|_| StoreError::Corrupt("count"))).transpose()
    }
}

impl Column for bool {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        row.flag(column)
    }
}

impl Column for KeyMark {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        let mark = |bytes: &[u8]| bytes.try_into().map_err(|_| StoreError::Corrupt("key mark"));
        row.bytes(column)?.map(mark).transpose()
    }
}

impl Column for String {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        Ok(row.text(column)?.map(str::to_owned))
    }
}

impl Column for Timestamp {
    fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
        row.integer(column)?.map(time).transpose()
    }
}

/// Implements [`Column`] for types that are parsed from text; the name is used in the error for unusable text.
macro_rules! parsed {
    ($($parsed:ty => $name:literal)*) => {
        $(impl Column for $parsed {
            fn read(row: &impl Row, column: usize) -> Result<Option<Self>, StoreError> {
                row.text(column)?.map(|text| text.parse().map_err(|_| StoreError::Corrupt($name))).transpose()
            }
        })*
    };
}

parsed! {
    DeviceId => "device id"
    OrgId => "organisation id"
    PlanTier => "plan"
    KeyRole => "role"
    KeyName => "key name"
    DevicePattern => "device pattern"
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt("time"))
}

pub(super) fn status(revoked_at: Option<i64>) -> DeviceStatus {
    if revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active }
}

/// Which of the organisation's keys `key` is. `None` when it is neither of them, even if the database matched it.
pub(super) fn held_key(
    key: SecretHash,
    current: &[u8],
    old: Option<&[u8]>,
    old_ends: Option<i64>,
) -> Result<Option<HeldKey>, StoreError> {
    if key.matches(current) {
        return Ok(Some(HeldKey::own()));
    }
    match (old, old_ends) {
        (Some(old), Some(ends)) if key.matches(old) => Ok(Some(HeldKey::own_old(time(ends)?))),
        (Some(_) | None, Some(_) | None) => Ok(None),
    }
}

/// The columns of `org_keys` that [`role_key`] reads.
macro_rules! key_columns {
    () => {
        "org_keys.role, org_keys.devices, org_keys.name, org_keys.ends, org_keys.replaced, org_keys.revoked"
    };
}
pub(super) use key_columns;

/// How many those are.
pub(super) const KEY_COLUMNS: usize = 6;

/// A key of [`key_columns`], the first of which is the column `first`.
pub(super) fn role_key(row: &impl Row, first: usize) -> Result<HeldKey, StoreError> {
    Ok(HeldKey {
        own: false,
        role: row.get(first)?,
        devices: row.maybe(first + 1)?,
        name: row.maybe(first + 2)?,
        ends: row.maybe(first + 3)?,
        replaced: row.get(first + 4)?,
        revoked: row.get(first + 5)?,
    })
}
