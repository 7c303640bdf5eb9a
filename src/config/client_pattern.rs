//! `device.allow`: patterns of the device ids that clients may name. `{uid}` stands for the client's own user number, so that a
//! user can name only devices of its own.

use std::str::FromStr;

use machineid_protocol::device_pattern::DevicePatternError;
use machineid_protocol::{DeviceId, DevicePattern};
use thiserror::Error;

const UID: &str = "{uid}";

/// A pattern of device ids, the same for all clients or one for each user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientPattern {
    Everyones(DevicePattern),
    /// The text, with `{uid}` in it.
    OfUser(Box<str>),
}

/// Why the text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ClientPatternError {
    #[error("{0}; {UID} stands for the uid of the client")]
    NoPattern(DevicePatternError),
    #[error("no other placeholder than {UID} is known here")]
    UnknownName,
    #[error(
        "{UID} must stand between other characters than digits and *: the user 10 could else name devices of the user \
         100; write it as in \"agent:{UID}:*\""
    )]
    Unbounded,
}

impl FromStr for ClientPattern {
    type Err = ClientPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains(['{', '}']) {
            return text.parse().map(Self::Everyones).map_err(ClientPatternError::NoPattern);
        }
        let parts: Vec<&str> = text.split(UID).collect();
        if parts.len() == 1 || parts.iter().any(|part| part.contains(['{', '}'])) {
            return Err(ClientPatternError::UnknownName);
        }
        let blurs = |c: char| c == '*' || c.is_ascii_digit();
        let mut joints = parts.iter().zip(parts.iter().skip(1));
        if joints.any(|(before, after)| before.ends_with(blurs) || after.starts_with(blurs)) {
            return Err(ClientPatternError::Unbounded);
        }
        // The longest uid.
        with_uid(text, u32::MAX).map_err(ClientPatternError::NoPattern)?;
        Ok(Self::OfUser(text.into()))
    }
}

fn with_uid(text: &str, uid: u32) -> Result<DevicePattern, DevicePatternError> {
    text.replace(UID, &uid.to_string()).parse()
}

impl ClientPattern {
    /// Whether a client of this user may name the device. `None`: the user is not known here.
    pub(crate) fn matches(&self, device: &DeviceId, uid: Option<u32>) -> bool {
        match self {
            Self::Everyones(pattern) => pattern.matches(device),
            Self::OfUser(text) => {
                uid.is_some_and(|uid| with_uid(text, uid).is_ok_and(|pattern| pattern.matches(device)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_names_devices_of_its_own_number_and_of_no_other() {
        let pattern: ClientPattern = "agent:{uid}:*".parse().unwrap();
        let names = |device: &str, uid| pattern.matches(&device.parse().unwrap(), uid);
        assert!(names("agent:1000:build", Some(1000)) && !names("agent:1000:build", Some(1001)));
        for (device, uid) in
            [("agent:1000:x", Some(10)), ("agent:10:x", Some(1000)), ("agent:10", Some(10)), ("agent:10:x", None)]
        {
            assert!(!names(device, uid), "{device} {uid:?}");
        }
        let all: ClientPattern = "agent:*".parse().unwrap();
        assert!(all.matches(&"agent:1000:x".parse().unwrap(), None));
    }

    #[test]
    fn what_could_name_another_users_device_or_none_is_refused() {
        for (text, expected) in [
            ("agent:{uid}*", ClientPatternError::Unbounded),
            ("*{uid}:x", ClientPatternError::Unbounded),
            ("agent1{uid}", ClientPatternError::Unbounded),
            ("{uid}{uid}0", ClientPatternError::Unbounded),
            ("agent:{user}:*", ClientPatternError::UnknownName),
            ("agent:{uid", ClientPatternError::UnknownName),
            ("agent:{uid}}", ClientPatternError::UnknownName),
            ("agent?", ClientPatternError::NoPattern(DevicePatternError)),
            ("", ClientPatternError::NoPattern(DevicePatternError)),
            ("agent {uid}", ClientPatternError::NoPattern(DevicePatternError)),
        ] {
            assert_eq!(text.parse::<ClientPattern>(), Err(expected), "{text}");
        }
        assert!("{uid}:*".parse::<ClientPattern>().is_ok() && "x/{uid}".parse::<ClientPattern>().is_ok());
    }
}
