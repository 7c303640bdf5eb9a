//! The rules of a plan: which devices get a place, and the plan fields of many answers.

use std::collections::HashMap;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;
use serde::Serialize;
use utoipa::ToSchema;

use super::batch::{Named, Outcome};
use super::org::{Org, PlanTier};

/// The result of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The device takes a place.
    New,
    /// The device already has a place.
    Exists,
    /// The device is revoked; registering does not restore it.
    Revoked,
    /// No place is free.
    Full,
    /// The organisation has too many revoked devices. None is ever forgotten for a new one: it could register again.
    TooManyRevoked,
}

/// The result of a revoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspension {
    Revoked,
    AlreadyRevoked,
    NotFound,
}

/// The result of an unrevoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restoration {
    /// The device takes a place again.
    Restored,
    /// The device was already active.
    AlreadyActive,
    NotFound,
    /// No place is free.
    Full,
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Removed,
    NotFound,
    /// The device is revoked, and only an active one was to be removed.
    Revoked,
}

/// Removes a device with status `held`; `only_active` keeps a revoked one, which could otherwise register again.
pub(super) fn remove(held: Option<DeviceStatus>, only_active: bool) -> Removal {
    match held {
        None => Removal::NotFound,
        Some(DeviceStatus::Revoked) if only_active => Removal::Revoked,
        Some(DeviceStatus::Active | DeviceStatus::Revoked) => Removal::Removed,
    }
}

/// How many revoked devices an organisation may have when it registers a new one, with `limit` places: without a bound,
/// registering and revoking by turns would fill the disk.
pub(super) fn most_revoked(limit: u64) -> u64 {
    limit.saturating_mul(4).saturating_add(1_000)
}

/// How many watchers an organisation may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchPlaces {
    /// Those that name devices. A sidecar has two for a moment, when it watches other devices than before.
    pub(super) sidecars: usize,
    /// Those that look at everything: consoles and command lines.
    pub(super) observers: usize,
    /// The ids that all of them name.
    pub(super) ids: usize,
}

/// The watchers of an organisation with `limit` places: each costs memory and a connection.
pub(super) fn watch_places(limit: u64) -> WatchPlaces {
    let of = |each: usize, any_plan: usize| {
        usize::try_from(limit).unwrap_or(usize::MAX).saturating_mul(each).saturating_add(any_plan)
    };
    WatchPlaces { sidecars: of(4, 64), observers: of(1, 64), ids: of(64, 8_192) }
}

/// Registers a device with status `held`, with `used` of `limit` places taken. `revoked` is the number of revoked devices,
/// or any number from [`most_revoked`] on when there are more.
pub(super) fn admit(held: Option<DeviceStatus>, used: u64, limit: u64, revoked: u64) -> Admission {
    match held {
        Some(DeviceStatus::Active) => Admission::Exists,
        Some(DeviceStatus::Revoked) => Admission::Revoked,
        None if revoked >= most_revoked(limit) => Admission::TooManyRevoked,
        None if used < limit => Admission::New,
        None => Admission::Full,
    }
}

/// Revokes a device with status `held`.
pub(super) fn suspend(held: Option<DeviceStatus>) -> Suspension {
    match held {
        Some(DeviceStatus::Active) => Suspension::Revoked,
        Some(DeviceStatus::Revoked) => Suspension::AlreadyRevoked,
        None => Suspension::NotFound,
    }
}

/// Unrevokes a device with status `held`, with `used` of `limit` places taken.
pub(super) fn restore(held: Option<DeviceStatus>, used: u64, limit: u64) -> Restoration {
    match held {
        Some(DeviceStatus::Active) => Restoration::AlreadyActive,
        Some(DeviceStatus::Revoked) if used < limit => Restoration::Restored,
        Some(DeviceStatus::Revoked) => Restoration::Full,
        None => Restoration::NotFound,
    }
}

/// Revokes a batch of which `known` are registered: the result for each entry, and the devices that change.
pub(super) fn suspend_batch(
    batch: &[Named],
    known: &HashMap<DeviceId, DeviceStatus>,
) -> (Vec<Outcome<Suspension>>, Vec<DeviceId>) {
    each(batch, |id| {
        let suspension = suspend(known.get(id).copied());
        (suspension, suspension == Suspension::Revoked)
    })
}

/// The devices of a batch that are revoked afterwards, including those that were revoked before: a revoke may be
/// repeated because a hint about the first one was lost.
pub(super) fn suspended(batch: &[Named], outcomes: &[Outcome<Suspension>]) -> Vec<DeviceId> {
    let revoked = |outcome: &Outcome<Suspension>| match outcome {
        Outcome::Did(Suspension::Revoked | Suspension::AlreadyRevoked) => true,
        Outcome::Did(Suspension::NotFound) | Outcome::Invalid => false,
    };
    let those = batch.iter().zip(outcomes).filter(|(_, outcome)| revoked(outcome));
    those.filter_map(|(named, _)| named.id.clone()).collect()
}

