//! A disk that hangs: what is written for a later daemon holds up no start and no stop for longer than a bounded time.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_clock::BootTime;
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use super::agents::{Agent, OBEDIENT, post, record, run_id};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "slow-host:1";
/// A start that waits for its record waits a second for it; the rest is what a busy machine takes.
const BOUND: Duration = Duration::from_secs(10);

fn start(org: &Org<'_>, authority: &Authority) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"60s\"\nstop_grace = \"2s\"");
    setup.start()
}

/// In the place of a file that is about to be written: a process that opens it to write waits until another reads it.
struct Stuck(PathBuf);

impl Stuck {
    fn at(path: PathBuf) -> Self {
        rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        Self(path)
    }

    /// Lets the writer go on. What it writes goes nowhere.
    fn release(&self) -> Option<File> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        OpenOptions::new().read(true).custom_flags(flags).open(&self.0).ok()
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        drop(self.release());
        let _ = fs::remove_file(&self.0);
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[test]
fn a_disk_that_hangs_holds_up_starts_for_a_bounded_time_and_no_stop_and_that_is_said() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority);
    let id = run_id();
    let path = record(&sidecar, &id);
    let stuck = Stuck::at(path.with_file_name(format!("{id}.new")));
    let began = BootTime::now();
    let by_hand = Agent::start_by_hand(&sidecar, &id, &json!({}), OBEDIENT);
    // The others are held up no longer, although each has a record to wait for.
    let mut agents: Vec<_> = (0..5).map(|_| Agent::start(&sidecar, &[], OBEDIENT)).collect();
    let took = BootTime::now().saturating_since(began);
    assert!(took < BOUND, "six starts took {took:?}");

    assert!(sidecar.log().contains("local.runtime_dir hangs"), "{}", sidecar.log());
    let problem = sidecar.status()["files"]["problem"].as_str().unwrap_or("").to_owned();
    assert!(problem.contains("hangs"), "{problem}");
    let metrics = sidecar.get("/metrics").unwrap().body;
    assert!(metrics.contains("machineid_sidecar_unrecorded_starts_total 6"), "{metrics}");
    assert!(metrics.contains("machineid_sidecar_runtime_problem 1"), "{metrics}");

    // The disk answers again: what was not written is written now.
    let reader = until("the writer waits in the pipe", || stuck.release());
    until("the disk answers", || sidecar.status()["files"]["problem"].is_null().then_some(()));
    let written = || {
        fs::read_dir(path.parent().unwrap())
            .unwrap()
            .flatten()
            .filter(|file| file.file_name().as_encoded_bytes().ends_with(b".json"))
            .count()
    };
    until("all runs are written down", || (written() == 6).then_some(()));
    drop(reader);

    // Once more, and a deny comes while it hangs: the stop waits for nothing.
    let second = run_id();
    let stuck_again = Stuck::at(record(&sidecar, &second).with_file_name(format!("{second}.new")));
    let another = Agent::start_by_hand(&sidecar, &second, &json!({}), OBEDIENT);
    let began = BootTime::now();
    org.device("revoke", DEVICE);
    for agent in &mut agents {
        assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    }
    by_hand.is_gone();
    another.is_gone();
    let took = BootTime::now().saturating_since(began);
    assert!(took < BOUND, "the stop took {took:?}");
    by_hand.wrapped.signal(rustix::process::Signal::KILL);
    drop(stuck_again);
}

#[test]
fn a_full_disk_refuses_no_start_and_each_start_without_a_record_is_counted() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority);
    // In the place of the directory of records: not even root can make one there.
    let runs = sidecar.directory().join("runtime/runs");
    fs::remove_dir_all(&runs).unwrap();
    fs::write(&runs, "").unwrap();
    let mut started = Wrapped::start(sidecar.wrap(&[], &["true"]));
    assert_eq!(started.exit_code(), 0, "{}", started.stderr());
    let metrics = sidecar.get("/metrics").unwrap().body;
    assert!(metrics.contains("machineid_sidecar_unrecorded_starts_total 1"), "{metrics}");
    let problem = sidecar.status()["files"]["problem"].as_str().unwrap_or("").to_owned();
    assert!(problem.contains("local.runtime_dir"), "{problem}");
}

#[test]
fn a_hold_is_in_force_and_answered_although_the_disk_it_is_written_to_hangs() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority);
    let hold = |device: &str| post(&sidecar.socket(), "/v1/hold", &json!({"device": device}));
    // To see where they are written down.
    assert!(hold("elsewhere").json()["problem"].is_null());
    let state = sidecar.directory().join("state");
    let file =
        fs::read_dir(&state).unwrap().flatten().find(|file| file.file_name().as_encoded_bytes().starts_with(b"holds-"));
    let stuck = Stuck::at(unfinished(&file.unwrap().path()));
    let began = BootTime::now();
    let answer = hold(DEVICE);
    let took = BootTime::now().saturating_since(began);
    assert!(answer.status == 200 && took < BOUND, "{answer:?} after {took:?}");
    assert!(answer.json()["problem"].as_str().unwrap().contains("has not answered in time"), "{answer:?}");
    assert_eq!(sidecar.check().code(), "LOCAL_STOP", "it is in force");
    let release = post(&sidecar.socket(), "/v1/release", &json!({"device": DEVICE}));
    assert_eq!((release.status, sidecar.check().code().as_str()), (503, "LOCAL_STOP"), "{release:?}");
    drop(until("the writer waits in the pipe", || stuck.release()));
}
