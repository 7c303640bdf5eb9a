//! A changed configuration takes effect without a restart, and a wrong one does not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use super::agents::{Agent, OBEDIENT, STUBBORN, agents};
use crate::harness::authority::Authority;
use crate::harness::place::{Place, is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar, chmod};
use crate::harness::wait::{eventually, until};

/// Validations so rare that only a reload can be the reason for one.
pub(super) const RARE: &str = "interval = \"10m\"\nlease = \"20m\"\nstop_grace = \"2s\"";

fn start(authority: &Authority, device: &str) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), device);
    setup.enforcement = String::from(RARE);
    setup.start()
}

pub(super) fn file(sidecar: &Sidecar) -> PathBuf {
    sidecar.directory().join("machineid-sidecar.toml")
}

/// What the daemon says is not in force.
pub(super) fn problems(sidecar: &Sidecar) -> Vec<String> {
    let problems = sidecar.status()["configuration"]["problems"].clone();
    serde_json::from_value(problems).unwrap()
}

/// Waits until a problem is told, and gives it.
pub(super) fn problem(sidecar: &Sidecar, what: &str) -> String {
    until(what, || problems(sidecar).first().cloned())
}

pub(super) fn no_problem(sidecar: &Sidecar, what: &str) {
    until(what, || problems(sidecar).is_empty().then_some(()));
}

/// Puts a file under this name at once, as an editor does.
pub(crate) fn put(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    chmod(&fresh, 0o600);
    fs::rename(&fresh, path).unwrap();
}

fn cut_off_ms(sidecar: &Sidecar) -> u64 {
    sidecar.status()["stop_bound"]["cut_off_ms"].as_u64().unwrap()
}

#[test]
fn a_changed_file_is_put_in_force_by_itself() {
    let authority = Authority::start();
    let mut sidecar = start(&authority, "host:test");
    assert_eq!(sidecar.get("/v1/check?device=other").unwrap().code(), "DEVICE_NOT_PERMITTED");
    let setup = sidecar.setup();
    setup.enforcement = "interval = \"5m\"\nlease = \"7m\"\nstop_grace = \"1s\"".to_owned();
    setup.devices = "allow = [\"other\"]".to_owned();
    setup.local = "mode = \"0600\"\nmax_age_cap = \"1m\"".to_owned();
    setup.configuration();
    until("the new lease is in force", || (cut_off_ms(&sidecar) == 422_000).then_some(()));
    assert_eq!(sidecar.get("/v1/check?device=other").unwrap().code(), "DEVICE_NOT_FOUND", "{}", sidecar.log());
    let mode = || fs::metadata(sidecar.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let next = || sidecar.status()["devices"][0]["next_validation_ms"].as_u64();
    until("the new interval is in force", || next().filter(|left| *left <= 300_000));
    let answered = || sidecar.get("/v1/check?max_age=1m").unwrap().json()["request_id"].clone();
    // Not at the first look: the change itself was a reason to ask, and that answer may come between two checks.
    until("a cached answer is allowed", || (answered() == answered()).then_some(()));
    assert_eq!(problems(&sidecar), Vec::<String>::new());
    assert!(sidecar.log().contains("enforcement.interval, enforcement.lease"), "{}", sidecar.log());
}

#[test]
fn sighup_reads_the_file_again_and_validates_at_once_as_a_change_does() {
    let authority = Authority::start();
    let sidecar = start(&authority, "host:test");
    let newest = || sidecar.status()["devices"][0]["last_decision"]["request_id"].clone();
    let before = newest();
    sidecar.signal(Signal::HUP);
    until("the daemon has asked", || (newest() != before).then_some(()));
    until("it says what came of it", || sidecar.log().contains("nothing had changed").then_some(()));
    let before = newest();
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace("20m", "21m"));
    until("a change of the file is a reason to ask", || (newest() != before).then_some(()));
}

