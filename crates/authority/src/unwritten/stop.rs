//! What a stop changes, as it is kept until the store takes it.

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use serde::{Deserialize, Deserializer, Serialize};

use crate::audit::Call;
use crate::changes::Change;
use crate::keys::SecretHash;
use crate::org::{OrgId, Switch};
use crate::store::{OrgChange, WhichKey};

/// A stop that the store did not take.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnwrittenStop {
    pub(crate) org: OrgId,
    #[serde(deserialize_with = "stop_of_any_version")]
    pub(crate) stop: StopScope,
    /// How many devices it revokes of those that the store counts as active.
    #[serde(default)]
    pub(crate) counted: u64,
    /// The call that ordered it. Everything is written with the call's own time, as if the store had taken it at once.
    pub(crate) call: Call,
}

/// What it denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopScope {
    /// These devices, ordered as a batch or one by one.
    Devices { ids: Vec<DeviceId>, batch: bool },
    /// All devices that existed when it was ordered, and none that registered later: those up to this number in the store.
    /// `None` when the store could not say which is the newest.
    AllActive { newest: Option<i64> },
    /// Execution is off by this switch.
    Off(Switch),
    /// The plan is frozen.
    Frozen,
    /// The entitlement ended at this time.
    Ended(Timestamp),
    /// The organisation's own keys are invalid. The new one is valid once the store has it.
    OwnKeys { new: SecretHash, expected: Option<SecretHash> },
    /// The organisation's previous key is invalid.
    OldKey,
    /// These keys with roles are invalid.
    Keys(Vec<WhichKey>),
}

/// A stop as this version or one before it wrote it.
fn stop_of_any_version<'de, D: Deserializer<'de>>(from: D) -> Result<StopScope, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Before {
        /// Without the number of the newest device.
        AllActive,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Before(Before),
        Now(StopScope),
    }
    Ok(match Any::deserialize(from)? {
        Any::Before(Before::AllActive) => StopScope::AllActive { newest: None },
        Any::Now(stop) => stop,
    })
}

impl StopScope {
    /// The stop that this change is; `None` when it denies nothing at `now`, or more than denying is wanted.
    pub(crate) fn of(change: &OrgChange, now: Timestamp) -> Option<Self> {
        match change {
            OrgChange::Disabled(switch, true) => Some(Self::Off(*switch)),
            OrgChange::Frozen(true) => Some(Self::Frozen),
            OrgChange::AccessUntil(Some(end)) if *end <= now => Some(Self::Ended(*end)),
            OrgChange::Key(new, None, expected) => Some(Self::OwnKeys { new: *new, expected: *expected }),
            OrgChange::EndOldKey => Some(Self::OldKey),
            OrgChange::Disabled(_, false)
            | OrgChange::Frozen(false)
            | OrgChange::AccessUntil(_)
            | OrgChange::Plan(..)
            | OrgChange::Key(_, Some(_), _)
            | OrgChange::RestoreNeeds(_)
            | OrgChange::Delete => None,
        }
    }

    /// The change of the organisation that this stop is, if it is one.
    pub(crate) fn change(&self) -> Option<OrgChange> {
        match self {
            Self::Off(switch) => Some(OrgChange::Disabled(*switch, true)),
            Self::Frozen => Some(OrgChange::Frozen(true)),
            Self::Ended(end) => Some(OrgChange::AccessUntil(Some(*end))),
            Self::OwnKeys { new, expected } => Some(OrgChange::Key(*new, None, *expected)),
            Self::OldKey => Some(OrgChange::EndOldKey),
            Self::Devices { .. } | Self::AllActive { .. } | Self::Keys(_) => None,
        }
    }

    /// Its name in the log.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Devices { .. } => "devices",
            Self::AllActive { .. } => "all-active",
            Self::Off(Switch::Own) => "off-own",
            Self::Off(Switch::Operator) => "off-operator",
            Self::Frozen => "frozen",
            Self::Ended(_) => "ended",
            Self::OwnKeys { .. } => "own-keys",
            Self::OldKey => "old-key",
            Self::Keys(_) => "keys",
        }
    }

    /// The news for watchers.
    pub(crate) fn news(&self, org: OrgId) -> Change {
        match self {
            Self::Devices { ids, batch: _ } => Change::Denied(org, Some(ids.clone())),
            Self::AllActive { .. } | Self::Off(_) | Self::Frozen | Self::Ended(_) => Change::Denied(org, None),
            Self::OwnKeys { .. } | Self::OldKey | Self::Keys(_) => Change::Key(org),
        }
    }
}
