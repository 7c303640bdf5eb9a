//! A database that takes no changes, because its disk is full or for any other reason, keeps no agent from being stopped.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::authority::disk::Disk;
use crate::authority::health::problem;
use crate::console::visitor::Visitor;
use crate::daemon::agents::{Agent, OBEDIENT};
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::http::Reply;
use crate::harness::sidecar::Setup;

/// An organisation that outlives restarts of its authority.
struct Known {
    id: String,
    key: String,
}

impl Known {
    fn of(org: Org<'_>) -> Self {
        Self { id: org.id, key: org.key }
    }

    fn at<'a>(&self, authority: &'a Authority) -> Org<'a> {
        Org { authority, id: self.id.clone(), key: self.key.clone() }
    }
}

/// What the list says about a device: its status, and whether that is not written.
fn listed(org: &Org<'_>, id: &str) -> (String, bool) {
    let list = org.get("/devices/list").json();
    let device = list["devices"].as_array().unwrap().iter().find(|device| device["deviceId"] == id).unwrap().clone();
    (device["status"].as_str().unwrap().to_owned(), device["unwritten"] == true)
}

/// A stop that is in force and not in the database, and kept for the next start.
fn in_force_unwritten(reply: &Reply) {
    let body = reply.json();
    assert_eq!((reply.status, &body["status"]), (202, &json!("ok")), "{}", reply.text);
    assert_eq!((&body["written"], &body["survivesRestart"]), (&json!(false), &json!(true)), "{body}");
    assert!(body["notice"].as_str().unwrap().starts_with("In force at this server now"), "{body}");
}

fn waits(authority: &Authority) -> Option<String> {
    problem(authority, "stops")
}

#[test]
fn a_full_disk_jams_no_revoke_and_a_crash_loses_none() {
    let Some(disk) = Disk::new() else { return };
    let url = format!("sqlite:{}", disk.path().join("authority.db").display());
    let mut authority = Authority::start_on_with(&url, &["--reserve-mib", "0"]);
    let org = Known::of(authority.org("max"));
    let sidecar = Setup::new(&authority.url(), &org.key, "worker").start();
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    disk.fill();
    // The log of the database has room for some changes already.
    let full = (0..1_000).any(|number| org.at(&authority).device("register", &format!("d{number}")).status == 503);
    assert!(full, "the disk never was full");

    in_force_unwritten(&org.at(&authority).device("revoke", "worker"));
    agent.is_gone();
    assert_eq!((agent.wrapped.exit_code(), agent.terms()), (77, 1));
    assert_eq!(org.at(&authority).code("worker"), "DEVICE_REVOKED");
    assert_eq!(listed(&org.at(&authority), "worker"), ("revoked".to_owned(), true));
    let refused = org.at(&authority).device("unrevoke", "worker");
    assert!(refused.status == 503 && refused.text.contains("nothing is given back"), "{}", refused.text);

    authority.kill();
    authority.start_again();
    assert_eq!(
        org.at(&authority).code("worker"),
        "DEVICE_REVOKED",
        "what was answered survives a crash on a full disk"
    );
    eventually("it is told", || waits(&authority).is_some_and(|said| said.contains("in its reserve file")));

    disk.make_room();
    eventually("it is written", || waits(&authority).is_none());
    assert_eq!(listed(&org.at(&authority), "worker"), ("revoked".to_owned(), false));
    authority.kill();
    authority.start_again();
    assert_eq!(org.at(&authority).code("worker"), "DEVICE_REVOKED");
    assert_eq!(org.at(&authority).device("unrevoke", "worker").status, 200);
    assert_eq!(org.at(&authority).code("worker"), "ALLOW");
}

/// A database that refuses every stop. As a disk that is full, but for any user to make.
const BROKEN: &str = "
    CREATE TRIGGER no_device BEFORE UPDATE OF revoked_at ON devices BEGIN SELECT RAISE(ABORT, 'broken'); END;
    CREATE TRIGGER no_org BEFORE UPDATE ON orgs BEGIN SELECT RAISE(ABORT, 'broken'); END;
    CREATE TRIGGER no_key BEFORE UPDATE ON org_keys BEGIN SELECT RAISE(ABORT, 'broken'); END;";
const MENDED: &str = "DROP TRIGGER no_device; DROP TRIGGER no_org; DROP TRIGGER no_key;";

fn change(authority: &Authority, statements: &str) {
    let connection = Connection::open(authority.database()).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    connection.execute_batch(statements).unwrap();
}

