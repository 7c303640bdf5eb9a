//! Restores by two: what gives back what a stop took waits until a second key confirms it, where the organisation is set so
//! (`org set --restore-needs 2`). Pure.
//!
//! A stolen key that may restore then restores nothing alone. So everything by which its holder could become two waits or is
//! refused as well: a new key that may restore waits, and such a key is rotated only by its own holder. The operator of the
//! server, on its machine, is bound by none of this. A stop never waits.
//!
//! A request is about the stop that it was made for: a stop that comes later, even a repeated one, makes it void. Stops are
//! counted for this, since servers' clocks may differ.

use jiff::{SignedDuration, Timestamp};
use machineid_protocol::{DeviceId, DevicePattern, KeyRole};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Grant, Permission};
use super::keys::KeyMark;
use super::org::{HeldKey, KeyName};

/// How long a request waits.
pub(super) const WAITS: SignedDuration = SignedDuration::from_hours(24);

/// The most requests of one organisation that wait.
pub(super) const MOST_WAITING: u64 = 100;

/// How many keys a restore may need, at most.
pub(super) const MOST_NEEDED: u8 = 2;

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(super) enum Action {
    Unrevoke {
        devices: Vec<StoppedDevice>,
    },
    UnrevokeAll,
    Remove {
        device: StoppedDevice,
    },
    Enable,
    /// The key exists, as a hash, and is valid only after the confirmation.
    CreateKey {
        /// In hex.
        hash: String,
        role: KeyRole,
        devices: Option<DevicePattern>,
        name: Option<KeyName>,
        ends: Option<Timestamp>,
    },
}

/// A stopped device, as it was when the request was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoppedDevice {
    pub(super) id: DeviceId,
    /// The device's number in the store; a device that registers again has another one.
    pub(super) seq: i64,
    /// How often it was stopped.
    pub(super) stops: i64,
}

/// How often an organisation stopped something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StopCounts {
    /// Any of its devices.
    pub(super) any: i64,
    /// All of them: a revoke of all active ones, or the execution switch.
    pub(super) all: i64,
}

impl Action {
    /// The permission that it needs.
    pub(super) const fn needs(&self) -> Permission {
        match self {
            Self::Unrevoke { .. } | Self::UnrevokeAll => Permission::GiveBack,
            Self::Remove { .. } => Permission::Remove,
            Self::Enable | Self::CreateKey { .. } => Permission::Administer,
        }
    }

    /// The roles of the keys that may confirm it, in words.
    pub(super) const fn confirming_roles(&self) -> &'static str {
        match self {
            Self::Unrevoke { .. } | Self::UnrevokeAll | Self::Remove { .. } => "operate or admin",
            Self::Enable | Self::CreateKey { .. } => "admin",
        }
    }

    /// What it does, in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Unrevoke { devices } => match devices.as_slice() {
                [one] => format!("unrevoke {}", one.id),
                [first, others @ ..] => format!("unrevoke {} and {} more", first.id, others.len()),
                [] => "unrevoke nothing".to_owned(),
            },
            Self::UnrevokeAll => "unrevoke all revoked devices".to_owned(),
            Self::Remove { device } => format!("remove the revoked device {}", device.id),
            Self::Enable => "switch execution on".to_owned(),
            Self::CreateKey { role, name, .. } => match name {
                Some(name) => format!("make the key {name} of the role {role}"),
                None => format!("make a key of the role {role}"),
            },
        }
    }

    /// The devices that it is about.
    pub(super) fn devices(&self) -> Vec<&DeviceId> {
        match self {
            Self::Unrevoke { devices } => devices.iter().map(|device| &device.id).collect(),
            Self::Remove { device } => vec![&device.id],
            Self::UnrevokeAll | Self::Enable | Self::CreateKey { .. } => Vec::new(),
        }
    }

    /// Whether a stop came since: `then` and `now` are the organisation's counts, `same` says whether each device is as it was.
    pub(super) fn was_overtaken(&self, then: StopCounts, now: StopCounts, same: bool) -> bool {
        match self {
            Self::Unrevoke { .. } | Self::Remove { .. } => then.all != now.all || !same,
            Self::UnrevokeAll => then != now,
            Self::Enable => then.all != now.all,
            Self::CreateKey { .. } => false,
        }
    }
}

