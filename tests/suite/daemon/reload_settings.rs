//! What single settings come to when they change under a running daemon, its agents and its clients.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::process::Signal;

use super::agents::{Agent, NOBODY, OBEDIENT, as_member, as_user, ask_by, has_cgroups, is_root};
use super::freezing::{becomes_frozen, becomes_thawed};
use super::reload::{RARE, file, no_problem, problem, problems, put};
use crate::harness::authority::Authority;
use crate::harness::fault::{Answer, Fault, Injector};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "host:resetting";

/// Changes the file, and waits until the daemon says that this setting has changed.
fn change(sidecar: &Sidecar, key: &str, from: &str, to: &str) {
    let told = |log: &str| log.lines().filter(|line| line.contains("was reloaded") && line.contains(key)).count();
    let before = told(&sidecar.log());
    let text = fs::read_to_string(file(sidecar)).unwrap();
    assert!(text.contains(from), "{from:?} is not in the file:\n{text}");
    put(&file(sidecar), &text.replace(from, to));
    until(&format!("{key} is in force"), || (told(&sidecar.log()) > before).then_some(()));
}

fn start(authority: &Authority, enforcement: &str) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = format!("{RARE}\n{enforcement}");
    setup.start()
}

#[test]
fn another_stop_signal_holds_for_agents_that_run_already() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = format!("{RARE}\nstop_signal = \"TERM\"");
    let sidecar = setup.start();
    let script = "trap 'echo got TERM; exit 0' TERM; trap 'echo got USR2; exit 0' USR2; echo agent ready $$; \
                  while :; do sleep 0.1; done";
    let mut before = Agent::start(&sidecar, &[], script);
    let mut of_its_own = Agent::start(&sidecar, &["--stop-signal", "TERM"], script);
    change(&sidecar, "enforcement.stop_signal", "\"TERM\"", "\"USR2\"");
    let mut after = Agent::start(&sidecar, &[], script);
    org.device("revoke", DEVICE);
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
    for (agent, signal) in [(&mut before, "USR2"), (&mut of_its_own, "TERM"), (&mut after, "USR2")] {
        assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
        let got: Vec<_> =
            agent.wrapped.stdout().lines().filter(|line| line.starts_with("got")).map(str::to_owned).collect();
        assert_eq!(got, [format!("got {signal}")]);
    }
}

