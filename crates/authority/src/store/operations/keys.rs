//! Keys with roles: making, ending and replacing them. The organisation's own key is in its row (see `orgs`).

use jiff::Timestamp;

use super::super::StoreError;
use super::super::approvals::Gated;
use super::super::columns::{KEY_COLUMNS, Row, key_columns, role_key};
use super::super::keys::{KEPT_ENDED, KEPT_KEYS, KeyChange, KeyRefusal, KeyRow, NewRoleKey, RotatedKey, WhichKey};
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::{Value, values};
use super::approvals::{held_back, may_rotate, waits};
use super::audit::record;
use super::orgs::{live_account, locked_account};
use crate::approvals::{Action, may_confirm};
use crate::audit::{Call, Record, Verb};
use crate::changes::Change;
use crate::keys::{KeyMark, SecretHash};
use crate::org::{HeldKey, OrgId};

/// How many devices asked last with each key.
const DEVICES: &str = "(SELECT COUNT(*) FROM device_seen JOIN devices USING (seq)
     WHERE devices.org_id = $1 AND device_seen.key_mark = marked.mark)";

/// The organisation's keys, its own first and then the newest. `None` when it is gone.
pub(in super::super) async fn list<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
) -> Result<Option<Vec<KeyRow>>, StoreError> {
    let Some(account) = live_account(tx, org).await? else { return Ok(None) };
    let own = format!(
        "SELECT marked.mark, key_used.at, {DEVICES} FROM
         (SELECT substr(key_hash, 1, 6) AS mark, 1 AS place FROM orgs WHERE id = $1
          UNION ALL SELECT substr(old_key_hash, 1, 6), 2 FROM orgs WHERE id = $1 AND old_key_hash IS NOT NULL) AS marked
         LEFT JOIN key_used ON key_used.key_mark = marked.mark ORDER BY marked.place"
    );
    let ends = account.org.old_key_ends.unwrap_or(Timestamp::MIN);
    let mut rows = Vec::new();
    for (row, held) in tx.rows(&own, values![org]).await?.iter().zip([HeldKey::own(), HeldKey::own_old(ends)]) {
        let (mark, last_used_at, devices) = (row.get(0)?, row.maybe(1)?, row.get(2)?);
        rows.push(KeyRow { mark, held, created_at: None, last_used_at, devices });
    }
    let others = format!(
        concat!(
            "SELECT ",
            key_columns!(),
            ", marked.mark, org_keys.created_at, key_used.at, {} FROM org_keys
             JOIN (SELECT key_hash, substr(key_hash, 1, 6) AS mark FROM org_keys WHERE org_id = $1) AS marked
                 ON marked.key_hash = org_keys.key_hash
             LEFT JOIN key_used ON key_used.key_mark = marked.mark
             ORDER BY org_keys.created_at DESC, marked.mark"
        ),
        DEVICES
    );
    for row in tx.rows(&others, values![org]).await? {
        rows.push(KeyRow {
            held: role_key(&row, 0)?,
            mark: row.get(KEY_COLUMNS)?,
            created_at: row.maybe(KEY_COLUMNS + 1)?,
            last_used_at: row.maybe(KEY_COLUMNS + 2)?,
            devices: row.get(KEY_COLUMNS + 3)?,
        });
    }
    Ok(Some(rows))
}

/// Adds a key.
pub(in super::super) async fn create<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    new: &NewRoleKey,
    call: &Call,
) -> Result<Gated<KeyChange<()>>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(Gated::Done(Err(KeyRefusal::NoOrg))) };
    // Else one key's holder could make the second one that a restore needs.
    if may_confirm(new.role) && waits(&account, call) {
        let action = Action::CreateKey {
            hash: new.hash.to_hex(),
            role: new.role,
            devices: new.devices.clone(),
            name: new.name.clone(),
            ends: new.ends,
        };
        if let Some(held_back) = held_back(tx, &account, action, call).await? {
            return Ok(held_back);
        }
    }
    add(tx, org, new, call).await.map(Gated::Done)
}

