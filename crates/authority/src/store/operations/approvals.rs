//! Restores that wait for a second key: asking for one, confirming it, rejecting it.

use jiff::Timestamp;
use uuid::Uuid;

use super::super::approvals::Gated;
use super::super::columns::{KEY_COLUMNS, Row, key_columns, role_key};
use super::super::keys::NewRoleKey;
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::{Value, values};
use super::super::{OrgChange, StoreError};
use super::audit::record;
use super::orgs::{live_account, locked_account};
use super::{devices, keys, orgs, removal};
use crate::approvals::{
    self, Action, Approval, ApprovalRefusal, ApprovalState, Asker, Confirming, MOST_WAITING, StopCounts, StoppedDevice,
    WAITS,
};
use crate::audit::{Actor, Call, Record, Verb};
use crate::batch::Named;
use crate::keys::{KeyMark, SecretHash};
use crate::org::{HeldKey, OrgId, Switch};
use crate::plan::Account;

/// How long a decided request is listed.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 30);

/// The most requests in a list.
const LISTED: i64 = 200;

const COLUMNS: &str = "id, action, any_stops, all_stops, asked_at, expires_at, asked_by, key_mark, key_own, reason, state, \
                       decided_at, decided_by";

/// A key of an organisation, as one that asks or confirms.
struct KnownKey {
    held: HeldKey,
    created_at: Option<Timestamp>,
}

/// The mark of the key in whose name a call is made; `None` for the operator of the server.
fn mark_of(call: &Call) -> Option<KeyMark> {
    match &call.actor {
        Actor::Key(label) | Actor::ConsoleKey(label) => Some(label.mark()),
        Actor::Uid(_) | Actor::Address(_) | Actor::ConsoleUid(_) | Actor::Server => None,
    }
}

/// Whether what this call would restore has to wait.
pub(super) fn waits(account: &Account, call: &Call) -> bool {
    account.org.restore_needs >= 2 && mark_of(call).is_some()
}

/// Makes a request in the place of doing it, when it has to wait. One that waits already is not made again.
pub(super) async fn held_back<T: Transaction, D>(
    tx: &mut T,
    account: &Account,
    action: Action,
    call: &Call,
) -> Result<Option<Gated<D>>, StoreError> {
    let (true, Some(mark)) = (waits(account, call), mark_of(call)) else { return Ok(None) };
    let org = account.org.id;
    let Some(key) = known_key(tx, org, mark).await? else {
        return Ok(Some(Gated::Refused(ApprovalRefusal::NotPermitted)));
    };
    if key.held.replaced {
        return Ok(Some(Gated::Refused(ApprovalRefusal::OldKey)));
    }
    let before = call.at.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    tx.run("DELETE FROM approvals WHERE org_id = $1 AND expires_at < $2", values![org, before]).await?;
    let waiting = waiting(tx, org, call.at).await?;
    let counts = stop_counts(tx, org).await?;
    let same = waiting.iter().find(|one| one.asker.mark == mark && one.action == action && one.counts == counts);
    if let Some(same) = same {
        return Ok(Some(Gated::Waits(Box::new(same.clone()))));
    }
    if waiting.len() as u64 >= MOST_WAITING {
        return Ok(Some(Gated::Refused(ApprovalRefusal::TooMany)));
    }
    let approval = Approval {
        id: Uuid::new_v4().simple().to_string().chars().take(10).collect(),
        counts,
        asked_at: call.at,
        expires_at: call.at.saturating_add(WAITS).unwrap_or(Timestamp::MAX),
        asked_by: call.actor.to_string(),
        asker: Asker { mark, own: key.held.own },
        reason: call.reason.as_ref().map(|reason| reason.as_str().to_owned()),
        state: ApprovalState::Waiting,
        decided_at: None,
        decided_by: None,
        action,
    };
    insert(tx, org, &approval).await?;
    let mut asked = told(org, Verb::AskApproval, &approval);
    asked.outcome = "waiting";
    record(tx, call, asked).await?;
    Ok(Some(Gated::Waits(Box::new(approval))))
}

async fn insert<T: Transaction>(tx: &mut T, org: OrgId, approval: &Approval) -> Result<(), StoreError> {
    let action = serde_json::to_string(&approval.action).map_err(|_| StoreError::Corrupt("request"))?;
    tx.run(
        "INSERT INTO approvals (org_id, id, action, any_stops, all_stops, asked_at, expires_at, asked_by, key_mark,
             key_own, reason, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        values![
            org,
            approval.id.as_str(),
            action,
            approval.counts.any,
            approval.counts.all,
            approval.asked_at,
            approval.expires_at,
            approval.asked_by.as_str(),
            approval.asker.mark,
            approval.asker.own,
            approval.reason.clone(),
            approval.state.as_str(),
        ],
    )
    .await
    .map(drop)
}