#[test]
fn what_an_authority_that_cannot_decide_means_is_as_the_file_says_now() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), DEVICE);
    setup.enforcement = "interval = \"200ms\"\nlease = \"10m\"\nsystem_unavailable = \"deny\"".to_owned();
    let sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    change(&sidecar, "enforcement.system_unavailable", "\"deny\"", "\"retry\"");
    let cannot = Answer::new("503 Service Unavailable").with("content-type", "application/json");
    injector.set(Fault::Replace(cannot.saying(r#"{"allowed":false,"code":"SYSTEM_UNAVAILABLE"}"#)));
    let standing = || sidecar.status()["devices"][0]["standing"].clone();
    until("the device is undecided, and not denied", || (standing() == "unavailable").then_some(()));
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (503, "SYSTEM_UNAVAILABLE"));
    assert!(agent.is_alive() && agent.terms() == 0, "its lease has not ended");
    change(&sidecar, "enforcement.system_unavailable", "\"retry\"", "\"deny\"");
    assert_eq!(agent.wrapped.exit_code(), 75, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
    assert!(agent.wrapped.stderr().contains("SYSTEM_UNAVAILABLE"), "{}", agent.wrapped.stderr());
}

#[test]
fn agents_of_an_undecided_device_are_frozen_and_thawed_as_the_file_says_now() {
    if !has_cgroups("freezing by a reload") {
        return;
    }
    let mut authority = Authority::start();
    let sidecar = start(&authority, "undecided = \"run\"");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    assert_eq!(sidecar.check().status, 503);
    change(&sidecar, "enforcement.undecided", "\"run\"", "\"freeze\"");
    becomes_frozen(&sidecar, &agent);
    change(&sidecar, "enforcement.undecided", "\"freeze\"", "\"run\"");
    becomes_thawed(&sidecar, &agent);
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_floor_for_containment_is_for_starts_from_then_on() {
    let authority = Authority::start();
    let sidecar = start(&authority, "containment = \"auto\"");
    let weak = ["--containment", "subreaper"];
    let agent = Agent::start(&sidecar, &weak, OBEDIENT);
    change(&sidecar, "enforcement.containment", "\"auto\"", "\"cgroup\"");
    let mut refused = Wrapped::start(sidecar.wrap(&weak, &["true"]));
    assert_eq!(refused.exit_code(), 125, "{}", refused.stderr());
    assert!(refused.stderr().contains("enforcement.containment"), "{}", refused.stderr());
    assert!(agent.is_alive() && agent.terms() == 0, "one that runs is not stopped for it");
    change(&sidecar, "enforcement.containment", "\"cgroup\"", "\"subreaper\"");
    let mut again = Wrapped::start(sidecar.wrap(&weak, &["true"]));
    assert_eq!(again.exit_code(), 0, "{}", again.stderr());
}

const CA: &str = machineid_testing::certificates::CA_FILE;
const STRANGERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/harness/fault/stranger.pem");

#[test]
fn who_vouches_for_the_authority_is_read_again_from_its_file_and_from_another() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::encrypted(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), DEVICE);
    let (ours, other) = (setup.directory.path().join("ca.pem"), setup.directory.path().join("other.pem"));
    fs::copy(CA, &ours).unwrap();
    setup.authority = format!("{}\nca_file = \"{}\"", setup.authority, ours.display());
    setup.enforcement = String::from(RARE);
    let sidecar = setup.start();
    let agent = Agent::start(&sidecar, &[], OBEDIENT);

    put(&ours, "no certificate\n");
    let said = problem(&sidecar, "no certificate");
    assert!(said.contains("authority.ca_file") && said.contains("the certificates in use stay"), "{said}");
    assert_eq!(sidecar.check().status, 200);

    // A client that is no longer vouched for is not believed, not even on a connection from before.
    fs::copy(STRANGERS, &other).unwrap();
    fs::rename(&other, &ours).unwrap();
    no_problem(&sidecar, "the stranger's certificate is one");
    let answer =
        until("the authority is not believed any more", || Some(sidecar.check()).filter(|it| it.status != 200));
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHORITY_UNREACHABLE"));
    assert!(answer.body.contains("certificate"), "{}", answer.body);

    // A new name with nothing behind it changes nothing, until there is.
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace("/ca.pem\"", "/other.pem\""));
    let said = problem(&sidecar, "no such file");
    assert!(said.contains("authority.ca_file") && said.contains("other.pem"), "{said}");
    fs::copy(CA, &other).unwrap();
    no_problem(&sidecar, "the other file is taken");
    until("the authority is believed again", || (sidecar.check().status == 200).then_some(()));
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_key_file_that_is_named_before_it_is_there_is_taken_when_it_comes() {
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let mut setup = Setup::of(&old, &authority.url(), DEVICE);
    setup.enforcement = String::from(RARE);
    let sidecar = setup.start();
    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace("/org-key\"", "/new-key\""));
    let said = problem(&sidecar, "no such file");
    assert!(said.contains("authority.org_key_file") && said.contains("new-key"), "{said}");
    assert_eq!(sidecar.check().status, 200);
    put(&sidecar.directory().join("new-key"), &format!("{}\n", new.key));
    no_problem(&sidecar, "the other file is taken");
    until("the host is registered with the new key", || (new.code(DEVICE) == "ALLOW").then_some(()));
    assert_eq!(sidecar.check().status, 200);
}

#[test]
fn a_check_waits_as_long_as_the_file_says_now() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), DEVICE);
    // With the old value of any of them the check would outlast the test.
    setup.authority = format!("url = \"{}\"\ntimeout = \"9m\"", injector.url());
    setup.enforcement = "interval = \"10m\"\nlease = \"30m\"".to_owned();
    setup.local = "check_timeout = \"9m\"".to_owned();
    let sidecar = setup.start();
    change(&sidecar, "local.check_timeout", "check_timeout = \"9m\"", "check_timeout = \"300ms\"");
    injector.set(Fault::Silent);
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (503, "CHECK_TIMEOUT"));
}