/// Adds this key, which waits for nothing any more.
pub(super) async fn add<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    new: &NewRoleKey,
    call: &Call,
) -> Result<KeyChange<()>, StoreError> {
    if !has_room(tx, org, call.at).await? {
        return Ok(Err(KeyRefusal::Full));
    }
    if let Some(name) = &new.name
        && found(tx, org, &WhichKey::Name(name.clone())).await?.iter().any(|(_, held)| held.good(call.at))
    {
        return Ok(Err(KeyRefusal::Taken));
    }
    tx.grow()?;
    insert(tx, org, new, call.at).await?;
    record(tx, call, described(Record::ok(org, Verb::CreateKey), new.hash.mark(), &new.held())).await?;
    Ok(Ok(()))
}

/// Makes a key invalid, now. A name means every valid key of that name, also one that another has taken the place of: who
/// revokes a key must not have to know that it was rotated. One that is invalid already stays so.
pub(in super::super) async fn revoke<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    which: &WhichKey,
    call: &Call,
) -> Result<KeyChange<Vec<KeyMark>>, StoreError> {
    if locked_account(tx, org).await?.is_none() {
        return Ok(Err(KeyRefusal::NoOrg));
    }
    if is_own(tx, org, which).await? {
        return Ok(Err(KeyRefusal::Own));
    }
    let all = found(tx, org, which).await?;
    let valid: Vec<_> = all.iter().filter(|(_, held)| held.good(call.at)).collect();
    if valid.is_empty() {
        let ended: Vec<_> = all.into_iter().map(|(mark, _)| mark).collect();
        return Ok(if ended.is_empty() { Err(KeyRefusal::Unknown) } else { Ok(ended) });
    }
    for (mark, held) in &valid {
        let update = "UPDATE org_keys SET revoked = TRUE, ends = $3 WHERE org_id = $1 AND substr(key_hash, 1, 6) = $2";
        tx.run(update, values![org, *mark, call.at]).await?;
        record(tx, call, described(Record::ok(org, Verb::RevokeKey), *mark, held)).await?;
    }
    tx.tell(Change::Key(org));
    Ok(Ok(valid.into_iter().map(|(mark, _)| *mark).collect()))
}

