//! Reads and writes the audit.

use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::{Statement, Value, sought, values};
use super::super::{AUDIT_PAGE, AUDIT_STEP, StoreError};
use crate::audit::{AuditEntry, Call, CallReason, Page, Query, Record};
use crate::org::{OrgId, SwitchedOff, Switches};

/// Reads a page, a few entries at a time: those of large batches are large, and a page ends when it is large enough.
pub(in super::super) async fn read<T: ReadTransaction>(tx: &mut T, query: &Query) -> Result<Page, StoreError> {
    let mut page = Page { entries: Vec::new(), more: true };
    let (mut left, mut before, mut bytes) = (query.limit, query.before, 0);
    while page.more && left > 0 && bytes <= AUDIT_PAGE {
        let step = Query { before, limit: left.min(AUDIT_STEP), ..query.clone() };
        let read = read_step(tx, &step, &mut bytes).await?;
        left = left.saturating_sub(u32::try_from(read.entries.len()).unwrap_or(u32::MAX));
        before = read.entries.last().map(|last| last.id);
        page.entries.extend(read.entries);
        page.more = read.more;
    }
    Ok(page)
}

async fn read_step<T: ReadTransaction>(tx: &mut T, query: &Query, bytes: &mut usize) -> Result<Page, StoreError> {
    let mut select = Statement::new(
        "SELECT seq, at, org_id, request_id, actor, verb, device_id, outcome, reason, CAST(details AS TEXT) FROM audit
         WHERE TRUE"
            .to_owned(),
        Vec::new(),
    );
    if let Some(org) = query.org {
        select.add(org, |org| format!("AND org_id = {org}"));
    }
    if let Some(before) = query.before {
        select.add(before, |before| format!("AND seq < {before}"));
    }
    if let Some(verb) = &query.verb {
        select.add(sought(verb), |verb| format!("AND verb = {verb}"));
    }
    if let Some(who) = &query.who {
        select.add(sought(who), |who| format!("AND {}", T::DIALECT.contains("actor", who)));
    }
    if let Some(device) = &query.device {
        select.add(sought(device), |device| {
            format!("AND (device_id = {device} OR {})", T::DIALECT.lists("details", "deviceIds", device))
        });
    }
    select.add(i64::from(query.limit) + 1, |limit| format!("ORDER BY seq DESC LIMIT {limit}"));
    let rows = tx.rows(&select.sql, select.values).await?;
    for row in &rows {
        *bytes += row.text(9)?.map_or(0, str::len);
    }
    Ok(query.page(rows.iter().map(entry).collect::<Result<_, _>>()?))
}

fn entry(row: &impl Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        id: row.get(0)?,
        at: row.get(1)?,
        org_id: row.get(2)?,
        request_id: row.get(3)?,
        actor: row.get(4)?,
        verb: row.get(5)?,
        device_id: row.maybe(6)?,
        outcome: row.get(7)?,
        reason: row.maybe(8)?,
        details: serde_json::from_str(row.text(9)?.unwrap_or_default())
            .map_err(|_| StoreError::Corrupt("audit entry"))?,
    })
}

/// How many times the organisation was switched off that are looked at.
const SWITCHED: i64 = 20;

/// The newest entries about these switches being switched off, while they are off.
pub(in super::super) async fn switched_off<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    off: Switches,
) -> Result<Vec<SwitchedOff>, StoreError> {
    let select = "SELECT at, actor, reason, CAST(details AS TEXT) FROM audit
         WHERE org_id = $1 AND verb = 'org/disable' ORDER BY seq DESC LIMIT $2";
    let mut found: Vec<_> = off.off().map(|switch| SwitchedOff { switch, at: None, by: None, reason: None }).collect();
    for row in tx.rows(select, values![org, SWITCHED]).await? {
        let details: serde_json::Value = serde_json::from_str(row.text(3)?.unwrap_or_default()).unwrap_or_default();
        let about = |one: &&mut SwitchedOff| one.at.is_none() && details["switch"] == one.switch.as_str();
        if let Some(one) = found.iter_mut().find(about) {
            (one.at, one.by, one.reason) = (Some(row.get(0)?), Some(row.get(1)?), row.maybe(2)?);
        }
    }
    Ok(found)
}

/// Writes the outcome of a call, in the transaction of its change.
pub(super) async fn record<T: Transaction>(tx: &mut T, call: &Call, record: Record) -> Result<(), StoreError> {
    let insert = format!(
        "INSERT INTO audit (at, org_id, request_id, actor, verb, device_id, outcome, reason, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {})",
        T::DIALECT.json("$9")
    );
    let values = values![
        call.at,
        record.org,
        call.request_id.as_str(),
        call.actor.to_string(),
        record.verb.as_str(),
        record.device,
        record.outcome,
        reason(call),
        serde_json::Value::Object(record.details).to_string(),
    ];
    tx.run(&insert, values).await.map(drop)
}

/// The call's reason as a column value.
pub(super) fn reason(call: &Call) -> Value {
    call.reason.as_ref().map(CallReason::as_str).into()
}
