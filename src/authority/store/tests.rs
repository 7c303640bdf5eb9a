//! The store against a model of it, and what only a store can get wrong: one suite, over both stores.

#![expect(clippy::needless_pass_by_value, reason = "each scenario has a store of its own")]

#[path = "../../../tests/suite/harness/postgres.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::{Backend, CheckoutKey, Filter, NewCheckout, OpenError, OrgChange, RestoredAll, Store, StoreError, Terms};
use crate::authority::admin::create_org;
use crate::authority::audit::{Actor, Call, Query, Verb};
use crate::authority::batch::{Named, Outcome, distinct};
use crate::authority::changes::Change;
use crate::authority::database::Database;
use crate::authority::keys::{SecretHash, new_key};
use crate::authority::org::{HeldKey, OrgId, PlanTier};
use crate::authority::plan::{Admission, Removal, Restoration, Suspension};
use crate::authority::reports::HeardReport;
use crate::authority::seen::LastSeen;
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The scenario on each store, as a test of its own.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod on_sqlite {
            $(#[test]
            fn $scenario() {
                let directory = tempfile::TempDir::new().unwrap();
                super::run(&super::sqlite(directory.path()), super::$scenario);
            })*
        }
        mod on_postgres {
            $(#[test]
            fn $scenario() {
                // Skipped where it cannot be had, which the cluster says.
                if let Some(url) = super::cluster::new_database() {
                    super::run(&url.parse().unwrap(), super::$scenario);
                }
            })*
        }
    };
}

on_both! {
    any_sequence_of_changes_leaves_what_the_model_says
    the_large_plans_end_at_their_limits_too
    every_read_that_begins_after_a_change_sees_it
    a_late_last_seen_time_never_lands_on_a_device_that_came_after
    a_checkout_is_confirmed_once_within_its_time_and_by_nobody_but_an_operator
    every_management_call_is_in_the_audit_with_its_reason_and_what_it_came_to
    a_reason_stays_with_the_device_while_it_is_revoked
    whoever_listens_is_told_of_a_change_once_it_can_be_seen
    registrations_that_race_for_the_last_places_never_exceed_the_plan
    a_database_of_a_newer_version_is_refused
    an_entitlement_that_ends_is_found_once_in_the_span_in_which_it_does
    old_and_new_key_are_valid_together_until_the_time_and_no_third_one_is
    an_old_key_that_ends_is_found_once_in_the_span_in_which_it_does
    an_operators_own_limit_holds_instead_of_the_plans
    what_a_sidecar_reports_takes_the_place_of_what_it_said_before
    a_report_that_comes_late_changes_nothing_but_what_happened
    what_is_kept_of_a_device_is_bounded_and_the_newest_stays
    what_was_reported_about_a_removed_device_is_not_said_of_its_successor
    a_device_that_was_revoked_leaves_its_stops_and_timeline_behind
    a_revoked_device_is_not_removed_by_what_wants_an_active_one_gone
    ephemeral_devices_age_out_by_when_they_were_last_seen_and_revoked_ones_never
    which_key_a_device_asked_with_last_is_known_and_the_newest_note_wins
    a_fleet_is_read_page_by_page_with_what_was_heard_of_each_device
    what_a_stop_of_many_led_to_is_told_of_its_own_devices_and_since_then
    observers_are_told_of_reports_once_they_can_be_read_and_no_sidecar_is
    some_devices_of_a_fleet_are_found_by_their_ids
}

#[test]
fn a_decision_that_comes_later_than_clients_wait_is_none_whichever_the_store() {
    let found = runtime().block_on(super::in_time(std::future::pending::<Result<(), StoreError>>()));
    assert!(matches!(found, Err(StoreError::Late)), "{found:?}");
}

fn sqlite(directory: &Path) -> Database {
    Database::Sqlite(directory.join("test.db"))
}

fn run(database: &Database, scenario: impl FnOnce(&Runtime, Store)) {
    let runtime = runtime();
    let store = runtime.block_on(Store::open(database, Terms::default())).unwrap();
    scenario(&runtime, store.clone());
    runtime.block_on(store.close());
}

async fn new_org(store: &Store, tier: PlanTier) -> OrgId {
    create_org(store, None, tier, None, &by(0)).await.unwrap().0.id
}

fn by(second: i64) -> Call {
    Call { at: at(second), request_id: format!("request {second}"), actor: Actor::Key("0123".to_owned()), reason: None }
}

fn because(second: i64, reason: &str) -> Call {
    Call { reason: Some(reason.parse().unwrap()), ..by(second) }
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn last_seen(seq: i64, second: i64) -> LastSeen {
    LastSeen { seq, at: at(second).as_microsecond(), key: [1; 6] }
}

#[derive(Clone, Debug)]
enum Step {
    Register(String),
    Remove(String),
    Revoke(Vec<String>),
    Unrevoke(Vec<String>),
    RevokeAll,
    UnrevokeAll,
    SetPlan(PlanTier),
}

fn name() -> impl Strategy<Value = String> {
    "[a-f]"
}

/// Ids of a batch: some twice, some invalid.
fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(prop_oneof![8 => name(), 1 => Just("not valid".to_owned())], 1..8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => name().prop_map(Step::Register),
        1 => name().prop_map(Step::Remove),
        2 => names().prop_map(Step::Revoke),
        2 => names().prop_map(Step::Unrevoke),
        1 => Just(Step::RevokeAll),
        1 => Just(Step::UnrevokeAll),
        1 => prop_oneof![Just(PlanTier::Free), Just(PlanTier::Pro)].prop_map(Step::SetPlan),
    ]
}

/// What the store should hold: each device with the time of its revoke, and the order of its registration.
#[derive(Debug)]
struct Model {
    devices: BTreeMap<String, (u64, Option<i64>)>,
    limit: u64,
    registered: u64,
}

impl Model {
    fn used(&self) -> u64 {
        self.devices.values().filter(|(_, revoked)| revoked.is_none()).count() as u64
    }

    fn register(&mut self, name: &str) -> Admission {
        match self.devices.get(name) {
            Some((_, None)) => Admission::Exists,
            Some((_, Some(_))) => Admission::Revoked,
            None if self.used() >= self.limit => Admission::Full,
            None => {
                self.registered += 1;
                self.devices.insert(name.to_owned(), (self.registered, None));
                Admission::New
            }
        }
    }

    fn revoke(&mut self, batch: &[Named], now: i64) -> Vec<Outcome<Suspension>> {
        let one = |named: &Named| match named.id.as_ref().map(|id| self.devices.get_mut(id.as_str())) {
            None => Outcome::Invalid,
            Some(None) => Outcome::Did(Suspension::NotFound),
            Some(Some((_, Some(_)))) => Outcome::Did(Suspension::AlreadyRevoked),
            Some(Some((_, revoked))) => {
                *revoked = Some(now);
                Outcome::Did(Suspension::Revoked)
            }
        };
        batch.iter().map(one).collect()
    }

