//! What an operator changes about an organisation.

use jiff::Timestamp;

use super::super::audit::{Record, Verb};
use super::super::changes::Change;
use super::super::keys::SecretHash;
use super::super::org::{OrgId, PlanTier};

/// What an operator changes about an organisation.
#[derive(Clone, Debug)]
pub(crate) enum OrgChange {
    Disabled(bool),
    Frozen(bool),
    AccessUntil(Option<Timestamp>),
    /// The plan, and a limit to hold instead of its own.
    Plan(PlanTier, Option<u64>),
    /// A new key. The one before stays valid until the time; without one it is nobody's at once. An older one yet is
    /// nobody's in either case: there are never more than two.
    /// With a third one only where that is the current key: nothing is changed otherwise.
    Key(SecretHash, Option<Timestamp>, Option<SecretHash>),
    /// The key before the current one is invalid at once.
    EndOldKey,
    /// Forgets its devices and keeps its key as that of a deleted organisation.
    Delete,
}

impl OrgChange {
    /// What those who wait are told of it.
    pub(super) fn news(&self, org: OrgId) -> Change {
        match self {
            Self::Key(..) | Self::EndOldKey | Self::Delete => Change::Key(org),
            // An end in the future denies nothing yet; the hint then merely comes sooner than it need.
            Self::Disabled(true) | Self::Frozen(true) | Self::AccessUntil(Some(_)) => Change::Denied(org, None),
            Self::Disabled(false) | Self::Frozen(false) | Self::AccessUntil(None) | Self::Plan(..) => Change::Org(org),
        }
    }

    /// What the audit says about it.
    pub(super) fn record(&self, org: OrgId) -> Record {
        match self {
            Self::Disabled(true) => Record::ok(org, Verb::DisableOrg),
            Self::Disabled(false) => Record::ok(org, Verb::EnableOrg),
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
            Self::Delete => Record::ok(org, Verb::DeleteOrg),
        }
    }
}
