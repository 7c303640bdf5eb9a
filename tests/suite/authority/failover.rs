//! A database whose address leads elsewhere, whose connections break, or which is slow or full: none of it is a decision.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use machineid_testing::postgres::Cluster;

use super::watch::watch;
use crate::harness::authority::{Authority, Org};
use crate::harness::http::{Reply, request};
use crate::harness::load::Stalls;
use crate::harness::pooler::Moving;
use crate::harness::wait::{clock, until};

/// The name of a new database of this cluster.
fn new_database(cluster: &Cluster) -> String {
    let url = cluster.new_database();
    url.split(['/', '?']).nth(3).unwrap().to_owned()
}

/// The address of a database, which stays where it is.
fn url(cluster: &Cluster, database: &str) -> String {
    format!("postgres://machineid@localhost/{database}?host={}", cluster.directory().display())
}

fn ready(authority: &Authority) -> Reply {
    request(authority.address(), "GET", "/readyz", &[], b"")
}

/// A validation's answer: a decision without the mark, or the mark without a decision.
fn answer(org: &Org<'_>, device: &str) -> Option<String> {
    let reply = org.device("validate", device);
    let code = reply.json()["code"].as_str().unwrap().to_owned();
    let undecided = reply.header("x-machineid-undecided");
    assert_eq!(undecided, (code == "SYSTEM_UNAVAILABLE").then_some("1"), "{reply:?}");
    assert_eq!(reply.status, if undecided.is_some() { 503 } else { 200 }, "{reply:?}");
    undecided.is_none().then_some(code)
}

/// Ends every session of the authorities, as a server does that is stopped by an operator.
fn end_sessions(cluster: &Cluster, database: &str) {
    cluster.sql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"),
    );
}

fn caught_up(primary: &Cluster, standby: &Cluster) {
    let behind = primary.sql("postgres", "SELECT pg_current_wal_lsn()");
    until("the standby has everything", || {
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{behind}'::pg_lsn");
        (standby.sql("postgres", &query) == "t").then_some(())
    });
}

#[test]
fn a_standby_behind_the_address_decides_nothing_and_readyz_names_it() {
    let Some(primary) = Cluster::start() else { return };
    let database = new_database(&primary);
    let address = Moving::to(&primary);
    let authority = Authority::start_on(&address.of(&database));
    let org = authority.org("free");
    org.register(&["a"]);
    let standby = primary.standby();
    caught_up(&primary, &standby);
    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    assert_eq!(org.device("revoke", "a").status, 200);
    assert_eq!(answer(&org, "a").as_deref(), Some("DEVICE_REVOKED"));
    // It would still say ALLOW.
    address.lead_to(&standby);
    end_sessions(&primary, &database);
    for _ in 0..20 {
        assert_eq!(answer(&org, "a"), None);
        assert_eq!(org.device("unrevoke", "a").status, 503);
    }
    let said = until("readyz names the standby", || {
        let said = ready(&authority);
        (said.status == 503 && said.text.contains("standby")).then_some(said)
    });
    assert_eq!(said.json()["error"], "system_unavailable");
    address.lead_to(&primary);
    until("the primary is found again", || (ready(&authority).status == 200).then_some(()));
    assert_eq!(answer(&org, "a").as_deref(), Some("DEVICE_REVOKED"));
}

#[test]
fn a_server_refuses_to_start_on_a_standby() {
    let Some(primary) = Cluster::start() else { return };
    let database = new_database(&primary);
    drop(Authority::start_on(&url(&primary, &database)));
    let standby = primary.standby();
    let said = Authority::refused(&url(&standby, &database), &[]);
    assert!(said.contains("read-only standby") && said.contains("Name the primary"), "{said}");
}

