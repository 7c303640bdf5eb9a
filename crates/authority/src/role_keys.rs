//! Keys with roles: made, ended, replaced and listed, for the API, the admin socket and the console alike.

use std::time::Duration;

use jiff::Timestamp;
use machineid_org_key::OrgKey;
use machineid_protocol::{DevicePattern, KeyRole};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::approvals::Approval;
use super::audit::Call;
use super::keys::{NoRandomness, SecretHash, new_key};
use super::org::{HeldKey, KeyName, OrgId};
use super::store::{KeyRefusal, KeyRow, NewRoleKey, RotatedKey, Store, StoreError, WhichKey};
use super::unwritten::InForce;

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
            Self::Key { replaced: true, .. } => Err(KeyRefusal::OldAuthor.into()),
            Self::Key { ends, replaced: false } => Ok(ends),
        }
    }
}

/// A key that was made. Its text is here and nowhere else.
#[derive(Debug)]
pub(super) struct MadeKey {
    pub(super) key: OrgKey,
    pub(super) report: KeyReport,
    /// After a rotation: when the key before it ends, or ended.
    pub(super) old_key_ends: Option<Timestamp>,
    /// It is valid only after a second key has confirmed it.
    pub(super) waits: Option<Box<Approval>>,
}

impl MadeKey {
    fn new(key: OrgKey, new: &NewRoleKey, old_key_ends: Option<Timestamp>, call: &Call) -> Self {
        let mark = new.hash.mark();
        let row = KeyRow { mark, held: new.held(), created_at: Some(call.at), last_used_at: None, devices: 0 };
        Self { key, report: KeyReport::new(row, call.at), old_key_ends, waits: None }
    }
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
    #[error(transparent)]
    Refused(#[from] KeyRefusal),
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
        return Err(KeyRefusal::Devices.into());
    }
    if expires.is_some_and(|expires| expires.is_zero() || expires > LONGEST_EXPIRY) {
        return Err(KeyRefusal::Expiry.into());
    }
    let key = new_key()?;
    let wished = expires.map(|expires| call.at.saturating_add(expires).unwrap_or(Timestamp::MAX));
    let ends = [wished, not_after].into_iter().flatten().min();
    let new = NewRoleKey { hash: SecretHash::of_key(&key), role, devices, name, ends };
    let waits = match store.create_key(org, &new, call).await {
        Err(StoreError::Waits(approval)) => Some(approval),
        done => {
            done??;
            None
        }
    };
    Ok(MadeKey { waits, ..MadeKey::new(key, &new, None, call) })
}

/// Makes a key invalid, now; a name means every key of that name. Returns the fingerprints.
pub(super) async fn revoke(
    store: &Store,
    org: OrgId,
    which: &WhichKey,
    call: &Call,
) -> Result<InForce<Vec<String>>, KeyError> {
    let ended = store.stop_key(org, which, call).await??;
    Ok(ended.map(|marks| marks.iter().map(hex::encode).collect()))
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
        return Err(KeyRefusal::Overlap.into());
    }
    let key = new_key()?;
    let until = call.at.saturating_add(overlap).unwrap_or(Timestamp::MAX);
    let rotated = store.rotate_role_key(org, which, SecretHash::of_key(&key), (until, not_after), call).await??;
    let RotatedKey { new, old_ends } = rotated;
    Ok(MadeKey::new(key, &new, Some(old_ends), call))
}

/// The organisation's keys, its own first and then the newest.
pub(super) async fn list(store: &Store, org: OrgId, now: Timestamp) -> Result<Vec<KeyReport>, KeyError> {
    let rows = store.keys(org).await?.ok_or(KeyRefusal::NoOrg)?;
    Ok(rows.into_iter().map(|row| KeyReport::new(row, now)).collect())
}
