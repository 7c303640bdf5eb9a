//! Writes stops that could not be written when they were ordered.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;
use serde_json::Value as Json;

use super::super::StoreError;
use super::super::columns::Row;
use super::super::transaction::{ReadTransaction, Transaction};
use super::super::values::values;
use super::super::{Filter, OrgChange};
use super::devices::Existing;
use super::orgs::locked_account;
use super::{devices, keys, list, orgs};
use crate::audit::{RESTORED, Verb};
use crate::batch::Named;
use crate::org::{OrgId, Switch, Switches};
use crate::unwritten::{StopScope, UnwrittenStop};

/// How far the clocks of two servers may be apart, or one clock set back. A stop of all for which the database could not
/// say which devices exist goes by their times of registration, and rather stops one too many.
const CLOCKS: SignedDuration = SignedDuration::from_mins(1);

/// What was given back after a stop was ordered, as the audit says: another server of the same database may have taken
/// changes while the one that holds the stop did not.
#[derive(Debug, Default, PartialEq, Eq)]
struct GivenBack {
    devices: HashSet<String>,
    switches: Switches,
    plan: bool,
    entitlement: bool,
    own_key: bool,
}

impl GivenBack {
    /// Only what really gave something back counts: a restore of what was not stopped there is an entry too.
    fn note(&mut self, verb: &str, device: Option<String>, outcome: &str, details: &Json) {
        let switch = |switch: Switch| details["switch"] == switch.as_str();
        if verb == Verb::Unrevoke.as_str() {
            self.devices.extend(device.filter(|_| outcome == RESTORED));
        } else if verb == Verb::UnrevokeBatch.as_str() {
            // A restore of everything names nothing. It restored what was revoked in the database: not what this stop is
            // about, which is not there yet.
            let ids = details["deviceIds"].as_array().into_iter().flatten();
            self.devices.extend(ids.filter_map(Json::as_str).map(str::to_owned));
        } else if verb == Verb::EnableOrg.as_str() && details["changed"] == true {
            self.switches.own |= switch(Switch::Own);
            self.switches.operator |= !switch(Switch::Own);
        } else if verb == Verb::UnfreezeOrg.as_str() && details["changed"] == true {
            self.plan = true;
        } else if verb == Verb::ExpireOrg.as_str() || verb == Verb::SetPlan.as_str() {
            self.entitlement = true;
        } else if verb == Verb::RotateKey.as_str() {
            // A rotation of a key with a role names the role.
            self.own_key |= details["role"].is_null();
        }
    }

    /// Whether this change of the organisation was taken back, or another one has taken its place.
    fn has(&self, change: &OrgChange) -> bool {
        match change {
            OrgChange::Disabled(Switch::Own, _) => self.switches.own,
            OrgChange::Disabled(Switch::Operator, _) => self.switches.operator,
            OrgChange::Frozen(_) => self.plan,
            OrgChange::AccessUntil(_) => self.entitlement,
            OrgChange::Key(..) => self.own_key,
            OrgChange::EndOldKey | OrgChange::Plan(..) | OrgChange::RestoreNeeds(_) | OrgChange::Delete => false,
        }
    }
}