/// The audit record about a request.
fn told(org: OrgId, verb: Verb, approval: &Approval) -> Record {
    let ids: Vec<_> = approval.action.devices().into_iter().map(ToString::to_string).collect();
    let record = match ids.as_slice() {
        [one] => Record::ok(org, verb).about(one),
        [..] => Record::ok(org, verb).with("deviceIds", ids),
    };
    let record = record.with("approval", approval.id.as_str()).with("asks", approval.action.words());
    record.with("askedBy", approval.asked_by.as_str())
}

fn read(row: &impl Row) -> Result<Approval, StoreError> {
    let unusable = || StoreError::Corrupt("request for a restore");
    let action: String = row.get(1)?;
    let state: String = row.get(10)?;
    Ok(Approval {
        id: row.get(0)?,
        action: serde_json::from_str(&action).map_err(|_| unusable())?,
        counts: StopCounts { any: row.get(2)?, all: row.get(3)? },
        asked_at: row.get(4)?,
        expires_at: row.get(5)?,
        asked_by: row.get(6)?,
        asker: Asker { mark: row.get(7)?, own: row.get(8)? },
        reason: row.maybe(9)?,
        state: ApprovalState::read(&state).ok_or_else(unusable)?,
        decided_at: row.maybe(11)?,
        decided_by: row.maybe(12)?,
    })
}

async fn waiting<T: ReadTransaction>(tx: &mut T, org: OrgId, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
    let select = format!(
        "SELECT {COLUMNS} FROM approvals WHERE org_id = $1 AND state = 'waiting' AND expires_at > $2 ORDER BY asked_at"
    );
    tx.rows(&select, values![org, now]).await?.iter().map(read).collect()
}

/// The requests of the organisation, the newest first; `None` when it was deleted.
pub(in super::super) async fn list<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    now: Timestamp,
) -> Result<Option<Vec<Approval>>, StoreError> {
    if live_account(tx, org).await?.is_none() {
        return Ok(None);
    }
    let select = format!(
        "SELECT {COLUMNS} FROM approvals WHERE org_id = $1 ORDER BY state = 'waiting' DESC, asked_at DESC, id LIMIT $2"
    );
    let mut all: Vec<Approval> =
        tx.rows(&select, values![org, LISTED]).await?.iter().map(read).collect::<Result<_, _>>()?;
    let counts = stop_counts(tx, org).await?;
    for one in all.iter_mut().filter(|one| one.state == ApprovalState::Waiting) {
        let asker = known_key(tx, org, one.asker.mark).await?.map(|key| key.held);
        let same = are_same(tx, org, &one.action).await?;
        let overtaken = one.action.was_overtaken(one.counts, counts, same);
        one.state = approvals::standing(one, asker.as_ref(), overtaken, now);
    }
    // Those that wait first, each group as it was.
    all.sort_by_key(|one| one.state != ApprovalState::Waiting);
    Ok(Some(all))
}

/// How many requests of all organisations wait.
pub(in super::super) async fn count_waiting<T: ReadTransaction>(tx: &mut T, now: Timestamp) -> Result<u64, StoreError> {
    let count = "SELECT COUNT(*) FROM approvals WHERE state = 'waiting' AND expires_at > $1";
    tx.row(count, values![now]).await?.map_or(Ok(0), |row| row.get(0))
}

async fn one<T: ReadTransaction>(tx: &mut T, org: OrgId, id: &str) -> Result<Option<Approval>, StoreError> {
    let select = format!("SELECT {COLUMNS} FROM approvals WHERE org_id = $1 AND id = $2");
    tx.row(&select, values![org, id]).await?.as_ref().map(read).transpose()
}

async fn decide<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    approval: &mut Approval,
    state: ApprovalState,
    call: &Call,
) -> Result<(), StoreError> {
    (approval.state, approval.decided_at) = (state, Some(call.at));
    approval.decided_by = Some(call.actor.to_string());
    let update = "UPDATE approvals SET state = $3, decided_at = $4, decided_by = $5 WHERE org_id = $1 AND id = $2";
    let values = values![org, approval.id.as_str(), state.as_str(), call.at, call.actor.to_string()];
    tx.run(update, values).await.map(drop)
}

