//! `PgBouncer` before the database, as Debian's package comes.

use machineid_testing::postgres::Cluster;

use crate::harness::authority::Authority;
use crate::harness::pooler::Pooler;

fn database(cluster: &Cluster) -> String {
    cluster.new_database().split(['/', '?']).nth(3).unwrap().to_owned()
}

#[test]
fn session_mode_works_as_it_comes() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster, "pool_mode = session") else { return };
    let url = pooler.of(&database(&cluster));
    let (one, two) = (
        Authority::start_on_with(&url, &["--database-connections", "8"]),
        Authority::start_on_with(&url, &["--database-connections", "8"]),
    );
    let org = one.org("free");
    let other = two.same_org(&org);
    org.register(&["a"]);
    let mut events = super::watch::watch(&two, &other, &["a"]);
    for (verb, code) in [("revoke", "DEVICE_REVOKED"), ("unrevoke", "ALLOW")].repeat(3) {
        assert_eq!(org.device(verb, "a").status, 200);
        assert_eq!((org.code("a").as_str(), other.code("a").as_str()), (code, code));
        // News of the other server come through as well.
        assert!(events.next().is_some());
    }
}

#[test]
fn transaction_and_statement_mode_are_refused_with_the_remedy() {
    let Some(cluster) = Cluster::start() else { return };
    for mode in ["transaction", "statement"] {
        let Some(pooler) = Pooler::start(&cluster, &format!("pool_mode = {mode}")) else { return };
        let said = Authority::refused(&pooler.of(&database(&cluster)), &[]);
        assert!(
            said.contains("another server connection for each transaction") && said.contains("pool_mode = session"),
            "{mode}: {said}"
        );
    }
}

#[test]
fn a_pool_that_is_too_small_is_named_as_such() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster, "pool_mode = session\ndefault_pool_size = 3") else { return };
    let said = Authority::refused(&pooler.of(&database(&cluster)), &[]);
    assert!(said.contains("grants 3 connections") && said.contains("pool_size"), "{said}");
    let Some(pooler) = Pooler::start(&cluster, "pool_mode = session\ndefault_pool_size = 9") else { return };
    let authority = Authority::start_on(&pooler.of(&database(&cluster)));
    let log = authority.log();
    assert!(log.contains("grants fewer connections") && log.contains("granted=9"), "{log}");
    let org = authority.org("free");
    org.register(&["a"]);
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn parameters_that_a_pooler_refuses_are_named_with_the_remedy() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster, "pool_mode = session") else { return };
    let url = pooler.of(&database(&cluster)) + "&options=-c%20work_mem%3D8MB";
    let said = Authority::refused(&url, &[]);
    assert!(said.contains("unsupported startup parameter") && said.contains("ignore_startup_parameters"), "{said}");
}