#[test]
fn sessions_on_an_old_primary_are_left_when_the_address_moves_and_it_is_never_believed_again() {
    let Some(old) = Cluster::start() else { return };
    let database = new_database(&old);
    let address = Moving::to(&old);
    let one = Authority::start_on(&address.of(&database));
    let org = one.org("free");
    org.register(&["a"]);
    assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
    let new = old.standby();
    caught_up(&old, &new);
    new.sql("postgres", "SELECT pg_promote()");
    // The old primary lives on, and so do the sessions on it.
    address.lead_to(&new);
    let two = Authority::start_on(&address.of(&database));
    assert_eq!(two.same_org(&org).device("revoke", "a").status, 200);
    until("the first server has moved, too", || (answer(&org, "a").as_deref() == Some("DEVICE_REVOKED")).then_some(()));
    // An address that leads back, as a confused proxy's does.
    address.lead_to(&old);
    end_sessions(&new, &database);
    for _ in 0..20 {
        assert_eq!(answer(&org, "a"), None);
    }
    until("readyz names the old primary", || ready(&one).text.contains("old primary").then_some(()));
    address.lead_to(&new);
    until("the new one is found again", || (ready(&one).status == 200).then_some(()));
    assert_eq!(answer(&org, "a").as_deref(), Some("DEVICE_REVOKED"));
}

#[test]
fn behind_the_fence_a_primary_whose_commits_nobody_confirms_decides_nothing() {
    let Some(primary) = Cluster::start() else { return };
    let database = new_database(&primary);
    let mut standby = primary.standby();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let fenced = Authority::start_on_with(&url(&primary, &database), &["--fence"]);
    let free = Authority::start_on(&url(&primary, &database));
    let org = fenced.org("free");
    org.register(&["a"]);
    assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
    // As it looks to a primary that is cut off while its standby is promoted.
    standby.crash();
    until("nothing is decided", || answer(&org, "a").is_none().then_some(()));
    let said = ready(&fenced);
    assert!(said.status == 503 && said.text.contains("no standby confirms"), "{said:?}");
    assert_eq!(answer(&free.same_org(&org), "a").as_deref(), Some("ALLOW"));
    standby.launch();
    until("commits are confirmed again", || (answer(&org, "a").as_deref() == Some("ALLOW")).then_some(()));
}

#[test]
fn a_primary_that_was_set_read_only_before_a_switch_decides_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    let authority = Authority::start_on(&url(&cluster, &database));
    let org = authority.org("free");
    org.register(&["a"]);
    let set = |to: &str| {
        cluster.sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {to}"));
        cluster.sql("postgres", "SELECT pg_reload_conf()");
    };
    set("on");
    until("no more is decided", || answer(&org, "a").is_none().then_some(()));
    until("readyz says so", || ready(&authority).text.contains("read-only").then_some(()));
    set("off");
    until("it is the primary again", || (answer(&org, "a").as_deref() == Some("ALLOW")).then_some(()));
}

#[test]
fn sessions_that_the_server_ends_cost_no_decision_and_no_change() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    let authority = Authority::start_on(&url(&cluster, &database));
    let org = authority.org("free");
    org.register(&["a"]);
    for round in 0..20 {
        end_sessions(&cluster, &database);
        assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"), "{round}");
        assert_eq!(org.device("unrevoke", "a").status, 200, "{round}");
    }
}

#[test]
fn a_server_without_a_connection_to_spare_is_no_server_that_is_gone() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    cluster.sql("postgres", &format!("CREATE ROLE fleet LOGIN; ALTER DATABASE {database} OWNER TO fleet"));
    let authority = Authority::start_on(&url(&cluster, &database).replace("machineid@", "fleet@"));
    let org = authority.org("free");
    org.register(&["a"]);
    // Whatever is new is refused from here on, the probe as well.
    cluster.sql("postgres", "ALTER ROLE fleet CONNECTION LIMIT 1");
    let one = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fleet' AND query LIKE '%UNNEST%' LIMIT 1";
    assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
    cluster.sql("postgres", one);
    let began = clock();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
        assert_eq!(org.device("unrevoke", "a").status, 200);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ready(&authority).status, 200);
}

#[test]
fn a_slow_decision_is_late_and_one_that_comes_too_late_is_undecided() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    let authority = Authority::start_on(&url(&cluster, &database));
    let org = authority.org("free");
    org.register(&["a"]);
    let locked = |seconds: f32, meanwhile: &dyn Fn()| {
        thread::scope(|scope| {
            let locking =
                format!("BEGIN; LOCK TABLE orgs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds}); COMMIT");
            let (cluster, database) = (&cluster, &database);
            scope.spawn(move || cluster.sql(database, &locking));
            until("the table is locked", || {
                let query = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND \
                             relation = 'orgs'::regclass";
                (cluster.sql(database, query) == "1").then_some(())
            });
            meanwhile();
        });
    };
    locked(1.6, &|| {
        let began = clock();
        assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
        assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
    });
    locked(6.0, &|| {
        let (began, stalls) = (clock(), Stalls::from_now());
        assert_eq!(answer(&org, "a"), None);
        let took = began.elapsed();
        // A client waits for three seconds.
        assert!(took > Duration::from_secs(2) && took < Duration::from_millis(2_800) + stalls.allowance(), "{took:?}");
        assert_eq!(answer(&org, "a"), None);
    });
    until("the lock is gone", || (answer(&org, "a").as_deref() == Some("ALLOW")).then_some(()));
}