/// Puts a new key in the place of one, which ends at `until`.
pub(in super::super) async fn rotate<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    which: &WhichKey,
    hash: SecretHash,
    (until, not_after): (Timestamp, Option<Timestamp>),
    call: &Call,
) -> Result<KeyChange<RotatedKey>, StoreError> {
    let Some(account) = locked_account(tx, org).await? else { return Ok(Err(KeyRefusal::NoOrg)) };
    let (mark, held) = match one(tx, org, which, call.at).await? {
        Ok(one) => one,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if held.replaced {
        return Ok(Err(KeyRefusal::Replaced));
    }
    if may_confirm(held.role) && !may_rotate(&account, mark, call) {
        return Ok(Err(KeyRefusal::OthersKey));
    }
    // The one before stays valid beside it for a while.
    if !has_room(tx, org, call.at).await? {
        return Ok(Err(KeyRefusal::Full));
    }
    // Never later than it would have ended.
    let until = held.ends.map_or(until, |ends| ends.min(until));
    let update = "UPDATE org_keys SET ends = $3, replaced = TRUE, revoked = $4
         WHERE org_id = $1 AND substr(key_hash, 1, 6) = $2";
    tx.run(update, values![org, mark, until, until <= call.at]).await?;
    let ends = [held.ends, not_after].into_iter().flatten().min();
    let new = NewRoleKey { hash, role: held.role, devices: held.devices.clone(), name: held.name.clone(), ends };
    insert(tx, org, &new, call.at).await?;
    let told = described(Record::ok(org, Verb::RotateKey), hash.mark(), &new.held());
    record(tx, call, told.with("oldKey", hex::encode(mark)).with("oldKeyEnds", until.to_string())).await?;
    tx.tell(Change::Key(org));
    Ok(Ok(RotatedKey { new, old_ends: until }))
}

/// The valid key that is meant. Of an old and a new key with one name, it is the new one.
async fn one<T: Transaction>(
    tx: &mut T,
    org: OrgId,
    which: &WhichKey,
    now: Timestamp,
) -> Result<KeyChange<(KeyMark, HeldKey)>, StoreError> {
    if is_own(tx, org, which).await? {
        return Ok(Err(KeyRefusal::Own));
    }
    let mut all = found(tx, org, which).await?;
    all.retain(|(_, held)| held.good(now));
    if all.len() > 1 {
        all.retain(|(_, held)| !held.replaced);
    }
    let first = all.pop();
    Ok(match (first, all.is_empty()) {
        (None, _) => Err(KeyRefusal::Unknown),
        (Some(_), false) => Err(KeyRefusal::Several),
        (Some(one), true) => Ok(one),
    })
}

/// Whether the organisation's own key is meant, or the one before it.
async fn is_own<T: ReadTransaction>(tx: &mut T, org: OrgId, which: &WhichKey) -> Result<bool, StoreError> {
    let WhichKey::Mark(mark) = which else { return Ok(false) };
    let own = "SELECT id FROM orgs WHERE id = $1 AND (substr(key_hash, 1, 6) = $2 OR substr(old_key_hash, 1, 6) = $2)";
    Ok(tx.row(own, values![org, *mark]).await?.is_some())
}

/// The keys that are meant, valid or not, the oldest first.
async fn found<T: ReadTransaction>(
    tx: &mut T,
    org: OrgId,
    which: &WhichKey,
) -> Result<Vec<(KeyMark, HeldKey)>, StoreError> {
    let (condition, value): (_, Value) = match which {
        WhichKey::Mark(mark) => ("substr(key_hash, 1, 6) = $2", (*mark).into()),
        WhichKey::Name(name) => ("name = $2", name.as_str().into()),
    };
    let select = format!(
        concat!(
            "SELECT ",
            key_columns!(),
            ", substr(key_hash, 1, 6) FROM org_keys WHERE org_id = $1 AND {} ORDER BY created_at"
        ),
        condition
    );
    let rows = tx.rows(&select, values![org, value]).await?;
    rows.iter().map(|row| Ok((row.get(KEY_COLUMNS)?, role_key(row, 0)?))).collect()
}

/// Whether there may be one more key. Forgets those that ended long ago.
async fn has_room<T: Transaction>(tx: &mut T, org: OrgId, now: Timestamp) -> Result<bool, StoreError> {
    let before = now.saturating_sub(KEPT_ENDED).unwrap_or(Timestamp::MIN);
    tx.run("DELETE FROM org_keys WHERE org_id = $1 AND ends < $2", values![org, before]).await?;
    let select = "SELECT COUNT(*) FROM org_keys WHERE org_id = $1 AND NOT revoked AND (ends IS NULL OR ends > $2)";
    let valid: u64 = tx.row(select, values![org, now]).await?.map_or(Ok(0), |row| row.get(0))?;
    Ok(valid < KEPT_KEYS)
}

async fn insert<T: Transaction>(tx: &mut T, org: OrgId, new: &NewRoleKey, now: Timestamp) -> Result<(), StoreError> {
    let insert = "INSERT INTO org_keys (key_hash, org_id, role, devices, name, created_at, ends)
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let devices = new.devices.as_ref().map(ToString::to_string);
    let name = new.name.as_ref().map(ToString::to_string);
    tx.run(insert, values![&new.hash, org, new.role.as_str(), devices, name, now, new.ends]).await.map(drop)
}

/// Records when keys were used, in microseconds since 1970; of each key at most once a minute, however many servers it is
/// used at.
pub(in super::super) async fn note_used<T: Transaction>(tx: &mut T, used: &[(KeyMark, i64)]) -> Result<(), StoreError> {
    let note = "INSERT INTO key_used (key_mark, at) VALUES ($1, $2)
         ON CONFLICT (key_mark) DO UPDATE SET at = excluded.at WHERE excluded.at >= key_used.at + 60000000";
    for (mark, at) in used {
        tx.run(note, values![*mark, *at]).await?;
    }
    Ok(())
}

/// A record about this key.
fn described(record: Record, mark: KeyMark, held: &HeldKey) -> Record {
    record
        .with("key", hex::encode(mark))
        .with("name", held.name.as_ref().map(ToString::to_string))
        .with("role", held.role.as_str())
        .with("devices", held.devices.as_ref().map(ToString::to_string))
        .with("ends", held.ends.map(|ends| ends.to_string()))
}
