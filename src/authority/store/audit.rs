//! The audit in the store.

use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::rows::time;
use super::{Store, StoreError};
use crate::authority::audit::{Call, Entry, Page, Query, Reason, Record};

#[derive(sqlx::FromRow)]
struct Row {
    seq: i64,
    at: i64,
    org_id: String,
    request_id: String,
    actor: String,
    verb: String,
    device_id: Option<String>,
    outcome: String,
    reason: Option<String>,
    details: String,
}

impl Store {
    /// The audit, the newest first.
    pub(in crate::authority) async fn audit(&self, query: &Query) -> Result<Page, StoreError> {
        let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT * FROM audit WHERE TRUE");
        if let Some(org) = query.org {
            sql.push(" AND org_id = ").push_bind(org.to_string());
        }
        if let Some(before) = query.before {
            sql.push(" AND seq < ").push_bind(before);
        }
        if let Some(device) = &query.device {
            sql.push(" AND (device_id = ").push_bind(device);
            sql.push(" OR EXISTS (SELECT 1 FROM json_each(details, '$.deviceIds') WHERE value = ").push_bind(device);
            sql.push("))");
        }
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(query.limit) + 1);
        let rows: Vec<Row> = sql.build_query_as().fetch_all(&self.readers).await?;
        let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let more = rows.len() > wanted;
        let entries = rows.into_iter().take(wanted).map(Row::into_entry).collect::<Result<_, _>>()?;
        Ok(Page { entries, more })
    }
}

impl Row {
    fn into_entry(self) -> Result<Entry, StoreError> {
        Ok(Entry {
            id: self.seq,
            at: time(self.at)?,
            org_id: self.org_id.parse().map_err(|_| StoreError::Corrupt("organisation id"))?,
            request_id: self.request_id,
            actor: self.actor,
            verb: self.verb,
            device_id: self.device_id,
            outcome: self.outcome,
            reason: self.reason,
            details: serde_json::from_str(&self.details).map_err(|_| StoreError::Corrupt("audit entry"))?,
        })
    }
}

/// Writes what a call came to, in the transaction of what it did.
pub(super) async fn record(tx: &mut Transaction<'_, Sqlite>, call: &Call, record: Record) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at, org_id, request_id, actor, verb, device_id, outcome, reason, details)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(call.at.as_microsecond())
    .bind(record.org.to_string())
    .bind(&call.request_id)
    .bind(call.actor.to_string())
    .bind(record.verb.as_str())
    .bind(record.device)
    .bind(record.outcome)
    .bind(call.reason.as_ref().map(Reason::as_str))
    .bind(serde_json::Value::Object(record.details).to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
