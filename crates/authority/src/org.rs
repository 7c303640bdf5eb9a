//! Organisations and their plans, as types that are always valid.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use machineid_protocol::{DevicePattern, KeyRole};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// The id of an organisation. Not secret, unlike its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(Uuid);

/// The text is not an organisation's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrgIdError;

impl OrgId {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for OrgId {
    type Err = OrgIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text.trim()).map(Self).map_err(|_| OrgIdError)
    }
}

impl fmt::Display for OrgIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not the id of an organisation; it looks like 1b4e28ba-2fa1-41d2-883f-0016d3cca427 (see `org list`)",
        )
    }
}

impl std::error::Error for OrgIdError {}

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Serialize for OrgId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OrgId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The plan that an organisation pays for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PlanTier {
    /// 3 devices.
    Free,
    /// 25 devices.
    Pro,
    /// 250 devices.
    Scale,
    /// 1,000 devices.
    Max,
}

impl PlanTier {
    pub(super) const ALL: [Self; 4] = [Self::Free, Self::Pro, Self::Scale, Self::Max];

    /// The most devices that may be active at once.
    #[must_use]
    pub const fn limit(self) -> u64 {
        match self {
            Self::Free => 3,
            Self::Pro => 25,
            Self::Scale => 250,
            Self::Max => 1_000,
        }
    }

    /// The tier's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Scale => "scale",
            Self::Max => "max",
        }
    }
}

/// The text is not the name of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanTierError;

impl FromStr for PlanTier {
    type Err = PlanTierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text).ok_or(PlanTierError)
    }
}

impl fmt::Display for PlanTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not a valid name of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is one line of 1 to 100 characters")]
pub(super) struct OrgNameError;

/// Checks an organisation's name: it is printed in tables and logs, so it is one short line.
pub(super) fn org_name(text: &str) -> Result<String, OrgNameError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 100 || text.chars().any(char::is_control) {
        return Err(OrgNameError);
    }
    Ok(text.to_owned())
}

/// An organisation, as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Org {
    pub(super) id: OrgId,
    pub(super) name: Option<String>,
    pub(super) tier: PlanTier,
    /// An operator's own limit instead of the plan's.
    pub(super) device_limit: Option<u64>,
    /// Execution is switched off for the whole organisation.
    pub(super) disabled: bool,
    /// Which of the two switches it is that says so.
    pub(super) off: Switches,
    /// The plan is frozen.
    pub(super) frozen: bool,
    /// When the entitlement ends; `None` when it does not.
    pub(super) access_until: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    /// The organisation was deleted, but its key is still known.
    pub(super) deleted: bool,
    /// When the previous key ended or ends; `None` when there was none.
    pub(super) old_key_ends: Option<Timestamp>,
    /// How many keys a restore needs: 1 or 2.
    pub(super) restore_needs: u8,
}

/// A key that a request carries, as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldKey {
    /// It is the organisation's own key, or the one before it, and not one of its keys with roles.
    pub(super) own: bool,
    pub(super) role: KeyRole,
    /// The devices that it may work for; `None` for all.
    pub(super) devices: Option<DevicePattern>,
    pub(super) name: Option<KeyName>,
    /// It is invalid *from* this time on; `None` when it does not end.
    pub(super) ends: Option<Timestamp>,
    /// Another key has taken its place, and it stays valid for a while beside it.
    pub(super) replaced: bool,
    /// It is invalid, whatever a clock says.
    pub(super) revoked: bool,
}

impl HeldKey {
    /// The key in the organisation's own row.
    pub(super) fn own() -> Self {
        Self { own: true, role: KeyRole::Admin, devices: None, name: None, ends: None, replaced: false, revoked: false }
    }

    /// The one before it.
    pub(super) fn own_old(ends: Timestamp) -> Self {
        Self { ends: Some(ends), replaced: true, ..Self::own() }
    }

    /// Whether the key is valid at `now`.
    pub(super) fn good(&self, now: Timestamp) -> bool {
        !self.revoked && self.ends.is_none_or(|ends| now < ends)
    }
}

/// The name of a key: 1 to 64 letters, digits and `. _ -`, so that it can stand in an audit beside a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(super) struct KeyName(String);

/// The text is no name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyNameError;