    fn unrevoke(&mut self, batch: &[Named]) -> Vec<Outcome<Restoration>> {
        let mut used = self.used();
        let one = |named: &Named| match named.id.as_ref().map(|id| self.devices.get_mut(id.as_str())) {
            None => Outcome::Invalid,
            Some(None) => Outcome::Did(Restoration::NotFound),
            Some(Some((_, None))) => Outcome::Did(Restoration::AlreadyActive),
            Some(Some(_)) if used >= self.limit => Outcome::Did(Restoration::Full),
            Some(Some((_, revoked))) => {
                used += 1;
                *revoked = None;
                Outcome::Did(Restoration::Restored)
            }
        };
        batch.iter().map(one).collect()
    }

    fn revoke_all(&mut self, now: i64) -> u64 {
        let active = self.devices.values_mut().filter(|(_, revoked)| revoked.is_none());
        active.map(|(_, revoked)| *revoked = Some(now)).count() as u64
    }

    fn unrevoke_all(&mut self) -> RestoredAll {
        let mut revoked: Vec<_> =
            self.devices.iter().filter_map(|(name, (seq, at))| at.map(|at| (at, *seq, name.clone()))).collect();
        revoked.sort_by(|one, two| two.cmp(one));
        let mut all = RestoredAll::default();
        for (_, _, name) in revoked {
            if self.used() < self.limit {
                self.devices.entry(name.clone()).and_modify(|(_, revoked)| *revoked = None);
                all.restored.push(name);
            } else {
                all.left += 1;
            }
        }
        all
    }
}

async fn agree(store: &Store, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let org = new_org(store, PlanTier::Free).await;
    let mut model = Model { devices: BTreeMap::new(), limit: 3, registered: 0 };
    for (now, step) in (1..).zip(steps) {
        match step {
            Step::Register(name) => {
                let (admission, account) = store.register(org, &id(&name), None, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(admission, model.register(&name));
                prop_assert_eq!(account.used, model.used());
            }
            Step::Remove(name) => {
                let (removed, _) = store.remove(org, &id(&name), false, &by(now)).await.unwrap().unwrap();
                let known = model.devices.remove(&name).is_some();
                prop_assert_eq!(removed, if known { Removal::Removed } else { Removal::NotFound });
            }
            Step::Revoke(names) => {
                let batch = distinct(names).unwrap();
                let (outcomes, account) =
                    store.revoke(org, &batch, Verb::RevokeBatch, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(outcomes, model.revoke(&batch, now));
                prop_assert_eq!(account.used, model.used());
            }
            Step::Unrevoke(names) => {
                let batch = distinct(names).unwrap();
                let (outcomes, account) =
                    store.unrevoke(org, &batch, Verb::UnrevokeBatch, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(outcomes, model.unrevoke(&batch));
                prop_assert_eq!(account.used, model.used());
            }
            Step::RevokeAll => {
                let (count, _) = store.revoke_all(org, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(count, model.revoke_all(now));
            }
            Step::UnrevokeAll => {
                let (all, _) = store.unrevoke_all(org, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(all, model.unrevoke_all());
            }
            Step::SetPlan(tier) => {
                store.change_org(org, &OrgChange::Plan(tier, None), &by(now)).await.unwrap().unwrap();
                model.limit = tier.limit();
            }
        }
        let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
        let held: BTreeMap<_, _> = page.devices.into_iter().map(|device| (device.id, device.revoked_at)).collect();
        let expected: BTreeMap<_, _> =
            model.devices.iter().map(|(name, (_, revoked))| (name.clone(), revoked.map(at))).collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(account.used, model.used());
    }
    Ok(())
}

fn any_sequence_of_changes_leaves_what_the_model_says(runtime: &Runtime, store: Store) {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..24), |steps| runtime.block_on(agree(&store, steps)))
        .unwrap();
}

fn the_large_plans_end_at_their_limits_too(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        for tier in [PlanTier::Scale, PlanTier::Max] {
            let org = new_org(&store, tier).await;
            for number in 0..tier.limit() {
                let admitted = store.register(org, &id(&format!("d{number}")), None, &by(1)).await.unwrap().unwrap();
                assert_eq!((admitted.0, admitted.1.used), (Admission::New, number + 1));
            }
            let admitted = store.register(org, &id("one-more"), None, &by(1)).await.unwrap().unwrap();
            assert_eq!((admitted.0, admitted.1.used), (Admission::Full, tier.limit()));
        }
    });
}

fn every_read_that_begins_after_a_change_sees_it(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, key) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let batch = [Named { sent: "a".to_owned(), id: Some(device.clone()) }];
        store.register(org.id, &device, None, &by(1)).await.unwrap().unwrap();
        for round in 0..100 {
            let expected = if round % 2 == 0 {
                store.revoke(org.id, &batch, Verb::Revoke, &by(round)).await.unwrap().unwrap();
                DeviceStatus::Revoked
            } else {
                store.unrevoke(org.id, &batch, Verb::Unrevoke, &by(round)).await.unwrap().unwrap();
                DeviceStatus::Active
            };
            // On every reader at once, whatever each of them did before.
            let reads: Vec<_> = (0..8)
                .map(|_| {
                    let (store, device) = (store.clone(), device.clone());
                    tokio::spawn(async move { store.look_up(key, Some(&device)).await })
                })
                .collect();
            for read in reads {
                let found = read.await.unwrap().unwrap().unwrap().at(at(0)).unwrap();
                assert_eq!(found.device.map(|device| device.status), Some(expected), "round {round}");
            }
        }
    });
}

fn a_late_last_seen_time_never_lands_on_a_device_that_came_after(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, key) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let known =
            async || store.look_up(key, Some(&device)).await.unwrap().unwrap().at(at(0)).unwrap().device.unwrap();
        store.register(org.id, &device, None, &by(1)).await.unwrap();
        let old = known().await;
        store.remove(org.id, &device, false, &by(1)).await.unwrap();
        store.register(org.id, &device, None, &by(2)).await.unwrap();
        store.touch(&[last_seen(old.seq, 3)]).await.unwrap();
        let seen = async || store.list(org.id, &Filter::default()).await.unwrap().unwrap().0.devices[0].last_seen_at;
        assert_eq!(seen().await, None);
        let new = known().await;
        store.touch(&[last_seen(new.seq, 5)]).await.unwrap();
        store.touch(&[last_seen(new.seq, 4)]).await.unwrap();
        assert_eq!(seen().await, Some(at(5)), "the newest time stays");
    });
}

