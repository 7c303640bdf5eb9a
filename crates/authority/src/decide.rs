//! The decision: may this device execute? Contains the precedence of the decision codes, and nothing else.

use jiff::Timestamp;
use machineid_protocol::Code;
use machineid_protocol::api::DeviceStatus;

use super::org::Org;

/// The organisation behind a request. If the store fails to find it, the answer is `SYSTEM_UNAVAILABLE`, without this
/// type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The key is missing, malformed, or belongs to no organisation.
    Unknown,
    /// The key is an organisation's, but its role may not validate, or not this device.
    NotPermitted,
    /// The key belongs to this organisation.
    Org(Org),
}

/// The device that a request asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The request names no device, or an invalid id.
    Invalid,
    /// The organisation has no such device: it was never registered, or was removed.
    Absent,
    /// The device is registered.
    Known(DeviceStatus),
}

/// A possible answer to a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValidationVerdict {
    Allow,
    InvalidOrgKey,
    /// The code is the same: other clients know no other one.
    NotPermitted,
    OrgNotFound,
    InvalidDeviceId,
    OrgDisabled,
    PlanFrozen,
    EntitlementExpired,
    DeviceNotFound,
    DeviceRevoked,
    /// The store could not be asked; [`decide`] never returns this.
    Unavailable,
    /// The request used another method than POST; [`decide`] never returns this.
    WrongMethod,
}

impl ValidationVerdict {
    /// The code on the wire.
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Allow => Code::Allow,
            Self::InvalidOrgKey | Self::NotPermitted => Code::InvalidOrgKey,
            Self::OrgNotFound => Code::OrgNotFound,
            Self::InvalidDeviceId => Code::InvalidDeviceId,
            Self::OrgDisabled => Code::OrgDisabled,
            Self::PlanFrozen => Code::PlanFrozen,
            Self::EntitlementExpired => Code::EntitlementExpired,
            Self::DeviceNotFound => Code::DeviceNotFound,
            Self::DeviceRevoked => Code::DeviceRevoked,
            Self::Unavailable => Code::SystemUnavailable,
            Self::WrongMethod => Code::BadRequest,
        }
    }
}

/// The first reason to deny, in the documented order; [`ValidationVerdict::Allow`] when there is none.
pub(super) fn decide(asker: &Asker, subject: Subject, now: Timestamp) -> ValidationVerdict {
    let org = match asker {
        Asker::Unknown => return ValidationVerdict::InvalidOrgKey,
        Asker::NotPermitted => return ValidationVerdict::NotPermitted,
        Asker::Org(org) => org,
    };
    if org.deleted {
        return ValidationVerdict::OrgNotFound;
    }
    if subject == Subject::Invalid {
        return ValidationVerdict::InvalidDeviceId;
    }
    if org.disabled {
        return ValidationVerdict::OrgDisabled;
    }
    if org.frozen {
        return ValidationVerdict::PlanFrozen;
    }
    if org.expired(now) {
        return ValidationVerdict::EntitlementExpired;
    }
    match subject {
        Subject::Invalid => ValidationVerdict::InvalidDeviceId,
        Subject::Absent => ValidationVerdict::DeviceNotFound,
        Subject::Known(DeviceStatus::Revoked) => ValidationVerdict::DeviceRevoked,
        Subject::Known(DeviceStatus::Active) => ValidationVerdict::Allow,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::org::{OrgId, PlanTier, Switches};
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn org() -> Org {
        Org {
            id: OrgId::random(),
            name: None,
            tier: PlanTier::Free,
            device_limit: None,
            disabled: false,
            off: Switches::default(),
            frozen: false,
            access_until: None,
            created_at: at(0),
            deleted: false,
            old_key_ends: None,
            restore_needs: 1,
        }
    }

    /// One fault for each deny code, in the order of precedence.
    const FAULTS: [ValidationVerdict; 8] = [
        ValidationVerdict::InvalidOrgKey,
        ValidationVerdict::OrgNotFound,
        ValidationVerdict::InvalidDeviceId,
        ValidationVerdict::OrgDisabled,
        ValidationVerdict::PlanFrozen,
        ValidationVerdict::EntitlementExpired,
        ValidationVerdict::DeviceNotFound,
        ValidationVerdict::DeviceRevoked,
    ];

    fn world(present: &[bool]) -> (Asker, Subject) {
        let has = |code: ValidationVerdict| FAULTS.iter().zip(present).any(|(fault, here)| *here && *fault == code);
        let mut org = org();
        org.deleted = has(ValidationVerdict::OrgNotFound);
        org.disabled = has(ValidationVerdict::OrgDisabled);
        org.frozen = has(ValidationVerdict::PlanFrozen);
        org.access_until = has(ValidationVerdict::EntitlementExpired).then(|| at(NOW - 1));
        let subject = if has(ValidationVerdict::InvalidDeviceId) {
            Subject::Invalid
        } else if has(ValidationVerdict::DeviceNotFound) {
            Subject::Absent
        } else if has(ValidationVerdict::DeviceRevoked) {
            Subject::Known(DeviceStatus::Revoked)
        } else {
            Subject::Known(DeviceStatus::Active)
        };
        (if has(ValidationVerdict::InvalidOrgKey) { Asker::Unknown } else { Asker::Org(org) }, subject)
    }

    #[test]
    fn of_every_combination_of_faults_the_first_in_the_table_is_reported() {
        for mask in 0_u32..256 {
            let present: Vec<bool> = (0..8).map(|bit| mask & (1 << bit) != 0).collect();
            let (asker, subject) = world(&present);
            let first = FAULTS
                .iter()
                .zip(&present)
                .find(|(_, here)| **here)
                .map_or(ValidationVerdict::Allow, |(code, _)| *code);
            assert_eq!(decide(&asker, subject, at(NOW)), first, "{present:?}");
        }
    }

    #[test]
    fn an_entitlement_ends_at_the_moment_it_names() {
        let org = Org { access_until: Some(at(NOW)), ..org() };
        let asker = Asker::Org(org);
        let active = Subject::Known(DeviceStatus::Active);
        assert_eq!(decide(&asker, active, at(NOW - 1)), ValidationVerdict::Allow);
        assert_eq!(decide(&asker, active, at(NOW)), ValidationVerdict::EntitlementExpired);
    }

    proptest! {
        #[test]
        fn only_an_active_device_of_a_sound_organisation_is_allowed(
            present in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let (asker, subject) = world(&present);
            let allowed = decide(&asker, subject, at(NOW)) == ValidationVerdict::Allow;
            prop_assert_eq!(allowed, present.iter().all(|fault| !fault));
        }
    }
}
