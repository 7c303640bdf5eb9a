//! Under a service manager: what it is told, the socket it hands over, and its watchdog.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::agents::{Agent, OBEDIENT, agents};
use crate::harness::authority::{Authority, Org};
use crate::harness::place::{is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar, chmod, write_key};
use crate::harness::wait::{PATIENCE, until};
use crate::harness::wrapper::python;

const DEVICE: &str = "managed-host:1";

fn setup(org: &Org<'_>, authority: &Authority) -> Setup {
    let mut setup = Setup::of(org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"8s\"\nstop_grace = \"3s\"");
    setup
}

/// The manager's side of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    fn of(setup: &mut Setup) -> Self {
        let path = setup.directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        setup.variables.push(("NOTIFY_SOCKET", path.to_str().unwrap().to_owned()));
        Self(socket)
    }

    /// The next message that is one of these; others are passed over.
    fn next(&self, wanted: &[&str]) -> String {
        until(&format!("the manager is told one of {wanted:?}"), || {
            self.0.set_read_timeout(Some(PATIENCE)).unwrap();
            let text = self.receive()?;
            wanted.iter().any(|word| text.starts_with(word)).then_some(text)
        })
    }

    fn receive(&self) -> Option<String> {
        let mut message = [0_u8; 4096];
        let length = self.0.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// Whether a message that begins so comes within this time.
    fn hears(&self, word: &str, within: Duration) -> bool {
        crate::harness::wait::until_for(within, || {
            self.0.set_read_timeout(Some(within)).unwrap();
            self.receive().filter(|text| text.starts_with(word))
        })
        .is_some()
    }

    /// Takes what is there already.
    fn drain(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.receive().is_some() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_manager_is_told_when_the_socket_is_served_how_things_stand_and_when_it_ends() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    let manager = Manager::of(&mut setup);
    let mut sidecar = setup.start_unready();
    assert_eq!(manager.next(&["READY", "STOPPING"]), "READY=1\n");
    assert_eq!(manager.next(&["STATUS=allowed"]), "STATUS=allowed; no agents\n");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    assert_eq!(manager.next(&["STATUS"]), "STATUS=allowed; 1 agent\n");
    assert!(agent.is_alive());
    org.device("revoke", DEVICE);
    manager.next(&["STATUS=denied (DEVICE_REVOKED); no agents"]);
    assert_eq!(sidecar.terminate().code(), Some(0));
    manager.next(&["STOPPING=1"]);
}

#[test]
fn the_unit_comes_up_while_the_authority_is_away() {
    let mut authority = Authority::start();
    let mut setup = setup(&authority.org("pro"), &authority);
    authority.kill();
    let manager = Manager::of(&mut setup);
    let sidecar = setup.start_unready();
    manager.next(&["READY=1"]);
    manager.next(&["STATUS=no answer from the authority; no agents"]);
    assert_eq!(sidecar.get("/readyz").unwrap().status, 503, "that a unit is up says nothing about decisions");
    assert_eq!(sidecar.check().status, 503);
}

#[test]
fn a_service_that_has_no_key_yet_is_up_allows_nothing_and_says_what_to_do() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    // As the unit has it: a credential that says that there is no other.
    std::fs::write(setup.key_file(), "missing").unwrap();
    setup.variables.push(("CREDENTIALS_DIRECTORY", setup.directory.path().to_str().unwrap().to_owned()));
    let manager = Manager::of(&mut setup);
    let mut sidecar = setup.start_unready();
    manager.next(&["READY=1"]);
    assert!(manager.next(&["STATUS="]).contains("no org key yet"));
    let remedy = "install -m 600 /dev/stdin /etc/machineid/org-key";
    let refused = sidecar.check();
    assert_eq!((refused.status, refused.code().as_str()), (503, "STARTING"));
    assert!(refused.json()["reason"].as_str().unwrap().contains(remedy), "{}", refused.body);
    assert_eq!(sidecar.get("/readyz").unwrap().status, 503);
    let witness = sidecar.directory().join("ran");
    let run = sidecar.wrap(&[], &["touch", witness.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(75), "{said}");
    assert!(said.contains(remedy) && !witness.exists(), "{said}");
    assert_eq!(sidecar.terminate().code(), Some(0));
    manager.next(&["STOPPING=1"]);
    write_key(&sidecar.key_file(), &org.key);
    sidecar.start_again();
    until("it is allowed", || (sidecar.check().status == 200).then_some(()));
}

#[test]
fn a_hung_enforcer_stops_the_watchdogs_pings_and_they_come_back_with_it() {
    if !is_root() {
        skipped("the watchdog", "only root may stop one thread of a daemon");
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    let manager = Manager::of(&mut setup);
    setup.variables.push(("WATCHDOG_USEC", "1500000".to_owned()));
    let sidecar = setup.start();
    for _ in 0..3 {
        manager.next(&["WATCHDOG=1"]);
    }
    let stopped = sidecar.directory().join("stopped");
    let go = sidecar.directory().join("go");
    // Holds the thread for as long as it is traced.
    let tracer = std::thread::spawn({
        let (pid, stopped, go) = (sidecar.pid().to_string(), stopped.clone(), go.clone());
        move || python(HOLD_A_THREAD, &[pid.as_ref(), "enforcer".as_ref(), stopped.as_ref(), go.as_ref()])
    });
    until("the thread is held", || stopped.exists().then_some(()));
    until("the daemon notices", || sidecar.log().contains("a gate or the enforcer hangs").then_some(()));
    manager.drain();
    assert!(!manager.hears("WATCHDOG", Duration::from_secs(2)), "a hung enforcer must not be kept alive");
    std::fs::write(&go, "").unwrap();
    manager.next(&["WATCHDOG=1"]);
    let output = tracer.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Stops the thread of this name of this process until a file is there.
const HOLD_A_THREAD: &str = r#"
import ctypes, os, sys, time
pid, name, stopped, go = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def ptrace(request, tid):
    if libc.ptrace(request, tid, 0, 0): sys.exit(os.strerror(ctypes.get_errno()))
for tid in map(int, os.listdir(f"/proc/{pid}/task")):
    if open(f"/proc/{pid}/task/{tid}/comm").read().strip() == name: break
else: sys.exit("no such thread")
ptrace(0x4206, tid) # SEIZE
ptrace(0x4207, tid) # INTERRUPT
os.waitpid(tid, 0x40000000) # __WALL
open(stopped, "w").close()
deadline = time.monotonic() + 50
while not os.path.exists(go) and time.monotonic() < deadline: time.sleep(0.02)
ptrace(17, tid) # DETACH
"#;

#[test]
fn a_socket_that_was_handed_over_and_is_removed_is_made_again_with_the_mode_it_had() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    setup.local = "mode = \"0666\"".to_owned();
    std::fs::create_dir_all(setup.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(setup.socket()).unwrap();
    chmod(&setup.socket(), 0o600);
    hand_over(&mut setup, listener);
    let sidecar = setup.start();
    std::fs::remove_dir_all(sidecar.socket().parent().unwrap()).unwrap();
    until("it is served again", || (sidecar.get("/healthz")?.status == 200).then_some(()));
    let mode = std::fs::metadata(sidecar.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its mode is the manager's");
    until("it says what to do", || sidecar.log().contains("Restart the socket unit").then_some(()));
}

/// A socket unit's side: hands this over as the daemon's descriptor 3.
fn hand_over(setup: &mut Setup, socket: impl Into<OwnedFd>) {
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    setup.starter = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    setup.input = Some(socket.into());
}

fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

#[test]
fn a_socket_that_is_handed_over_is_served_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    setup.local = "mode = \"0666\"".to_owned();
    std::fs::create_dir_all(setup.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(setup.socket()).unwrap();
    chmod(&setup.socket(), 0o600);
    hand_over(&mut setup, listener);
    let mut sidecar = setup.start();
    assert_eq!(sidecar.check().status, 200);
    let mode = std::fs::metadata(sidecar.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its mode is the manager's");
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    assert_eq!(sidecar.terminate().code(), Some(0));
    assert!(is_there(&sidecar.socket()), "the manager keeps it");
    // A check in between is no refusal: it waits for the next daemon.
    let waiting = std::thread::spawn({
        let socket = sidecar.socket();
        move || crate::harness::sidecar::exchange(&socket, "GET /v1/check HTTP/1.0\r\nHost: localhost\r\n\r\n")
    });
    sidecar.start_again();
    assert_eq!(waiting.join().unwrap().expect("an answer").status, 200);
    until("the agent is adopted", || (agents(&sidecar).len() == 1).then_some(()));
    assert!(agent.is_alive() && agent.terms() == 0);
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77);
}

#[test]
fn a_socket_at_another_place_than_the_configured_one_is_refused_with_both() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    let elsewhere = setup.directory.path().join("elsewhere.sock");
    let listener = UnixListener::bind(&elsewhere).unwrap();
    hand_over(&mut setup, listener);
    let output = setup.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [elsewhere.to_str().unwrap(), setup.socket().to_str().unwrap(), "local.socket"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn what_is_handed_over_and_is_no_listening_socket_is_refused() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    other.write_all(b"hello").unwrap();
    hand_over(&mut setup, one);
    let output = setup.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("does not listen"), "{said}");
}

#[test]
fn variables_that_were_meant_for_somebody_else_are_no_socket() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = setup(&org, &authority);
    setup.variables.push(("LISTEN_FDS", "1".to_owned()));
    setup.variables.push(("LISTEN_PID", "1".to_owned()));
    let sidecar: Sidecar = setup.start();
    assert_eq!(sidecar.check().status, 200);
    sidecar.signal(Signal::USR1);
}