/// Writes a stop with the time of its order, and its record in the audit. What was given back after that time stays given
/// back. Does nothing when the organisation is gone.
pub(in super::super) async fn write<T: Transaction>(tx: &mut T, late: &UnwrittenStop) -> Result<(), StoreError> {
    let UnwrittenStop { org, stop, call, counted: _ } = late;
    // First: nothing may be given back between the look at the audit and the change.
    if locked_account(tx, *org).await?.is_none() {
        return Ok(());
    }
    let since = given_back(tx, *org, call.at).await?;
    match stop {
        StopScope::Devices { ids, batch } => {
            let verb = if *batch { Verb::RevokeBatch } else { Verb::Revoke };
            revoke(tx, late, ids.iter().cloned(), &since, verb).await
        }
        StopScope::AllActive { newest } => {
            let existing = existing(*newest, call.at);
            if since.devices.is_empty() {
                return devices::revoke_all(tx, *org, existing, call).await.map(drop);
            }
            let active = Filter { status: Some(DeviceStatus::Active), ..Filter::default() };
            let active = list::page(tx, *org, &active).await?.devices.into_iter();
            let existed = active.filter(|one| one.seq <= existing.seq && one.created_at <= existing.created_at);
            let ids = existed.filter_map(|device| device.id.parse().ok());
            revoke(tx, late, ids, &since, Verb::RevokeBatch).await
        }
        StopScope::Keys(which) => {
            for one in which {
                // A key that is gone or invalid needs no revoke.
                let _ = keys::revoke(tx, *org, one, call).await?;
            }
            Ok(())
        }
        StopScope::Off(_) | StopScope::Frozen | StopScope::Ended(_) | StopScope::OwnKeys { .. } | StopScope::OldKey => {
            let Some(change) = stop.change() else { return Ok(()) };
            if !since.has(&change) {
                return orgs::change(tx, *org, &change, call).await.map(drop);
            }
            if let OrgChange::Key(..) = change {
                // Another key has taken the place already; the one that was to end must not outlive it.
                orgs::change(tx, *org, &OrgChange::EndOldKey, call).await?;
            }
            Ok(())
        }
    }
}

/// The devices that a stop of all at `at` is about.
fn existing(newest: Option<i64>, at: Timestamp) -> Existing {
    match newest {
        Some(seq) => Existing { seq, ..Existing::ALL },
        None => Existing { created_at: at.saturating_add(CLOCKS).unwrap_or(Timestamp::MAX), ..Existing::ALL },
    }
}

async fn revoke<T: Transaction>(
    tx: &mut T,
    late: &UnwrittenStop,
    ids: impl Iterator<Item = DeviceId>,
    since: &GivenBack,
    verb: Verb,
) -> Result<(), StoreError> {
    let left = ids.filter(|id| !since.devices.contains(id.as_str()));
    let left: Vec<Named> = left.map(|id| Named { sent: id.to_string(), id: Some(id) }).collect();
    if left.is_empty() {
        return Ok(());
    }
    devices::revoke(tx, late.org, &left, verb, &late.call).await.map(drop)
}

async fn given_back<T: ReadTransaction>(tx: &mut T, org: OrgId, after: Timestamp) -> Result<GivenBack, StoreError> {
    let select =
        "SELECT verb, device_id, outcome, CAST(details AS TEXT) FROM audit WHERE org_id = $1 AND at > $2 AND verb IN
         ('devices/unrevoke', 'devices/unrevoke_batch', 'org/enable', 'org/unfreeze', 'org/expire', 'org/set-plan',
          'org/rotate-key') ORDER BY seq";
    let mut found = GivenBack::default();
    for row in tx.rows(select, values![org, after]).await? {
        let verb: String = row.get(0)?;
        let outcome: String = row.get(2)?;
        let details = serde_json::from_str(row.text(3)?.unwrap_or_default()).unwrap_or_default();
        found.note(&verb, row.maybe(1)?, &outcome, &details);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_audit_says_was_given_back_is_not_stopped_again() {
        let mut found = GivenBack::default();
        found.note("devices/unrevoke", Some("a".to_owned()), "unrevoked", &json!({}));
        found.note("devices/unrevoke", Some("d".to_owned()), "already_active", &json!({}));
        found.note("devices/unrevoke_batch", None, "ok", &json!({"deviceIds": ["b", "c"]}));
        found.note("devices/unrevoke_batch", None, "ok", &json!({"scope": "all_revoked", "unrevoked": 9}));
        found.note("org/enable", None, "ok", &json!({"switch": "own", "changed": true}));
        found.note("org/enable", None, "ok", &json!({"switch": "operator", "changed": false}));
        found.note("org/rotate-key", None, "ok", &json!({"role": "host"}));
        assert_eq!(found.devices, ["a", "b", "c"].map(str::to_owned).into());
        assert!(found.has(&OrgChange::Disabled(Switch::Own, true)));
        assert!(!found.has(&OrgChange::Disabled(Switch::Operator, true)) && !found.has(&OrgChange::Frozen(true)));
        assert!(!found.own_key, "that was a key with a role");
        found.note("org/rotate-key", None, "ok", &json!({"oldKeyEnds": null}));
        assert!(found.own_key);
    }
}
