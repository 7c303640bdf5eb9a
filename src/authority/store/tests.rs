//! The store against a model of it, and what only a store can get wrong.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Filter, Outcome, RestoredAll, Store};
use crate::authority::admin::create_org;
use crate::authority::audit::{Actor, Call, Query, Verb};
use crate::authority::batch::{Named, distinct};
use crate::authority::changes::Change;
use crate::authority::keys::SecretHash;
use crate::authority::org::{OrgId, PlanTier};
use crate::authority::plan::{Admission, Restoration, Suspension};
use crate::protocol::DeviceId;
use crate::protocol::api::DeviceStatus;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn open(directory: &Path) -> Store {
    Store::open(&directory.join("test.db")).await.unwrap()
}

async fn new_org(store: &Store, tier: PlanTier) -> OrgId {
    create_org(store, None, tier, &by(0)).await.unwrap().0.id
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
                let (admission, account) = store.register(org, &id(&name), &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(admission, model.register(&name));
                prop_assert_eq!(account.used, model.used());
            }
            Step::Remove(name) => {
                let (removed, _) = store.remove(org, &id(&name), &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(removed, model.devices.remove(&name).is_some());
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
                store.change_org(org, &super::OrgChange::Plan(tier), &by(now)).await.unwrap().unwrap();
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

#[test]
fn any_sequence_of_changes_leaves_what_the_model_says() {
    let directory = TempDir::new().unwrap();
    let runtime = runtime();
    let store = runtime.block_on(open(directory.path()));
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..24), |steps| runtime.block_on(agree(&store, steps)))
        .unwrap();
}

#[test]
fn the_large_plans_end_at_their_limits_too() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        for tier in [PlanTier::Scale, PlanTier::Max] {
            let org = new_org(&store, tier).await;
            for number in 0..tier.limit() {
                let admitted = store.register(org, &id(&format!("d{number}")), &by(1)).await.unwrap().unwrap();
                assert_eq!((admitted.0, admitted.1.used), (Admission::New, number + 1));
            }
            let admitted = store.register(org, &id("one-more"), &by(1)).await.unwrap().unwrap();
            assert_eq!((admitted.0, admitted.1.used), (Admission::Full, tier.limit()));
        }
    });
}

#[test]
fn every_read_that_begins_after_a_change_sees_it() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let (org, key) = create_org(&store, None, PlanTier::Free, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let batch = [Named { sent: "a".to_owned(), id: Some(device.clone()) }];
        store.register(org.id, &device, &by(1)).await.unwrap().unwrap();
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
                let found = read.await.unwrap().unwrap().unwrap();
                assert_eq!(found.device.map(|device| device.status), Some(expected), "round {round}");
            }
        }
    });
}

#[test]
fn a_late_last_seen_time_never_lands_on_a_device_that_came_after() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let (org, key) = create_org(&store, None, PlanTier::Free, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let known = async || store.look_up(key, Some(&device)).await.unwrap().unwrap().device.unwrap();
        store.register(org.id, &device, &by(1)).await.unwrap();
        let old = known().await;
        store.remove(org.id, &device, &by(1)).await.unwrap();
        store.register(org.id, &device, &by(2)).await.unwrap();
        store.touch(&[(old.seq, at(3).as_microsecond())]).await.unwrap();
        let seen = async || store.list(org.id, &Filter::default()).await.unwrap().unwrap().0.devices[0].last_seen_at;
        assert_eq!(seen().await, None);
        let new = known().await;
        store.touch(&[(new.seq, at(5).as_microsecond())]).await.unwrap();
        store.touch(&[(new.seq, at(4).as_microsecond())]).await.unwrap();
        assert_eq!(seen().await, Some(at(5)), "the newest time stays");
    });
}

#[test]
fn a_checkout_is_confirmed_once_and_within_its_time() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let org = new_org(&store, PlanTier::Free).await;
        let (one, two) = (SecretHash::of_token("one"), SecretHash::of_token("two"));
        for token in [one, two] {
            store.create_checkout(org, PlanTier::Pro, token, at(3600), &by(0)).await.unwrap().unwrap();
        }
        assert!(store.confirm_checkout(one, &by(3600)).await.unwrap().is_none(), "its time is over");
        assert!(store.confirm_checkout(one, &by(3599)).await.unwrap().is_some());
        assert!(store.confirm_checkout(one, &by(3599)).await.unwrap().is_none(), "it was used");
        assert_eq!(store.account(org).await.unwrap().unwrap().org.tier, PlanTier::Pro);
        store.change_org(org, &super::OrgChange::Delete, &by(1)).await.unwrap().unwrap();
        assert!(store.confirm_checkout(two, &by(1)).await.unwrap().is_none(), "its organisation is gone");
    });
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', 1, x'00', 0)",
        )
        .execute(&store.writer)
        .await
        .unwrap();
        store.close().await;
        let error = Store::open(&directory.path().join("test.db")).await.unwrap_err();
        assert!(error.to_string().contains("cannot bring the database"), "{error}");
    });
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

#[test]
fn every_management_call_is_in_the_audit_with_its_reason_and_what_it_came_to() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let other = new_org(&store, PlanTier::Free).await;
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = |ids: &[&str]| distinct(ids.iter().map(|id| (*id).to_owned()).collect()).unwrap();
        for (now, name) in (1..).zip(["a", "b", "a"]) {
            store.register(org, &id(name), &by(now)).await.unwrap().unwrap();
        }
        store.revoke(org, &batch(&["a"]), Verb::Revoke, &because(4, "gone mad")).await.unwrap().unwrap();
        store.revoke(org, &batch(&["a", "b", "x", "no no"]), Verb::RevokeBatch, &by(5)).await.unwrap().unwrap();
        store.unrevoke(org, &batch(&["b"]), Verb::Unrevoke, &by(6)).await.unwrap().unwrap();
        store.revoke_all(org, &because(7, "drill")).await.unwrap().unwrap();
        store.unrevoke_all(org, &by(8)).await.unwrap().unwrap();
        store.remove(org, &id("x"), &by(9)).await.unwrap().unwrap();
        store.change_org(org, &super::OrgChange::Frozen(true), &because(10, "unpaid")).await.unwrap().unwrap();
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

#[test]
fn a_reason_stays_with_the_device_while_it_is_revoked() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned()]).unwrap();
        let said =
            async || store.list(org, &Filter::default()).await.unwrap().unwrap().0.devices[0].revoke_reason.clone();
        store.register(org, &id("a"), &by(1)).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(2, "first")).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(3, "second")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("first"), "the revoke that did it");
        store.unrevoke(org, &batch, Verb::Unrevoke, &by(4)).await.unwrap();
        assert_eq!(said().await, None);
        store.revoke_all(org, &because(5, "all")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("all"));
    });
}

#[test]
fn whoever_listens_is_told_of_a_change_once_it_can_be_seen() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let store = open(directory.path()).await;
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned(), "x".to_owned()]).unwrap();
        store.register(org, &id("a"), &by(1)).await.unwrap();
        let mut news = store.changes().listen();
        store.revoke(org, &batch, Verb::RevokeBatch, &by(2)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Devices(org, vec![id("a")]));
        let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
        assert!(page.devices[0].revoked_at.is_some());
        store.unrevoke_all(org, &by(3)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Org(org));
        store.change_org(org, &super::OrgChange::Disabled(true), &by(4)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Org(org));
    });
}
