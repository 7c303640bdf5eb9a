//! The org key changes in its file, and no agent is stopped for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::agents::{Agent, OBEDIENT};
use super::reload::{HOSTILE_PLACES, RARE, no_problem, problem, put, take_away};
use crate::harness::authority::{Authority, Org};
use crate::harness::place::{is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar, chmod, exchange, write_key};
use crate::harness::wait::{eventually, until};

const DEVICE: &str = "host:rotating";

/// Validations so rare that only a changed key can be the reason for one.
fn start(org: &Org<'_>, url: &str) -> Sidecar {
    let mut setup = Setup::of(org, url, DEVICE);
    setup.enforcement = String::from(RARE);
    setup.start()
}

fn knows(org: &Org<'_>) -> bool {
    org.code(DEVICE) == "ALLOW"
}

#[test]
fn a_new_key_is_taken_before_the_old_one_is_refused_and_registers() {
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let sidecar = start(&old, &authority.url());
    assert!(!knows(&new));
    put(&sidecar.key_file(), &format!("{}\n", new.key));
    eventually("the host is registered with the new key", || knows(&new));
    new.device("revoke", DEVICE);
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED", "the new key asks");
    assert!(!sidecar.log().contains("refused the org key"), "{}", sidecar.log());
    assert!(sidecar.log().contains("org key"), "{}", sidecar.log());
}

#[test]
fn not_one_check_fails_while_keys_are_rotated() {
    let authority = Authority::start();
    let orgs = [authority.org("pro"), authority.org("pro"), authority.org("pro")];
    let sidecar = start(&orgs[0], &authority.url());
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let (socket, over) = (sidecar.socket(), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::SeqCst) {
                let answer = exchange(&socket, "GET /v1/check HTTP/1.0\r\n\r\n").expect("the daemon answers");
                assert_eq!(answer.status, 200, "{answer:?}");
                asked += 1;
            }
            asked
        });
        for org in [&orgs[1], &orgs[2]] {
            put(&sidecar.key_file(), &format!("{}\n", org.key));
            eventually("the new key is in use", || knows(org));
        }
        over.store(true, Ordering::SeqCst);
        assert!(asking.join().unwrap() > 0);
    });
    assert_eq!(sidecar.check().status, 200);
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn whatever_takes_the_key_files_place_the_old_key_stays_until_it_is_mended() {
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let sidecar = start(&old, &authority.url());
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let path = sidecar.key_file();
    for (what, make) in HOSTILE_PLACES {
        make(&path);
        let said = problem(&sidecar, what);
        assert!(said.contains("authority.org_key_file") && said.contains("the org key in use stays"), "{what}: {said}");
        assert!(said.contains(&path.display().to_string()), "{what}: {said}");
        assert_eq!(sidecar.check().status, 200, "{what}");
        take_away(&path);
        put(&path, &format!("{}\n", old.key));
        no_problem(&sidecar, &format!("mended after: {what}"));
    }
    put(&path, "not a key\n");
    assert!(problem(&sidecar, "no key").contains("org_"), "it says what a key looks like");
    put(&path, &format!("{}\n", new.key));
    chmod(&path, 0o644);
    until("the mode is wrong", || problem(&sidecar, "a mode").contains("chmod 600").then_some(()));
    chmod(&path, 0o600);
    eventually("mended with another key", || knows(&new));
    no_problem(&sidecar, "nothing is wrong any more");
    assert!(agent.is_alive() && agent.terms() == 0);
    for key in [&old.key, &new.key] {
        assert!(!sidecar.log().contains(key.trim_start_matches("org_")), "a key is in the log");
    }
}

#[test]
fn a_key_that_the_authority_refuses_leaves_the_old_one_in_use() {
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let sidecar = start(&old, &authority.url());
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let wrong = format!("org_{}", "0".repeat(old.key.len() - 4));
    put(&sidecar.key_file(), &wrong);
    until("the authority has refused it", || sidecar.log().contains("refuses the new org key").then_some(()));
    assert_eq!(sidecar.check().status, 200, "{}", sidecar.log());
    assert!(problem(&sidecar, "it is told").contains("refuses this org key"));
    put(&sidecar.key_file(), &format!("{}\n", new.key));
    eventually("the right one is taken", || knows(&new));
    no_problem(&sidecar, "nothing is wrong any more");
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_volume_that_is_swapped_fifty_times_with_another_key_each_time_is_followed_each_time() {
    let authority = Authority::start();
    let orgs = [authority.org("pro"), authority.org("pro")];
    let mut setup = Setup::of(&orgs[0], &authority.url(), DEVICE);
    setup.enforcement = String::from(RARE);
    let volume = setup.directory.path().join("volume");
    let swap = |number: usize| {
        let version = volume.join(format!("..version-{number}"));
        fs::create_dir_all(&version).unwrap();
        write_key(&version.join("key"), &orgs[number % 2].key);
        symlink(format!("..version-{number}"), volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        if let Some(old) = number.checked_sub(1) {
            fs::remove_dir_all(volume.join(format!("..version-{old}"))).unwrap();
        }
    };
    swap(0);
    fs::remove_file(setup.key_file()).unwrap();
    symlink("volume/..data/key", setup.key_file()).unwrap();
    let sidecar = setup.start();
    orgs[1].register(&[DEVICE]);
    orgs[1].device("revoke", DEVICE);
    for number in 1..=50 {
        swap(number);
        let expected = if number % 2 == 0 { "ALLOW" } else { "DEVICE_REVOKED" };
        until(&format!("swap {number} is followed"), || (sidecar.check().code() == expected).then_some(()));
    }
    no_problem(&sidecar, "fifty swaps");
}

#[test]
fn a_key_that_is_mounted_by_itself_and_replaced_where_it_comes_from_is_told() {
    if !is_root() {
        return skipped("a key that is mounted by itself", "it takes root to mount one");
    }
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let setup = Setup::of(&old, &authority.url(), DEVICE);
    let host = setup.directory.path().join("host-key");
    write_key(&host, &old.key);
    let mount = Mounted::over(&setup.key_file(), &host);
    let sidecar = setup.start();
    put(&host, &format!("{}\n", new.key));
    sidecar.signal(rustix::process::Signal::HUP);
    let told = problem(&sidecar, "the old file is told");
    assert!(told.contains("org-key") && told.contains("mount its directory instead"), "{told}");
    assert_eq!(sidecar.check().status, 200, "the old key stays in use");
    drop(mount);
    write_key(&sidecar.key_file(), &new.key);
    eventually("the new key is in use", || knows(&new));
    no_problem(&sidecar, "it is a file of its own");
}

/// A file mounted over another one, until dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn over(place: &std::path::Path, file: &std::path::Path) -> Self {
        let mounted = Command::new("mount").arg("--bind").args([file, place]).status().unwrap();
        assert!(mounted.success());
        Self(place.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