/// Confirms a request and does what it asks for, in the name of the key that confirms. `None` when the organisation is gone.
pub(in super::super) async fn approve<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    id: &str,
    call: &Call,
) -> Result<Option<Gated<Approval>>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(None) };
    let Some(mut approval) = one(tx, org, id).await? else {
        return Ok(Some(Gated::Refused(ApprovalRefusal::Unknown)));
    };
    let by = match mark_of(call) {
        Some(mark) => known_key(tx, org, mark).await?.map(|key| (mark, key)),
        None => None,
    };
    let Some((mark, by)) = by else { return Ok(Some(Gated::Refused(ApprovalRefusal::NotPermitted))) };
    let asker = known_key(tx, org, approval.asker.mark).await?;
    let counts = stop_counts(tx, org).await?;
    let same = are_same(tx, org, &approval.action).await?;
    let overtaken = approval.action.was_overtaken(approval.counts, counts, same);
    let confirming = Confirming { mark, held: &by.held, created_at: by.created_at };
    let asker = asker.as_ref().map(|key| &key.held);
    if let Err(refusal) = approvals::confirm(&approval, &confirming, asker, overtaken, call.at) {
        if refusal.voids() {
            decide(tx, org, &mut approval, ApprovalState::Void, call).await?;
            let mut void = told(org, Verb::Approve, &approval);
            void.outcome = refusal.as_str();
            record(tx, call, void).await?;
        }
        return Ok(Some(Gated::Refused(refusal)));
    }
    if let Err(refusal) = perform(tx, account, &approval.action, call).await? {
        decide(tx, org, &mut approval, ApprovalState::Void, call).await?;
        let mut void = told(org, Verb::Approve, &approval);
        void.outcome = refusal.as_str();
        record(tx, call, void).await?;
        return Ok(Some(Gated::Key(refusal)));
    }
    record(tx, call, told(org, Verb::Approve, &approval)).await?;
    decide(tx, org, &mut approval, ApprovalState::Approved, call).await?;
    Ok(Some(Gated::Done(approval)))
}

/// Does what the request asks for.
async fn perform<T: Transaction>(
    tx: &mut T,
    account: Account,
    action: &Action,
    call: &Call,
) -> Result<super::super::keys::KeyChange<()>, StoreError> {
    let org = account.org.id;
    match action {
        Action::Unrevoke { devices } => {
            let batch: Vec<_> = devices.iter().map(|one| named(&one.id)).collect();
            let verb = if batch.len() == 1 { Verb::Unrevoke } else { Verb::UnrevokeBatch };
            devices::restore(tx, account, &batch, verb, call).await.map(drop)?;
        }
        Action::UnrevokeAll => devices::restore_all(tx, account, call).await.map(drop)?,
        Action::Remove { device } => removal::take_away(tx, account, &device.id, false, call).await.map(drop)?,
        Action::Enable => orgs::perform(tx, org, &OrgChange::Disabled(Switch::Own, false), call).await?,
        Action::CreateKey { hash, role, devices, name, ends } => {
            let hash = SecretHash::from_hex(hash).ok_or(StoreError::Corrupt("key hash"))?;
            let new = NewRoleKey { hash, role: *role, devices: devices.clone(), name: name.clone(), ends: *ends };
            return keys::add(tx, org, &new, call).await;
        }
    }
    Ok(Ok(()))
}

fn named(id: &machineid_protocol::DeviceId) -> Named {
    Named { sent: id.to_string(), id: Some(id.clone()) }
}

/// Ends a request without doing what it asks for. `None` when the organisation is gone.
pub(in super::super) async fn reject<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    id: &str,
    call: &Call,
) -> Result<Option<Gated<Approval>>, StoreError> {
    if locked_account(tx, org).await?.is_none() {
        return Ok(None);
    }
    let Some(mut approval) = one(tx, org, id).await? else {
        return Ok(Some(Gated::Refused(ApprovalRefusal::Unknown)));
    };
    if approval.state != ApprovalState::Waiting {
        return Ok(Some(Gated::Refused(ApprovalRefusal::Decided)));
    }
    decide(tx, org, &mut approval, ApprovalState::Rejected, call).await?;
    record(tx, call, told(org, Verb::RejectApproval, &approval)).await?;
    Ok(Some(Gated::Done(approval)))
}

