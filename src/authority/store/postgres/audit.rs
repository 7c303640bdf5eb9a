//! The audit.

use sqlx::{QueryBuilder, Row};

use super::super::{StoreError, entry_from};
use super::rows::sought;
use super::{Db, OPERATION, Postgres, Transaction};
use crate::authority::audit::{Call, Page, Query, Reason, Record};

impl Postgres {
    pub(in super::super) async fn audit(&self, query: Query) -> Result<Page, StoreError> {
        self.within(OPERATION, async {
            let mut sql: QueryBuilder<Db> = QueryBuilder::new(
                "SELECT seq, at, org_id, request_id, actor, verb, device_id, outcome, reason, details::text FROM audit
                 WHERE TRUE",
            );
            if let Some(org) = query.org {
                sql.push(" AND org_id = ").push_bind(org.to_string());
            }
            if let Some(before) = query.before {
                sql.push(" AND seq < ").push_bind(before);
            }
            if let Some(verb) = &query.verb {
                sql.push(" AND verb = ").push_bind(sought(verb));
            }
            if let Some(who) = &query.who {
                sql.push(" AND strpos(actor, ").push_bind(sought(who)).push(") > 0");
            }
            if let Some(device) = &query.device {
                sql.push(" AND (device_id = ").push_bind(sought(device));
                sql.push(" OR details -> 'deviceIds' ? ").push_bind(sought(device)).push(")");
            }
            sql.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(query.limit) + 1);
            let mut entries = Vec::new();
            for row in sql.build().fetch_all(&self.pool).await? {
                entries.push(entry_from(
                    row.try_get(0)?,
                    row.try_get(1)?,
                    row.try_get(2)?,
                    [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?],
                    row.try_get(6)?,
                    row.try_get(7)?,
                    row.try_get(8)?,
                    row.try_get(9)?,
                )?);
            }
            Ok(query.page(entries))
        })
        .await
    }
}

/// Writes what a call came to, in the transaction of what it did.
pub(super) async fn record(tx: &mut Transaction<'static, Db>, call: &Call, record: Record) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at, org_id, request_id, actor, verb, device_id, outcome, reason, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb)",
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
