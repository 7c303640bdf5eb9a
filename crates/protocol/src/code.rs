//! Decision codes: why the answer is yes or no.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $kind:ident;)*) => {
        /// The code of a decision. The authority's codes and those made on the host are distinct, so that a log line,
        /// an exit message and a metric need not say which of the two made it.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// A code that this version does not know. The `allowed` beside it tells what it means.
            Other(Box<str>),
        }

        impl Code {
            /// Every code this version knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The code as text, as it is sent.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            /// What the code means by itself, without the `allowed` beside it.
            #[must_use]
            pub const fn kind(&self) -> CodeKind {
                match self {
                    $(Self::$variant => CodeKind::$kind,)*
                    Self::Other(_) => CodeKind::Unknown,
                }
            }
        }

        impl From<&str> for Code {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(printable(other)),
                }
            }
        }
    };
}

/// What a code means by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// Execution is allowed.
    Allow,
    /// A decision against execution.
    Deny,
    /// There is no decision. Counts as "not allowed", but says nothing about the device.
    Undecided,
    /// A malformed question.
    Malformed,
    /// A code of a newer version.
    Unknown,
}

codes! {
    /// The device may execute.
    Allow = "ALLOW", Allow;
    /// The authority could complete no authoritative decision.
    SystemUnavailable = "SYSTEM_UNAVAILABLE", Deny;
    /// The org key is bad or missing.
    InvalidOrgKey = "INVALID_ORG_KEY", Deny;
    /// The key is known, its organisation was deleted.
    OrgNotFound = "ORG_NOT_FOUND", Deny;
    /// The device id is malformed or missing.
    InvalidDeviceId = "INVALID_DEVICE_ID", Deny;
    /// Execution is switched off for the whole organisation.
    OrgDisabled = "ORG_DISABLED", Deny;
    /// The organisation is frozen.
    PlanFrozen = "PLAN_FROZEN", Deny;
    /// The plan's entitlement is not active.
    EntitlementExpired = "ENTITLEMENT_EXPIRED", Deny;
    /// Another name for [`Code::EntitlementExpired`], named by the official client.
    PlanNotActive = "PLAN_NOT_ACTIVE", Deny;
    /// The device was never registered, or was removed.
    DeviceNotFound = "DEVICE_NOT_FOUND", Deny;
    /// The device was revoked.
    DeviceRevoked = "DEVICE_REVOKED", Deny;
    /// A deny that came without a code.
    Unspecified = "UNSPECIFIED", Deny;
    /// The kill file exists on this host.
    LocalKill = "LOCAL_KILL", Deny;
    /// An operator stopped the agent on this host.
    LocalStop = "LOCAL_STOP", Deny;
    /// The device could not be registered: the plan is full.
    DeviceLimitReached = "DEVICE_LIMIT_REACHED", Deny;
    /// This host's configuration does not let a client name that device.
    DeviceNotPermitted = "DEVICE_NOT_PERMITTED", Deny;
    /// The process is not the caller or a descendant of it.
    PidNotPermitted = "PID_NOT_PERMITTED", Deny;
    /// The user has registered as many new devices as it may for now.
    RegistrationLimited = "REGISTRATION_LIMITED", Undecided;
    /// The daemon refuses agents it could not end by itself.
    RemoteRefused = "REMOTE_REFUSED", Deny;
    /// The authority could not be asked, or its answer was unusable.
    AuthorityUnreachable = "AUTHORITY_UNREACHABLE", Undecided;
    /// The daemon has no first decision yet.
    Starting = "STARTING", Undecided;
    /// The check's deadline passed before an answer came.
    CheckTimeout = "CHECK_TIMEOUT", Undecided;
    /// The lease ran out with no new ALLOW.
    LeaseExpired = "LEASE_EXPIRED", Undecided;
    /// The daemon is serving as many requests as it can.
    Overloaded = "OVERLOADED", Undecided;
    /// The question was malformed.
    BadRequest = "BAD_REQUEST", Malformed;
}

/// The longest code kept, in bytes; a longer one is cut. The longest known code has 21.
const LONGEST: usize = 64;

/// Makes foreign text fit for logs and terminals: control characters and other unexpected characters become `?`.
fn printable(text: &str) -> Box<str> {
    text.chars().take(LONGEST).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect::<String>().into()
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_code_survives_the_wire() {
        for code in Code::KNOWN {
            assert_eq!(&Code::from(code.as_str()), code);
            assert_ne!(code.kind(), CodeKind::Unknown);
        }
    }

    #[test]
    fn only_one_known_code_allows() {
        let allowing: Vec<_> = Code::KNOWN.iter().filter(|code| code.kind() == CodeKind::Allow).collect();
        assert_eq!(allowing, [&Code::Allow]);
    }

    #[test]
    fn an_unknown_code_cannot_smuggle_control_characters_or_length_into_a_log() {
        let code = Code::from(format!("EVIL\n\u{1b}[2J{}", "x".repeat(500)).as_str());
        assert!(code.as_str().starts_with("EVIL??[2J"));
        assert_eq!(code.as_str().len(), LONGEST);
    }
}