fn a_checkout_is_confirmed_once_within_its_time_and_by_nobody_but_an_operator(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        for number in ["one", "two", "three"] {
            let token = SecretHash::of_token(number);
            let new = NewCheckout { number: number.to_owned(), wanted: PlanTier::Pro, token, expires_at: at(3600) };
            store.create_checkout(org, &new, &by(0)).await.unwrap().unwrap();
        }
        let link = |secret: &str| CheckoutKey::Link(SecretHash::of_confirmation(secret));
        let number = |number: &str| CheckoutKey::Number(number.to_owned());
        let confirm = async |key: &CheckoutKey, now| store.confirm_checkout(key, &by(now)).await.unwrap().is_some();
        let shown = store.checkout(&CheckoutKey::Address(SecretHash::of_token("one"))).await.unwrap().unwrap();
        assert_eq!((shown.number.as_str(), shown.wanted), ("one", PlanTier::Pro));
        assert!(!confirm(&link("one"), 1).await, "the secret of the address is not the operator's");
        assert!(!confirm(&number("one"), 3600).await, "its time is over");
        store.link_checkout("one", SecretHash::of_confirmation("s1"), &by(1)).await.unwrap().unwrap();
        store.link_checkout("one", SecretHash::of_confirmation("s2"), &by(2)).await.unwrap().unwrap();
        assert!(!confirm(&link("s1"), 3).await, "a newer link took its place");
        assert!(confirm(&link("s2"), 3599).await);
        assert!(!confirm(&link("s2"), 3599).await && !confirm(&number("one"), 3599).await, "it was used");
        assert_eq!(store.account(org).await.unwrap().unwrap().org.tier, PlanTier::Pro);
        let open: Vec<_> = store.checkouts(at(4)).await.unwrap().into_iter().map(|open| open.number).collect();
        assert_eq!(open, ["three", "two"]);
        assert!(confirm(&number("two"), 4).await);
        store.change_org(org, &OrgChange::Delete, &by(5)).await.unwrap().unwrap();
        assert!(!confirm(&number("three"), 5).await, "its organisation is gone");
        let verbs: Vec<_> = audited(&store, &Query { org: Some(org), limit: 100, ..Query::default() }).await;
        let confirmed = verbs.iter().filter(|line| line.0 == "org/confirm-checkout").count();
        assert_eq!(confirmed, 2);
    });
}

fn registrations_that_race_for_the_last_places_never_exceed_the_plan(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        for round in 0..5 {
            let org = new_org(&store, PlanTier::Pro).await;
            let racers: Vec<_> = (0..100)
                .map(|number| {
                    // Each device twice: idempotent, whichever comes first.
                    let (store, device) = (store.clone(), id(&format!("device-{}", number / 2)));
                    tokio::spawn(
                        async move { store.register(org, &device, None, &by(round)).await.unwrap().unwrap().0 },
                    )
                })
                .collect();
            let mut won = 0;
            for racer in racers {
                won += u32::from(racer.await.unwrap() == Admission::New);
            }
            let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
            assert_eq!((won, page.devices.len(), account.used), (25, 25, 25), "round {round}");
        }
    });
}

fn an_entitlement_that_ends_is_found_once_in_the_span_in_which_it_does(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (new_org(&store, PlanTier::Free).await, new_org(&store, PlanTier::Free).await);
        for (org, end) in [(org, 100), (other, 500)] {
            store.change_org(org, &OrgChange::AccessUntil(Some(at(end))), &by(1)).await.unwrap();
        }
        assert_eq!(store.ended(at(50), at(99)).await.unwrap(), []);
        assert_eq!(store.ended(at(99), at(100)).await.unwrap(), [Change::Denied(org, None)]);
        assert_eq!(store.ended(at(100), at(499)).await.unwrap(), []);
        store.change_org(other, &OrgChange::Delete, &by(2)).await.unwrap();
        assert_eq!(store.ended(at(499), at(600)).await.unwrap(), []);
    });
}

fn old_and_new_key_are_valid_together_until_the_time_and_no_third_one_is(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, first) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        store.register(org.id, &id("a"), None, &by(0)).await.unwrap();
        let keys: Vec<SecretHash> = [0; 4].iter().map(|_| SecretHash::of_key(&new_key().unwrap())).collect();
        let first = SecretHash::of_key(&first);
        let held = async |key: SecretHash, now: i64| {
            let found = store.look_up(key, Some(&id("a"))).await.unwrap().and_then(|found| found.at(at(now)));
            assert!(found.as_ref().is_none_or(|found| found.device.is_some() && found.org.id == org.id));
            found.map(|found| found.key)
        };
        let rotate = async |key: SecretHash, until: Option<i64>, now: i64| {
            let change = OrgChange::Key(key, until.map(at), None);
            store.change_org(org.id, &change, &by(now)).await.unwrap().unwrap().org.old_key_ends
        };
        let old = |ends: i64| Some(HeldKey::Old { ends: at(ends) });
        assert_eq!(held(first, 1).await, Some(HeldKey::Current));
        assert_eq!(rotate(keys[0], Some(100), 10).await, Some(at(100)));
        assert_eq!((held(keys[0], 11).await, held(first, 99).await), (Some(HeldKey::Current), old(100)));
        assert_eq!(held(first, 100).await, None, "an old key ends at the time that it was given");
        // A second rotation within the overlap: the oldest key is nobody's at once.
        assert_eq!(rotate(keys[1], Some(200), 50).await, Some(at(200)));
        assert_eq!((held(first, 51).await, held(keys[0], 51).await), (None, old(200)));
        // Without an overlap there is one key.
        assert_eq!(rotate(keys[2], None, 60).await, Some(at(60)));
        assert_eq!((held(keys[1], 60).await, held(keys[0], 60).await), (None, None));
        assert_eq!(held(keys[2], 60).await, Some(HeldKey::Current));
        // An overlap that is ended early.
        rotate(keys[3], Some(200), 70).await;
        assert_eq!(held(keys[2], 71).await, old(200));
        let ended = store.change_org(org.id, &OrgChange::EndOldKey, &by(80)).await.unwrap().unwrap();
        assert_eq!((ended.org.old_key_ends, held(keys[2], 81).await), (Some(at(80)), None));
        assert_eq!(held(keys[3], 81).await, Some(HeldKey::Current));
        // A rotation that expects a key is one of that key only.
        let expect = async |key: SecretHash, expected: SecretHash| {
            let change = OrgChange::Key(key, None, Some(expected));
            store.change_org(org.id, &change, &by(90)).await.unwrap().is_some()
        };
        assert!(!expect(keys[0], keys[2]).await);
        assert_eq!((held(keys[3], 91).await, held(keys[0], 91).await), (Some(HeldKey::Current), None));
        assert!(expect(keys[0], keys[3]).await);
        assert_eq!((held(keys[3], 91).await, held(keys[0], 91).await), (None, Some(HeldKey::Current)));
    });
}

