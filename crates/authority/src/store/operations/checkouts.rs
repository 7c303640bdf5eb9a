//! Checkouts: plan changes that wait for confirmation.

use jiff::Timestamp;

use super::super::columns::Row;
use super::super::rows::{ORG_COLUMNS, org, org_columns};
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::values;
use super::super::{Checkout, CheckoutKey, NewCheckout, OrgChange, StoreError};
use super::audit::record;
use super::orgs::{apply, locked_account};
use crate::audit::{Call, Verb};
use crate::changes::Change;
use crate::keys::SecretHash;
use crate::org::OrgId;
use crate::plan::Account;

/// Selects a checkout with its organisation.
macro_rules! select {
    ($conditions:literal) => {
        concat!(
            "SELECT ",
            org_columns!(),
            ", checkouts.number, checkouts.plan, checkouts.expires_at, checkouts.used_at
             FROM checkouts JOIN orgs ON orgs.id = checkouts.org_id WHERE ",
            $conditions
        )
    };
}

fn checkout(row: &impl Row) -> Result<Checkout, StoreError> {
    Ok(Checkout {
        org: org(row)?,
        number: row.get(ORG_COLUMNS)?,
        wanted: row.get(ORG_COLUMNS + 1)?,
        expires_at: row.get(ORG_COLUMNS + 2)?,
        used: row.integer(ORG_COLUMNS + 3)?.is_some(),
    })
}

pub(in super::super) async fn create<T: Transaction>(
    tx: &mut T,
    id: OrgId,
    new: &NewCheckout,
    call: &Call,
) -> Result<Option<Account>, StoreError> {
    let Some(account) = locked_account(tx, id).await? else { return Ok(None) };
    tx.run("DELETE FROM checkouts WHERE expires_at <= $1", values![call.at]).await?;
    tx.grow()?;
    tx.run(
        "INSERT INTO checkouts (token_hash, number, org_id, plan, expires_at) VALUES ($1, $2, $3, $4, $5)",
        values![&new.token, new.number.as_str(), id, new.wanted, new.expires_at],
    )
    .await?;
    record(tx, call, new.record(id)).await?;
    Ok(Some(account))
}

pub(in super::super) async fn find<T: ReadTransaction>(
    tx: &mut T,
    key: &CheckoutKey,
) -> Result<Option<Checkout>, StoreError> {
    let (select, values) = match key {
        CheckoutKey::Address(hash) => (select!("checkouts.token_hash = $1"), values![hash]),
        CheckoutKey::Link(hash) => (select!("checkouts.confirm_hash = $1"), values![hash]),
        CheckoutKey::Number(number) => (select!("checkouts.number = $1"), values![number.as_str()]),
    };
    tx.row(select, values).await?.as_ref().map(checkout).transpose()
}

pub(in super::super) async fn open<T: ReadTransaction>(
    tx: &mut T,
    now: Timestamp,
) -> Result<Vec<Checkout>, StoreError> {
    let select = select!(
        "checkouts.used_at IS NULL AND checkouts.expires_at > $1 AND orgs.deleted_at IS NULL
         ORDER BY checkouts.expires_at, checkouts.number"
    );
    tx.rows(select, values![now]).await?.iter().map(checkout).collect()
}

pub(in super::super) async fn link<T: Transaction>(
    tx: &mut T,
    number: &str,
    confirm: SecretHash,
    call: &Call,
) -> Result<Option<Checkout>, StoreError> {
    let Some(found) = locked(tx, &CheckoutKey::Number(number.to_owned()), call).await? else { return Ok(None) };
    let update = "UPDATE checkouts SET confirm_hash = $2 WHERE number = $1";
    tx.run(update, values![found.number.as_str(), &confirm]).await?;
    record(tx, call, found.record(Verb::LinkCheckout)).await?;
    Ok(Some(found))
}

pub(in super::super) async fn confirm<T: Transaction>(
    tx: &mut T,
    key: &CheckoutKey,
    call: &Call,
) -> Result<Option<Checkout>, StoreError> {
    let Some(found) = locked(tx, key, call).await? else { return Ok(None) };
    let update = "UPDATE checkouts SET used_at = $2 WHERE number = $1";
    tx.run(update, values![found.number.as_str(), call.at]).await?;
    apply(tx, found.org.id, &OrgChange::Plan(found.wanted, None), call).await?;
    record(tx, call, found.record(Verb::ConfirmCheckout)).await?;
    tx.tell(Change::Org(found.org.id));
    Ok(Some(found))
}

/// Finds an open checkout and locks its organisation until the transaction ends.
async fn locked<T: Transaction>(tx: &mut T, key: &CheckoutKey, call: &Call) -> Result<Option<Checkout>, StoreError> {
    let Some(found) = find(tx, key).await? else { return Ok(None) };
    locked_account(tx, found.org.id).await?;
    // Read again: another server may have confirmed it while this one waited for the lock.
    Ok(find(tx, key).await?.filter(|found| found.open(call.at)))
}
