//! The audit: a record of each management call, with who did what, when and why.
//!
//! A record is written in the transaction of its change, so no change is without a record and no record without its
//! change. A call that changed nothing (an unknown device, a full plan) is recorded too, with its outcome. Two kinds of
//! calls are not: reads, and registrations that add no device, since every host sends one at each boot and repeats it
//! every minute while the plan is full. The access log has those.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::batch::{Named, Outcome};
use super::forwarded::ClientAddress;
use super::keys::KeyMark;
use super::org::{KeyName, OrgId};
use super::plan::{Removal, Restoration, Suspension};

/// The outcome of a restore that gave a device back.
pub(super) const RESTORED: &str = "unrevoked";

/// The longest reason, in characters. A denial contains the reason, and clients keep only a part of a long text.
pub(super) const LONGEST_REASON: usize = 200;

/// The origin of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Actor {
    /// A holder of the org key with this fingerprint (see [`super::keys::SecretHash::fingerprint`]).
    Key(KeyLabel),
    /// A user of this machine, on the admin socket.
    Uid(u32),
    /// A sign-up from this address.
    Address(ClientAddress),
    /// A console session begun with the org key of this fingerprint.
    ConsoleKey(KeyLabel),
    /// A console session begun with a link that this user requested.
    ConsoleUid(u32),
    /// The server itself, for a program that embeds it.
    Server,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(fingerprint) => write!(f, "key:{fingerprint}"),
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Address(address) => write!(f, "address:{address}"),
            Self::ConsoleKey(fingerprint) => write!(f, "console:key:{fingerprint}"),
            Self::ConsoleUid(uid) => write!(f, "console:uid:{uid}"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// What an audit calls a key: its fingerprint, and behind a colon its name, where it has one. Never its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyLabel {
    mark: KeyMark,
    name: Option<KeyName>,
}

impl KeyLabel {
    pub(super) fn mark(&self) -> KeyMark {
        self.mark
    }

    pub(super) fn new(mark: KeyMark, name: Option<KeyName>) -> Self {
        Self { mark, name }
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.mark))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

/// An operator's reason: one line of 1 to [`LONGEST_REASON`] characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct CallReason(String);

/// The text is not a valid reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReasonError;

impl CallReason {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CallReason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().count() <= LONGEST_REASON && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(ReasonError) }
    }
}

impl fmt::Display for ReasonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a reason is one line of 1 to {LONGEST_REASON} characters")
    }
}

impl std::error::Error for ReasonError {}

impl<'de> Deserialize<'de> for CallReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A management call: what is known about it before it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    /// The time of the call; every time that the call writes is this one.
    pub(super) at: Timestamp,
    pub(super) request_id: String,
    pub(super) actor: Actor,
    pub(super) reason: Option<CallReason>,
}

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Register,
    Revoke,
    RevokeBatch,
    Unrevoke,
    UnrevokeBatch,
    Remove,
    AgeOut,
    Checkout,
    LinkCheckout,
    ConfirmCheckout,
    CreateOrg,
    DisableOrg,
    EnableOrg,
    FreezeOrg,
    UnfreezeOrg,
    ExpireOrg,
    SetPlan,
    RotateKey,
    EndOldKey,
    CreateKey,
    RevokeKey,
    DeleteOrg,
    SetOrg,
    AskApproval,
    Approve,
    RejectApproval,
}

impl Verb {
    /// All kinds.
    pub(super) const ALL: [Self; 26] = [
        Self::Register,
        Self::Revoke,
        Self::RevokeBatch,
        Self::Unrevoke,
        Self::UnrevokeBatch,
        Self::Remove,
        Self::AgeOut,
        Self::Checkout,
        Self::LinkCheckout,
        Self::ConfirmCheckout,
        Self::CreateOrg,
        Self::DisableOrg,
        Self::EnableOrg,
        Self::FreezeOrg,
        Self::UnfreezeOrg,
        Self::ExpireOrg,
        Self::SetPlan,
        Self::RotateKey,
        Self::EndOldKey,
        Self::CreateKey,
        Self::RevokeKey,
        Self::DeleteOrg,
        Self::SetOrg,
        Self::AskApproval,
        Self::Approve,
        Self::RejectApproval,
    ];

