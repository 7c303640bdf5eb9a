//! What an operation needs of a database: a transaction that runs statements.
//!
//! Each operation (load the account → decide → write rows → write the audit → tell) is one generic function in
//! [`super::operations`], compiled once for each backend. The two databases take the same statements but for the few words
//! of [`Dialect`], so the trait passes statements on, and a statement and the decoding of its rows stand once as well.
//!
//! The alternative was a list of typed writes that an operation returns and each backend applies. It needs no `async` in a
//! trait, but every statement and every decoding of a row would still stand twice, and those are the larger part of a store.
//! Some operations also decide by what an earlier write has locked or changed (a purchase that another server may have
//! confirmed meanwhile), which one load before one decision cannot say.
//!
//! `SQLite` has no waiting: its futures are ready when they are first polled, so that the thread that owns the connection
//! polls an operation once ([`at_once`]) and needs no executor.

use futures_util::FutureExt;

use super::StoreError;
use super::columns::Row;
use super::values::Value;
use crate::changes::Change;
use crate::reports::HeardReport;
use crate::seen::LastSeen;

/// The words in which the two dialects of SQL differ. A parameter is `$` and its number in both.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Behind a column: is one of the texts ([`Value::Texts`]) of `parameter`.
    pub(super) fn among(self, parameter: &str) -> String {
        match self {
            // One parameter for any number of texts, so that the statement stays prepared.
            Self::Sqlite => format!("IN (SELECT value FROM json_each({parameter}))"),
            Self::Postgres => format!("= ANY({parameter})"),
        }
    }

    /// At the end of a `SELECT`: no other transaction changes these rows before this one ends. `SQLite` has one writer.
    pub(super) fn locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// Whether the text `column` contains the text of `parameter`.
    pub(super) fn contains(self, column: &str, parameter: &str) -> String {
        match self {
            Self::Sqlite => format!("instr({column}, {parameter}) > 0"),
            Self::Postgres => format!("strpos({column}, {parameter}) > 0"),
        }
    }

    /// The JSON that is the text of `parameter`.
    pub(super) fn json(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => parameter.to_owned(),
            Self::Postgres => format!("{parameter}::text::jsonb"),
        }
    }

    /// Whether the list `name` in the JSON object `column` contains the text of `parameter`.
    pub(super) fn lists(self, column: &str, name: &str, parameter: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("EXISTS (SELECT 1 FROM json_each({column}, '$.{name}') WHERE value = {parameter})")
            }
            Self::Postgres => format!("{column} -> '{name}' ? {parameter}"),
        }
    }
}

/// A transaction, or one statement of its own, that reads.
pub(super) trait ReadTransaction {
    const DIALECT: Dialect;
    type Row: Row;

    /// The rows that a statement finds or returns.
    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Self::Row>, StoreError>;

    /// The first of them.
    async fn row(&mut self, sql: &str, values: Vec<Value>) -> Result<Option<Self::Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

/// A transaction that may write. The backend commits it when the operation succeeds, and undoes it when it fails.
pub(super) trait Transaction: ReadTransaction {
    /// Runs a statement and says how many rows it changed.
    async fn run(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError>;

    /// Has this told, here and on every other server, once the transaction is committed.
    fn tell(&mut self, change: Change);

    /// Writes when devices last asked. Thousands at once, several times a second: each backend has a way of its own to
    /// write many rows.
    async fn note(&mut self, seen: &[LastSeen]) -> Result<(), StoreError>;

    /// Keeps what a report says about each device that the organisation has, in place of what its sidecar said before.
    /// Returns the devices about which that sidecar had said nothing. Many rows, as in [`Self::note`].
    async fn keep_said(&mut self, report: &HeardReport) -> Result<Vec<String>, StoreError>;
}

/// The result of an operation on a transaction that never waits.
pub(super) fn at_once<T>(operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    // Pending would be a defect of ours. The operation is then dropped, and undone.
    operation.now_or_never().unwrap_or(Err(StoreError::Closed))
}