#[test]
fn a_file_with_an_error_changes_nothing_and_says_where_it_is() {
    let authority = Authority::start();
    let sidecar = start(&authority, "host:test");
    let right = fs::read_to_string(file(&sidecar)).unwrap();
    let before = cut_off_ms(&sidecar);
    for (wrong, needles) in [
        (right.replace("lease =", "leese ="), vec!["leese", "lease", ":"]),
        (right.replace("20m", "20"), vec!["enforcement.lease", "unit"]),
        (right.replace("20m", "1m"), vec!["enforcement.lease", "at least 10m2s"]),
        (right.replace("[enforcement]", "[enforcement"), vec!["unclosed"]),
    ] {
        // Beside what is right, none of which counts either.
        put(&file(&sidecar), &wrong.replace("level = \"debug\"", "level = \"info\""));
        let said = until("the error is told", || {
            let said = problems(&sidecar).pop()?;
            needles.iter().all(|needle| said.contains(needle)).then_some(said)
        });
        let place = said.strip_prefix(&format!("{}:", file(&sidecar).display()));
        assert!(place.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())), "{said}");
        assert_eq!(cut_off_ms(&sidecar), before);
        assert_eq!(sidecar.check().status, 200);
    }
    let page = String::from_utf8(sidecar.machineid(&["status"]).stdout).unwrap();
    assert!(page.contains("NOT IN FORCE: "), "{page}");
    put(&file(&sidecar), &right.replace("20m", "30m"));
    until("the file is right again", || (cut_off_ms(&sidecar) == 1_803_000).then_some(()));
    no_problem(&sidecar, "nothing is wrong any more");
    let told = sidecar.log().matches("the old value stays").count();
    assert!((4..=8).contains(&told), "each error is told once, and not again and again: {told}\n{}", sidecar.log());
}

/// What may stand in a file's place, and how it gets there.
pub(super) type HostilePlace = (&'static str, fn(&Path));

pub(super) const HOSTILE_PLACES: [HostilePlace; 8] = [
    ("deleted", take_away),
    ("truncated", |path| fs::write(path, "").unwrap()),
    ("a directory", |path| {
        take_away(path);
        fs::create_dir(path).unwrap();
    }),
    ("a dangling link", |path| {
        take_away(path);
        symlink("nowhere", path).unwrap();
    }),
    ("a link to itself", |path| {
        take_away(path);
        symlink(path, path).unwrap();
    }),
    ("a pipe", |path| {
        take_away(path);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }),
    ("no text", |path| {
        take_away(path);
        fs::write(path, [0xff; 64]).unwrap();
        chmod(path, 0o600);
    }),
    ("endless", |path| {
        take_away(path);
        symlink("/dev/zero", path).unwrap();
    }),
];

/// Whatever it is.
pub(super) fn take_away(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir(path);
    }
}

#[test]
fn whatever_takes_the_files_place_the_old_settings_stay_until_it_is_mended() {
    let authority = Authority::start();
    let sidecar = start(&authority, "host:test");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let path = file(&sidecar);
    let right = fs::read_to_string(&path).unwrap();
    let before = cut_off_ms(&sidecar);
    for (what, make) in HOSTILE_PLACES {
        make(&path);
        let said = problem(&sidecar, what);
        assert!(said.starts_with(&format!("{}: ", path.display())), "{what}: {said}");
        assert_eq!(cut_off_ms(&sidecar), before, "{what}");
        assert_eq!(sidecar.check().status, 200, "{what}");
        take_away(&path);
        put(&path, &right);
        no_problem(&sidecar, &format!("mended after: {what}"));
    }
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn files_that_may_not_be_read_any_more_leave_the_old_values() {
    if !is_root() {
        skipped("a daemon of an ordinary user, whose files are taken away", "it takes root to make one");
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").at(Place::ordinary()).start();
    for path in [file(&sidecar), sidecar.key_file()] {
        sidecar.place().give_to_daemon(&path);
        chmod(&path, 0o000);
        let said = problem(&sidecar, "it cannot be read");
        assert!(said.contains("denied") && said.contains(&path.display().to_string()), "{said}");
        assert_eq!(sidecar.check().status, 200);
        chmod(&path, 0o600);
        no_problem(&sidecar, "it can be read again");
    }
}

#[test]
fn a_volume_swapped_by_one_link_is_a_change_like_any_other() {
    let authority = Authority::start();
    let sidecar = start(&authority, "host:test");
    let right = fs::read_to_string(file(&sidecar)).unwrap();
    let root = sidecar.directory().to_owned();
    let version = |number: u32| {
        let name = format!("..version-{number}");
        fs::create_dir(root.join(&name)).unwrap();
        fs::write(root.join(&name).join("file"), right.replace("20m", &format!("{}m", 20 + number))).unwrap();
        symlink(&name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        let _ = fs::remove_dir_all(root.join(format!("..version-{}", number - 1)));
    };
    version(1);
    fs::remove_file(file(&sidecar)).unwrap();
    symlink("..data/file", file(&sidecar)).unwrap();
    for number in 1..5_u64 {
        until("the newest version is in force", || {
            (cut_off_ms(&sidecar) == (20 + number) * 60_000 + 3_000).then_some(())
        });
        version(u32::try_from(number).unwrap() + 1);
    }
}

#[test]
fn what_takes_a_restart_says_so_and_the_rest_is_put_in_force() {
    let authority = Authority::start();
    let mut sidecar = start(&authority, "host:test");
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    let changed = text.replace("host:test", "host:other").replace("/runtime\"", "/elsewhere\"").replace("20m", "21m");
    put(&file(&sidecar), &changed);
    until("the rest is in force", || (cut_off_ms(&sidecar) == 1_263_000).then_some(()));
    let said = problems(&sidecar);
    assert_eq!(said.len(), 2, "{said:?}");
    for (said, key) in said.iter().zip([": device.id: ", ": local.runtime_dir: "]) {
        assert!(said.contains(key) && said.contains("next start"), "{said}");
    }
    assert_eq!(sidecar.check().json()["device_id"], "host:test");
    assert_eq!(sidecar.terminate().code(), Some(0));
    let _ = fs::remove_dir_all(sidecar.directory().join("runtime"));
    let setup = sidecar.setup();
    setup.device = "host:other".to_owned();
    sidecar.start_again();
    until("the restart takes it", || (sidecar.check().json()["device_id"] == "host:other").then_some(()));
}

#[test]
fn another_authority_is_registered_with_and_agents_live_on() {
    let old = Authority::start();
    let mut new = Authority::start();
    let mut sidecar = start(&old, "host:test");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let org = new.org("pro");
    let url = new.url();
    let key_file = sidecar.directory().join("other-key");
    put(&key_file, &format!("{}\n", org.key));
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace(&old.url(), &url).replace("/org-key\"", "/other-key\""));
    until("the host is registered there", || (org.code("host:test") == "ALLOW").then_some(()));
    assert_eq!(sidecar.check().status, 200);
    assert_eq!(sidecar.status()["authority"]["url"], json!(url));
    drop(old);
    assert_eq!(sidecar.check().status, 200, "the old one is asked no more");
    assert!(agent.is_alive() && agent.terms() == 0);
    org.device("revoke", "host:test");
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
    agent.is_gone();
    new.kill();
    assert_eq!(sidecar.terminate().code(), Some(0));
}

#[test]
fn a_shorter_grace_holds_for_agents_that_run_already() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.enforcement = "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"10m\"".to_owned();
    let mut sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], STUBBORN);
    sidecar.setup().enforcement = "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"300ms\"".to_owned();
    sidecar.setup().configuration();
    until("the new grace is in force", || (cut_off_ms(&sidecar) == 7_300).then_some(()));
    org.device("revoke", "host:test");
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    agent.is_gone();
    assert_eq!(agent.terms(), 1);
}