fn an_old_key_that_ends_is_found_once_in_the_span_in_which_it_does(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let key = SecretHash::of_key(&new_key().unwrap());
        store.change_org(org, &OrgChange::AccessUntil(Some(at(80))), &by(1)).await.unwrap();
        store.change_org(org, &OrgChange::Key(key, Some(at(100)), None), &by(1)).await.unwrap();
        assert_eq!(store.ended(at(2), at(79)).await.unwrap(), []);
        assert_eq!(store.ended(at(79), at(80)).await.unwrap(), [Change::Denied(org, None)]);
        assert_eq!(store.ended(at(80), at(100)).await.unwrap(), [Change::Key(org)]);
        assert_eq!(store.ended(at(79), at(100)).await.unwrap(), [Change::Key(org)], "both at once are told as one");
        // Its watchers hold a key that says ORG_NOT_FOUND and is nobody's later.
        store.change_org(org, &OrgChange::Delete, &by(2)).await.unwrap();
        assert_eq!(store.ended(at(80), at(200)).await.unwrap(), [Change::Key(org)]);
        assert_eq!(store.ended(at(100), at(200)).await.unwrap(), []);
    });
}

fn an_operators_own_limit_holds_instead_of_the_plans(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, _) = create_org(&store, None, PlanTier::Free, Some(5), &by(0)).await.unwrap();
        for number in 0..5 {
            let (admission, account) =
                store.register(org.id, &id(&format!("d{number}")), None, &by(1)).await.unwrap().unwrap();
            assert_eq!((admission, account.org.limit()), (Admission::New, 5));
        }
        let register = async || store.register(org.id, &id("more"), None, &by(2)).await.unwrap().unwrap().0;
        assert_eq!(register().await, Admission::Full);
        store.change_org(org.id, &OrgChange::Plan(PlanTier::Free, None), &by(3)).await.unwrap().unwrap();
        assert_eq!(register().await, Admission::Full);
        store.change_org(org.id, &OrgChange::Plan(PlanTier::Free, Some(6)), &by(4)).await.unwrap().unwrap();
        assert_eq!(register().await, Admission::New);
    });
}

/// Here the stores differ in where they note what they have seen.
fn a_database_of_a_newer_version_is_refused(runtime: &Runtime, store: Store) {
    let database = match &store.backend {
        Backend::Sqlite(sqlite) => {
            let path = sqlite.path().to_owned();
            rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9999).unwrap();
            Database::Sqlite(path)
        }
        Backend::Postgres(postgres) => {
            let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', TRUE, '', 0)";
            runtime.block_on(sqlx::query(insert).execute(postgres.pool())).unwrap();
            Database::Postgres(Box::new((*postgres.pool().connect_options()).clone()))
        }
    };
    runtime.block_on(store.close());
    let error = runtime.block_on(Store::open(&database, Terms::default())).unwrap_err();
    assert!(matches!(&error, OpenError::Newer { found, .. } if found == "9999"), "{error}");
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[test]
fn a_database_in_use_and_that_of_another_program_are_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    let runtime = runtime();
    let store = runtime.block_on(Store::open(&sqlite(directory.path()), Terms::default())).unwrap();
    let link = directory.path().join("same.db");
    std::os::unix::fs::symlink(directory.path().join("test.db"), &link).unwrap();
    let error = runtime.block_on(Store::open(&Database::Sqlite(link), Terms::default())).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    runtime.block_on(store.close());
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = runtime.block_on(Store::open(&Database::Sqlite(other), Terms::default())).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

/// Everything in the audit, the oldest first: verb, device, outcome, reason, details.
async fn audited(store: &Store, query: &Query) -> Vec<(String, Option<String>, String, Option<String>, String)> {
    let page = store.audit(query).await.unwrap();
    let line = |entry: crate::authority::audit::Entry| {
        let details = serde_json::Value::Object(entry.details).to_string();
        (entry.verb, entry.device_id, entry.outcome, entry.reason, details)
    };
    page.entries.into_iter().rev().map(line).collect()
}

fn every_management_call_is_in_the_audit_with_its_reason_and_what_it_came_to(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let other = new_org(&store, PlanTier::Free).await;
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = |ids: &[&str]| distinct(ids.iter().map(|id| (*id).to_owned()).collect()).unwrap();
        for (now, name) in (1..).zip(["a", "b", "a"]) {
            store.register(org, &id(name), None, &by(now)).await.unwrap().unwrap();
        }
        store.revoke(org, &batch(&["a"]), Verb::Revoke, &because(4, "gone mad")).await.unwrap().unwrap();
        store.revoke(org, &batch(&["a", "b", "x", "no no"]), Verb::RevokeBatch, &by(5)).await.unwrap().unwrap();
        store.unrevoke(org, &batch(&["b"]), Verb::Unrevoke, &by(6)).await.unwrap().unwrap();
        store.revoke_all(org, &because(7, "drill")).await.unwrap().unwrap();
        store.unrevoke_all(org, &by(8)).await.unwrap().unwrap();
        store.remove(org, &id("x"), false, &by(9)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::Frozen(true), &because(10, "unpaid")).await.unwrap().unwrap();
        store.revoke_all(other, &by(11)).await.unwrap().unwrap();

        let mine = Query { org: Some(org), limit: 100, ..Query::default() };
        let line = |verb: &str, device: Option<&str>, outcome: &str, reason: Option<&str>, details: &str| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            (verb.to_owned(), owned(device), outcome.to_owned(), owned(reason), details.to_owned())
        };
        let expected = vec![
            line("org/create", None, "ok", None, r#"{"plan":"pro"}"#),
            line("devices/register", Some("a"), "ok", None, "{}"),
            line("devices/register", Some("b"), "ok", None, "{}"),
            line("devices/revoke", Some("a"), "revoked", Some("gone mad"), "{}"),
            line(
                "devices/revoke_batch",
                None,
                "ok",
                None,
                r#"{"already_revoked":1,"deviceIds":["b"],"invalid":1,"not_found":1,"revoked":1}"#,
            ),
            line("devices/unrevoke", Some("b"), "unrevoked", None, "{}"),
            line("devices/revoke_batch", None, "ok", Some("drill"), r#"{"revoked":1,"scope":"all_active"}"#),
            line("devices/unrevoke_batch", None, "ok", None, r#"{"left":0,"scope":"all_revoked","unrevoked":2}"#),
            line("devices/remove", Some("x"), "not_found", None, "{}"),
            line("org/freeze", None, "ok", Some("unpaid"), "{}"),
        ];
        assert_eq!(audited(&store, &mine).await, expected);
        let revokes = Query { verb: Some("devices/revoke".to_owned()), ..mine.clone() };
        let revokes: Vec<_> = audited(&store, &revokes).await.into_iter().map(|line| line.0).collect();
        assert_eq!(revokes, ["devices/revoke"]);
        let nobodys = Query { who: Some("nobody".to_owned()), ..mine.clone() };
        assert!(audited(&store, &nobodys).await.is_empty());
        let about_b = Query { device: Some("b".to_owned()), ..mine.clone() };
        let verbs: Vec<_> = audited(&store, &about_b).await.into_iter().map(|line| line.0).collect();
        assert_eq!(verbs, ["devices/register", "devices/revoke_batch", "devices/unrevoke"]);

        let mut pages = Vec::new();
        let mut before = None;
        loop {
            let page = store.audit(&Query { before, limit: 4, ..mine.clone() }).await.unwrap();
            before = page.entries.last().map(|last| last.id);
            assert!(page.entries.is_sorted_by(|one, two| one.id > two.id));
            pages.push(page.entries.len());
            if !page.more {
                break;
            }
        }
        assert_eq!(pages, [4, 4, 2]);
        let all = store.audit(&Query { limit: 100, ..Query::default() }).await.unwrap();
        assert_eq!(all.entries.len(), 12);
        assert_eq!((all.entries[0].at, all.entries[0].request_id.as_str()), (at(11), "request 11"));
        assert_eq!(all.entries[0].actor, "key:0123");
    });
}

