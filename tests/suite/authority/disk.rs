//! A full disk: nothing that was answered is lost, and nothing is half done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tempfile::TempDir;

use super::health::{metric, problem};
use crate::harness::authority::Authority;
use crate::harness::eventually;

/// A small disk of its own. Mounting takes root.
pub(crate) struct Disk(TempDir);

impl Disk {
    pub(crate) fn new() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = "size=8m,mode=0700";
        match mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Self(directory)),
            Err(error) => {
                eprintln!("SKIPPED - a full disk: cannot mount one ({error})");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes every block that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_refuses_changes_whole_and_loses_none_that_was_answered() {
    let Some(disk) = Disk::new() else { return };
    let url = format!("sqlite:{}", disk.path().join("authority.db").display());
    let mut authority = Authority::start_on_with(&url, &["--reserve-mib", "0"]);
    let made = authority.admin_json(&["create", "--plan", "max"]);
    let key = made["orgApiKey"].as_str().unwrap().to_owned();
    let post = |authority: &Authority, verb: &str, body: &serde_json::Value| {
        authority.call("POST", &format!("/devices/{verb}"), Some(&key), body.to_string().as_bytes())
    };
    let register = |authority: &Authority, id: &str| post(authority, "register", &json!({"deviceId": id})).status;
    assert_eq!(register(&authority, "first"), 200);
    disk.fill();
    let mut answered = BTreeSet::from(["first".to_owned()]);
    // What the log of the database has room for already still goes.
    for number in 0..1_000 {
        let id = format!("d{number}");
        match register(&authority, &id) {
            200 => answered.insert(id),
            503 => break,
            other => panic!("{other}"),
        };
    }
    assert!(answered.len() < 1_000, "the disk never was full");
    let ids: Vec<&String> = answered.iter().collect();
    let batch = json!({"deviceIds": ids, "reason": "x".repeat(200)});
    for id in &answered {
        let decision = post(&authority, "validate", &json!({"deviceId": id})).json();
        assert_eq!(decision["code"], "ALLOW", "the registration of {id} is lost: {decision}");
    }
    let listed = |authority: &Authority, status: &str| -> BTreeSet<String> {
        let list = authority.call("GET", &format!("/devices/list?status={status}"), Some(&key), b"").json();
        let devices = list["devices"].as_array().unwrap().iter();
        devices.map(|device| device["deviceId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((listed(&authority, "active"), listed(&authority, "revoked").len()), (answered.clone(), 0));
    // A stop is in force without the database, all of it.
    let stopped = post(&authority, "revoke_batch", &batch);
    assert_eq!((stopped.status, &stopped.json()["written"]), (202, &json!(false)));
    assert_eq!((listed(&authority, "active").len(), listed(&authority, "revoked")), (0, answered.clone()));

    authority.kill();
    disk.make_room();
    authority.start_again();
    assert_eq!((listed(&authority, "active").len(), listed(&authority, "revoked")), (0, answered.clone()));
    assert_eq!(register(&authority, "after"), 200);
    disk.fill();
    while register(&authority, &format!("more:{}", listed(&authority, "active").len())) == 200 {}
    let before = listed(&authority, "active");
    disk.make_room();
    let batch = json!({"deviceIds": before});
    assert_eq!(post(&authority, "revoke_batch", &batch).status, 200, "with room again it goes on by itself");
    let revoked: BTreeSet<String> = before.union(&answered).cloned().collect();
    assert_eq!((listed(&authority, "revoked"), listed(&authority, "active").len()), (revoked, 0));
}

#[test]
fn a_disk_that_fills_up_is_told_while_it_is_full_and_no_longer() {
    let Some(disk) = Disk::new() else { return };
    let url = format!("sqlite:{}", disk.path().join("authority.db").display());
    let authority = Authority::start_on_with(&url, &["--metrics-listen", "127.0.0.1:0", "--reserve-mib", "0"]);
    let org = authority.org("max");
    org.register(&["first"]);
    assert_eq!(problem(&authority, "writes"), None);
    assert!(problem(&authority, "space").unwrap().contains("MiB are left"), "eight of them are almost nothing");
    disk.fill();
    let refused = (0..1_000).any(|number| org.device("register", &format!("d{number}")).status == 503);
    assert!(refused, "the disk never was full");
    eventually("it is told that nothing can be written", || {
        problem(&authority, "writes").is_some_and(|said| said.contains("cannot be written"))
    });
    assert_eq!(metric(&authority, "writes").as_deref(), Some("1"));
    assert_eq!(org.code("first"), "ALLOW", "decisions go on");
    disk.make_room();
    eventually("it is over", || problem(&authority, "writes").is_none());
    assert_eq!(metric(&authority, "writes").as_deref(), Some("0"));
}