#[test]
fn a_longer_lease_holds_for_agents_that_run_already() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"1s\"".to_owned();
    let mut sidecar = setup.start();
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    sidecar.setup().enforcement = "interval = \"200ms\"\nlease = \"10m\"\nstop_grace = \"1s\"".to_owned();
    sidecar.setup().configuration();
    until("the new lease is in force", || agents(&sidecar)[0]["lease_left_ms"].as_u64().filter(|left| *left > 60_000));
    authority.kill();
    // Nothing moves the deadline any more: what the wrapper holds of the old terms would end the agent now.
    crate::harness::wait::let_time_pass(std::time::Duration::from_secs(4));
    assert!(agent.is_alive() && agent.terms() == 0, "{}", agent.wrapped.stderr());
}

#[test]
fn a_shorter_lease_holds_for_agents_that_run_already() {
    let mut authority = Authority::start();
    let mut sidecar = start(&authority, "host:test");
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    sidecar.setup().enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"1s\"".to_owned();
    sidecar.setup().configuration();
    assert_eq!(agent.wrapped.exit_code(), 75, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
}

#[test]
fn the_log_changes_its_level_and_its_format() {
    let authority = Authority::start();
    let sidecar = start(&authority, "host:test");
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace("level = \"debug\"", "level = \"info\"\nformat = \"json\""));
    let line = |word: &str| sidecar.log().lines().find(|line| line.contains(word)).map(str::to_owned);
    until("the reload is told in JSON", || {
        let line = line("log.level")?;
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        (line["result"] == "applied").then_some(())
    });
    put(&file(&sidecar), &text.replace("level = \"debug\"", "level = \"error\"").replace("20m", "21m"));
    until("the rest is in force", || (cut_off_ms(&sidecar) == 1_263_000).then_some(()));
    let before = sidecar.log();
    sidecar.signal(Signal::HUP);
    put(&file(&sidecar), &text.replace("level = \"debug\"", "level = \"error\"").replace("20m", "22m"));
    eventually("the next is in force", || cut_off_ms(&sidecar) == 1_323_000);
    assert_eq!(sidecar.log(), before, "only errors are told");
}
