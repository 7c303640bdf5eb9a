//! The values of a statement's parameters.

use std::fmt::Write;

use jiff::Timestamp;
use machineid_protocol::DeviceId;

use super::super::keys::{KeyMark, SecretHash};
use super::super::org::{OrgId, PlanTier};

/// A value as both databases accept it. NULL has a type, since `PostgreSQL` needs one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(Option<i64>),
    Flag(bool),
    Text(Option<String>),
    Bytes(Vec<u8>),
    /// A list of texts, for [`super::transaction::SqlDialect::among`].
    Texts(Vec<String>),
}

/// Makes the values of a statement; the first is for `$1`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::values::Value::from($value)),*] };
}
pub(super) use values;

/// A statement with optional conditions.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Statement {
    pub(super) fn new(sql: String, values: Vec<Value>) -> Self {
        Self { sql, values }
    }

    /// Adds a value; `text` builds the SQL from the parameter's name.
    pub(super) fn add(&mut self, value: impl Into<Value>, text: impl FnOnce(&str) -> String) {
        self.values.push(value.into());
        // Writing to a String does not fail.
        let _ = write!(self.sql, " {}", text(&format!("${}", self.values.len())));
    }
}

/// Text to search for, without NUL characters. `PostgreSQL` fails on a NUL; no stored text has one, so the search would
/// find nothing anyway.
pub(super) fn sought(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        time.as_microsecond().into()
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(time: Option<Timestamp>) -> Self {
        time.map(Timestamp::as_microsecond).into()
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        text.map(str::to_owned).into()
    }
}

impl From<OrgId> for Value {
    fn from(org: OrgId) -> Self {
        org.to_string().into()
    }
}

impl From<PlanTier> for Value {
    fn from(tier: PlanTier) -> Self {
        tier.as_str().into()
    }
}

impl From<&DeviceId> for Value {
    fn from(device: &DeviceId) -> Self {
        device.as_str().into()
    }
}

impl From<&[DeviceId]> for Value {
    fn from(devices: &[DeviceId]) -> Self {
        Self::Texts(devices.iter().map(ToString::to_string).collect())
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts)
    }
}

impl From<KeyMark> for Value {
    fn from(mark: KeyMark) -> Self {
        Self::Bytes(mark.to_vec())
    }
}

impl From<&SecretHash> for Value {
    fn from(hash: &SecretHash) -> Self {
        Self::Bytes(hash.as_bytes().to_vec())
    }
}