fn a_reason_stays_with_the_device_while_it_is_revoked(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned()]).unwrap();
        let said =
            async || store.list(org, &Filter::default()).await.unwrap().unwrap().0.devices[0].revoke_reason.clone();
        store.register(org, &id("a"), None, &by(1)).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(2, "first")).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(3, "second")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("first"), "the revoke that did it");
        store.unrevoke(org, &batch, Verb::Unrevoke, &by(4)).await.unwrap();
        assert_eq!(said().await, None);
        store.revoke_all(org, &because(5, "all")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("all"));
    });
}

fn whoever_listens_is_told_of_a_change_once_it_can_be_seen(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned(), "x".to_owned()]).unwrap();
        store.register(org, &id("a"), None, &by(1)).await.unwrap();
        let mut news = store.changes().listen();
        store.revoke(org, &batch, Verb::RevokeBatch, &by(2)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("a")])));
        // The hint about the first revoke may have been lost with the answer to its commit.
        store.revoke(org, &batch, Verb::RevokeBatch, &by(2)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("a")])));
        let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
        assert!(page.devices[0].revoked_at.is_some());
        store.unrevoke_all(org, &by(3)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Org(org));
        store.change_org(org, &OrgChange::Disabled(true), &by(4)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, None));
    });
}

/// A report of sidecar `sidecar` that comes at `second`: each device with how many agents it has, and what is in `rest`.
fn heard(org: OrgId, sidecar: u32, second: i64, devices: &[(&str, u32)], rest: serde_json::Value) -> HeardReport {
    let device = |(device, agents): &(&str, u32)| serde_json::json!({"deviceId": device, "standing": "allowed", "agents": agents, "stopping": 0});
    let mut report = serde_json::json!({
        "sidecarId": format!("{sidecar:032x}"), "sequence": second, "version": "9", "hostDeviceId": "host", "push": true,
        "agents": 7, "stopBound": {"connectedMs": 1, "cutOffMs": 2}, "devices": devices.iter().map(device).collect::<Vec<_>>(),
    });
    if let (Some(report), serde_json::Value::Object(rest)) = (report.as_object_mut(), rest) {
        report.extend(rest);
    }
    HeardReport::take(org, serde_json::from_value(report).unwrap(), at(second)).unwrap()
}

fn stop(run: i64, ago_ms: i64, confirmed: bool) -> serde_json::Value {
    serde_json::json!({
        "deviceId": "a", "runId": format!("{run:032x}"), "code": "DEVICE_REVOKED", "agoMs": ago_ms, "tookMs": 1,
        "signalled": 1, "killed": 0, "confirmed": confirmed,
    })
}

fn event(number: i64, ago_ms: i64) -> serde_json::Value {
    serde_json::json!({"id": format!("00000001-{number}"), "deviceId": "a", "agoMs": ago_ms, "event": "agent-started"})
}

fn nothing() -> serde_json::Value {
    serde_json::json!({})
}

async fn org_with(store: &Store, devices: &[&str]) -> OrgId {
    let org = new_org(store, PlanTier::Scale).await;
    for device in devices {
        store.register(org, &id(device), None, &by(0)).await.unwrap().unwrap();
    }
    org
}

/// Each device with the sidecars that use it and how many agents each has there.
async fn told(store: &Store, org: OrgId) -> Vec<(String, Vec<(String, u32)>)> {
    let rows = store.fleet(org, &Filter::default()).await.unwrap().unwrap();
    let row = |row: super::FleetRow| {
        let said = |heard: &crate::authority::reports::HeardDevice| {
            (heard.sidecar.to_string()[31..].to_owned(), heard.said.device.agents)
        };
        (row.device.id.clone(), row.heard.iter().map(said).collect())
    };
    rows.devices.into_iter().map(row).collect()
}

fn what_a_sidecar_reports_takes_the_place_of_what_it_said_before(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let other = org_with(&store, &["a"]).await;
        let reports = vec![
            heard(org, 1, 10, &[("a", 1), ("b", 2), ("ghost", 3)], nothing()),
            heard(org, 2, 11, &[("a", 4)], nothing()),
            heard(other, 1, 12, &[("a", 5)], nothing()),
        ];
        store.save_reports(reports).await.unwrap();
        let of = |list: &[(&str, u32)]| list.iter().map(|(id, agents)| ((*id).to_owned(), *agents)).collect::<Vec<_>>();
        let both = [("a".to_owned(), of(&[("2", 4), ("1", 1)])), ("b".to_owned(), of(&[("1", 2)]))];
        assert_eq!(told(&store, org).await, both, "the newest first, and a report makes no device");
        store.save_reports(vec![heard(org, 1, 13, &[("a", 0)], nothing())]).await.unwrap();
        let left = [("a".to_owned(), of(&[("1", 0), ("2", 4)])), ("b".to_owned(), of(&[]))];
        assert_eq!(told(&store, org).await, left, "a device that is not in it is used no more");
        assert_eq!(told(&store, other).await, [("a".to_owned(), of(&[("1", 5)]))], "nor anybody else's");
        store.forget_reports(at(12)).await.unwrap();
        assert_eq!(told(&store, org).await[0].1, of(&[("1", 0)]));
        store.change_org(org, &OrgChange::Delete, &by(14)).await.unwrap().unwrap();
        assert!(store.fleet(org, &Filter::default()).await.unwrap().is_none());
        store.save_reports(vec![heard(org, 1, 15, &[("a", 0)], nothing())]).await.unwrap();
    });
}

