//! What a session may do, for the pages that offer it. Pure.

use machineid_protocol::KeyRole;

use crate::access::{Grant, Permission};
use crate::org::KeyName;

/// The rights of a session in an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionRights {
    /// There is no session, or the page belongs to no organisation and it is not known what the key may do.
    Unknown,
    /// The operator of the server.
    Operator,
    /// Those of a key.
    Key { role: KeyRole, name: Option<KeyName> },
}

impl SessionRights {
    /// Whether the session may do that, for every device of the organisation.
    pub(super) fn may(&self, needs: Permission) -> bool {
        match self {
            Self::Unknown => false,
            Self::Operator => true,
            Self::Key { role, .. } => needs.of(*role) == Grant::Whole,
        }
    }

    /// The role of the session's key.
    pub(super) fn role(&self) -> Option<KeyRole> {
        match self {
            Self::Unknown | Self::Operator => None,
            Self::Key { role, .. } => Some(*role),
        }
    }

    /// How the session is signed in, as every page shows it: the role, and the key's name.
    pub(super) fn signed_in_as(&self) -> Option<(&'static str, Option<&str>)> {
        match self {
            Self::Unknown => None,
            Self::Operator => Some(("operator of this server", None)),
            Self::Key { role, name } => Some((role.as_str(), name.as_ref().map(KeyName::as_str))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_may_do_what_its_role_may_for_every_device() {
        use Permission::{Administer, GiveBack, Read, Remove, Stop};
        let of = |role| SessionRights::Key { role, name: None };
        let granted = |rights: &SessionRights| -> Vec<Permission> {
            [Read, Stop, Remove, GiveBack, Administer].into_iter().filter(|needs| rights.may(*needs)).collect()
        };
        // A host may remove its own devices only, so the console offers nothing to it.
        assert_eq!(granted(&of(KeyRole::Host)), []);
        assert_eq!(granted(&of(KeyRole::Read)), [Read]);
        assert_eq!(granted(&of(KeyRole::Stop)), [Read, Stop]);
        assert_eq!(granted(&of(KeyRole::Operate)), [Read, Stop, Remove, GiveBack]);
        for rights in [of(KeyRole::Admin), SessionRights::Operator] {
            assert_eq!(granted(&rights), [Read, Stop, Remove, GiveBack, Administer]);
        }
        assert_eq!(granted(&SessionRights::Unknown), []);
    }

    #[test]
    fn a_page_says_as_which_role_and_with_which_key_its_session_began() {
        let named = SessionRights::Key { role: KeyRole::Stop, name: Some("oncall".parse().unwrap()) };
        assert_eq!(named.signed_in_as(), Some(("stop", Some("oncall"))));
        let own = SessionRights::Key { role: KeyRole::Admin, name: None };
        assert_eq!(own.signed_in_as(), Some(("admin", None)));
        assert_eq!(SessionRights::Operator.signed_in_as(), Some(("operator of this server", None)));
        assert_eq!(SessionRights::Unknown.signed_in_as(), None);
    }
}