#[test]
fn a_database_that_is_away_leaves_validations_undecided_and_is_back_by_itself() {
    let Some(mut cluster) = Cluster::start() else { return };
    let authority = Authority::start_on(&cluster.new_database());
    let org = authority.org("free");
    org.register(&["a"]);
    for _ in 0..3 {
        cluster.crash();
        for _ in 0..5 {
            assert_eq!(answer(&org, "a"), None);
        }
        // Of no database's making, and so decided: the mark is not for every 503.
        let other = authority.call("POST", "/devices/revoke", Some(&org.key), br#"{"deviceId":"a"}"#);
        assert_eq!((other.status, other.header("x-machineid-undecided")), (503, None));
        cluster.launch();
        until("the database is found again", || (answer(&org, "a").as_deref() == Some("ALLOW")).then_some(()));
    }
}

#[test]
fn what_changed_while_nobody_listened_is_heard_of_once_somebody_does() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    let one = Authority::start_on(&url(&cluster, &database));
    let sessions = format!("SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE datname = '{database}'");
    let of_the_first = cluster.sql("postgres", &sessions);
    let address = Moving::to(&cluster);
    let two = Authority::start_on(&address.of(&database));
    let org = one.org("free");
    let other = two.same_org(&org);
    org.register(&["a"]);
    let mut events = watch(&two, &other, &["a"]);
    for code in ["DEVICE_REVOKED", "ALLOW", "DEVICE_REVOKED"] {
        // The connection is lost, and no new one can be made until the change was answered.
        address.lead_nowhere();
        cluster.sql(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = '{database}' AND pid NOT IN ({of_the_first})"
            ),
        );
        let verb = if code == "ALLOW" { "unrevoke" } else { "revoke" };
        assert_eq!(org.device(verb, "a").status, 200);
        address.lead_to(&cluster);
        until("the watcher is told", || {
            assert!(events.next().is_some(), "the stream ended");
            (other.code("a") == code).then_some(())
        });
    }
}

#[test]
fn no_more_connections_are_made_than_asked_for() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    let authority = Authority::start_on_with(&url(&cluster, &database), &["--database-connections", "7"]);
    let org = authority.org("max");
    org.register(&["a"]);
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        for worker in 0..12 {
            let (org, done) = (&org, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    org.device("register", &format!("d{worker}"));
                    org.code("a");
                    org.get("/devices/list");
                }
            });
        }
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        let most = (0..40).map(|_| cluster.sql("postgres", &count).parse::<u32>().unwrap()).max();
        done.store(true, Ordering::Relaxed);
        most
    });
    assert!(most.is_some_and(|most| (5..=7).contains(&most)), "{most:?}");
}

#[test]
fn a_limit_that_grants_fewer_connections_is_named_and_one_that_grants_too_few_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let database = new_database(&cluster);
    cluster.sql("postgres", &format!("CREATE ROLE fleet LOGIN; ALTER DATABASE {database} OWNER TO fleet"));
    let url = url(&cluster, &database).replace("machineid@", "fleet@");
    cluster.sql("postgres", "ALTER ROLE fleet CONNECTION LIMIT 6");
    let authority = Authority::start_on(&url);
    let log = authority.log();
    assert!(log.contains("grants fewer connections") && log.contains("granted=6") && log.contains("too many"), "{log}");
    let org = authority.org("free");
    org.register(&["a"]);
    assert_eq!(answer(&org, "a").as_deref(), Some("ALLOW"));
    drop(authority);
    cluster.sql("postgres", "ALTER ROLE fleet CONNECTION LIMIT 4");
    let said = until("the sessions of the first are gone", || {
        let said = Authority::refused(&url, &[]);
        said.contains("grants 4 connections").then_some(said)
    });
    assert!(said.contains("5 are needed") && said.contains("--database-connections"), "{said}");
}
