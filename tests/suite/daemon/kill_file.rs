//! While the kill file exists everything is denied, without the network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::agents::{Agent, OBEDIENT};
use super::reload::{HOSTILE_PLACES, take_away};
use crate::harness::authority::Authority;
use crate::harness::place::{Place, is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar, chmod};
use crate::harness::wait::until;
use crate::harness::wrapper::run_script;

/// Validations so rare that only the kill file can be the reason for one.
fn setup(authority: &Authority) -> (Setup, PathBuf) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:killed");
    let directory = setup.directory.path().join("switch");
    fs::create_dir(&directory).unwrap();
    let file = directory.join("kill");
    setup.enforcement =
        format!("interval = \"10m\"\nlease = \"20m\"\nstop_grace = \"2s\"\nkill_file = \"{}\"", file.display());
    (setup, file)
}

fn in_force(sidecar: &Sidecar) -> Option<String> {
    sidecar.status()["configuration"]["kill_file"]["in_force"].as_str().map(str::to_owned)
}

/// What the gate holds, without a check that would be a reason to look.
fn standing(sidecar: &Sidecar) -> (String, String) {
    let device = sidecar.status()["devices"][0].clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    (word(&device["standing"]), word(&device["last_decision"]["code"]))
}

fn killed() -> (String, String) {
    ("denied".to_owned(), "LOCAL_KILL".to_owned())
}

fn is_allowed_again(sidecar: &Sidecar, what: &str) {
    until(what, || (standing(sidecar).0 == "allowed").then_some(()));
    assert_eq!(sidecar.check().status, 200, "{what}");
}

#[test]
fn it_stops_everything_at_once_without_the_authority_and_its_removal_lets_things_go_on() {
    let mut authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    fs::write(&file, "").unwrap();
    assert_eq!(agent.wrapped.exit_code(), 77);
    assert!(agent.wrapped.stderr().contains("LOCAL_KILL"), "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (403, "LOCAL_KILL"), "{answer:?}");
    assert!(answer.body.contains(&file.display().to_string()), "{answer:?}");
    let page = String::from_utf8(sidecar.machineid(&["status"]).stdout).unwrap();
    let told = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("KILL FILE IN FORCE: ") && told.contains("until it is removed"), "{page}");
    let refused = run_script(&sidecar.socket(), &[], "echo started");
    assert_eq!((refused.status.code(), refused.stdout.is_empty()), (Some(77), true));

    authority.start_again();
    fs::remove_file(&file).unwrap();
    is_allowed_again(&sidecar, "the file is gone");
    assert_eq!(in_force(&sidecar), None);
    assert!(Agent::start(&sidecar, &[], OBEDIENT).is_alive());
}

#[test]
fn it_holds_from_the_start_and_through_a_restart() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    fs::write(&file, "").unwrap();
    let mut sidecar = setup.start();
    assert_eq!(standing(&sidecar), killed());
    assert_eq!(sidecar.terminate().code(), Some(0));
    sidecar.start_again();
    assert_eq!(sidecar.check().code(), "LOCAL_KILL");
    fs::remove_file(&file).unwrap();
    is_allowed_again(&sidecar, "the file is gone");
}

#[test]
fn whatever_has_its_name_counts_as_present() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    for (what, make) in HOSTILE_PLACES.into_iter().filter(|(what, _)| *what != "deleted") {
        make(&file);
        until(what, || (standing(&sidecar) == killed()).then_some(()));
        assert!(in_force(&sidecar).is_some(), "{what}");
        take_away(&file);
        is_allowed_again(&sidecar, what);
    }
}

