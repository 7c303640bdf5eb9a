//! What the stops that are not written make of that which the store says. It only ever denies.

use std::collections::HashMap;

use jiff::Timestamp;
use machineid_protocol::DeviceId;

use super::stop::{StopScope, UnwrittenStop};
use crate::keys::KeyMark;
use crate::org::{HeldKey, Org, OrgId, Switch};
use crate::plan::Account;
use crate::store::WhichKey;

/// The stops of all organisations, indexed for look-ups.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    orgs: HashMap<OrgId, OrgOverlay>,
}

/// The stops of one organisation.
#[derive(Clone, Debug, Default)]
pub(crate) struct OrgOverlay {
    /// How many stops there are.
    pub(crate) stops: usize,
    /// How many devices they revoke of those that the store counts as active.
    counted: u64,
    devices: HashMap<DeviceId, UnwrittenRevoke>,
    /// The stops of all devices up to a number, or of all there are.
    all: Vec<(Option<i64>, UnwrittenRevoke)>,
    off: Vec<Switch>,
    frozen: bool,
    ended: Option<Timestamp>,
    /// The organisation's own keys are invalid, but for the one of this mark.
    own_keys: Option<KeyMark>,
    old_key: bool,
    keys: Vec<WhichKey>,
}

/// A revoke that is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnwrittenRevoke {
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<String>,
}

impl Overlay {
    /// The overlay of these stops, in their order.
    pub(crate) fn new<'a>(stops: impl Iterator<Item = &'a UnwrittenStop>) -> Self {
        let mut orgs: HashMap<OrgId, OrgOverlay> = HashMap::new();
        for stop in stops {
            orgs.entry(stop.org).or_default().add(stop);
        }
        Self { orgs }
    }

    /// The stops of this organisation, if there are any.
    pub(crate) fn of(&self, org: OrgId) -> Option<&OrgOverlay> {
        self.orgs.get(&org)
    }

    /// The organisation of an account whose devices are counted, as the stops leave it.
    pub(crate) fn org_of(&self, mut account: Account) -> Account {
        if let Some(stops) = self.of(account.org.id) {
            stops.on_org(&mut account.org);
        }
        account
    }

    /// The account of the store, as the stops leave it.
    pub(crate) fn account(&self, mut account: Account) -> Account {
        if let Some(stops) = self.of(account.org.id) {
            stops.on_org(&mut account.org);
            account.used = account.used.saturating_sub(stops.counted);
        }
        account
    }
}

impl OrgOverlay {
    fn add(&mut self, stop: &UnwrittenStop) {
        let call = &stop.call;
        let revoke =
            || UnwrittenRevoke { at: call.at, reason: call.reason.as_ref().map(|why| why.as_str().to_owned()) };
        self.stops += 1;
        self.counted = self.counted.saturating_add(stop.counted);
        match &stop.stop {
            // The first revoke of a device counts, as in the store.
            StopScope::Devices { ids, .. } => {
                for id in ids {
                    self.devices.entry(id.clone()).or_insert_with(revoke);
                }
            }
            StopScope::AllActive { newest } => self.all.push((*newest, revoke())),
            StopScope::Off(switch) => self.off.push(*switch),
            StopScope::Frozen => self.frozen = true,
            StopScope::Ended(end) => self.ended = Some(self.ended.map_or(*end, |before| before.min(*end))),
            StopScope::OwnKeys { new, .. } => self.own_keys = Some(new.mark()),
            StopScope::OldKey => self.old_key = true,
            StopScope::Keys(keys) => self.keys.extend_from_slice(keys),
        }
    }

    /// The revoke of this device, which has the number `seq` in the store, if there is one here.
    pub(crate) fn revoke_of(&self, device: &DeviceId, seq: i64) -> Option<&UnwrittenRevoke> {
        let existed = |(newest, _): &&(Option<i64>, UnwrittenRevoke)| newest.is_none_or(|newest| seq <= newest);
        self.devices.get(device).or_else(|| self.all.iter().find(existed).map(|(_, revoke)| revoke))
    }

    /// Whether this stop would add nothing.
    pub(crate) fn covers(&self, stop: &StopScope) -> bool {
        match stop {
            StopScope::Devices { ids, .. } => ids.iter().all(|id| self.devices.contains_key(id)),
            StopScope::AllActive { newest: Some(newest) } => {
                self.all.iter().any(|(known, _)| known.is_some_and(|known| known >= *newest))
            }
            StopScope::Off(switch) => self.off.contains(switch),
            StopScope::Frozen => self.frozen,
            StopScope::Ended(end) => self.ended.is_some_and(|before| before <= *end),
            // A stop of all without a bound is written with one of its time, which a later one exceeds; a second rotation makes
            // another key.
            StopScope::AllActive { newest: None } | StopScope::OwnKeys { .. } => false,
            StopScope::OldKey => self.old_key,
            StopScope::Keys(keys) => keys.iter().all(|key| self.keys.contains(key)),
        }
    }

    pub(crate) fn on_org(&self, org: &mut Org) {
        org.off.own |= self.off.contains(&Switch::Own);
        org.off.operator |= self.off.contains(&Switch::Operator);
        org.disabled |= !self.off.is_empty();
        org.frozen |= self.frozen;
        if let Some(end) = self.ended {
            org.access_until = Some(org.access_until.map_or(end, |until| until.min(end)));
        }
    }

    pub(crate) fn on_key(&self, mark: KeyMark, key: &mut HeldKey) {
        let named = |which: &WhichKey| match which {
            WhichKey::Mark(one) => *one == mark,
            WhichKey::Name(name) => key.name.as_ref() == Some(name),
        };
        key.revoked |= if key.own {
            self.own_keys.is_some_and(|new| new != mark) || (self.old_key && key.replaced)
        } else {
            self.keys.iter().any(named)
        };
    }
}
