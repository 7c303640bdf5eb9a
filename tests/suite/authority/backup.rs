//! A copy of the database, made while it is used; and what survives a crash in the middle of things.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::authority::{Authority, BINARY};
use crate::harness::wait::until;

fn back_up(authority: &Authority, to: &std::path::Path) -> std::process::Output {
    let mut command = Command::new(BINARY);
    command.arg("backup").arg("--admin-socket").arg(authority.admin_socket()).arg(to).output().unwrap()
}

#[test]
fn a_backup_made_under_load_is_a_whole_database_that_can_be_served() {
    let authority = Authority::start();
    let made = authority.admin_json(&["create", "--plan", "free", "--limit", "100000"]);
    let key = made["orgApiKey"].as_str().unwrap();
    let (done, registered) = (AtomicBool::new(false), AtomicU32::new(0));
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("authority.db");
    thread::scope(|scope| {
        for worker in 0..4 {
            let (authority, done, registered) = (&authority, &done, &registered);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = json!({"deviceId": format!("w{worker}:{number}")}).to_string();
                    let reply = authority.call("POST", "/devices/register", Some(key), body.as_bytes());
                    assert_eq!(reply.status, 200, "{}", reply.text);
                    registered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("some devices are registered", || (registered.load(Ordering::Relaxed) > 50).then_some(()));
        let before = registered.load(Ordering::Relaxed);
        let output = back_up(&authority, &copy);
        done.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let database = Connection::open(&copy).unwrap();
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let (devices, active): (u32, u32) = database
            .query_row("SELECT (SELECT COUNT(*) FROM devices), active FROM orgs", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert!(
            devices >= before && active == devices,
            "{before} were answered before; it has {devices}, says {active}"
        );
    });
    let again = back_up(&authority, &copy);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));

    let restored = Authority::start_at(directory);
    let validate = |id: &str| {
        let body = json!({"deviceId": id}).to_string();
        restored.call("POST", "/devices/validate", Some(key), body.as_bytes()).json()["code"].clone()
    };
    assert_eq!((validate("w0:0"), validate("never")), (json!("ALLOW"), json!("DEVICE_NOT_FOUND")));
}

#[test]
fn killed_in_the_middle_of_batches_it_has_done_each_of_them_wholly_or_not_at_all() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create", "--plan", "max"]);
    let key = made["orgApiKey"].as_str().unwrap().to_owned();
    let ids: Vec<String> = (0..500).map(|number| format!("d{number}")).collect();
    thread::scope(|scope| {
        for part in ids.chunks(125) {
            let (authority, key) = (&authority, &key);
            scope.spawn(move || {
                for id in part {
                    let body = json!({"deviceId": id}).to_string();
                    assert_eq!(authority.call("POST", "/devices/register", Some(key), body.as_bytes()).status, 200);
                }
            });
        }
    });
    let mut acknowledged = 0;
    for round in 0..4 {
        let (url, stop) = (authority.url(), AtomicBool::new(false));
        let body = json!({"deviceIds": ids, "reason": format!("round {round}")}).to_string();
        let pid = rustix::process::Pid::from_raw(i32::try_from(authority.pid()).unwrap()).unwrap();
        let answered = AtomicU32::new(0);
        thread::scope(|scope| {
            let (key, body, stop, answered, authority) = (&key, &body, &stop, &answered, &authority);
            scope.spawn(move || {
                // Revoke, unrevoke, revoke…: until the server is gone.
                for path in ["revoke_batch", "unrevoke_batch"].iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let one = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        authority.call("POST", &format!("/devices/{path}"), Some(key), body.as_bytes()).status
                    }));
                    match one {
                        Ok(200) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Ok(_) | Err(_) => break,
                    }
                }
            });
            until("a few batches are answered", || (answered.load(Ordering::Relaxed) > 3).then_some(()));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        acknowledged += answered.load(Ordering::Relaxed);
        authority.kill();
        authority.start_again();
        assert_eq!(authority.url(), url);
        let list = authority.call("GET", "/devices/list", Some(&key), b"").json();
        let active = list["devices"].as_array().unwrap().iter().filter(|device| device["status"] == "active").count();
        assert!(active == 0 || active == 500, "half a batch: {active} of 500 are active");
        assert_eq!(list["devicesUsed"], active, "the count is that of the devices");
        let audit = authority.call("GET", "/org/audit?limit=1000", Some(&key), b"").json();
        let batches = |entry: &&serde_json::Value| entry["verb"].as_str().is_some_and(|verb| verb.ends_with("_batch"));
        let recorded = audit["entries"].as_array().unwrap().iter().filter(batches).count();
        assert!(recorded >= acknowledged as usize, "{acknowledged} were answered, {recorded} are in the audit");
        acknowledged = u32::try_from(recorded).unwrap();
    }
}
