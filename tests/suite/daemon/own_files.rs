//! The daemon's own files are removed while it lives, by a logout or a cleaner of temporary files: it makes them again, says
//! so, and loses neither agent nor hold by it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::agents::{Agent, OBEDIENT, agents, post, record};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "wiped-host:1";

fn start(org: &Org<'_>, authority: &Authority) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), DEVICE);
    setup.devices = String::from("allow = [\"agent-*\"]");
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"30s\"\nstop_grace = \"2s\"");
    setup.start()
}

/// Removes the directory of the socket and the one of lock and records, as a logout does.
fn wipe(sidecar: &Sidecar) {
    fs::remove_dir_all(sidecar.directory().join("s")).unwrap();
    fs::remove_dir_all(sidecar.directory().join("runtime")).unwrap();
}

/// Files of the runtime directory whose names begin so.
fn runtime(sidecar: &Sidecar, prefix: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(sidecar.directory().join("runtime")).into_iter().flatten().flatten();
    let is = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(prefix));
    files.map(|file| file.path()).filter(|path| path.file_name().is_some_and(is)).collect()
}

#[test]
fn a_daemon_whose_directories_are_wiped_makes_its_files_again_and_knows_its_agents_after_a_restart() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut sidecar = start(&org, &authority);
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    let id = agents(&sidecar)[0]["run_id"].as_str().unwrap().to_owned();
    assert_eq!(post(&sidecar.socket(), "/v1/hold", &json!({"device": "agent-held"})).status, 200);
    let mode = fs::metadata(sidecar.socket()).unwrap().mode();
    let reports_as = fs::read_to_string(runtime(&sidecar, "sidecar-secret").remove(0)).unwrap();

    wipe(&sidecar);
    let state = sidecar.directory().join("state");
    fs::remove_dir_all(&state).unwrap();
    until("the socket is served again", || (sidecar.get("/healthz")?.status == 200).then_some(()));
    assert_eq!(fs::metadata(sidecar.socket()).unwrap().mode(), mode);
    until("the run is written down again", || record(&sidecar, &id).exists().then_some(()));
    until("the registration is noted again", || (!runtime(&sidecar, "registered-").is_empty()).then_some(()));
    let again = until("it reports under the same name", || {
        fs::read_to_string(runtime(&sidecar, "sidecar-secret").first()?).ok().filter(|text| !text.is_empty())
    });
    assert_eq!(again, reports_as);
    until("the device id is kept again", || state.join("device.json").exists().then_some(()));
    let holds = || {
        fs::read_dir(&state).unwrap().flatten().find(|file| file.file_name().as_encoded_bytes().starts_with(b"holds-"))
    };
    until("what is held is written down again", holds);

    // It says so.
    until("all of it is counted", || {
        let metrics = sidecar.get("/metrics")?.body;
        let line = |file: &str| format!("machineid_sidecar_files_restored_total{{file=\"{file}\"}} 1");
        let files = ["socket", "lock", "marker", "holds", "device", "sidecar_secret"];
        files.into_iter().all(|file| metrics.contains(&line(file))).then_some(())
    });
    assert!(sidecar.get("/metrics").unwrap().body.contains("machineid_sidecar_runtime_problem 0"));
    assert!(sidecar.log().contains("have been recreated"), "{}", sidecar.log());
    let status = sidecar.status();
    assert!(status["files"]["restored_at"].is_string() && status["files"]["problem"].is_null(), "{}", status["files"]);
    let page = sidecar.machineid(&["status"]);
    assert!(String::from_utf8_lossy(&page.stdout).contains("made again"), "{page:?}");
    assert!(sidecar.get("/v1/events?from=oldest&follow=false").unwrap().body.contains("files-restored"));

    // Everything is as it was: starts, the lock, the hold, and the agent from before, also for the next daemon.
    let mut another = Wrapped::start(sidecar.wrap(&[], &["true"]));
    assert_eq!(another.exit_code(), 0, "{}", another.stderr());
    let second = sidecar.setup().command().output().unwrap();
    let refusal = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && refusal.contains("another machineid-sidecar serves"), "{refusal}");
    sidecar.kill();
    sidecar.start_again();
    until("the wrapper comes back", || sidecar.log().contains("wrapper reconnected").then_some(()));
    assert_eq!(agents(&sidecar)[0]["run_id"], id.as_str());
    assert!(agent.is_alive() && agent.terms() == 0);
    assert_eq!(sidecar.status()["holds"][0]["device_id"], "agent-held");
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
}

#[test]
fn a_record_that_is_removed_is_written_again_although_no_lease_moves() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"1h\"\nlease = \"2h\"");
    let sidecar = setup.start();
    let _agent = Agent::start(&sidecar, &[], OBEDIENT);
    let id = agents(&sidecar)[0]["run_id"].as_str().unwrap().to_owned();
    fs::remove_file(record(&sidecar, &id)).unwrap();
    until("it is written again", || record(&sidecar, &id).exists().then_some(()));
    let counted = "machineid_sidecar_files_restored_total{file=\"record\"} 1";
    until("it is counted", || sidecar.get("/metrics")?.body.contains(counted).then_some(()));
}

#[test]
fn a_device_that_was_removed_stays_removed_although_the_note_of_its_registration_was_wiped() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut sidecar = start(&org, &authority);
    wipe(&sidecar);
    until("the registration is noted again", || (!runtime(&sidecar, "registered-").is_empty()).then_some(()));
    org.device("remove", DEVICE);
    until("the daemon hears of it", || (sidecar.check().code() == "DEVICE_NOT_FOUND").then_some(()));
    sidecar.kill();
    sidecar.start_again();
    assert_eq!(sidecar.check().code(), "DEVICE_NOT_FOUND", "it is not registered again");
}

#[test]
fn a_daemon_whose_place_another_one_has_taken_says_so_leaves_it_alone_and_comes_back_after_it() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut sidecar = start(&org, &authority);
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    // It must not notice before the other one is there.
    sidecar.signal(Signal::STOP);
    wipe(&sidecar);
    let log = File::create(sidecar.directory().join("log-of-the-other")).unwrap();
    let mut other = Other(sidecar.setup().command().stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let serves = |sidecar: &Sidecar| sidecar.get("/v1/status").and_then(|answer| answer.json()["pid"].as_u64());
    until("the other one serves", || (serves(&sidecar) == Some(u64::from(other.0.id()))).then_some(()));
    sidecar.signal(Signal::CONT);
    until("the first one notices", || sidecar.log().contains("another daemon now serves that path").then_some(()));
    assert_eq!(serves(&sidecar), Some(u64::from(other.0.id())), "it is left alone");
    assert!(agent.is_alive() && agent.terms() == 0, "and its agents run on");
    // What the first one knows goes on being enforced, and its place is its own again when the other one ends.
    other.end();
    let own = u64::from(sidecar.pid());
    until("the first one serves again", || (serves(&sidecar) == Some(own)).then_some(()));
    assert_eq!(agents(&sidecar).len(), 1);
    assert!(agent.is_alive() && agent.terms() == 0);
}

/// A second daemon. Ended with the test.
struct Other(Child);

impl Other {
    fn end(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
