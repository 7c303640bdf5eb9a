//! Keys with roles: made, ended, replaced and listed, for the API, the admin socket and the console alike.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use machineid_org_key::OrgKey;
use machineid_protocol::{DevicePattern, KeyRole};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::Call;
use super::keys::{NoRandomness, SecretHash, new_key};
use super::org::{HeldKey, KeyName, OrgId};
use super::store::{KEPT_KEYS, KeyChange, KeyRow, NewRoleKey, Store, StoreError, WhichKey};

/// The longest time after which a key can expire, and for which an old one can stay valid.
pub(super) const LONGEST_EXPIRY: Duration = Duration::from_hours(24 * 3_660);

/// A key that is asked for.
#[derive(Clone, Debug)]
pub(super) struct WantedKey {
    pub(super) role: KeyRole,
    /// Of a host key: the devices that it may work for; `None` for all.
    pub(super) devices: Option<DevicePattern>,
    pub(super) name: Option<KeyName>,
    /// It is invalid after this time.
    pub(super) expires: Option<Duration>,
}

/// What makes or replaces a key. A key that ends makes none that outlives it, and one that another has taken the place of
/// makes none at all: else a rotation would not be the end of a key that was stolen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAuthor {
    /// The operator of the server.
    Operator,
    Key {
        ends: Option<Timestamp>,
        replaced: bool,
    },
}

impl KeyAuthor {
    pub(super) fn of(key: &HeldKey) -> Self {
        Self::Key { ends: key.ends, replaced: key.replaced }
    }

    /// The latest end of what it makes. Fails when it may make nothing.
    fn not_after(self) -> Result<Option<Timestamp>, KeyError> {
        match self {
            Self::Operator => Ok(None),
            Self::Key { replaced: true, .. } => Err(KeyError::Refused(KeyRefusal::OldAuthor)),
            Self::Key { ends, replaced: false } => Ok(ends),
        }
    }
}

/// A key that was made. Its text is here and nowhere else.
#[derive(Debug)]
pub(super) struct MadeKey {
    pub(super) key: OrgKey,
    pub(super) report: KeyReport,
}

/// A key as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyReport {
    /// Twelve hex digits that tell it from others, in the audit too; useless for finding the key.
    pub(super) fingerprint: String,
    pub(super) name: Option<String>,
    pub(super) role: KeyRole,
    /// The devices that it may work for, as a pattern; null for all.
    pub(super) devices: Option<String>,
    /// `valid`, `old` (another key has taken its place, and it is valid until its end) or `ended`.
    pub(super) state: KeyState,
    /// It is the organisation's own key or the one before it. Those are rotated, never revoked.
    pub(super) own: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) created_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) ends: Option<Timestamp>,
    /// To about a minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) last_used_at: Option<Timestamp>,
    /// How many devices asked last with it.
    pub(super) used_by_devices: u64,
}

/// Whether a key is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyState {
    Valid,
    Old,
    Ended,
}

impl KeyState {
    fn of(key: &HeldKey, now: Timestamp) -> Self {
        match (key.good(now), key.replaced) {
            (false, _) => Self::Ended,
            (true, true) => Self::Old,
            (true, false) => Self::Valid,
        }
    }
}

impl KeyReport {
    fn new(row: KeyRow, now: Timestamp) -> Self {
        let KeyRow { mark, held, created_at, last_used_at, devices } = row;
        Self {
            fingerprint: hex::encode(mark),
            state: KeyState::of(&held, now),
            name: held.name.as_ref().map(ToString::to_string),
            role: held.role,
            devices: held.devices.as_ref().map(ToString::to_string),
            own: held.own,
            created_at,
            ends: held.ends,
            last_used_at,
            used_by_devices: devices,
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("{0}")]
    Refused(KeyRefusal),
}

/// What is wrong with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyRefusal {
    NoOrg,
    Unknown,
    Own,
    Several,
    Replaced,
    Taken,
    Full,
    /// Only a host key names devices.
    Devices,
    Expiry,
    Overlap,
    /// The key in use is an old one.
    OldAuthor,
}

