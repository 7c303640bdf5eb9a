//! Statements on a connection of the pool, and a transaction that may write. The transaction succeeds only if the
//! address did not move to another server meanwhile.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Postgres as Db, Row as _, Transaction as SqlTransaction};

use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, SqlDialect, Transaction};
use super::super::values::Value;
use super::super::{LastSeen, StoreError};
use super::COMMIT;
use super::health::DatabaseHealth;
use crate::changes::Change;
use crate::reports::HeardReport;

/// A transaction. Rolled back when it is dropped.
#[derive(Debug)]
pub(in super::super) struct PostgresWriting {
    pub(super) tx: SqlTransaction<'static, Db>,
    health: Arc<DatabaseHealth>,
    /// The number of moves to another server before the transaction began.
    moves: u64,
    /// Whether there is something to commit. A commit waits for the disk and for standbys.
    wrote: bool,
    /// The changes to tell once the transaction is committed.
    pub(super) told: Vec<Change>,
}

impl PostgresWriting {
    pub(super) async fn begin(pool: &PgPool, health: &Arc<DatabaseHealth>) -> Result<Self, StoreError> {
        loop {
            let moves = health.known.moves();
            let tx = pool.begin().await?;
            // Otherwise the transaction may be on the previous server, if the address moved while it waited for its
            // connection.
            if health.known.moves() == moves {
                return Ok(Self { tx, health: Arc::clone(health), moves, wrote: false, told: Vec::new() });
            }
        }
    }

    /// Commits, if there is something to commit. A transaction can wait seconds for a lock, and the old primary would
    /// then commit what the new one never gets.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, health, moves, wrote, told: _ } = self;
        let stayed = || if health.known.moves() == moves { Ok(()) } else { Err(StoreError::Superseded) };
        stayed()?;
        if wrote {
            tokio::time::timeout(COMMIT, tx.commit()).await.map_err(|_| StoreError::Late)??;
        }
        stayed()
    }
}

impl ReadTransaction for PgConnection {
    const DIALECT: SqlDialect = SqlDialect::Postgres;
    type Row = PgRow;

    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<PgRow>, StoreError> {
        Ok(query(sql, values)?.fetch_all(self).await?)
    }
}

impl ReadTransaction for PostgresWriting {
    const DIALECT: SqlDialect = SqlDialect::Postgres;
    type Row = PgRow;

    async fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<PgRow>, StoreError> {
        self.tx.rows(sql, values).await
    }
}

impl Transaction for PostgresWriting {
    async fn run(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        let changed = query(sql, values)?.execute(&mut *self.tx).await?.rows_affected();
        self.wrote |= changed > 0;
        Ok(changed)
    }

    fn grow(&self) -> Result<(), StoreError> {
        // Its disk is another host's, which watches it.
        Ok(())
    }

    fn tell(&mut self, change: Change) {
        // The commit notifies the other servers.
        self.wrote = true;
        self.told.push(change);
    }

    async fn note(&mut self, seen: &[LastSeen]) -> Result<(), StoreError> {
        let numbers: Vec<i64> = seen.iter().map(|seen| seen.seq).collect();
        let times: Vec<i64> = seen.iter().map(|seen| seen.at).collect();
        let keys: Vec<&[u8]> = seen.iter().map(|seen| seen.key.as_slice()).collect();
        let noted = sqlx::query(
            // Every server uses the same order, so that two servers cannot deadlock.
            "INSERT INTO device_seen (seq, at, key_mark)
             SELECT seq, at, key_mark FROM UNNEST($1::bigint[], $2::bigint[], $3::bytea[]) AS seen (seq, at, key_mark)
             JOIN devices USING (seq) ORDER BY seq
             ON CONFLICT (seq) DO UPDATE SET at = excluded.at, key_mark = excluded.key_mark
             WHERE excluded.at >= device_seen.at",
        );
        let noted = noted.bind(&numbers).bind(&times).bind(&keys).execute(&mut *self.tx).await?;
        self.wrote |= noted.rows_affected() > 0;
        Ok(())
    }

    async fn keep_said(&mut self, report: &HeardReport) -> Result<Vec<String>, StoreError> {
        let (devices, bodies): (Vec<&str>, Vec<&str>) =
            report.devices.iter().map(|(device, body)| (device.as_str(), body.as_str())).unzip();
        // `xmax = 0` marks a row that is new.
        let saved: Vec<(String, bool)> = sqlx::query_as(
            "INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, sequence, agents, body)
             SELECT org_id, device_id, $2, $3, $4, $5, body FROM UNNEST($6::text[], $7::text[]) AS said (device_id, body)
             JOIN devices USING (device_id) WHERE org_id = $1 ORDER BY device_id
             ON CONFLICT (org_id, device_id, sidecar_id)
             DO UPDATE SET heard_at = excluded.heard_at, sequence = excluded.sequence, agents = excluded.agents,
                           body = excluded.body
             RETURNING device_id, xmax = 0",
        )
        .bind(report.org.to_string())
        .bind(report.sidecar.to_string())
        .bind(report.heard_at.as_microsecond())
        .bind(report.sequence)
        .bind(i64::from(report.agents))
        .bind(&devices)
        .bind(&bodies)
        .fetch_all(&mut *self.tx)
        .await?;
        self.wrote |= !saved.is_empty();
        Ok(saved.into_iter().filter_map(|(device, new)| new.then_some(device)).collect())
    }
}

/// A statement that its connection keeps prepared. Its text is ours: values from outside are in `values`.
pub(super) fn query(sql: &str, values: Vec<Value>) -> Result<sqlx::query::Query<'static, Db, PgArguments>, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Integer(number) => arguments.add(number),
            Value::Flag(flag) => arguments.add(flag),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Texts(texts) => arguments.add(texts),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments))
}

impl Row for PgRow {
    fn integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: usize) -> Result<Option<bool>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.try_get(column)?)
    }
}