    /// The name in the audit: the endpoint below `/api/v1`, or `org/` and the command's name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "devices/register",
            Self::Revoke => "devices/revoke",
            Self::RevokeBatch => "devices/revoke_batch",
            Self::Unrevoke => "devices/unrevoke",
            Self::UnrevokeBatch => "devices/unrevoke_batch",
            Self::Remove => "devices/remove",
            Self::AgeOut => "devices/age_out",
            Self::Checkout => "billing/checkout",
            Self::LinkCheckout => "org/checkout-link",
            Self::ConfirmCheckout => "org/confirm-checkout",
            Self::CreateOrg => "org/create",
            Self::DisableOrg => "org/disable",
            Self::EnableOrg => "org/enable",
            Self::FreezeOrg => "org/freeze",
            Self::UnfreezeOrg => "org/unfreeze",
            Self::ExpireOrg => "org/expire",
            Self::SetPlan => "org/set-plan",
            Self::RotateKey => "org/rotate-key",
            Self::EndOldKey => "org/end-old-key",
            Self::CreateKey => "org/keys/create",
            Self::RevokeKey => "org/keys/revoke",
            Self::DeleteOrg => "org/delete",
            Self::SetOrg => "org/set",
            Self::AskApproval => "org/approvals/ask",
            Self::Approve => "org/approvals/approve",
            Self::RejectApproval => "org/approvals/reject",
        }
    }
}

/// The result of a call. The outcome is [`Self::OK`], or the API's word for any other result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) org: OrgId,
    pub(super) verb: Verb,
    /// The device, for a call about one device.
    pub(super) device: Option<String>,
    pub(super) outcome: &'static str,
    pub(super) details: Map<String, Value>,
}

impl Record {
    pub(super) const OK: &str = "ok";

    /// A call that succeeded.
    pub(super) fn ok(org: OrgId, verb: Verb) -> Self {
        Self { org, verb, device: None, outcome: Self::OK, details: Map::new() }
    }

    pub(super) fn about(mut self, device: &str) -> Self {
        self.device = Some(device.to_owned());
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The record of a removal.
    pub(super) fn remove(org: OrgId, device: &str, removal: Removal) -> Self {
        let outcome = match removal {
            Removal::Removed => Self::OK,
            Removal::NotFound => "not_found",
            Removal::Revoked => "device_revoked",
        };
        Self { outcome, ..Self::ok(org, Verb::Remove).about(device) }
    }

    /// The record of removing ephemeral devices that were last seen before `before`.
    pub(super) fn age_out(org: OrgId, devices: &[DeviceId], before: Timestamp) -> Self {
        let done = Self::ok(org, Verb::AgeOut).with("removed", devices.len()).with("notSeenSince", before.to_string());
        done.with("deviceIds", json!(devices))
    }

    /// The record of a revoke, of one device or a batch.
    pub(super) fn revoke(org: OrgId, verb: Verb, batch: &[Named], outcomes: &[Outcome<Suspension>]) -> Self {
        Self::named(org, verb, batch, outcomes, |done| match done {
            Suspension::Revoked => ("revoked", true),
            Suspension::AlreadyRevoked => ("already_revoked", false),
            Suspension::NotFound => ("not_found", false),
        })
    }

    /// The record of an unrevoke, of one device or a batch.
    pub(super) fn unrevoke(org: OrgId, verb: Verb, batch: &[Named], outcomes: &[Outcome<Restoration>]) -> Self {
        Self::named(org, verb, batch, outcomes, |done| match done {
            Restoration::Restored => (RESTORED, true),
            Restoration::AlreadyActive => ("already_active", false),
            Restoration::NotFound => ("not_found", false),
            Restoration::Full => ("device_limit_reached", false),
        })
    }

    /// A call about one device has that device's word as outcome. A batch succeeds as a whole, with a count for each
    /// word and the ids that changed.
    fn named<T: Copy>(
        org: OrgId,
        verb: Verb,
        batch: &[Named],
        outcomes: &[Outcome<T>],
        word: impl Fn(T) -> (&'static str, bool),
    ) -> Self {
        let word = |outcome: &Outcome<T>| match outcome {
            Outcome::Invalid => ("invalid", false),
            Outcome::Did(done) => word(*done),
        };
        if let (Verb::Revoke | Verb::Unrevoke, [named], [outcome]) = (verb, batch, outcomes) {
            return Self { outcome: word(outcome).0, ..Self::ok(org, verb).about(&named.sent) };
        }
        let mut record = Self::ok(org, verb);
        let mut changed = Vec::new();
        for (named, (word, did)) in batch.iter().zip(outcomes.iter().map(word)) {
            let count = record.details.entry(word).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or(0) + 1);
            changed.extend(named.id.as_ref().filter(|_| did).map(|id| json!(id)));
        }
        record.with("deviceIds", changed)
    }
}

/// An audit entry, as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditEntry {
    /// The entry's number; later calls have higher ones.
    pub(super) id: i64,
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Timestamp,
    #[schema(value_type = String, format = "uuid")]
    pub(super) org_id: OrgId,
    #[serde(rename = "request_id")]
    pub(super) request_id: String,
    /// The caller: `key:` with the key's fingerprint, `uid:` on the admin socket, `address:` of a sign-up.
    pub(super) actor: String,
    /// The kind of call: the endpoint's name below `/api/v1`, or `org/` and the command's name.
    pub(super) verb: String,
    pub(super) device_id: Option<String>,
    /// `ok`, or why not.
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    /// Counts, ids and other details.
    #[schema(value_type = Object)]
    pub(super) details: Map<String, Value>,
}

