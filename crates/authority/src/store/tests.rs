//! Tests of the store against a model, and of what only a store can get wrong: one suite, over both stores.

#![expect(clippy::needless_pass_by_value, reason = "each scenario has a store of its own")]

use machineid_testing::postgres as cluster;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use machineid_protocol::DeviceId;
use machineid_protocol::api::DeviceStatus;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::LastSeen;
use super::{
    Backend, CheckoutKey, Filter, FleetRow, Kept, NewCheckout, OpenError, OrgChange, Reserves, RestoredAll, Store,
    StoreError, Surplus, Terms,
};
use crate::admin::create_org;
use crate::audit::{Actor, Call, KeyLabel, Query, Verb};
use crate::batch::{Named, Outcome, distinct};
use crate::changes::Change;
use crate::database::Database;
use crate::keys::{SecretHash, new_key};
use crate::org::{HeldKey, OrgId, PlanTier, Switch, Switches};
use crate::plan::{Admission, Removal, Restoration, Suspension};
use crate::reports::HeardReport;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs the scenario on each store, as a test of its own.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod on_sqlite {
            $(#[test]
            fn $scenario() {
                let directory = tempfile::TempDir::new().unwrap();
                super::super::run(&super::super::sqlite(directory.path()), super::$scenario);
            })*
        }
        mod on_postgres {
            $(#[test]
            fn $scenario() {
                // Skipped where there is no PostgreSQL, as the cluster reports.
                if let Some(url) = super::super::cluster::new_database() {
                    super::super::run(&url.parse().unwrap(), super::$scenario);
                }
            })*
        }
    };
}

mod audit;
mod checkouts;
mod fleet;
mod keys;
mod model;
mod opening;
mod orgs;
mod removal;
mod reports;
mod retention;
mod unwritten;
mod visible;

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
    let store = runtime.block_on(Store::open(database, Terms::default(), Reserves::default())).unwrap();
    scenario(&runtime, store.clone());
    runtime.block_on(store.close());
}

async fn new_org(store: &Store, tier: PlanTier) -> OrgId {
    create_org(store, None, tier, None, &by(0)).await.unwrap().0.id
}

fn by(second: i64) -> Call {
    let actor = Actor::Key(KeyLabel::new([1, 0x23, 0, 0, 0, 0], None));
    Call { at: at(second), request_id: format!("request {second}"), actor, reason: None }
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

/// All audit entries, the oldest first: verb, device, outcome, reason, details.
async fn audited(store: &Store, query: &Query) -> Vec<(String, Option<String>, String, Option<String>, String)> {
    let page = store.audit(query).await.unwrap();
    let line = |entry: crate::audit::AuditEntry| {
        let details = serde_json::Value::Object(entry.details).to_string();
        (entry.verb, entry.device_id, entry.outcome, entry.reason, details)
    };
    page.entries.into_iter().rev().map(line).collect()
}

/// A report of sidecar `sidecar` that arrives at `second`: each device with its number of agents, and the fields in
/// `rest`.
fn heard(org: OrgId, sidecar: u32, second: i64, devices: &[(&str, u32)], rest: serde_json::Value) -> HeardReport {
    let device = |(device, agents): &(&str, u32)| serde_json::json!({"deviceId": device, "standing": "allowed", "agents": agents, "stopping": 0});
    let mut report = serde_json::json!({
        "sidecarId": format!("{sidecar:032x}"), "sequence": second, "version": "9", "hostDeviceId": "host", "push": true,
        "agents": 7, "stopBound": {"connectedMs": 1, "cutOffMs": 2}, "devices": devices.iter().map(device).collect::<Vec<_>>(),
    });
    if let (Some(report), serde_json::Value::Object(rest)) = (report.as_object_mut(), rest) {
        report.extend(rest);
    }
    HeardReport::take(org, serde_json::from_value(report).unwrap(), None, at(second)).unwrap()
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
