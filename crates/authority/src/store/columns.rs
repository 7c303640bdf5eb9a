//! What the columns of both databases say.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;

use super::super::keys::SecretHash;
use super::super::org::{HeldKey, OrgId, PlanTier};
use super::StoreError;

/// A row that a database returned. `None` is NULL.
pub(super) trait Row {
    fn integer(&self, column: usize) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: usize) -> Result<Option<bool>, StoreError>;
    fn text(&self, column: usize) -> Result<Option<&str>, StoreError>;

    /// What a column says that is never NULL.
    fn get<C: Column>(&self, column: usize) -> Result<C, StoreError>
    where
        Self: Sized,
    {
        self.maybe(column)?.ok_or(StoreError::Corrupt("column"))
    }

    /// What a column says.
    fn maybe<C: Column>(&self, column: usize) -> Result<Option<C>, StoreError>
    where
        Self: Sized,
    {
        C::read(self, column)
    }
}

/// What a column can say.
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

/// Types that are read from their text, with what a text that is none of them is called.
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

/// Which of the organisation's keys this is. `None` when it is neither, whatever the database found.
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
