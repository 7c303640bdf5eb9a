//! Statements on a connection that the calling thread owns. Nothing here waits: every future is ready at once.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql};

use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, SqlDialect, Transaction};
use super::super::values::{Value, values};
use super::super::{LastSeen, StoreError};
use super::room::Room;
use crate::changes::Change;
use crate::reports::HeardReport;

/// A transaction that reads, in a snapshot.
#[derive(Debug)]
pub(in super::super) struct Reading<'c>(pub(super) &'c Connection);

/// A transaction that writes, in the writer thread's transaction.
#[derive(Debug)]
pub(in super::super) struct SqliteWriting<'c> {
    reading: Reading<'c>,
    room: &'c Room,
    /// The changes to tell once the transaction is committed.
    pub(super) told: Vec<Change>,
}

impl<'c> SqliteWriting<'c> {
    pub(super) fn new(connection: &'c Connection, room: &'c Room) -> Self {
        Self { reading: Reading(connection), room, told: Vec::new() }
    }
}

impl ReadTransaction for Reading<'_> {
    const DIALECT: SqlDialect = SqlDialect::Sqlite;
    type Row = Cells;

    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Cells>, StoreError> {
        let mut statement = self.0.prepare_cached(sql)?;
        bind(&mut statement, &values)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Cells((0..columns).map(|column| row.get(column)).collect::<Result<_, _>>()?));
        }
        Ok(found)
    }
}

impl ReadTransaction for SqliteWriting<'_> {
    const DIALECT: SqlDialect = SqlDialect::Sqlite;
    type Row = Cells;

    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Cells>, StoreError> {
        self.reading.rows(sql, values).await
    }
}

impl Transaction for SqliteWriting<'_> {
    async fn run(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        let mut statement = self.reading.0.prepare_cached(sql)?;
        bind(&mut statement, &values)?;
        Ok(statement.raw_execute()? as u64)
    }

    fn grow(&self) -> Result<(), StoreError> {
        self.room.grow()
    }

    fn tell(&mut self, change: Change) {
        self.told.push(change);
    }

    async fn note(&mut self, seen: &[LastSeen]) -> Result<(), StoreError> {
        let mut statement = self.reading.0.prepare_cached(
            "INSERT INTO device_seen (seq, at, key_mark) SELECT seq, ?2, ?3 FROM devices WHERE seq = ?1
             ON CONFLICT (seq) DO UPDATE SET at = excluded.at, key_mark = excluded.key_mark
             WHERE excluded.at >= at",
        )?;
        for LastSeen { seq, at, key } in seen {
            statement.execute((seq, at, key))?;
        }
        Ok(())
    }

    async fn keep_said(&mut self, report: &HeardReport) -> Result<Vec<String>, StoreError> {
        let mut new = Vec::new();
        for (device, body) in &report.devices {
            let values = values![
                report.org,
                device,
                report.sidecar.to_string(),
                report.heard_at,
                report.sequence,
                i64::from(report.agents),
                body.as_str()
            ];
            let update = "UPDATE reports SET heard_at = $4, sequence = $5, agents = $6, body = $7
                 WHERE org_id = $1 AND device_id = $2 AND sidecar_id = $3";
            if self.run(update, values.clone()).await? > 0 {
                continue;
            }
            let insert = "INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, sequence, agents, body)
                 SELECT org_id, device_id, $3, $4, $5, $6, $7 FROM devices WHERE org_id = $1 AND device_id = $2";
            if self.run(insert, values).await? > 0 {
                new.push(device.to_string());
            }
        }
        Ok(new)
    }
}

/// Binds each parameter by its number: `SQLite` numbers `$1`, `$2` by their first mention, regardless of their names.
fn bind(statement: &mut Statement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let value = number.and_then(|number| values.get(number.checked_sub(1)?));
        let value = value.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), index))?;
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Integer(number) => number.to_sql(),
            Self::Flag(flag) => flag.to_sql(),
            Self::Text(text) => text.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
            Self::Texts(texts) => Ok(ToSqlOutput::from(serde_json::json!(texts).to_string())),
        }
    }
}

/// A row that outlives its statement.
#[derive(Debug)]
pub(in super::super) struct Cells(Vec<rusqlite::types::Value>);

/// A source of columns: an owned row, or the current row of a statement.
pub(super) trait Columns {
    fn cell(&self, column: usize) -> rusqlite::Result<ValueRef<'_>>;
}

impl Columns for Cells {
    fn cell(&self, column: usize) -> rusqlite::Result<ValueRef<'_>> {
        self.0.get(column).map(ValueRef::from).ok_or(rusqlite::Error::InvalidColumnIndex(column))
    }
}

impl Columns for rusqlite::Row<'_> {
    fn cell(&self, column: usize) -> rusqlite::Result<ValueRef<'_>> {
        self.get_ref(column)
    }
}

impl<C: Columns> Row for C {
    fn integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.cell(column)?.as_i64_or_null().map_err(rusqlite::Error::from)?)
    }

    fn flag(&self, column: usize) -> Result<Option<bool>, StoreError> {
        Ok(self.integer(column)?.map(|number| number != 0))
    }

    fn text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.cell(column)?.as_str_or_null().map_err(rusqlite::Error::from)?)
    }

    fn bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.cell(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::transaction::at_once;
    use super::*;

    #[test]
    fn a_parameter_is_bound_by_its_number_wherever_it_stands_and_one_without_a_value_fails() {
        let connection = Connection::open_in_memory().unwrap();
        let room = Room::new(std::path::Path::new(""), 0);
        let mut tx = SqliteWriting::new(&connection, &room);
        let row = at_once(tx.row("SELECT $2, $1, $2 || $3", values!["one", "two", "three"])).unwrap().unwrap();
        assert_eq!((row.text(0).unwrap(), row.text(1).unwrap()), (Some("two"), Some("one")));
        assert_eq!(row.text(2).unwrap(), Some("twothree"));
        assert!(at_once(tx.rows("SELECT $2", values!["one"])).is_err());
        assert!(at_once(tx.rows("SELECT ?", values!["one"])).is_err());
    }

    #[test]
    fn an_operation_that_would_wait_fails() {
        assert!(matches!(at_once(std::future::pending::<Result<(), _>>()), Err(StoreError::Closed)));
    }
}