/// Makes every request that waits void: restores need one key from now on.
pub(super) async fn void_all<T: Transaction>(tx: &mut T, org: OrgId, call: &Call) -> Result<(), StoreError> {
    let update = "UPDATE approvals SET state = 'void', decided_at = $2, decided_by = $3
         WHERE org_id = $1 AND state = 'waiting'";
    tx.run(update, values![org, call.at, call.actor.to_string()]).await.map(drop)
}

/// The stopped devices among these, as they are now.
pub(super) async fn stopped<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    ids: &[machineid_protocol::DeviceId],
) -> Result<Vec<StoppedDevice>, StoreError> {
    let select = format!(
        "SELECT device_id, seq, stops FROM devices WHERE org_id = $1 AND revoked_at IS NOT NULL AND device_id {}
         ORDER BY device_id",
        T::DIALECT.among("$2")
    );
    let rows = tx.rows(&select, values![org, ids]).await?;
    rows.iter().map(|row| Ok(StoppedDevice { id: row.get(0)?, seq: row.get(1)?, stops: row.get(2)? })).collect()
}

/// Whether each device of the request is as it was.
async fn are_same<T: ReadTransaction>(tx: &mut T, org: OrgId, action: &Action) -> Result<bool, StoreError> {
    let then: Vec<StoppedDevice> = match action {
        Action::Unrevoke { devices } => devices.clone(),
        Action::Remove { device } => vec![device.clone()],
        Action::UnrevokeAll | Action::Enable | Action::CreateKey { .. } => return Ok(true),
    };
    let ids: Vec<_> = then.iter().map(|device| device.id.clone()).collect();
    let now = stopped(tx, org, &ids).await?;
    Ok(then.iter().all(|device| now.contains(device)))
}

async fn stop_counts<T: ReadTransaction>(tx: &mut T, org: OrgId) -> Result<StopCounts, StoreError> {
    let row = tx.row("SELECT stops_of_any, stops_of_all FROM orgs WHERE id = $1", values![org]).await?;
    let row = row.ok_or(StoreError::Corrupt("organisation"))?;
    Ok(StopCounts { any: row.get(0)?, all: row.get(1)? })
}

/// Counts a stop of these devices, or of all, so that requests made before it are void.
pub(super) async fn count_stop<T: Transaction>(
    tx: &mut T,
    account: &Account,
    devices: Option<&[machineid_protocol::DeviceId]>,
) -> Result<(), StoreError> {
    if account.org.restore_needs < 2 {
        return Ok(());
    }
    let org = account.org.id;
    if let Some(devices) = devices {
        let update =
            format!("UPDATE devices SET stops = stops + 1 WHERE org_id = $1 AND device_id {}", T::DIALECT.among("$2"));
        tx.run(&update, values![org, devices]).await?;
    }
    let all = i64::from(devices.is_none());
    let update = "UPDATE orgs SET stops_of_any = stops_of_any + 1, stops_of_all = stops_of_all + $2 WHERE id = $1";
    tx.run(update, values![org, all]).await.map(drop)
}

/// The key of this mark, valid or not.
async fn known_key<T: ReadTransaction>(tx: &mut T, org: OrgId, mark: KeyMark) -> Result<Option<KnownKey>, StoreError> {
    let own = "SELECT substr(key_hash, 1, 6) = $2, old_key_ends FROM orgs
         WHERE id = $1 AND (substr(key_hash, 1, 6) = $2 OR substr(old_key_hash, 1, 6) = $2)";
    if let Some(row) = tx.row(own, values![org, mark]).await? {
        let held = match (row.get::<bool>(0)?, row.maybe(1)?) {
            (true, _) => HeldKey::own(),
            (false, ends) => HeldKey::own_old(ends.unwrap_or(Timestamp::MIN)),
        };
        return Ok(Some(KnownKey { held, created_at: None }));
    }
    let select = concat!(
        "SELECT ",
        key_columns!(),
        ", created_at FROM org_keys WHERE org_id = $1 AND substr(key_hash, 1, 6) = $2"
    );
    let row = tx.row(select, vec![Value::from(org), Value::from(mark)]).await?;
    row.map(|row| Ok(KnownKey { held: role_key(&row, 0)?, created_at: Some(row.get(KEY_COLUMNS)?) })).transpose()
}

/// Whether the call may put another key in the place of this one, which may confirm restores or is the organisation's own: only
/// its holder, since else one key would be two.
pub(super) fn may_rotate(account: &Account, mark: KeyMark, call: &Call) -> bool {
    !waits(account, call) || mark_of(call) == Some(mark)
}