/// Whether a key of this role could confirm anything, so that making one waits.
pub(super) fn may_confirm(role: KeyRole) -> bool {
    Permission::GiveBack.of(role) == Grant::Whole
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ApprovalState {
    Waiting,
    Approved,
    Rejected,
    /// A stop came after it, or its key is no longer valid.
    Void,
    Expired,
}

impl ApprovalState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Void => "void",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub(super) fn read(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Approved, Self::Rejected, Self::Void, Self::Expired]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A request for a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approval {
    /// A short number for people to type; not a secret.
    pub(super) id: String,
    pub(super) action: Action,
    pub(super) counts: StopCounts,
    pub(super) asked_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// The key that asked, as the audit names it.
    pub(super) asked_by: String,
    pub(super) asker: Asker,
    pub(super) reason: Option<String>,
    pub(super) state: ApprovalState,
    pub(super) decided_at: Option<Timestamp>,
    pub(super) decided_by: Option<String>,
}

/// The key that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) mark: KeyMark,
    /// It is the organisation's own key.
    pub(super) own: bool,
}

/// The key that confirms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirming<'a> {
    pub(super) mark: KeyMark,
    pub(super) held: &'a HeldKey,
    /// When it was made; not known of the organisation's own, which is as old as the organisation or was rotated by its holder.
    pub(super) created_at: Option<Timestamp>,
}

/// Why a request is not made, or not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApprovalRefusal {
    #[error("no request of this organisation has that number; `machineid approvals` lists those that wait")]
    Unknown,
    #[error("the request was approved, rejected or made void already")]
    Decided,
    #[error("the request is older than 24 hours; ask again")]
    Expired,
    #[error("a key cannot confirm its own request; another one must")]
    SameKey,
    #[error("the key was made after the request, and cannot confirm it")]
    TooNew,
    #[error("another key has taken the place of the one in use; use that one")]
    OldKey,
    #[error("the key's role may not do what the request asks for; execution and keys need one of the role admin")]
    NotPermitted,
    #[error("the key that asked is not valid any more, so the request is void")]
    AskerGone,
    #[error("a stop came after the request, so the request is void; ask again if the stop is to be undone")]
    Overtaken,
    #[error("100 requests wait already; approve or reject some")]
    TooMany,
    #[error(
        "restores need two keys here, so a key that may restore is rotated by its own holder, or by the server's operator"
    )]
    OthersKey,
}

impl ApprovalRefusal {
    /// Its word in the API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "not_found",
            Self::Decided => "already_decided",
            Self::Expired => "expired",
            Self::SameKey => "same_key",
            Self::TooNew => "key_too_new",
            Self::OldKey => "old_key",
            Self::NotPermitted => "not_permitted",
            Self::AskerGone => "asker_gone",
            Self::Overtaken => "overtaken_by_a_stop",
            Self::TooMany => "too_many_waiting",
            Self::OthersKey => "not_its_holder",
        }
    }

    /// Whether the request can never be confirmed any more.
    pub(super) const fn voids(self) -> bool {
        match self {
            Self::AskerGone | Self::Overtaken => true,
            Self::Unknown
            | Self::Decided
            | Self::Expired
            | Self::SameKey
            | Self::TooNew
            | Self::OldKey
            | Self::NotPermitted
            | Self::TooMany
            | Self::OthersKey => false,
        }
    }
}

/// What is missing when these are an organisation's keys and restores need two of them; `None` when nothing is.
pub(super) fn too_few(keys: &[HeldKey], now: Timestamp) -> Option<&'static str> {
    let good = |key: &&HeldKey| key.good(now) && !key.replaced;
    let confirming = keys.iter().filter(good).filter(|key| may_confirm(key.role)).count();
    let admins = keys.iter().filter(good).filter(|key| key.role == KeyRole::Admin).count();
    if confirming < 2 {
        Some(
            "Only one key may restore, so that nothing can be confirmed: make another one of the role admin for another \
             holder (org key create ORG --role admin). Until then only the operator of this server restores anything.",
        )
    } else if admins < 2 {
        Some(
            "Only one key has the role admin, so that no second one confirms that execution is switched on or a key is made: \
             make another one for another holder (org key create ORG --role admin), or the operator of this server does it.",
        )
    } else {
        None
    }
}

/// How far the request is at `now`: one that can never be confirmed any more is void, also before a key tries to.
pub(super) fn standing(request: &Approval, asker: Option<&HeldKey>, overtaken: bool, now: Timestamp) -> ApprovalState {
    match request.state {
        ApprovalState::Waiting if now >= request.expires_at => ApprovalState::Expired,
        ApprovalState::Waiting if overtaken || !still_asks(asker, now) => ApprovalState::Void,
        state @ (ApprovalState::Waiting
        | ApprovalState::Approved
        | ApprovalState::Rejected
        | ApprovalState::Void
        | ApprovalState::Expired) => state,
    }
}

