//! The changes that an operator can make to an organisation.

use jiff::Timestamp;

use super::super::audit::{Record, Verb};
use super::super::changes::Change;
use super::super::keys::SecretHash;
use super::super::org::{Org, OrgId, PlanTier, Switch};

/// A change that an operator makes to an organisation.
#[derive(Clone, Debug)]
pub(crate) enum OrgChange {
    /// Execution is switched off or on, by one of the two switches.
    Disabled(Switch, bool),
    Frozen(bool),
    AccessUntil(Option<Timestamp>),
    /// Sets the plan, and a limit to use instead of the plan's own.
    Plan(PlanTier, Option<u64>),
    /// Sets a new key. The previous key stays valid until the given time, or ends at once without one. An even older
    /// key ends in any case: at most two keys are valid. With a third value, the change happens only if that is the
    /// current key.
    Key(SecretHash, Option<Timestamp>, Option<SecretHash>),
    /// Ends the previous key at once.
    EndOldKey,
    /// How many keys a restore needs: 1 or 2.
    RestoreNeeds(u8),
    /// Deletes the organisation's devices; the key stays known as that of a deleted organisation.
    Delete,
}

impl OrgChange {
    /// The news that watchers get about this change.
    pub(super) fn news(&self, org: OrgId) -> Change {
        match self {
            Self::Key(..) | Self::EndOldKey | Self::Delete => Change::Key(org),
            // An end in the future denies nothing yet; the hint is then only earlier than necessary.
            Self::Disabled(_, true) | Self::Frozen(true) | Self::AccessUntil(Some(_)) => Change::Denied(org, None),
            Self::Disabled(_, false)
            | Self::Frozen(false)
            | Self::AccessUntil(None)
            | Self::Plan(..)
            | Self::RestoreNeeds(_) => Change::Org(org),
        }
    }

    /// Whether it takes back a stop that is in force; `None` for a change that takes none back.
    pub(super) fn gives_back(&self, before: &Org) -> Option<bool> {
        match self {
            Self::Disabled(Switch::Own, false) => Some(before.off.own),
            Self::Disabled(Switch::Operator, false) => Some(before.off.operator),
            Self::Frozen(false) => Some(before.frozen),
            Self::Disabled(_, true)
            | Self::Frozen(true)
            | Self::AccessUntil(_)
            | Self::Plan(..)
            | Self::RestoreNeeds(_)
            | Self::Key(..)
            | Self::EndOldKey
            | Self::Delete => None,
        }
    }

    /// The audit record of this change.
    pub(super) fn record(&self, org: OrgId) -> Record {
        match self {
            Self::Disabled(switch, true) => Record::ok(org, Verb::DisableOrg).with("switch", switch.as_str()),
            Self::Disabled(switch, false) => Record::ok(org, Verb::EnableOrg).with("switch", switch.as_str()),
            Self::Frozen(true) => Record::ok(org, Verb::FreezeOrg),
            Self::Frozen(false) => Record::ok(org, Verb::UnfreezeOrg),
            Self::AccessUntil(end) => {
                Record::ok(org, Verb::ExpireOrg).with("accessUntil", end.map(|end| end.to_string()))
            }
            Self::Plan(tier, None) => Record::ok(org, Verb::SetPlan).with("plan", tier.as_str()),
            Self::Plan(tier, Some(limit)) => {
                Record::ok(org, Verb::SetPlan).with("plan", tier.as_str()).with("limit", *limit)
            }
            Self::Key(hash, until, _) => Record::ok(org, Verb::RotateKey)
                .with("key", hash.fingerprint())
                .with("oldKeyEnds", until.map(|until| until.to_string())),
            Self::EndOldKey => Record::ok(org, Verb::EndOldKey),
            Self::RestoreNeeds(keys) => Record::ok(org, Verb::SetOrg).with("restoreNeeds", *keys),
            Self::Delete => Record::ok(org, Verb::DeleteOrg),
        }
    }
}