fn a_report_that_comes_late_changes_nothing_but_what_happened(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let late =
            heard(org, 1, 10, &[("b", 7)], serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, false)]}));
        let late = HeardReport { heard_at: at(20), ..late };
        store.save_reports(vec![heard(org, 1, 19, &[("a", 1)], nothing()), late.clone()]).await.unwrap();
        let agents = told(&store, org).await;
        assert_eq!((agents[0].1.len(), agents[1].1.len()), (1, 0), "{agents:?}");
        assert_eq!(store.timeline(org, &id("a")).await.unwrap().len(), 1);
        assert_eq!(store.stops(org, &id("a")).await.unwrap().len(), 1);
        store.save_reports(vec![HeardReport { heard_at: at(90), ..late }]).await.unwrap();
        let agents = told(&store, org).await;
        assert_eq!((agents[0].1.len(), agents[1].1.len()), (0, 1), "nothing is under way for so long: {agents:?}");
    });
}

fn what_is_kept_of_a_device_is_bounded_and_the_newest_stays(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a"]).await;
        for sidecar in 0..70 {
            store
                .save_reports(vec![heard(org, sidecar, 100 + i64::from(sidecar), &[("a", sidecar)], nothing())])
                .await
                .unwrap();
        }
        let sidecars = told(&store, org).await.remove(0).1;
        assert_eq!((sidecars.len(), sidecars[0].1, sidecars[63].1), (64, 69, 6));

        for round in 0..3_i64 {
            let events: Vec<_> = (round * 100..round * 100 + 100).map(|number| event(number, 400 - number)).collect();
            let stops: Vec<_> = (round * 10..round * 10 + 10).map(|run| stop(run, 100 - run, false)).collect();
            let rest = serde_json::json!({"events": events, "stops": stops});
            store.save_reports(vec![heard(org, 1, 1_000, &[("a", 0)], rest.clone())]).await.unwrap();
            // A report whose answer was lost comes again.
            store.save_reports(vec![heard(org, 1, 1_000, &[("a", 0)], rest)]).await.unwrap();
        }
        let events = store.timeline(org, &id("a")).await.unwrap();
        let numbers: Vec<u64> = events.iter().map(|known| known.event.id.number).collect();
        assert_eq!(numbers, (100..300).rev().collect::<Vec<_>>(), "each once, the newest first");
        assert_eq!(events[0].at, at(1_000) - std::time::Duration::from_millis(101), "on the authority's clock");
        let stops = store.stops(org, &id("a")).await.unwrap();
        assert_eq!((stops.len(), stops[0].stop.run_id.to_string()), (20, format!("{:032x}", 29)));
        let again = heard(org, 1, 1_001, &[("a", 0)], serde_json::json!({"stops": [stop(29, 5, true)]}));
        store.save_reports(vec![again]).await.unwrap();
        let last = store.fleet(org, &Filter::default()).await.unwrap().unwrap().devices.remove(0).last_stop.unwrap();
        assert_eq!((last.stop.confirmed, last.began_at), (true, stops[0].began_at), "the same stop, further along");
        store.forget_reports(at(2_000)).await.unwrap();
        assert!(store.timeline(org, &id("a")).await.unwrap().is_empty());
        assert!(store.stops(org, &id("a")).await.unwrap().is_empty());
    });
}

fn what_was_reported_about_a_removed_device_is_not_said_of_its_successor(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a"]).await;
        let rest = serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, true)]});
        store.save_reports(vec![heard(org, 1, 5, &[("a", 1)], rest.clone())]).await.unwrap();
        store.remove(org, &id("a"), false, &by(6)).await.unwrap();
        // Under way while it was removed.
        store.save_reports(vec![heard(org, 1, 7, &[("a", 1)], rest)]).await.unwrap();
        store.register(org, &id("a"), None, &by(8)).await.unwrap();
        let row = store.fleet(org, &Filter::default()).await.unwrap().unwrap().devices.remove(0);
        assert!(row.heard.is_empty() && row.last_stop.is_none(), "{row:?}");
        assert!(store.timeline(org, &id("a")).await.unwrap().is_empty());
    });
}

fn a_device_that_was_revoked_leaves_its_stops_and_timeline_behind(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let rest = serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, true)]});
        store.save_reports(vec![heard(org, 1, 5, &[("a", 1)], rest)]).await.unwrap();
        let batch = distinct(vec!["a".to_owned()]).unwrap();
        store.revoke(org, &batch, Verb::Revoke, &by(6)).await.unwrap();
        // Taken back since: it was revoked all the same.
        store.unrevoke(org, &batch, Verb::Unrevoke, &by(7)).await.unwrap();
        let (removal, account) = store.remove(org, &id("a"), true, &by(8)).await.unwrap().unwrap();
        assert_eq!((removal, account.used), (Removal::Removed, 1));
        let left = async || {
            let stops = store.stops(org, &id("a")).await.unwrap().len();
            (stops, store.timeline(org, &id("a")).await.unwrap().len())
        };
        assert_eq!(left().await, (1, 1));
        // A successor of its name is told of as itself, and does not take the evidence with it.
        store.register(org, &id("a"), None, &by(9)).await.unwrap();
        let row = store.fleet(org, &Filter { only: Some(id("a")), ..Filter::default() }).await.unwrap().unwrap();
        assert!(row.devices[0].last_stop.is_none() && row.devices[0].heard.is_empty());
        store.remove(org, &id("a"), true, &by(10)).await.unwrap();
        assert_eq!(left().await, (1, 1));
        store.change_org(org, &OrgChange::Delete, &by(11)).await.unwrap();
        assert_eq!(left().await, (0, 0));
    });
}

