//! The enforcer's thread alone, without a gate, a runtime or a wrapper.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, RunId};
use machineid_tree::{Observer, Pid, PidNamespaces, Process, ProcessTable};
use rustix::process::Signal;

use super::*;
use crate::registry::containment::RunContainment;
use crate::registry::freeze::Undecided;
use crate::registry::ledger::{Here, Store};
use crate::registry::reach::{Pinned, Reach};
use crate::registry::run::{Admission, AskedTerms, Opened};
use crate::telemetry::Journal;

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").process_group(0).spawn().unwrap())
    }

    fn pinned(&self) -> Pinned {
        let pid = Pid::new(i32::try_from(self.0.id()).unwrap()).unwrap();
        Process::pin_any(pid).unwrap().unwrap().into()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An enforcer with its roster, and a directory for the ledger.
struct Bench {
    roster: Arc<Roster>,
    enforcer: Enforcer,
    ledger: Ledger,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = Here { boot_id: "boot".to_owned(), pid_namespace: "pid".to_owned() };
        let ledger = Ledger::start(Store::open(directory.path(), here).unwrap()).unwrap();
        let roster = Arc::new(Roster::new(Journal::start(None).unwrap()));
        let enforcer = Enforcer::start(Arc::clone(&roster), ledger.clone(), Live::of_defaults()).unwrap();
        Self { roster, enforcer, ledger, directory }
    }

    /// A run of these two, on a lease until then.
    fn run(&self, leader: &Sleeper, wrapper: &Sleeper, until: BootTime) -> Arc<Run> {
        let table = ProcessTable::from_entries(Observer::current(), Vec::new());
        let opened = Opened {
            id: RunId::random().unwrap(),
            device: "host:1".parse().unwrap(),
            name: None,
            command: Vec::new(),
            uid: 0,
            namespaces: PidNamespaces::unknown(),
            asked: AskedTerms { signal: None, grace: Some(Duration::from_millis(300)) },
            reach: Some(Reach::new(leader.pinned(), wrapper.pinned(), None, true, &table)),
        };
        let run = Arc::new(Run::new(opened, Live::of_defaults().now().stop_terms()));
        let containment = RunContainment::subreaper(String::new());
        let admission =
            Admission { since: BootTime::now(), code: Code::Allow, request_id: None, containment, token: None };
        run.admit(admission, vec![("host:1".parse().unwrap(), until)], Undecided::default());
        self.roster.lock().insert(run.id(), Arc::clone(&run));
        self.enforcer.watch();
        run
    }
}

#[test]
fn the_end_of_a_lease_is_the_threads_own_business() {
    let bench = Bench::new();
    let (mut leader, wrapper) = (Sleeper::start(), Sleeper::start());
    let until = BootTime::now() + Duration::from_millis(50);
    let run = bench.run(&leader, &wrapper, until);
    // A wrapper that is alive and does nothing has the grace to send the stop signal, and no longer.
    leader.0.wait().unwrap();
    let took = BootTime::now().saturating_since(until);
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(run.stop().unwrap().denial.code, Code::LeaseExpired);
}

