//! What is wrong with a server that answers: said at the start, in `/readyz`, `org list`, the metrics and the log.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

use machineid_testing::postgres::Cluster;
use serde_json::{Value, json};

use crate::harness::authority::{Authority, BINARY, database_flag};
use crate::harness::eventually;
use crate::harness::http::{self, Reply};

fn readyz(authority: &Authority) -> Reply {
    http::request(authority.address(), "GET", "/readyz", &[], b"")
}

/// What is wrong with this, in the server's words.
pub(crate) fn problem(authority: &Authority, concern: &str) -> Option<String> {
    let said = readyz(authority).json();
    let problems = said["problems"].as_array().cloned().unwrap_or_default();
    let one = problems.iter().find(|problem| problem["concern"] == concern)?;
    Some(one["problem"].as_str().unwrap().to_owned())
}

pub(super) fn metric(authority: &Authority, concern: &str) -> Option<String> {
    let page = http::request(authority.metrics(), "GET", "/metrics", &[], b"").text;
    let name = format!("machineid_authority_problem{{concern=\"{concern}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
}

/// The database that a URL of the harness names.
fn name_of(url: &str) -> String {
    let name = url.split_once("localhost/").and_then(|(_, rest)| rest.split('?').next());
    name.unwrap().to_owned()
}

/// A server that must not start.
fn refused(database: &str, flags: &[&str]) -> String {
    let directory = tempfile::TempDir::new().unwrap();
    let Output { status, stderr, .. } = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--database", database, "--admin-socket"])
        .arg(directory.path().join("admin.sock"))
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_server_with_nothing_wrong_says_so_and_has_written_something() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let reply = readyz(&authority);
    assert_eq!(reply.status, 200);
    assert_eq!((problem(&authority, "writes"), problem(&authority, "file")), (None, None));
    for concern in ["writes", "stops", "space", "integrity", "file", "durability"] {
        assert!(metric(&authority, concern).is_some(), "{concern}");
    }
    let page = http::request(authority.metrics(), "GET", "/metrics", &[], b"").text;
    let written = page.lines().find_map(|line| line.strip_prefix("machineid_authority_last_write_timestamp_seconds "));
    assert!(written.unwrap().parse::<u64>().unwrap() > 1_700_000_000, "{page}");
}

#[test]
fn a_database_that_two_names_lead_to_is_served_by_one_server_and_by_none_while_it_has_both() {
    let mut authority = Authority::start();
    let other = authority.directory().join("other.db");
    fs::hard_link(authority.database(), &other).unwrap();
    let said = refused(&format!("sqlite:{}", other.display()), &[]);
    assert!(said.contains("another authority already serves the database"), "{said}");
    eventually("the server that serves it says that it has two names", || {
        problem(&authority, "file").is_some_and(|said| said.contains("has 2 names (hard links)"))
    });
    assert_eq!(readyz(&authority).status, 200, "its decisions are right");
    let listed = authority.admin(&["list"]);
    let warned = String::from_utf8(listed.stderr).unwrap();
    assert!(listed.status.success() && warned.contains("has 2 names"), "{warned}");
    authority.kill();
    let said = refused(&database_flag(authority.directory()), &[]);
    assert!(said.contains("has 2 names (hard links)"), "{said}");
    fs::remove_file(other).unwrap();
    authority.start_again();
    assert_eq!(problem(&authority, "file"), None);
}

#[test]
fn a_database_that_is_removed_or_replaced_while_it_is_served_is_told() {
    for case in ["removed", "replaced", "log removed"] {
        let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
        authority.org("free");
        let (database, log) = (authority.database(), authority.directory().join("authority.db-wal"));
        match case {
            "removed" => fs::remove_file(&database).unwrap(),
            "replaced" => {
                let copy = authority.directory().join("copy");
                fs::copy(&database, &copy).unwrap();
                fs::rename(copy, &database).unwrap();
            }
            _ => fs::remove_file(log).unwrap(),
        }
        eventually(case, || problem(&authority, "file").is_some_and(|said| said.contains("while it was served")));
        assert_eq!((readyz(&authority).json()["status"].clone(), readyz(&authority).status), (json!("degraded"), 200));
        assert_eq!(metric(&authority, "file").as_deref(), Some("1"));
        assert!(authority.log().contains("are lost when this server ends"), "{}", authority.log());
    }
}

#[test]
fn a_damaged_database_is_not_served() {
    let mut authority = Authority::start();
    let org = authority.org("max");
    let key = org.key.clone();
    let ids: Vec<String> = (0..400).map(|number| format!("device:{number}:{}", "x".repeat(60))).collect();
    for id in &ids {
        assert_eq!(org.device("register", id).status, 200);
    }
    assert!(authority.terminate().success());
    let database = File::options().read(true).write(true).open(authority.database()).unwrap();
    let pages = database.metadata().unwrap().len() / 4096;
    for page in pages / 2..pages {
        database.write_all_at(&[0xA5; 512], page * 4096).unwrap();
    }
    let said = refused(&database_flag(authority.directory()), &[]);
    assert!(said.contains("is damaged") && said.contains("backup"), "{said}");
    assert!(!said.contains(&key));
}

#[test]
fn a_standby_that_is_not_waited_for_is_warned_of_as_soon_as_it_is_there_and_refused_on_demand() {
    let Some(primary) = Cluster::start() else { return };
    let url = primary.new_database();
    let authority = Authority::start_on_with(&url, &["--metrics-listen", "127.0.0.1:0"]);
    assert_eq!(problem(&authority, "durability"), None, "a database alone");
    let _standby = primary.standby();
    let empty = "synchronous_standby_names is empty";
    eventually("the standby is warned of", || {
        problem(&authority, "durability").is_some_and(|said| said.contains(empty) && said.contains("connected: 1"))
    });
    assert_eq!((readyz(&authority).status, metric(&authority, "durability").as_deref()), (200, Some("1")));
    assert!(authority.log().contains(empty), "{}", authority.log());
    let warned = String::from_utf8(authority.admin(&["list"]).stderr).unwrap();
    assert!(warned.contains(empty), "{warned}");
    let said = refused(&url, &["--require-synchronous"]);
    assert!(said.contains("--require-synchronous, but synchronous_standby_names is empty"), "{said}");

    let set = |names: &str| {
        primary.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        primary.sql("postgres", "SELECT pg_reload_conf()");
    };
    set("ANY 1 (*)");
    eventually("what is waited for is fine", || problem(&authority, "durability").is_none());
    let strict = Authority::start_on_with(&url, &["--require-synchronous"]);
    assert_eq!(readyz(&strict).status, 200);
    set("");
    eventually("who demands it is not ready", || readyz(&strict).status == 503);
    assert!(problem(&strict, "durability").unwrap().contains(empty));
    let org = strict.org("free");
    org.register(&["a"]);
    assert_eq!(org.code("a"), "ALLOW", "no agent is stopped for it");
    assert_eq!(org.device("revoke", "a").status, 200, "a revoke is always possible");
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
    set("ANY 1 (*)");
    eventually("it is ready again by itself", || readyz(&strict).status == 200);

    let name = name_of(&url);
    primary.sql("postgres", &format!("ALTER DATABASE {name} SET synchronous_commit = remote_write"));
    let lax = Authority::start_on(&url);
    assert!(problem(&lax, "durability").unwrap().contains("synchronous_commit is remote_write"));
}

#[test]
fn a_role_that_may_not_see_standbys_is_told_what_it_may_not_see() {
    let Some(primary) = Cluster::start() else { return };
    primary.sql("postgres", "CREATE ROLE plain LOGIN CREATEDB");
    let url = primary.new_database();
    let name = name_of(&url);
    primary.sql("postgres", &format!("ALTER DATABASE {name} OWNER TO plain"));
    let _standby = primary.standby();
    let authority = Authority::start_on(&url.replacen("machineid@", "plain@", 1));
    let said = |part: &str| problem(&authority, "durability").is_some_and(|said| said.contains(part));
    eventually("it warns", || said("synchronous_standby_names is empty") && said("this role may not see"));
    primary.sql("postgres", "GRANT pg_monitor TO plain");
    eventually("it may see now", || said("standbys or archivers connected: 1"));
}

#[test]
fn a_revoke_that_no_standby_has_is_not_answered_as_one_that_has() {
    let Some(primary) = Cluster::start() else { return };
    let authority = Authority::start_on(&primary.new_database());
    let org = authority.org("free");
    org.register(&["a"]);
    // A standby is waited for, and there is none.
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    eventually("it is reloaded", || primary.sql("postgres", "SHOW synchronous_standby_names") == "ANY 1 (nobody)");
    let revoked = org.device("revoke", "a");
    assert_eq!((revoked.status, &revoked.json()["written"]), (202, &json!(false)), "only the primary has it");
    // A change that fails is a reason to look at once.
    eventually("it is told", || problem(&authority, "writes").is_some());
    assert_eq!(readyz(&authority).status, 200);
    assert_eq!(org.code("a"), "DEVICE_REVOKED", "it is in force at this server");
    primary.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    eventually("it was not lost", || org.code("a") == "DEVICE_REVOKED");
    eventually("a revoke is answered again", || org.device("revoke", "a").status == 200);
    eventually("nothing is wrong any more", || problem(&authority, "writes").is_none());
}

#[test]
fn a_database_without_standbys_cannot_be_required_to_wait_for_them() {
    let directory = tempfile::TempDir::new().unwrap();
    let said = refused(&database_flag(directory.path()), &["--require-synchronous"]);
    assert!(said.contains("a SQLite database has no standbys"), "{said}");
}

#[test]
fn problems_are_described() {
    let authority = Authority::start();
    let document: Value = http::request(authority.address(), "GET", "/api/v1/openapi.json", &[], b"").json();
    assert!(document["components"]["schemas"]["Health"]["properties"]["problems"].is_object());
}