/// Whether the key that asked is one still. A key that was revoked may have been stolen; one that was rotated since has a
/// second text.
fn still_asks(asker: Option<&HeldKey>, now: Timestamp) -> bool {
    asker.is_some_and(|asker| asker.good(now) && !asker.replaced)
}

/// Whether this key may confirm the request at `now`. `asker` is what the key that asked is now, and `overtaken` says
/// whether a stop came since.
pub(super) fn confirm(
    request: &Approval,
    by: &Confirming<'_>,
    asker: Option<&HeldKey>,
    overtaken: bool,
    now: Timestamp,
) -> Result<(), ApprovalRefusal> {
    match request.state {
        ApprovalState::Waiting => {}
        ApprovalState::Expired => return Err(ApprovalRefusal::Expired),
        ApprovalState::Approved | ApprovalState::Rejected | ApprovalState::Void => {
            return Err(ApprovalRefusal::Decided);
        }
    }
    if now >= request.expires_at {
        return Err(ApprovalRefusal::Expired);
    }
    if request.action.needs().of(by.held.role) != Grant::Whole || !may_confirm(by.held.role) || !by.held.good(now) {
        return Err(ApprovalRefusal::NotPermitted);
    }
    if by.held.replaced {
        return Err(ApprovalRefusal::OldKey);
    }
    if by.mark == request.asker.mark || (by.held.own && request.asker.own) {
        return Err(ApprovalRefusal::SameKey);
    }
    if by.created_at.is_some_and(|created_at| created_at >= request.asked_at) {
        return Err(ApprovalRefusal::TooNew);
    }
    if !still_asks(asker, now) {
        return Err(ApprovalRefusal::AskerGone);
    }
    if overtaken { Err(ApprovalRefusal::Overtaken) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn key(role: KeyRole) -> HeldKey {
        HeldKey { own: false, role, devices: None, name: None, ends: None, replaced: false, revoked: false }
    }

    fn request(action: Action) -> Approval {
        Approval {
            id: "1".to_owned(),
            action,
            counts: StopCounts { any: 3, all: 1 },
            asked_at: at(100),
            expires_at: at(200),
            asked_by: "key:01".to_owned(),
            asker: Asker { mark: [1; 6], own: false },
            reason: None,
            state: ApprovalState::Waiting,
            decided_at: None,
            decided_by: None,
        }
    }

    fn confirmed(request: &Approval, mark: u8, held: &HeldKey, created: Option<i64>) -> Result<(), ApprovalRefusal> {
        let by = Confirming { mark: [mark; 6], held, created_at: created.map(at) };
        confirm(request, &by, Some(&key(KeyRole::Operate)), false, at(150))
    }

    #[test]
    fn only_an_older_other_key_that_may_do_it_confirms_and_only_in_time() {
        let unrevoke = request(Action::UnrevokeAll);
        let operate = key(KeyRole::Operate);
        assert_eq!(confirmed(&unrevoke, 2, &operate, Some(50)), Ok(()));
        assert_eq!(confirmed(&unrevoke, 1, &operate, Some(50)), Err(ApprovalRefusal::SameKey));
        assert_eq!(confirmed(&unrevoke, 2, &operate, Some(100)), Err(ApprovalRefusal::TooNew));
        for role in [KeyRole::Host, KeyRole::Stop, KeyRole::Read] {
            assert_eq!(confirmed(&unrevoke, 2, &key(role), Some(50)), Err(ApprovalRefusal::NotPermitted));
        }
        let enable = request(Action::Enable);
        assert_eq!(confirmed(&enable, 2, &operate, None), Err(ApprovalRefusal::NotPermitted));
        assert_eq!(confirmed(&enable, 2, &key(KeyRole::Admin), None), Ok(()));
        let by = Confirming { mark: [2; 6], held: &operate, created_at: Some(at(50)) };
        assert_eq!(confirm(&unrevoke, &by, Some(&operate), false, at(199)), Ok(()));
        assert_eq!(confirm(&unrevoke, &by, Some(&operate), false, at(200)), Err(ApprovalRefusal::Expired));
        assert_eq!(confirm(&unrevoke, &by, Some(&operate), true, at(150)), Err(ApprovalRefusal::Overtaken));
        let decided = Approval { state: ApprovalState::Approved, ..unrevoke };
        assert_eq!(confirmed(&decided, 2, &operate, Some(50)), Err(ApprovalRefusal::Decided));
    }

    #[test]
    fn a_request_that_cannot_be_confirmed_any_more_does_not_wait() {
        let unrevoke = request(Action::UnrevokeAll);
        let operate = key(KeyRole::Operate);
        let state = |asker, overtaken, now| standing(&unrevoke, asker, overtaken, at(now));
        assert_eq!(state(Some(&operate), false, 150), ApprovalState::Waiting);
        assert_eq!(state(Some(&operate), true, 150), ApprovalState::Void);
        assert_eq!(state(None, false, 150), ApprovalState::Void);
        assert_eq!(state(Some(&operate), true, 200), ApprovalState::Expired);
        let approved = Approval { state: ApprovalState::Approved, ..unrevoke.clone() };
        assert_eq!(standing(&approved, None, true, at(300)), ApprovalState::Approved);
    }

    #[test]
    fn two_keys_are_needed_to_restore_by_two() {
        let (own, operate, stop) = (HeldKey::own(), key(KeyRole::Operate), key(KeyRole::Stop));
        let told = |keys: &[HeldKey]| too_few(keys, at(0)).unwrap_or_default();
        assert!(told(&[own.clone(), stop]).contains("Only one key may restore"));
        let ended = HeldKey { revoked: true, ..key(KeyRole::Admin) };
        assert!(told(&[own.clone(), ended]).contains("Only one key may restore"));
        assert!(told(&[own.clone(), operate]).contains("Only one key has the role admin"));
        assert_eq!(told(&[own, key(KeyRole::Admin)]), "");
    }

    #[test]
    fn a_rotation_makes_no_second_holder() {
        let unrevoke = request(Action::UnrevokeAll);
        let operate = key(KeyRole::Operate);
        let old = HeldKey { replaced: true, ..operate.clone() };
        assert_eq!(confirmed(&unrevoke, 2, &old, Some(50)), Err(ApprovalRefusal::OldKey));
        let by = Confirming { mark: [2; 6], held: &operate, created_at: Some(at(50)) };
        let revoked = HeldKey { revoked: true, ..operate.clone() };
        for asker in [None, Some(&old), Some(&revoked)] {
            assert_eq!(confirm(&unrevoke, &by, asker, false, at(150)), Err(ApprovalRefusal::AskerGone));
        }
        let by_own = Approval { asker: Asker { mark: [1; 6], own: true }, ..unrevoke };
        assert_eq!(confirmed(&by_own, 2, &HeldKey::own(), None), Err(ApprovalRefusal::SameKey), "it was rotated");
        assert_eq!(confirmed(&by_own, 2, &operate, Some(50)), Ok(()));
    }

    #[test]
    fn a_stop_overtakes_what_would_undo_it_and_nothing_else() {
        let device = || StoppedDevice { id: "a".parse().unwrap(), seq: 1, stops: 1 };
        let then = StopCounts { any: 3, all: 1 };
        let (other, all) = (StopCounts { any: 4, ..then }, StopCounts { any: 4, all: 2 });
        let one = Action::Unrevoke { devices: vec![device()] };
        let remove = Action::Remove { device: device() };
        for about_one in [one, remove] {
            assert!(!about_one.was_overtaken(then, other, true), "another device was stopped");
            assert!(about_one.was_overtaken(then, other, false) && about_one.was_overtaken(then, all, true));
        }
        assert!(Action::UnrevokeAll.was_overtaken(then, other, true));
        assert!(!Action::Enable.was_overtaken(then, other, true) && Action::Enable.was_overtaken(then, all, true));
    }

    proptest! {
        #[test]
        fn whatever_the_keys_are_one_key_alone_confirms_nothing(
            own in any::<bool>(), other_own in any::<bool>(), replaced in any::<bool>(), created in prop::option::of(0..200_i64),
            mark in 1..3_u8, overtaken in any::<bool>(), now in 90..210_i64,
        ) {
            let request = Approval { asker: Asker { mark: [1; 6], own }, ..request(Action::UnrevokeAll) };
            let held = HeldKey { own: other_own, replaced, ..key(KeyRole::Admin) };
            let by = Confirming { mark: [mark; 6], held: &held, created_at: created.map(at) };
            if confirm(&request, &by, Some(&key(KeyRole::Admin)), overtaken, at(now)).is_ok() {
                prop_assert!(mark != 1 && !replaced && !overtaken && now < 200);
                prop_assert!(!own || !other_own);
                prop_assert!(created.is_none_or(|created| created < 100));
            }
        }
    }
}