#[test]
fn a_hung_validation_holds_up_neither_a_reload_nor_a_check_beside_it() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), DEVICE);
    setup.authority = format!("url = \"{}\"\ntimeout = \"9m\"", injector.url());
    setup.enforcement = "interval = \"10m\"\nlease = \"30m\"".to_owned();
    let sidecar = setup.start();
    let newest = || sidecar.status()["devices"][0]["last_decision"]["request_id"].clone();
    let before = newest();
    injector.set(Fault::HoldNext);
    sidecar.signal(Signal::USR1);
    injector.wait_for_held();
    // None of this waits for the answer that is held: it comes when this test says so.
    change(&sidecar, "enforcement.lease", "30m", "31m");
    until("the reload has asked beside it", || (newest() != before).then_some(()));
    assert_eq!(sidecar.check().status, 200);
    org.device("revoke", DEVICE);
    change(&sidecar, "enforcement.lease", "31m", "32m");
    until("a deny is heard", || (sidecar.status()["devices"][0]["standing"] == "denied").then_some(()));
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
    let denied = newest();
    injector.release();
    sidecar.signal(Signal::USR1);
    until("a later validation has answered", || (newest() != denied).then_some(()));
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED", "the ALLOW that was held comes too late");
}

#[test]
fn the_socket_is_given_to_the_group_that_the_file_names_now() {
    if !is_root("a socket that changes its group") {
        return;
    }
    let group = |name: &str| {
        let text = fs::read_to_string("/etc/group").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:x:"))).map(str::to_owned);
        line.and_then(|rest| rest.split(':').next()?.parse::<u32>().ok())
    };
    let ((old, old_gid), (new, new_gid)) = match (group("daemon"), group("games"), group("tty")) {
        (Some(old), Some(new), _) => (("daemon", old), ("games", new)),
        (Some(old), None, Some(new)) => (("daemon", old), ("tty", new)),
        groups => panic!("a host with neither of the groups this test knows: {groups:?}"),
    };
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.local = format!("mode = \"0660\"\ngroup = \"{old}\"");
    let sidecar = setup.start();
    open_the_way_to(&sidecar.socket());
    let owner = || fs::metadata(sidecar.socket()).unwrap().gid();
    let check = "GET /v1/check HTTP/1.0\r\n\r\n";
    let as_of = |gid: u32| ask_by(|client| as_member(NOBODY, gid, client), &[], &sidecar.socket(), check).0;
    assert_eq!((owner(), as_of(old_gid)), (old_gid, 200));
    change(&sidecar, "local.group", &format!("group = \"{old}\""), &format!("group = \"{new}\""));
    assert_eq!((owner(), as_of(new_gid)), (new_gid, 200));
    let mut stranger = std::process::Command::new("python3");
    let connect = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])";
    stranger.args(["-c", connect]).arg(sidecar.socket());
    let refused = as_member(NOBODY, old_gid, &stranger).output().unwrap();
    assert!(!refused.status.success(), "who was in the old group comes in no more");
    assert!(!as_user(NOBODY, &stranger).output().unwrap().status.success());

    let text = fs::read_to_string(file(&sidecar)).unwrap();
    put(&file(&sidecar), &text.replace(&format!("group = \"{new}\""), "group = \"no-such-group\""));
    let said = problem(&sidecar, "there is no such group");
    assert!(said.contains("local.group") && said.contains("no-such-group"), "{said}");
    assert_eq!((owner(), as_of(new_gid)), (new_gid, 200), "{:?}", problems(&sidecar));
}

/// Lets every user as far as the socket itself.
fn open_the_way_to(socket: &std::path::Path) {
    for directory in socket.ancestors().skip(1).take(2).map(PathBuf::from) {
        crate::harness::sidecar::chmod(&directory, 0o755);
    }
}
