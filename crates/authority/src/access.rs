//! Who may do what: the roles of keys against the permissions that routes need. Pure.
//!
//! A route states its permission beside its handler, and no route can be added without one
//! (see `routes::openapi::Route`). The table in `docs/authority.md` is made from the same constants.

use machineid_protocol::{DeviceId, DevicePattern, KeyRole};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Permission {
    /// No key at all.
    Public,
    /// A host's work: register, validate, watch, report.
    Work,
    /// To remove a device.
    Remove,
    /// To stop devices, and to switch execution off.
    Stop,
    /// To see devices, usage, stops and the audit.
    Read,
    /// To give back what a stop took, and to ask for a larger plan.
    GiveBack,
    /// To make, end and replace keys, and to switch execution on.
    Administer,
}

/// How far a role has a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    No,
    /// For the devices that the key names, and to remove them only while they are active.
    OwnDevices,
    Whole,
}

impl Permission {
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::Public, Self::Work, Self::Remove, Self::Stop, Self::Read, Self::GiveBack, Self::Administer];

    /// Its name in answers and documentation.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Work => "work",
            Self::Remove => "remove",
            Self::Stop => "stop",
            Self::Read => "read",
            Self::GiveBack => "give back",
            Self::Administer => "administer",
        }
    }

    /// The roles that have it, in words.
    pub(super) fn roles(self) -> String {
        let roles: Vec<&str> =
            KeyRole::ALL.into_iter().filter(|role| self.of(*role) != Grant::No).map(KeyRole::as_str).collect();
        match roles.as_slice() {
            [] => "none".to_owned(),
            [one] => (*one).to_owned(),
            [others @ .., last] => format!("{} or {last}", others.join(", ")),
        }
    }

    /// How far a key of this role has it.
    pub(super) const fn of(self, role: KeyRole) -> Grant {
        match self {
            Self::Public => Grant::Whole,
            Self::Work | Self::Remove => match role {
                KeyRole::Host => Grant::OwnDevices,
                KeyRole::Operate | KeyRole::Admin => Grant::Whole,
                KeyRole::Stop | KeyRole::Read => Grant::No,
            },
            Self::Stop => match role {
                KeyRole::Stop | KeyRole::Operate | KeyRole::Admin => Grant::Whole,
                KeyRole::Host | KeyRole::Read => Grant::No,
            },
            Self::Read => match role {
                KeyRole::Stop | KeyRole::Read | KeyRole::Operate | KeyRole::Admin => Grant::Whole,
                KeyRole::Host => Grant::No,
            },
            Self::GiveBack => match role {
                KeyRole::Operate | KeyRole::Admin => Grant::Whole,
                KeyRole::Host | KeyRole::Stop | KeyRole::Read => Grant::No,
            },
            Self::Administer => match role {
                KeyRole::Admin => Grant::Whole,
                KeyRole::Host | KeyRole::Stop | KeyRole::Read | KeyRole::Operate => Grant::No,
            },
        }
    }
}

/// Whether a key of this role, with this pattern, may do a host's work for this device.
pub(super) fn may_work(role: KeyRole, devices: Option<&DevicePattern>, device: Option<&DeviceId>) -> bool {
    match Permission::Work.of(role) {
        Grant::No => false,
        // A request that names no valid device is told so.
        Grant::OwnDevices => device.is_none_or(|device| covers(devices, device)),
        Grant::Whole => true,
    }
}

/// Whether a key with this pattern names this device. One without a pattern names all.
pub(super) fn covers(devices: Option<&DevicePattern>, device: &DeviceId) -> bool {
    devices.is_none_or(|pattern| pattern.matches(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(role: KeyRole) -> Vec<Permission> {
        Permission::ALL.into_iter().filter(|permission| permission.of(role) != Grant::No).collect()
    }

    #[test]
    fn each_role_has_its_permissions_and_no_other() {
        use Permission::{Administer, GiveBack, Public, Read, Remove, Stop, Work};
        assert_eq!(granted(KeyRole::Host), [Public, Work, Remove]);
        assert_eq!(granted(KeyRole::Stop), [Public, Stop, Read]);
        assert_eq!(granted(KeyRole::Read), [Public, Read]);
        assert_eq!(granted(KeyRole::Operate), [Public, Work, Remove, Stop, Read, GiveBack]);
        assert_eq!(granted(KeyRole::Admin), [Public, Work, Remove, Stop, Read, GiveBack, Administer]);
        assert_eq!(Administer.as_str(), "administer");
        assert_eq!((Stop.roles(), Administer.roles()), ("stop, operate or admin".to_owned(), "admin".to_owned()));
    }

    #[test]
    fn only_operate_and_admin_give_anything_back() {
        for role in [KeyRole::Host, KeyRole::Stop, KeyRole::Read] {
            assert_eq!(Permission::GiveBack.of(role), Grant::No);
            // A host may remove what is active, and no other role removes at all.
            assert_ne!(Permission::Remove.of(role), Grant::Whole);
        }
    }

    #[test]
    fn a_hosts_key_works_for_the_devices_it_names() {
        let device: DeviceId = "k8s:prod:1".parse().unwrap();
        let own: DevicePattern = "k8s:*".parse().unwrap();
        let other: DevicePattern = "vm:*".parse().unwrap();
        assert!(may_work(KeyRole::Host, None, Some(&device)));
        assert!(may_work(KeyRole::Host, Some(&own), Some(&device)));
        assert!(!may_work(KeyRole::Host, Some(&other), Some(&device)));
        assert!(may_work(KeyRole::Host, Some(&other), None));
        assert!(!may_work(KeyRole::Read, None, Some(&device)));
        assert!(may_work(KeyRole::Admin, None, Some(&device)));
    }
}