impl KeyName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        // Twelve hex digits are a fingerprint, by which another key may be meant.
        let fingerprint = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let fits = (1..=64).contains(&text.len()) && text.chars().all(known) && !fingerprint;
        if fits { Ok(Self(text.to_owned())) } else { Err(KeyNameError) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for KeyNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key's name is 1 to 64 letters, digits and . _ - and does not look like a fingerprint")
    }
}

impl std::error::Error for KeyNameError {}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The two switches of execution. Either is enough to deny it, and each is taken back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Switches {
    /// The organisation's own.
    pub(super) own: bool,
    /// The one of the server's operator, which no key of the organisation takes back.
    pub(super) operator: bool,
}

impl Switches {
    /// As they are stored, beside what both come to. A server of an earlier version writes the latter alone.
    pub(super) fn read(disabled: bool, own: bool, operator: bool) -> Self {
        Self { own: disabled && own, operator: disabled && (operator || !own) }
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Switch {
    Own,
    Operator,
}

/// A switch that is off, with what the audit says about it: nothing when the entry was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct SwitchedOff {
    /// `own` or `operator`.
    #[schema(value_type = String)]
    pub(super) switch: Switch,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) at: Option<Timestamp>,
    /// Who switched it off, as the audit names them.
    pub(super) by: Option<String>,
    pub(super) reason: Option<String>,
}

impl SwitchedOff {
    /// The same in words.
    pub(super) fn words(&self) -> String {
        let whose = match self.switch {
            Switch::Own => "the organisation's own switch",
            Switch::Operator => "the operator's switch",
        };
        let at = self.at.map_or_else(String::new, |at| format!(" since {at:.0}"));
        let by = self.by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
        let why = self.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("{whose} is off{at}{by}{why}")
    }
}

impl Switches {
    /// Those that are off.
    pub(super) fn off(self) -> impl Iterator<Item = Switch> {
        [(self.own, Switch::Own), (self.operator, Switch::Operator)]
            .into_iter()
            .filter(|(off, _)| *off)
            .map(|(_, one)| one)
    }
}

impl Switch {
    /// Its name in the audit.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Operator => "operator",
        }
    }
}

impl Org {
    /// The most devices that may be active at once.
    pub(super) fn limit(&self) -> u64 {
        self.device_limit.unwrap_or(self.tier.limit())
    }

    /// Whether the entitlement has ended by `now`. It ends *at* its end time.
    pub(super) fn expired(&self, now: Timestamp) -> bool {
        self.access_until.is_some_and(|end| now >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_are_those_of_the_price_list() {
        let limits: Vec<_> = PlanTier::ALL.iter().map(|tier| (tier.as_str(), tier.limit())).collect();
        assert_eq!(limits, [("free", 3), ("pro", 25), ("scale", 250), ("max", 1_000)]);
        for tier in PlanTier::ALL {
            assert_eq!(tier.as_str().parse(), Ok(tier));
        }
        assert_eq!("Free".parse::<PlanTier>(), Err(PlanTierError));
    }

    #[test]
    fn an_old_key_is_good_until_the_moment_it_ends_at_and_the_current_one_always() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let old = HeldKey::own_old(at(10));
        assert_eq!([9, 10, 11].map(|second| old.good(at(second))), [true, false, false]);
        assert!(HeldKey::own().good(at(1_000_000)));
    }

    #[test]
    fn a_keys_name_is_a_short_word_that_is_no_fingerprint() {
        for text in ["oncall", "grafana-2", "a.b_C", "0123456789a"] {
            assert_eq!(text.parse::<KeyName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "on call", "a:b", "0123456789ab", "a\n", &"x".repeat(65)] {
            assert_eq!(text.parse::<KeyName>(), Err(KeyNameError), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_one_short_line() {
        assert_eq!(org_name(" Acme <Ltd> "), Ok("Acme <Ltd>".to_owned()));
        for text in ["", "  ", "a\nb", "\u{1b}[2J", &"x".repeat(101)] {
            assert!(org_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_org_id_is_a_uuid_and_never_looks_like_a_key() {
        let id = OrgId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "org_0123", "x", "1b4e28ba-2fa1-41d2-883f"] {
            assert_eq!(text.parse::<OrgId>(), Err(OrgIdError), "{text:?}");
        }
    }
}