#[test]
fn a_wrapper_that_is_stopped_leaves_the_stop_signal_to_the_thread() {
    let bench = Bench::new();
    let (mut leader, wrapper) = (Sleeper::start(), Sleeper::start());
    let stopped = wrapper.pinned();
    stopped.process().unwrap().signal(Signal::STOP).unwrap();
    while stopped.can_act() {
        std::thread::yield_now();
    }
    let until = BootTime::now() + Duration::from_millis(50);
    let _run = bench.run(&leader, &wrapper, until);
    assert_eq!(leader.0.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    // A stopped process cannot end by itself.
    while !stopped.has_ended() {
        std::thread::yield_now();
    }
}

#[test]
fn a_stopped_wrapper_that_has_another_run_is_left_as_it_is() {
    let bench = Bench::new();
    let (mut leader, other_leader, wrapper) = (Sleeper::start(), Sleeper::start(), Sleeper::start());
    let stopped = wrapper.pinned();
    stopped.process().unwrap().signal(Signal::STOP).unwrap();
    while stopped.can_act() {
        std::thread::yield_now();
    }
    let until = BootTime::now() + Duration::from_millis(50);
    let _other = bench.run(&other_leader, &wrapper, until + Duration::from_mins(10));
    let run = bench.run(&leader, &wrapper, until);
    leader.0.wait().unwrap();
    while !run.has_tree_ended() {
        std::thread::yield_now();
    }
    assert!(stopped.is_stopped() && !stopped.has_ended());
}

#[test]
fn a_lease_that_was_moved_meanwhile_is_not_over() {
    let bench = Bench::new();
    let (mut leader, wrapper) = (Sleeper::start(), Sleeper::start());
    let until = BootTime::now() + Duration::from_millis(50);
    let run = bench.run(&leader, &wrapper, until);
    run.lease_moved(&"host:1".parse().unwrap(), until + Duration::from_mins(1));
    while BootTime::now() < until + Duration::from_millis(100) {
        std::thread::yield_now();
    }
    assert!(run.stop().is_none() && leader.0.try_wait().unwrap().is_none());
}

/// The thread's own work, done by hand at moments of this test's choice.
fn by_hand(bench: &Bench, start: Moment) -> work::Worker {
    let inbox = Arc::new(Inbox { orders: Mutex::default(), bell: Bell::new().unwrap() });
    work::Worker::new(
        inbox,
        Arc::clone(&bench.roster),
        bench.ledger.clone(),
        Live::of_defaults(),
        (Tidy::start(Live::of_defaults()).unwrap(), EndWatch::new().unwrap()),
        start,
    )
}

fn later(moment: Moment, slept: Duration, awake: Duration) -> Moment {
    Moment { boot: moment.boot + slept + awake, awake: moment.awake + awake }
}

#[test]
fn a_lease_that_ended_in_the_machines_sleep_leaves_time_to_ask() {
    let (hour, second) = (Duration::from_hours(1), Duration::from_secs(1));
    // Renewed in time, and not.
    for renewed in [true, false] {
        let bench = Bench::new();
        let (leader, wrapper) = (Sleeper::start(), Sleeper::start());
        let start = Moment::now();
        let run = bench.run(&leader, &wrapper, start.boot + 30 * second);
        let mut worker = by_hand(&bench, start);
        let woke = later(start, hour, second);
        worker.turn(woke);
        assert!(run.stop().is_none() && run.freezes(false), "it stands still and is not stopped");
        assert_eq!(run.deadline(), Some(woke.boot + 3 * second));
        if renewed {
            run.lease_moved(&"host:1".parse().unwrap(), woke.boot + 30 * second);
            assert!(!run.freezes(true));
        }
        let end = later(woke, Duration::ZERO, 3 * second);
        worker.turn(end);
        assert_eq!(run.stop().map(|stop| stop.denial.code), (!renewed).then_some(Code::LeaseExpired));
    }
}

#[test]
fn who_was_merely_held_up_gets_no_time_beyond_the_lease() {
    let bench = Bench::new();
    let (leader, wrapper) = (Sleeper::start(), Sleeper::start());
    let start = Moment::now();
    let run = bench.run(&leader, &wrapper, start.boot + Duration::from_secs(30));
    let mut worker = by_hand(&bench, start);
    worker.turn(later(start, Duration::from_millis(99), Duration::from_secs(40)));
    assert_eq!(run.stop().unwrap().denial.code, Code::LeaseExpired);
}

#[test]
fn a_run_that_is_over_is_not_written_down_again() {
    let bench = Bench::new();
    let (leader, wrapper) = (Sleeper::start(), Sleeper::start());
    let until = BootTime::now() + Duration::from_mins(1);
    let files = || std::fs::read_dir(bench.directory.path().join("runs")).unwrap().count();
    let written = |count: usize| {
        while files() != count {
            std::thread::yield_now();
        }
    };
    let last = bench.run(&leader, &wrapper, until);
    for _ in 0..100 {
        let run = bench.run(&leader, &wrapper, until);
        bench.ledger.changed(&run);
        run.note_wrapper_left();
        run.note_tree_end();
        bench.roster.forget(&run, &bench.ledger);
        // What was on its way when the run ended.
        bench.ledger.changed(&run);
    }
    bench.ledger.changed(&last);
    written(1);
}
