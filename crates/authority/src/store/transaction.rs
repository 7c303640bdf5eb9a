//! The interface between an operation and a database: a transaction that runs statements.
//!
//! Each operation (load the account → decide → write rows → write the audit → tell) is one generic function in
//! [`super::operations`], compiled once for each backend. The two databases take the same statements except for the few
//! words of [`SqlDialect`], so the trait passes statements on, and each statement and its decoding are written once.
//!
//! The alternative was a list of typed writes that an operation returns and each backend applies. It needs no `async`
//! in a trait, but every statement and every decoding would be written twice, and these are the larger part of a store.
//! Some operations also decide by what an earlier write has locked or changed (a checkout that another server may have
//! confirmed meanwhile), which one load before one decision cannot provide.
//!
//! `SQLite` never waits: its futures are ready at the first poll, so that the thread that owns the connection polls an
//! operation once ([`at_once`]) and needs no executor.

use futures_util::FutureExt;

use super::columns::Row;
use super::values::Value;
use super::{LastSeen, StoreError};
use crate::changes::Change;
use crate::reports::HeardReport;

/// The differences between the two SQL dialects. In both a parameter is `$` and its number.
#[derive(Clone, Copy, Debug)]
pub(super) enum SqlDialect {
    Sqlite,
    Postgres,
}

impl SqlDialect {
    /// A condition on a column: it is one of the texts ([`Value::Texts`]) of `parameter`.
    pub(super) fn among(self, parameter: &str) -> String {
        match self {
            // One parameter for any number of texts, so that the statement stays prepared.
            Self::Sqlite => format!("IN (SELECT value FROM json_each({parameter}))"),
            Self::Postgres => format!("= ANY({parameter})"),
        }
    }

    /// The end of a `SELECT` that locks its rows until this transaction ends. Empty for `SQLite`, which has one writer.
    pub(super) fn locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// A condition: the text `column` contains the text of `parameter`.
    pub(super) fn contains(self, column: &str, parameter: &str) -> String {
        match self {
            Self::Sqlite => format!("instr({column}, {parameter}) > 0"),
            Self::Postgres => format!("strpos({column}, {parameter}) > 0"),
        }
    }

    /// The JSON value in the text of `parameter`.
    pub(super) fn json(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => parameter.to_owned(),
            Self::Postgres => format!("{parameter}::text::jsonb"),
        }
    }

    /// A condition: the list `name` in the JSON object `column` contains the text of `parameter`.
    pub(super) fn lists(self, column: &str, name: &str, parameter: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("EXISTS (SELECT 1 FROM json_each({column}, '$.{name}') WHERE value = {parameter})")
            }
            Self::Postgres => format!("{column} -> '{name}' ? {parameter}"),
        }
    }
}

/// A transaction, or a single statement, that reads.
pub(super) trait ReadTransaction {
    const DIALECT: SqlDialect;
    type Row: Row;

    /// Runs a statement and returns its rows.
    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Self::Row>, StoreError>;

    /// Runs a statement and returns its first row.
    async fn row(&mut self, sql: &str, values: Vec<Value>) -> Result<Option<Self::Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

/// A transaction that may write. The backend commits it when the operation succeeds, and rolls it back when it fails.
pub(super) trait Transaction: ReadTransaction {
    /// Runs a statement and returns how many rows it changed.
    async fn run(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError>;

    /// Fails when there is no space for what makes the database grow. Asked before everything but stops.
    fn grow(&self) -> Result<(), StoreError>;

    /// Tells this change, here and on every other server, once the transaction is committed.
    fn tell(&mut self, change: Change);

    /// Writes when devices last asked. Each backend has its own way to write thousands of rows several times a second.
    async fn note(&mut self, seen: &[LastSeen]) -> Result<(), StoreError>;

    /// Stores what a report says about each device of the organisation, replacing the sidecar's previous report.
    /// Returns the devices about which that sidecar had not reported before. Many rows, as in [`Self::note`].
    async fn keep_said(&mut self, report: &HeardReport) -> Result<Vec<String>, StoreError>;
}

/// The result of an operation on a transaction that never waits.
pub(super) fn at_once<T>(operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    // Pending would be a bug of ours. The operation is then dropped, and undone.
    operation.now_or_never().unwrap_or(Err(StoreError::Closed))
}