#[test]
fn whatever_breaks_the_database_every_kind_of_stop_is_in_force_and_none_is_lost() {
    let mut authority = Authority::start();
    let made = || {
        let org = authority.org("pro");
        org.register(&["a", "b"]);
        Known::of(org)
    };
    let orgs = [made(), made(), made(), made()];
    let host = Known::of(orgs[0].at(&authority).with_role(&["--role", "host", "--name", "host"]));
    change(&authority, BROKEN);

    // Over the API: a device, and a key.
    in_force_unwritten(&orgs[0].at(&authority).device("revoke", "a"));
    in_force_unwritten(&orgs[0].at(&authority).device("revoke", "a"));
    assert_eq!(orgs[0].at(&authority).device("revoke", "nobody").status, 404);
    in_force_unwritten(&orgs[0].at(&authority).post("/org/keys/revoke", &json!({"key": "host"})));
    // At the console: everything.
    let fleet = orgs[1].at(&authority);
    let mut admin = Visitor::signed_in(&fleet);
    let stop = format!("/console/org/{}/stop", orgs[1].id);
    admin.get(&stop);
    let stopped = admin.post(&stop, &[("confirm", "2"), ("shown", "2"), ("reason", "gone mad")]);
    assert_eq!(stopped.status, 303, "{}", stopped.text);
    let page = admin.get(&format!("/console/org/{}", orgs[1].id)).text;
    assert!(page.contains("1 stop is in force at this server, but not in its database yet"), "{page}");
    // On the admin socket: the switch, and the organisation's own key.
    let switched = authority.admin(&["disable", &orgs[2].id]);
    let said = String::from_utf8(switched.stderr).unwrap();
    assert!(switched.status.success() && said.contains("survives a restart of this server"), "{said}");
    let rotated = orgs[3].at(&authority).admin("rotate-key", &["--overlap", "0s"]);
    assert!(rotated["notice"].as_str().unwrap().contains("not even the new one"), "{rotated}");
    let new = rotated["orgApiKey"].as_str().unwrap().to_owned();

    let denied = |authority: &Authority| {
        assert_eq!(orgs[0].at(authority).code("a"), "DEVICE_REVOKED");
        assert_eq!(orgs[0].at(authority).code("b"), "ALLOW", "which was not stopped");
        assert_eq!(host.at(authority).code("b"), "INVALID_ORG_KEY");
        assert_eq!(
            (orgs[1].at(authority).code("a"), orgs[1].at(authority).code("b")),
            ("DEVICE_REVOKED".into(), "DEVICE_REVOKED".into())
        );
        assert_eq!(orgs[2].at(authority).code("a"), "ORG_DISABLED");
        assert_eq!(orgs[3].at(authority).code("a"), "INVALID_ORG_KEY");
    };
    denied(&authority);
    authority.kill();
    authority.start_again();
    denied(&authority);
    // Nothing gives anything back meanwhile, and nothing lets a host get around its revoke.
    for (verb, body) in [("unrevoke", json!({"deviceId": "a"})), ("remove", json!({"deviceId": "a", "ifActive": true}))]
    {
        let reply = orgs[0].at(&authority).post(&format!("/devices/{verb}"), &body);
        assert_eq!(reply.status, 503, "{verb}: {}", reply.text);
    }
    assert_eq!(orgs[0].at(&authority).device("register", "a").json()["status"], "revoked");
    assert!(!authority.admin(&["enable", &orgs[2].id]).status.success());
    denied(&authority);

    change(&authority, MENDED);
    eventually("everything is written", || waits(&authority).is_none());
    denied(&authority);
    assert_eq!(listed(&orgs[0].at(&authority), "a"), ("revoked".to_owned(), false));
    let renewed = Org { authority: &authority, id: orgs[3].id.clone(), key: new };
    assert_eq!(renewed.code("a"), "ALLOW", "the new key is valid once it is written");
    let audit = orgs[1].at(&authority).get("/org/audit").json();
    let entry: &Value = &audit["entries"][0];
    assert_eq!((&entry["verb"], &entry["reason"]), (&json!("devices/revoke_batch"), &json!("gone mad")), "{audit}");
    // And what is given back then stays given back.
    assert_eq!(orgs[0].at(&authority).device("unrevoke", "a").status, 200);
    orgs[2].at(&authority).admin("enable", &[]);
    authority.terminate();
    authority.start_again();
    assert_eq!((orgs[0].at(&authority).code("a"), orgs[2].at(&authority).code("a")), ("ALLOW".into(), "ALLOW".into()));
}

#[test]
fn what_is_reserved_for_stops_is_not_filled_by_anything_else() {
    // More than any disk has.
    let authority = Authority::start_with(&["--reserve-mib", "1073741824"]);
    let refused = authority.admin(&["create", "--plan", "pro"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("reserved for stops"), "{said}");
    assert!(problem(&authority, "space").unwrap().contains("Decisions and stops go on"));
    assert_eq!((problem(&authority, "writes"), waits(&authority)), (None, None));
}