/// A filter for audit entries, the newest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    /// Only entries of this organisation.
    pub(super) org: Option<OrgId>,
    /// Only entries about this device, alone or in a batch that changed it.
    pub(super) device: Option<String>,
    /// Only entries of this kind ([`Verb`] as text).
    pub(super) verb: Option<String>,
    /// Only entries whose caller contains this text.
    pub(super) who: Option<String>,
    /// Only entries older than this one.
    pub(super) before: Option<i64>,
    /// At most this many.
    pub(super) limit: u32,
}

impl Query {
    /// The page made from the fetched entries: one more than the limit shows whether there are more.
    pub(super) fn page(&self, mut entries: Vec<AuditEntry>) -> Page {
        let wanted = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = entries.len() > wanted;
        entries.truncate(wanted);
        Page { entries, more }
    }
}

/// A page of the audit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Page {
    pub(super) entries: Vec<AuditEntry>,
    /// Whether there are older entries.
    pub(super) more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[&str]) -> Vec<Named> {
        super::super::batch::distinct(ids.iter().map(|id| (*id).to_owned()).collect()).unwrap()
    }

    #[test]
    fn a_reason_is_one_line_that_fits_a_denial() {
        assert_eq!(" gone mad ".parse::<CallReason>().unwrap().as_str(), "gone mad");
        assert!("é".repeat(LONGEST_REASON).parse::<CallReason>().is_ok());
        for text in ["", "  ", "a\nb", "\u{1b}[31m", &"x".repeat(LONGEST_REASON + 1)] {
            assert_eq!(text.parse::<CallReason>(), Err(ReasonError), "{text:?}");
        }
    }

    #[test]
    fn a_single_call_names_its_device_and_a_batch_counts_and_names_what_changed() {
        let org = OrgId::random();
        let one = Record::revoke(org, Verb::Revoke, &batch(&["a"]), &[Outcome::Did(Suspension::NotFound)]);
        assert_eq!((one.device.as_deref(), one.outcome, one.details.len()), (Some("a"), "not_found", 0));
        let did = [
            Outcome::Did(Suspension::Revoked),
            Outcome::Invalid,
            Outcome::Did(Suspension::Revoked),
            Outcome::Did(Suspension::AlreadyRevoked),
        ];
        let many = Record::revoke(org, Verb::RevokeBatch, &batch(&["a", "no no", "b", "c"]), &did);
        assert_eq!((many.device, many.outcome), (None, "ok"));
        let details = json!({"revoked": 2, "invalid": 1, "already_revoked": 1, "deviceIds": ["a", "b"]});
        assert_eq!(Value::Object(many.details), details);
    }

    #[test]
    fn a_batch_of_one_is_a_batch() {
        let record =
            Record::unrevoke(OrgId::random(), Verb::UnrevokeBatch, &batch(&["a"]), &[Outcome::Did(Restoration::Full)]);
        assert_eq!((record.device, record.outcome), (None, "ok"));
        assert_eq!(Value::Object(record.details), json!({"device_limit_reached": 1, "deviceIds": []}));
    }
}
