//! Several servers on one `PostgreSQL` database, and what becomes of them without it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use machineid_testing::postgres::{Cluster, new_database};
use serde_json::json;

use super::watch::watch;
use crate::harness::authority::Authority;
use crate::harness::events::Events;
use crate::harness::load::Stalls;
use crate::harness::wait::until;

#[test]
fn an_answered_revoke_is_seen_by_every_later_validation_under_load_on_every_replica() {
    let Some(database) = new_database() else { return };
    let (one, two) = (Authority::start_on(&database), Authority::start_on(&database));
    let org = one.org("max");
    let other = two.same_org(&org);
    org.register(&["a"]);
    let (done, load) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for worker in 0..4 {
            let (replica, done, load) = (if worker % 2 == 0 { &org } else { &other }, &done, &load);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    replica.code("a");
                    replica.device("register", &format!("load-{worker}"));
                    load.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("the load is on", || (load.load(Ordering::Relaxed) > 8).then_some(()));
        for round in 0..60 {
            let (asked, told) = if round % 2 == 0 { (&org, &other) } else { (&other, &org) };
            assert_eq!(asked.device("revoke", "a").status, 200);
            assert_eq!((told.code("a"), asked.code("a")), ("DEVICE_REVOKED".to_owned(), "DEVICE_REVOKED".to_owned()));
            assert_eq!(asked.device("unrevoke", "a").status, 200);
            assert_eq!((told.code("a"), asked.code("a")), ("ALLOW".to_owned(), "ALLOW".to_owned()));
        }
        done.store(true, Ordering::Relaxed);
    });
    two.admin_json(&["disable", &org.id]);
    assert_eq!(org.code("a"), "ORG_DISABLED");
}

#[test]
fn replicas_that_race_for_the_last_places_never_exceed_the_plan() {
    let Some(database) = new_database() else { return };
    let (one, two) = (Authority::start_on(&database), Authority::start_on(&database));
    let org = one.org("pro");
    let other = two.same_org(&org);
    let won = AtomicU32::new(0);
    thread::scope(|scope| {
        for worker in 0..8 {
            let (replica, won) = (if worker % 2 == 0 { &org } else { &other }, &won);
            scope.spawn(move || {
                for number in 0..8 {
                    let reply = replica.device("register", &format!("w{worker}-{number}"));
                    match (reply.status, reply.json()["status"].as_str().unwrap()) {
                        (200, "ok") => drop(won.fetch_add(1, Ordering::Relaxed)),
                        (403, "blocked") => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 25);
    assert_eq!(other.get("/usage").json()["devicesUsed"], 25);
}

#[test]
fn who_watches_one_replica_is_told_of_what_another_changed() {
    let Some(database) = new_database() else { return };
    let (one, two) = (Authority::start_on(&database), Authority::start_on(&database));
    let org = one.org("pro");
    let other = two.same_org(&org);
    org.register(&["a"]);
    let mut events = watch(&two, &other, &["a"]);
    let mut told = |change: &str, code: &str| {
        // The hint about the change before may come this late.
        loop {
            assert!(events.next().is_some(), "{change}: the stream ended");
            if other.code("a") == code {
                break;
            }
        }
    };
    org.device("revoke", "a");
    told("revoke", "DEVICE_REVOKED");
    org.device("unrevoke", "a");
    told("unrevoke", "ALLOW");
    one.admin_json(&["disable", &org.id]);
    told("disable", "ORG_DISABLED");
}

#[test]
fn a_lost_database_is_a_denial_at_once_and_never_an_old_answer() {
    let Some(mut cluster) = Cluster::start() else { return };
    let authority = Authority::start_on(&cluster.new_database());
    let org = authority.org("free");
    org.register(&["a"]);
    assert_eq!(org.code("a"), "ALLOW");
    cluster.crash();
    for _ in 0..5 {
        let stalls = Stalls::from_now();
        let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let reply = org.device("validate", "a");
        let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(began);
        assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("SYSTEM_UNAVAILABLE")));
        // A client waits for three seconds.
        assert!(took < Duration::from_secs(2) + stalls.allowance(), "{took:?}");
        assert_eq!(org.device("revoke", "a").status, 503);
    }
    let ready =
        |authority: &Authority| crate::harness::http::request(authority.address(), "GET", "/readyz", &[], b"").status;
    assert_eq!(ready(&authority), 503);
    cluster.launch();
    until("the database is found again", || (ready(&authority) == 200).then_some(()));
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn what_a_sidecar_tells_one_replica_is_read_and_heard_of_at_the_others() {
    let Some(database) = new_database() else { return };
    let (one, two) = (Authority::start_on(&database), Authority::start_on(&database));
    let org = one.org("free");
    let other = two.same_org(&org);
    org.register(&["a"]);
    let mut events = Events::open(two.address(), "GET", "/org/events", &org.key, "");
    assert_eq!(events.next().unwrap().0, "ready");
    let report = json!({
        "sidecarId": "000000000000000000000000000000a1", "sequence": 1, "version": "9", "hostDeviceId": "a", "push": true,
        "agents": 3, "stopBound": {"connectedMs": 19_500, "cutOffMs": 41_000},
        "devices": [{"deviceId": "a", "standing": "allowed", "agents": 3, "stopping": 0}],
        "events": [{"id": "0000000a-1", "deviceId": "a", "agoMs": 0, "event": "agent-started", "name": "x"}],
    });
    assert_eq!(org.post("/devices/report", &report).status, 200);
    // What is answered can be read everywhere, at once.
    assert_eq!(other.get("/org/fleet").json()["devices"][0]["sidecars"][0]["agents"], 3);
    assert_eq!(other.get("/org/timeline?deviceId=a").json()["events"][0]["name"], "x");
    let (name, told) = events.next().unwrap();
    assert_eq!((name.as_str(), &told["deviceIds"]), ("changed", &json!(["a"])));
}
