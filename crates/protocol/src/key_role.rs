//! What an organisation's key is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The role of an org key: which part of the API it opens. What each may do stands in the authority, beside its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// A host's work for its devices: register, validate, watch, report, and remove a device while it is active.
    Host,
    /// Stop and look: revoke, and all that `read` may. Gives nothing back.
    Stop,
    /// Look: devices, usage, fleet, timeline, audit, events.
    Read,
    /// All of these, and give back: unrevoke, remove, checkout.
    Operate,
    /// Everything, with keys, the execution switch and rotation. The key of a new organisation is one.
    Admin,
}

/// The text names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRoleError;

impl KeyRole {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Host, Self::Stop, Self::Read, Self::Operate, Self::Admin];

    /// The role's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Stop => "stop",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for KeyRole {
    type Err = KeyRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(KeyRoleError)
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for KeyRoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a role; the roles are host, stop, read, operate and admin")
    }
}

impl std::error::Error for KeyRoleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_from_its_name_and_from_nothing_else() {
        for role in KeyRole::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        for text in ["", "Host", "root", "admin "] {
            assert_eq!(text.parse::<KeyRole>(), Err(KeyRoleError), "{text:?}");
        }
    }
}