#[test]
fn a_file_in_the_place_of_its_directory_counts_as_present_and_no_directory_does_not() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    let directory = file.parent().unwrap();
    fs::remove_dir(directory).unwrap();
    fs::write(directory, "").unwrap();
    until("it cannot be looked at", || (standing(&sidecar) == killed()).then_some(()));
    assert!(in_force(&sidecar).unwrap().contains("counts as existing"));
    fs::remove_file(directory).unwrap();
    is_allowed_again(&sidecar, "there is no directory");
    fs::create_dir(directory).unwrap();
    fs::write(&file, "").unwrap();
    until("directory and file appear", || (standing(&sidecar) == killed()).then_some(()));
}

#[test]
fn a_directory_that_may_not_be_looked_into_counts_as_present() {
    if !is_root() {
        skipped("a kill file that an ordinary user's daemon may not look at", "it takes root to make one");
        return;
    }
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.at(Place::ordinary()).start();
    let directory = file.parent().unwrap();
    chmod(directory, 0o700);
    until("it cannot be looked at", || (standing(&sidecar) == killed()).then_some(()));
    assert!(in_force(&sidecar).unwrap().contains("counts as existing"));
    chmod(directory, 0o755);
    is_allowed_again(&sidecar, "it can be looked at again");
}

#[test]
fn a_swapped_link_to_it_and_another_path_in_the_configuration_are_seen() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let mut sidecar = setup.start();
    let directory = file.parent().unwrap().to_owned();
    let deadly = sidecar.directory().join("deadly");
    fs::create_dir(&deadly).unwrap();
    fs::write(deadly.join("kill"), "").unwrap();
    fs::remove_dir(&directory).unwrap();
    symlink(&deadly, &directory).unwrap();
    until("the link leads to one", || (standing(&sidecar) == killed()).then_some(()));
    let other = sidecar.directory().join("other");
    let enforcement = sidecar.setup().enforcement.replace(&file.display().to_string(), &other.display().to_string());
    sidecar.setup().enforcement = enforcement;
    sidecar.setup().configuration();
    is_allowed_again(&sidecar, "another file is the kill file");
    fs::write(&other, "").unwrap();
    until("that one appears", || (standing(&sidecar) == killed()).then_some(()));
}

/// Starts a daemon whose user has no watch left, by a limit of a user namespace of its own.
fn start_blind(setup: &Setup, limit: &str) -> Command {
    let daemon = setup.command();
    let mut blind = Command::new("unshare");
    blind.args([
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        &format!("echo 0 > /proc/sys/user/{limit}; exec \"$@\""),
        "sh",
    ]);
    blind.arg(daemon.get_program()).args(daemon.get_args()).stdin(Stdio::null());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => blind.env(name, value),
            None => blind.env_remove(name),
        };
    }
    blind
}

fn can_limit_watches(directory: &Path) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_watches"]);
    probe.current_dir(directory).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn it_is_seen_when_no_watch_is_to_be_had() {
    for limit in ["max_inotify_watches", "max_inotify_instances"] {
        let authority = Authority::start();
        let (setup, file) = setup(&authority);
        if !can_limit_watches(setup.directory.path()) {
            skipped("a daemon without file watches", "there are no user namespaces here");
            return;
        }
        let mut command = start_blind(&setup, limit);
        let sidecar = setup.start_by(&mut command);
        until("it says so", || sidecar.log().contains("cannot watch for changed files").then_some(()));
        fs::write(&file, "").unwrap();
        until("the file is seen all the same", || (standing(&sidecar) == killed()).then_some(()));
        fs::remove_file(&file).unwrap();
        is_allowed_again(&sidecar, "the file is gone");
        raise(&sidecar, limit);
        until("it watches again", || sidecar.log().contains("watching for changed files again").then_some(()));
    }
}

/// Gives the daemon's user watches again.
fn raise(sidecar: &Sidecar, limit: &str) {
    let mut inside = Command::new("nsenter");
    inside.args(["--user", "--preserve-credentials", "--target", &sidecar.pid().to_string()]);
    let raised = inside.args(["sh", "-c", &format!("echo 1000 > /proc/sys/user/{limit}")]).status().unwrap();
    assert!(raised.success());
}