fn a_revoked_device_is_not_removed_by_what_wants_an_active_one_gone(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        store.revoke(org, &distinct(vec!["a".to_owned()]).unwrap(), Verb::Revoke, &by(1)).await.unwrap();
        let remove = async |name: &str, only_active: bool| {
            let (removal, account) = store.remove(org, &id(name), only_active, &by(2)).await.unwrap().unwrap();
            (removal, account.used)
        };
        assert_eq!(remove("a", true).await, (Removal::Revoked, 1));
        assert_eq!(remove("b", true).await, (Removal::Removed, 0));
        assert_eq!(remove("c", true).await, (Removal::NotFound, 0));
        assert_eq!(remove("a", false).await, (Removal::Removed, 0), "an operator's is a hard delete");
        let audit = store.audit(&Query { org: Some(org), limit: 4, ..Query::default() }).await.unwrap().entries;
        let outcomes: Vec<&str> = audit.iter().map(|entry| entry.outcome.as_str()).collect();
        assert_eq!(outcomes, ["ok", "not_found", "ok", "device_revoked"]);
    });
}

fn ephemeral_devices_age_out_by_when_they_were_last_seen_and_revoked_ones_never(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let other = new_org(&store, PlanTier::Pro).await;
        for name in ["never-seen", "seen", "revoked", "fresh", "settled", "permanent"] {
            let ephemeral = (name != "permanent").then_some(true);
            let at = if name == "fresh" { 90 } else { 10 };
            store.register(org, &id(name), ephemeral, &by(at)).await.unwrap();
        }
        // Without the field a known device stays what it is; with `false` it no longer ages.
        store.register(org, &id("never-seen"), None, &by(11)).await.unwrap();
        store.register(org, &id("settled"), Some(false), &by(11)).await.unwrap();
        store.revoke(org, &distinct(vec!["revoked".to_owned()]).unwrap(), Verb::Revoke, &by(12)).await.unwrap();
        let key = SecretHash::of_key(&new_key().unwrap());
        store.change_org(org, &OrgChange::Key(key, None, None), &by(13)).await.unwrap();
        let seq = store.look_up(key, Some(&id("seen"))).await.unwrap().unwrap().at(at(13)).unwrap().device.unwrap().seq;
        store.touch(&[last_seen(seq, 60)]).await.unwrap();
        store.register(other, &id("never-seen"), Some(true), &by(95)).await.unwrap();
        // One that comes back is seen, before it validates for the first time.
        let third = new_org(&store, PlanTier::Pro).await;
        store.register(third, &id("back"), Some(true), &by(10)).await.unwrap();
        store.register(third, &id("back"), Some(true), &by(70)).await.unwrap();
        let mut news = store.changes().listen();
        let names = async || {
            let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
            (page.devices.into_iter().map(|device| device.id).collect::<Vec<_>>(), account.used)
        };
        let age = async |before: i64| {
            let mut gone = 0;
            for org in store.aged(at(before)).await.unwrap() {
                gone += store.age_out(org, at(before), &by(100)).await.unwrap();
            }
            gone
        };
        assert_eq!(age(10).await, 0, "made known at that moment is not before it");
        assert_eq!(age(50).await, 1);
        assert_eq!(names().await.0, ["fresh", "permanent", "revoked", "seen", "settled"]);
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("never-seen")])));
        assert_eq!(age(61).await, 1);
        assert_eq!(
            names().await,
            (vec!["fresh", "permanent", "revoked", "settled"].into_iter().map(str::to_owned).collect(), 3)
        );
        let audit = store.audit(&Query { org: Some(org), limit: 1, ..Query::default() }).await.unwrap().entries;
        assert_eq!((audit[0].verb.as_str(), audit[0].outcome.as_str()), ("devices/age_out", "ok"));
        assert_eq!(
            (&audit[0].details["deviceIds"], &audit[0].details["removed"]),
            (&serde_json::json!(["seen"]), &serde_json::json!(1))
        );
        // The places are free, more than one transaction takes at a time.
        assert_eq!(age(1000).await, 3);
    });
}

fn which_key_a_device_asked_with_last_is_known_and_the_newest_note_wins(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, first) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (first, second) = (SecretHash::of_key(&first), SecretHash::of_key(&new_key().unwrap()));
        for name in ["a", "b", "c"] {
            store.register(org.id, &id(name), None, &by(0)).await.unwrap();
        }
        let seq = async |name: &str| {
            store.look_up(first, Some(&id(name))).await.unwrap().unwrap().at(at(1)).unwrap().device.unwrap().seq
        };
        let (a, b) = (seq("a").await, seq("b").await);
        let note = |seq, second, key: SecretHash| LastSeen { seq, at: at(second).as_microsecond(), key: key.mark() };
        store.touch(&[note(a, 1, first), note(b, 1, first)]).await.unwrap();
        assert_eq!(store.old_keys(at(0)).await.unwrap(), [], "there was no rotation");
        store.change_org(org.id, &OrgChange::Key(second, Some(at(100)), None), &by(10)).await.unwrap();
        let old = async || {
            let filter = Filter { old_key: true, ..Filter::default() };
            let (page, _) = store.list(org.id, &filter).await.unwrap().unwrap();
            assert!(page.devices.iter().all(|device| device.old_key));
            let ids: Vec<String> = page.devices.into_iter().map(|device| device.id).collect();
            let counted = store.old_keys(at(0)).await.unwrap();
            assert_eq!((counted.len(), counted[0].devices), (1, ids.len() as u64));
            ids
        };
        assert_eq!(old().await, ["a", "b"], "one that never asked uses none");
        store.touch(&[note(a, 12, second)]).await.unwrap();
        store.touch(&[note(a, 11, first)]).await.unwrap();
        assert_eq!(old().await, ["b"]);
        assert_eq!(store.old_keys(at(100)).await.unwrap(), [], "those that are over are not asked for");
    });
}

fn a_fleet_is_read_page_by_page_with_what_was_heard_of_each_device(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let names: Vec<String> = (0..25).map(|number| format!("d{number:02}")).collect();
        let devices: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let org = org_with(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        store.save_reports(vec![heard(org, 1, 5, &devices, nothing())]).await.unwrap();
        store.revoke(org, &distinct(vec!["d07".to_owned()]).unwrap(), Verb::Revoke, &by(6)).await.unwrap();
        let mut filter = Filter { limit: Some(10), ..Filter::default() };
        let mut read = Vec::new();
        loop {
            let page = store.fleet(org, &filter).await.unwrap().unwrap();
            assert!(page.devices.iter().all(|row| row.heard.len() == 1));
            read.extend(page.devices.iter().map(|row| row.device.id.clone()));
            filter.after = page.devices.last().map(|row| id(&row.device.id));
            if !page.more {
                break;
            }
        }
        assert_eq!(read, names);
        let some =
            Filter { status: Some(DeviceStatus::Revoked), containing: Some("7".to_owned()), ..Filter::default() };
        let page = store.fleet(org, &some).await.unwrap().unwrap();
        assert_eq!((page.devices.len(), page.devices[0].device.revoked_at), (1, Some(at(6))));
        for (some, ids) in [
            (Filter { only: Some(id("d11")), ..Filter::default() }, &["d11"][..]),
            (Filter { only: Some(id("d1")), ..Filter::default() }, &[]),
            (Filter { revoked_at: Some(at(6)), ..Filter::default() }, &["d07"]),
            (Filter { revoked_at: Some(at(7)), ..Filter::default() }, &[]),
        ] {
            let (found, _) = store.list(org, &some).await.unwrap().unwrap();
            assert_eq!(found.devices.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ids);
        }
        store.save_reports(vec![heard(org, 2, 5, &devices[..3], nothing())]).await.unwrap();
        let counted = Filter { counted: true, ..some.clone() };
        let page = store.fleet(org, &counted).await.unwrap().unwrap();
        assert_eq!((page.sidecars, page.agents), (2, 14), "of the whole organisation, each once");
    });
}