/// Unrevokes a batch in its order, with `used` of `limit` places taken: the result for each entry, and the devices that
/// change.
pub(super) fn restore_batch(
    batch: &[Named],
    known: &HashMap<DeviceId, DeviceStatus>,
    used: u64,
    limit: u64,
) -> (Vec<Outcome<Restoration>>, Vec<DeviceId>) {
    let mut used = used;
    each(batch, |id| {
        let restoration = restore(known.get(id).copied(), used, limit);
        let restored = restoration == Restoration::Restored;
        used += u64::from(restored);
        (restoration, restored)
    })
}

/// Applies `ask` to each id; its second value says whether the device changes.
fn each<T>(batch: &[Named], mut ask: impl FnMut(&DeviceId) -> (T, bool)) -> (Vec<Outcome<T>>, Vec<DeviceId>) {
    let mut changed = Vec::new();
    let mut one = |named: &Named| {
        let Some(id) = &named.id else { return Outcome::Invalid };
        let (did, other) = ask(id);
        changed.extend(other.then(|| id.clone()));
        Outcome::Did(did)
    };
    let outcomes = batch.iter().map(&mut one).collect();
    (outcomes, changed)
}

/// An organisation with its number of active devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) org: Org,
    /// Devices that are not revoked.
    pub(super) used: u64,
}

impl Account {
    /// How many more devices may be active.
    pub(super) fn places(&self) -> u64 {
        self.org.limit().saturating_sub(self.used)
    }

    /// The plan fields that go with many answers.
    pub(super) fn fields(&self, now: Timestamp) -> PlanFields {
        let limit = self.org.limit();
        PlanFields {
            plan_tier: self.org.tier,
            plan_state: self.plan_state(now),
            access_until: self.org.access_until,
            limit,
            devices_used: self.used,
            remaining: self.places(),
            over_limit: self.used > limit,
            soft_grace_window: None,
        }
    }

    fn plan_state(&self, now: Timestamp) -> PlanState {
        if self.org.frozen {
            PlanState::Frozen
        } else if self.org.expired(now) {
            PlanState::Expired
        } else {
            PlanState::Active
        }
    }
}

/// The plan and its usage, as part of many answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanFields {
    plan_tier: PlanTier,
    plan_state: PlanState,
    /// When the entitlement ends or ended; null when it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    access_until: Option<Timestamp>,
    /// How many devices may be active.
    limit: u64,
    /// How many are.
    devices_used: u64,
    /// How many more may be.
    remaining: u64,
    /// Whether the plan was made smaller than its fleet: that keeps its active devices and takes no new one.
    over_limit: bool,
    /// Always null: this authority has none.
    #[schema(value_type = Option<String>)]
    soft_grace_window: Option<()>,
}

/// Whether the plan lets anything execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PlanState {
    Active,
    Frozen,
    Expired,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::org::{OrgId, Switches};
    use super::*;

    fn held() -> impl Strategy<Value = Option<DeviceStatus>> {
        prop_oneof![Just(None), Just(Some(DeviceStatus::Active)), Just(Some(DeviceStatus::Revoked))]
    }

    proptest! {
        #[test]
        fn a_place_is_only_ever_given_while_one_is_left(
            held in held(), used in 0_u64..6, limit in 0_u64..6, revoked in 995_u64..1_030,
        ) {
            if admit(held, used, limit, revoked) == Admission::New {
                prop_assert!(used < limit && held.is_none() && revoked < 1_000 + 4 * limit);
            }
            if restore(held, used, limit) == Restoration::Restored {
                prop_assert!(used < limit && held == Some(DeviceStatus::Revoked));
            }
        }

        #[test]
        fn who_has_a_place_is_never_refused(used in 0_u64..6, limit in 0_u64..6, revoked in 0_u64..2_000) {
            prop_assert_eq!(admit(Some(DeviceStatus::Active), used, limit, revoked), Admission::Exists);
            prop_assert_eq!(restore(Some(DeviceStatus::Active), used, limit), Restoration::AlreadyActive);
        }

        #[test]
        fn registering_never_restores(used in 0_u64..6, limit in 0_u64..6, revoked in 0_u64..2_000) {
            prop_assert_eq!(admit(Some(DeviceStatus::Revoked), used, limit, revoked), Admission::Revoked);
        }
    }

    #[test]
    fn an_organisation_watches_in_proportion_to_its_plan() {
        assert_eq!(watch_places(3), WatchPlaces { sidecars: 76, observers: 67, ids: 8_384 });
        assert_eq!(watch_places(1_000).sidecars, 4_064);
        assert_eq!(watch_places(u64::MAX).ids, usize::MAX);
    }

    #[test]
    fn the_fields_of_a_plan_that_shrank_below_its_fleet() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let org = Org {
            id: OrgId::random(),
            name: None,
            tier: PlanTier::Free,
            device_limit: None,
            disabled: true,
            off: Switches::default(),
            frozen: false,
            access_until: Some(now),
            created_at: now,
            deleted: false,
            old_key_ends: None,
            restore_needs: 1,
        };
        let fields = Account { org, used: 5 }.fields(now);
        assert_eq!(
            serde_json::to_value(fields).unwrap(),
            json!({
                "planTier": "free", "planState": "expired", "accessUntil": "2027-01-15T08:00:00Z", "limit": 3,
                "devicesUsed": 5, "remaining": 0, "overLimit": true, "softGraceWindow": null,
            })
        );
    }
}
