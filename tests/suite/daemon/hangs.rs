//! What hangs beside the daemon holds up nothing else: a pipe or a file system in the place of a file, a name server, one
//! device's registration, the runtime directory.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::agents::{Agent, OBEDIENT};
use super::reload::{RARE, no_problem, problems};
use crate::harness::authority::{Authority, Org};
use crate::harness::fake_authority::{FakeAuthority, json};
use crate::harness::load::Stalls;
use crate::harness::never::Never;
use crate::harness::place::skipped;
use crate::harness::sidecar::{Answer, Setup, Sidecar, exchange};
use crate::harness::wait::{clock, let_time_pass, until, until_for};
use crate::harness::wrapper::{run_script, stderr};

const DEVICE: &str = "host:hanging";
/// Longer than anything that does not hang, and far below what a hang takes.
const SOON: Duration = Duration::from_secs(4);

/// Does something that must not wait for what hangs.
fn soon<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let (began, stalls) = (clock(), Stalls::from_now());
    let result = act();
    let (took, bound) = (began.elapsed(), SOON + stalls.allowance());
    assert!(took < bound, "{what} took {took:?}; {bound:?} is a lot");
    result
}

/// A strict check, which validates.
fn check(sidecar: &Sidecar, what: &str) -> Answer {
    soon(what, || sidecar.check())
}

/// With a file of certificates, and every file in the directory of the daemon.
fn start(org: &Org<'_>, url: &str) -> (Sidecar, [PathBuf; 3]) {
    let mut setup = Setup::of(org, url, DEVICE);
    RARE.clone_into(&mut setup.enforcement);
    let certificates = setup.directory.path().join("ca.pem");
    fs::copy(machineid_testing::certificates::CA_FILE, &certificates).unwrap();
    let _ = write!(setup.authority, "\nca_file = \"{}\"", certificates.display());
    let files = [setup.directory.path().join("machineid-sidecar.toml"), setup.key_file(), certificates];
    (setup.start(), files)
}

/// Puts something that hangs in the place of each file in turn, and back.
fn each_file_in_turn(put: impl Fn(&Path), told: impl Fn(&Path) -> String) {
    let authority = Authority::start();
    let org = authority.org("pro");
    let (mut sidecar, files) = start(&org, &authority.url());
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    for file in &files {
        let name = file.display();
        let aside = file.with_extension("aside");
        fs::rename(file, &aside).unwrap();
        put(file);
        sidecar.signal(Signal::HUP);
        for _ in 0..5 {
            assert_eq!(check(&sidecar, &format!("a check without {name}")).status, 200);
        }
        let expected = told(file);
        let is_told = || problems(&sidecar).iter().any(|problem| problem.contains(&expected)).then_some(());
        until(&format!("{expected} is told"), is_told);
        assert_eq!(check(&sidecar, &format!("a check after the reload without {name}")).status, 200);
        fs::rename(&aside, file).unwrap();
        sidecar.signal(Signal::HUP);
        no_problem(&sidecar, &format!("{name} is back"));
    }
    let [_, key, _] = &files;
    fs::remove_file(key).unwrap();
    put(key);
    sidecar.signal(Signal::HUP);
    assert!(agent.is_alive(), "what cannot be read stops no agent");
    org.device("revoke", DEVICE);
    assert_eq!(check(&sidecar, "a check after the revoke").status, 403);
    assert_eq!(soon("the stop", || agent.wrapped.exit_code()), 77);
    assert_eq!(soon("the daemon's end", || sidecar.terminate()).code(), Some(0));
}

#[test]
fn a_pipe_in_the_place_of_any_file_holds_up_no_check_no_validation_and_no_stop() {
    let put = |path: &Path| {
        let made = Command::new("mkfifo").arg("-m600").arg(path).status().unwrap();
        assert!(made.success());
    };
    each_file_in_turn(put, |path| format!("{}", path.display()));
}

#[test]
fn a_file_system_that_hangs_in_the_place_of_any_file_holds_up_no_check_no_validation_and_no_stop() {
    if !Never::is_possible() {
        return skipped("files on a file system that hangs", "this takes root and /dev/fuse");
    }
    let place = tempfile::tempdir().unwrap();
    let never = Never::over(place.path());
    let inside = never.path().join("file");
    let told = |path: &Path| format!("cannot read {}: it does not answer", path.display());
    each_file_in_turn(|path| symlink(&inside, path).unwrap(), told);
}