fn what_a_stop_of_many_led_to_is_told_of_its_own_devices_and_since_then(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b", "c", "d"]).await;
        let other = org_with(&store, &["a"]).await;
        let first = distinct(vec!["d".to_owned()]).unwrap();
        store.revoke(org, &first, Verb::Revoke, &by(5)).await.unwrap();
        let why = Call { reason: Some("drill".parse().unwrap()), ..by(10) };
        store.revoke_all(org, &why).await.unwrap().unwrap();
        store.revoke_all(other, &by(10)).await.unwrap().unwrap();
        let stops = |stops: &[serde_json::Value]| serde_json::json!({"stops": stops});
        let reports = vec![
            heard(org, 1, 12, &[("a", 1), ("b", 2), ("d", 3)], stops(&[stop(1, 2_500, true), stop(2, 2_000, false)])),
            heard(org, 2, 12, &[("a", 4)], nothing()),
            heard(other, 3, 12, &[("a", 5)], stops(&[stop(3, 0, true)])),
        ];
        store.save_reports(reports).await.unwrap();
        let after = store.aftermath(org, at(10)).await.unwrap().unwrap();
        assert_eq!((after.devices, after.reason.as_deref()), (3, Some("drill")));
        let told: Vec<_> = after.heard.iter().map(|row| (row.device.as_str(), row.heard.said.device.agents)).collect();
        assert_eq!(told, [("a", 1), ("a", 4), ("b", 2)]);
        let runs: Vec<_> = after.stops.iter().map(|known| (known.began_at, known.stop.confirmed)).collect();
        assert_eq!(runs, [(at(10), false)], "one began before, one is another's");
        let none = store.aftermath(org, at(11)).await.unwrap().unwrap();
        assert_eq!((none.devices, none.heard.len(), none.stops.len()), (0, 0, 0));
        store.unrevoke_all(org, &by(13)).await.unwrap().unwrap();
        assert_eq!(store.aftermath(org, at(10)).await.unwrap().unwrap().devices, 0);
        store.change_org(org, &OrgChange::Delete, &by(14)).await.unwrap().unwrap();
        assert!(store.aftermath(org, at(10)).await.unwrap().is_none());
    });
}

fn observers_are_told_of_reports_once_they_can_be_read_and_no_sidecar_is(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (org_with(&store, &["a", "b"]).await, org_with(&store, &["a"]).await);
        let mut news = store.changes().listen();
        let reports = vec![
            heard(org, 2, 5, &[("b", 1)], nothing()),
            heard(org, 1, 5, &[("a", 1)], nothing()),
            heard(other, 1, 5, &[("a", 1)], nothing()),
        ];
        store.save_reports(reports).await.unwrap();
        let mut heard = vec![news.recv().await.unwrap(), news.recv().await.unwrap()];
        heard.sort_by_key(|change| matches!(change, Change::Reports(first, _) if *first == other));
        assert_eq!(heard, [Change::Reports(org, vec![id("a"), id("b")]), Change::Reports(other, vec![id("a")])]);
    });
}

fn some_devices_of_a_fleet_are_found_by_their_ids(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        for device in ["a", "b", "b:1", "c"] {
            store.register(org, &id(device), None, &by(1)).await.unwrap();
        }
        store.save_reports(vec![heard(org, 1, 5, &[("b", 2), ("c", 1)], serde_json::json!({}))]).await.unwrap();
        let filter = Filter { among: Some(vec![id("c"), id("none"), id("b")]), limit: Some(10), ..Filter::default() };
        let rows = store.fleet(org, &filter).await.unwrap().unwrap();
        let found: Vec<_> = rows.devices.iter().map(|row| (row.device.id.as_str(), row.heard.len())).collect();
        assert_eq!((found, rows.more), (vec![("b", 1), ("c", 1)], false));
        let nobody = Filter { among: Some(Vec::new()), ..Filter::default() };
        assert!(store.fleet(org, &nobody).await.unwrap().unwrap().devices.is_empty());
    });
}

#[test]
fn reports_are_taken_while_old_ones_are_forgotten_however_long_that_takes() {
    use std::sync::Arc;

    use sqlx::Connection as _;
    use tokio_util::sync::CancellationToken;

    use crate::authority::reports::{Intake, forget_old};
    use crate::clock::wall_now;

    let Some(url) = cluster::new_database() else { return };
    run(&url.parse().unwrap(), |runtime, store| {
        runtime.block_on(async {
            let org = new_org(&store, PlanTier::Pro).await;
            store.register(org, &id("a"), None, &by(1)).await.unwrap();
            let report = |sidecar, at: Timestamp| HeardReport {
                heard_at: at,
                ..heard(org, sidecar, 5, &[("a", 1)], serde_json::json!({}))
            };
            store.save_reports(vec![report(1, Timestamp::from_second(1_000_000_000).unwrap())]).await.unwrap();
            // What is to be forgotten is held by another transaction, so that the clean-up waits.
            let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
            sqlx::query("BEGIN").execute(&mut other).await.unwrap();
            sqlx::query("SELECT 1 FROM reports FOR UPDATE").execute(&mut other).await.unwrap();
            // Another connection: within a transaction the activity is that of its first look.
            let mut observer = sqlx::PgConnection::connect(&url).await.unwrap();
            let (intake, stop) = (Arc::<Intake>::default(), CancellationToken::new());
            tokio::spawn(Arc::clone(&intake).work(store.clone(), stop.clone()));
            tokio::spawn(forget_old(store.clone(), stop.clone()));
            let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut observer).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
            intake.keep(report(2, wall_now())).await.unwrap();
            let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut observer).await.unwrap();
            assert_eq!(waiting, 1, "the clean-up had ended before");
            stop.cancel();
        });
    });
}
