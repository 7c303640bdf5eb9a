//! Decodes column values, the same way for both databases.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::keys::SecretHash;
use super::super::org::{HeldKey, OrgId, PlanTier};
use super::StoreError;

/// A row returned by a database. `None` is NULL.
pub(super) trait Row {
    fn integer(&self, column: usize) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: usize) -> Result<Option<bool>, StoreError>;
    fn text(&self, column: usize) -> Result<Option<&str>, StoreError>;

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
        return Ok(Some(HeldKey::Current));
    }
    match (old, old_ends) {
        (Some(old), Some(ends)) if key.matches(old) => Ok(Some(HeldKey::Old { ends: time(ends)? })),
        (Some(_) | None, Some(_) | None) => Ok(None),
    }
}