#[test]
fn a_key_that_comes_back_with_its_file_system_is_taken_by_itself() {
    if !Never::is_possible() {
        return skipped("a key on a file system that hangs", "this takes root and /dev/fuse");
    }
    let authority = Authority::start();
    let (old, new) = (authority.org("pro"), authority.org("pro"));
    let mut setup = Setup::of(&old, &authority.url(), DEVICE);
    setup.enforcement = RARE.to_owned();
    let keys = setup.directory.path().join("keys");
    fs::create_dir(&keys).unwrap();
    fs::rename(setup.key_file(), keys.join("key")).unwrap();
    symlink("keys/key", setup.key_file()).unwrap();
    let sidecar = setup.start();
    let never = Never::over(&keys);
    sidecar.signal(Signal::HUP);
    until("it is told", || problems(&sidecar).iter().any(|told| told.contains("does not answer")).then_some(()));
    assert_eq!(check(&sidecar, "a check meanwhile").status, 200);
    drop(never);
    super::reload::put(&keys.join("key"), &format!("{}\n", new.key));
    until("the new key is in use", || (new.code(DEVICE) == "ALLOW").then_some(()));
    no_problem(&sidecar, "all is well again");
}

#[test]
fn a_kill_file_on_a_file_system_that_hangs_allows_nothing_and_holds_up_nothing_else() {
    if !Never::is_possible() {
        return skipped("a kill file on a file system that hangs", "this takes root and /dev/fuse");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    let switch = setup.directory.path().join("switch");
    fs::create_dir(&switch).unwrap();
    setup.enforcement = format!("{RARE}\nkill_file = \"{}/kill\"", switch.display());
    let mut sidecar = setup.start();
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let never = Never::over(&switch);
    let told = |sidecar: &Sidecar| soon("status", || problems(sidecar)).concat();
    for _ in 0..3 {
        let answer = check(&sidecar, "a check");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.body.contains("cannot look for the kill file"), "{answer:?}");
    }
    assert!(told(&sidecar).contains("cannot look for the kill file"));
    assert!(agent.is_alive(), "agents continue on their leases");
    let body = format!("{{\"device\":\"{DEVICE}\"}}");
    let hold = format!("POST /v1/hold HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = soon("a hold", || exchange(&sidecar.socket(), &hold).unwrap());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(check(&sidecar, "a check of a held device").status, 403);
    agent.is_gone();
    drop(never);
    assert!(sidecar.machineid(&["release", "--device", DEVICE]).status.success());
    until("it is allowed again", || (sidecar.check().status == 200).then_some(()));
    assert_eq!(told(&sidecar), "");
    let _again = Never::over(&switch);
    assert_eq!(soon("the daemon's end", || sidecar.terminate()).code(), Some(0));
}

#[test]
fn a_runtime_directory_that_hangs_holds_up_no_check_and_no_stop() {
    if !Never::is_possible() {
        return skipped("a runtime directory that hangs", "this takes root and /dev/fuse");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = RARE.to_owned();
    setup.devices = "allow = [\"other:*\"]".to_owned();
    let sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    let never = Never::over(&sidecar.directory().join("runtime"));
    assert_eq!(check(&sidecar, "a check of the host").status, 200);
    let other = soon("a start that registers", || run_script(&sidecar.socket(), &["--device", "other:1"], "exit 0"));
    assert!(other.status.success(), "{other:?}");
    let again = soon("a check of what is registered", || sidecar.get("/v1/check?device=other:1").unwrap());
    assert_eq!(again.status, 200, "{again:?}");
    until("it is told", || sidecar.log().contains("cannot record the registration").then_some(()));
    org.device("revoke", DEVICE);
    assert_eq!(check(&sidecar, "a check after the revoke").status, 403);
    assert_eq!(agent.wrapped.exit_code(), 77);
    drop(never);
}

/// Takes the way of a name server that never answers, and becomes the daemon: no name is found from here on.
const SILENT_RESOLVER: &str = r#"
import fcntl, os, socket, struct, subprocess, sys
directory = sys.argv[1]
for name, text in [("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: dns\n")]:
    path = os.path.join(directory, name)
    open(path, "w").write(text)
    subprocess.run(["mount", "--bind", path, "/etc/" + name], check=True)
loopback = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
fcntl.ioctl(loopback, 0x8914, up)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
server.set_inheritable(True)
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn can_make_a_silent_resolver() -> bool {
    let places = ["/etc/resolv.conf", "/etc/nsswitch.conf"].into_iter().all(|path| Path::new(path).is_file());
    let mut probe = Command::new("unshare");
    probe.args(["--map-root-user", "--net", "--mount", "mount", "--bind", "/etc/nsswitch.conf", "/etc/resolv.conf"]);
    places && probe.status().is_ok_and(|status| status.success())
}

fn threads(sidecar: &Sidecar) -> usize {
    fs::read_dir(format!("/proc/{}/task", sidecar.pid())).unwrap().count()
}

/// Each of these asks about a device of its own, and waits.
fn ask_all(sidecar: &Sidecar, askers: usize) -> Vec<UnixStream> {
    let ask = |number: usize| {
        let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
        stream
            .write_all(format!("GET /v1/check?device=other:{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
            .unwrap();
        stream
    };
    (0..askers).map(ask).collect()
}

#[test]
fn a_name_server_that_does_not_answer_holds_up_neither_kill_file_nor_starts_however_many_ask() {
    if !can_make_a_silent_resolver() {
        return skipped("a name server that does not answer", "this takes namespaces of network and mounts");
    }
    let mut setup = Setup::new("https://authority.test", "org_any", DEVICE);
    let kill_file = setup.directory.path().join("kill");
    setup.devices = "allow = [\"other:*\"]\nhost_rules_all = false".to_owned();
    setup.enforcement = format!("interval = \"1s\"\nlease = \"5s\"\nkill_file = \"{}\"", kill_file.display());
    let directory = setup.directory.path().display().to_string();
    let starter = ["unshare", "--map-root-user", "--net", "--mount", "python3", "-c", SILENT_RESOLVER, &directory];
    setup.starter = starter.map(str::to_owned).to_vec();
    let sidecar = setup.start_unready();
    let mut asking = ask_all(&sidecar, 400);
    // They time out and are made anew, while the resolver goes on waiting.
    let_time_pass(Duration::from_secs(4));
    asking.extend(ask_all(&sidecar, 400));
    let_time_pass(Duration::from_secs(2));
    let threads = threads(&sidecar);
    assert!(threads < 80, "{threads} threads");
    let run = soon("a start", || run_script(&sidecar.socket(), &[], "echo started"));
    assert_eq!(run.status.code(), Some(75), "{}", stderr(&run));
    fs::write(&kill_file, "").unwrap();
    let in_force = || sidecar.status()["configuration"]["kill_file"]["in_force"].as_str().map(str::to_owned);
    soon("the kill file", || until("it is seen", in_force));
    assert_eq!(check(&sidecar, "a check").code(), "LOCAL_KILL");
    drop(asking);
}

#[test]
fn a_registration_that_hangs_holds_up_its_own_device_alone_and_is_not_made_twice() {
    let first = AtomicBool::new(true);
    let authority = FakeAuthority::start(move |path, stream| {
        let answer = match path {
            "/api/v1/devices/register" if first.swap(false, Ordering::SeqCst) => {
                // Until the test is over.
                let_time_pass(Duration::from_mins(10));
                return;
            }
            "/api/v1/devices/register" => json("", r#"{"status":"ok"}"#),
            _ => json("", r#"{"allowed":true,"code":"ALLOW"}"#),
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let mut setup = Setup::new(&authority.url(), "org_any", DEVICE);
    setup.authority = setup.authority.replace("2s", "60s");
    setup.local = "check_timeout = \"2s\"".to_owned();
    setup.devices = "allow = [\"other:*\"]\nhost_rules_all = false".to_owned();
    setup.enforcement = RARE.to_owned();
    let sidecar = setup.start_unready();
    let registrations = || authority.count("/api/v1/devices/register");
    until("the host is being registered", || (registrations() == 1).then_some(()));
    for number in 0..5 {
        let device = format!("other:{number}");
        let other =
            soon("a start of another device", || run_script(&sidecar.socket(), &["--device", &device], "exit 0"));
        assert!(other.status.success(), "{other:?}");
    }
    assert_eq!(registrations(), 1 + 5);
    // A second attempt for the host begins, and waits for the first one's registration.
    sidecar.signal(Signal::USR1);
    assert_eq!(sidecar.check().status, 503);
    let twice = until_for(Duration::from_millis(500), || (registrations() > 1 + 5).then_some(()));
    assert!(twice.is_none(), "registered twice at once");
}