impl KeyRefusal {
    /// Its word in the API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoOrg => "org_not_found",
            Self::Unknown => "not_found",
            Self::Own => "own_key",
            Self::Several => "ambiguous_key",
            Self::Replaced => "key_replaced",
            Self::Taken => "name_taken",
            Self::Full => "too_many_keys",
            Self::Devices => "devices_need_host_role",
            Self::Expiry => "invalid_expiry",
            Self::Overlap => "invalid_overlap",
            Self::OldAuthor => "old_key",
        }
    }
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrg => f.write_str("there is no such organisation, or it was deleted"),
            Self::Unknown => f.write_str("no valid key has that fingerprint or name; `key list` names them"),
            Self::Own => f.write_str("that is the organisation's own key: it is rotated (`rotate-key`), not revoked"),
            Self::Several => f.write_str("several valid keys have that name; give the fingerprint"),
            Self::Replaced => f.write_str("another key has taken its place already"),
            Self::Taken => f.write_str("another valid key has that name"),
            Self::Full => write!(f, "there are {KEPT_KEYS} valid keys already; revoke some"),
            Self::Devices => f.write_str("only a key of the role host names devices"),
            Self::Expiry => f.write_str("a key expires after 1 second to 10 years"),
            Self::OldAuthor => f.write_str("another key has taken the place of the one in use; use that one"),
            Self::Overlap => f.write_str("an old key can stay valid for 90 days (2160h) at most"),
        }
    }
}

/// Unless the change was made, why not.
fn done<T>(change: KeyChange<T>) -> Result<T, KeyError> {
    Err(KeyError::Refused(match change {
        KeyChange::Done(done) => return Ok(done),
        KeyChange::NoOrg => KeyRefusal::NoOrg,
        KeyChange::Unknown => KeyRefusal::Unknown,
        KeyChange::Own => KeyRefusal::Own,
        KeyChange::Several => KeyRefusal::Several,
        KeyChange::Replaced => KeyRefusal::Replaced,
        KeyChange::Taken => KeyRefusal::Taken,
        KeyChange::Full => KeyRefusal::Full,
    }))
}

/// Makes a key.
pub(super) async fn create(
    store: &Store,
    org: OrgId,
    wanted: WantedKey,
    author: KeyAuthor,
    call: &Call,
) -> Result<MadeKey, KeyError> {
    let not_after = author.not_after()?;
    let WantedKey { role, devices, name, expires } = wanted;
    if devices.is_some() && role != KeyRole::Host {
        return Err(KeyError::Refused(KeyRefusal::Devices));
    }
    if expires.is_some_and(|expires| expires.is_zero() || expires > LONGEST_EXPIRY) {
        return Err(KeyError::Refused(KeyRefusal::Expiry));
    }
    let key = new_key()?;
    let wished = expires.map(|expires| call.at.saturating_add(expires).unwrap_or(Timestamp::MAX));
    let ends = [wished, not_after].into_iter().flatten().min();
    let new = NewRoleKey { hash: SecretHash::of_key(&key), role, devices, name, ends };
    done(store.create_key(org, &new, call).await?)?;
    Ok(made(key, &new, call))
}

/// Makes a key invalid, now; a name means every key of that name. Returns the fingerprints.
pub(super) async fn revoke(store: &Store, org: OrgId, which: &WhichKey, call: &Call) -> Result<Vec<String>, KeyError> {
    Ok(done(store.revoke_key(org, which, call).await?)?.iter().map(hex::encode).collect())
}

/// Makes a key with the role, the devices, the name and the end of another one, which stays valid for `overlap`.
pub(super) async fn rotate(
    store: &Store,
    org: OrgId,
    which: &WhichKey,
    overlap: Duration,
    author: KeyAuthor,
    call: &Call,
) -> Result<MadeKey, KeyError> {
    let not_after = author.not_after()?;
    if overlap > super::admin::LONGEST_OVERLAP {
        return Err(KeyError::Refused(KeyRefusal::Overlap));
    }
    let key = new_key()?;
    let until = call.at.saturating_add(overlap).unwrap_or(Timestamp::MAX);
    let new = done(store.rotate_role_key(org, which, SecretHash::of_key(&key), (until, not_after), call).await?)?;
    Ok(made(key, &new, call))
}

/// The organisation's keys, its own first and then the newest.
pub(super) async fn list(store: &Store, org: OrgId, now: Timestamp) -> Result<Vec<KeyReport>, KeyError> {
    let rows = store.keys(org).await?.ok_or(KeyError::Refused(KeyRefusal::NoOrg))?;
    Ok(rows.into_iter().map(|row| KeyReport::new(row, now)).collect())
}

fn made(key: OrgKey, new: &NewRoleKey, call: &Call) -> MadeKey {
    let mark = new.hash.mark();
    let row = KeyRow { mark, held: new.held(), created_at: Some(call.at), last_used_at: None, devices: 0 };
    MadeKey { key, report: KeyReport::new(row, call.at) }
}
