//! The audit.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::{StoreError, entry_from};
use super::Sqlite;
use crate::authority::audit::{Call, Page, Query, Reason, Record};

impl Sqlite {
    pub(in super::super) async fn audit(&self, query: Query) -> Result<Page, StoreError> {
        self.browsers.ask(move |db| read(db, &query)).await
    }
}

fn read(db: &Connection, query: &Query) -> Result<Page, StoreError> {
    let mut sql = "SELECT seq, at, org_id, request_id, actor, verb, device_id, outcome, reason, details FROM audit
         WHERE TRUE"
        .to_owned();
    let mut values = Vec::new();
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
    };
    if let Some(org) = query.org {
        add(" AND org_id = ?", Value::Text(org.to_string()));
    }
    if let Some(before) = query.before {
        add(" AND seq < ?", Value::Integer(before));
    }
    if let Some(verb) = &query.verb {
        add(" AND verb = ?", Value::Text(verb.clone()));
    }
    if let Some(who) = &query.who {
        add(" AND instr(actor, ?) > 0", Value::Text(who.clone()));
    }
    if let Some(device) = &query.device {
        add(
            " AND (device_id = ? OR EXISTS (SELECT 1 FROM json_each(details, '$.deviceIds') WHERE value = ?))",
            Value::Text(device.clone()),
        );
    }
    add(" ORDER BY seq DESC LIMIT ?", Value::Integer(i64::from(query.limit) + 1));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry_from(
            row.get(0)?,
            row.get(1)?,
            &row.get::<_, String>(2)?,
            [row.get(3)?, row.get(4)?, row.get(5)?],
            row.get(6)?,
            row.get(7)?,
            row.get(8)?,
            &row.get::<_, String>(9)?,
        )?);
    }
    Ok(query.page(entries))
}

/// Writes what a call came to, in the transaction of what it did.
pub(super) fn record(db: &Connection, call: &Call, record: Record) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO audit (at, org_id, request_id, actor, verb, device_id, outcome, reason, details)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        call.at.as_microsecond(),
        record.org.to_string(),
        &call.request_id,
        call.actor.to_string(),
        record.verb.as_str(),
        record.device,
        record.outcome,
        call.reason.as_ref().map(Reason::as_str),
        serde_json::Value::Object(record.details).to_string(),
    ))?;
    Ok(())
}
