//! Many agents that do not listen, stopped at once; and an agent that makes what the stop of others would wait for.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::census::with_marks;
use super::matrix::{Ender, Mode, User};
use crate::harness::authority::{Authority, Org};
use crate::harness::load::Stalls;
use crate::harness::place::{can_make_cgroups, cgroup_of, is_root, skipped};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::{clock, until};
use crate::harness::wrapper::{Running, children_of, guardian_of, send, unique_sleep};

const DEVICE: &str = "crowd-host:1";
const AGENTS: usize = 40;
/// Of each agent: a shell and two sleeps.
const PROCESSES: usize = 3;
const GRACE: Duration = Duration::from_secs(2);
/// What the promise allows beyond it.
const BEYOND: Duration = Duration::from_secs(1);
/// An agent that ignores SIGTERM; `$0` is its mark.
const STUBBORN: &str = r#"trap "" TERM; sleep "$0" & sleep "$0" & echo agent ready; wait; exec sleep "$0""#;

/// Who is left to end the trees when it comes to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killers {
    All,
    /// Wrappers and guardians are stopped before the deny.
    DaemonAlone,
    /// The daemon is killed once it has begun.
    WrappersAlone,
    /// The daemon is there, and does nothing any more once it has begun.
    DaemonHangs,
}

struct Crowd {
    mark: Ender,
    wrapped: Vec<Wrapped>,
}

impl Crowd {
    fn start(sidecar: &Sidecar, mode: Mode, count: usize) -> Self {
        let mark = Ender(unique_sleep().to_string());
        let words = ["sh", "-c", STUBBORN, mark.mark()];
        // A busy host takes its time to start so many.
        let flags = ["--containment", mode.word(), "--wait=1m"];
        let mut wrapped: Vec<_> = (0..count).map(|_| Wrapped::start(sidecar.wrap(&flags, &words))).collect();
        for agent in &mut wrapped {
            agent.line_with("agent ready");
        }
        let crowd = Self { mark, wrapped };
        until("all of it is there", || (crowd.left() == count * PROCESSES).then_some(()));
        crowd
    }

    /// How many processes of the agents live.
    fn left(&self) -> usize {
        with_marks(&[self.mark.mark()]).iter().filter(|found| !found.is_supervisor()).count()
    }
}

fn sidecar_of(org: &Org<'_>, authority: &Authority, mode: Mode) -> Option<Sidecar> {
    let user = if is_root() { User::Root } else { User::Ordinary };
    let place = match mode.place(user) {
        Ok(place) => place,
        Err(why) => {
            skipped(&format!("a crowd in {}", mode.word()), why);
            return None;
        }
    };
    let mut setup = Setup::of(org, &authority.url(), DEVICE).at(place);
    setup.enforcement = format!("interval = \"200ms\"\nlease = \"2m\"\nstop_grace = \"{}s\"", GRACE.as_secs());
    Some(setup.start())
}

fn begun(sidecar: &Sidecar) -> usize {
    sidecar.log().matches("stopping the agent").count()
}

fn a_crowd_ends(mode: Mode, killers: Killers) {
    let authority = Authority::start();
    let org = authority.org("pro");
    let Some(mut sidecar) = sidecar_of(&org, &authority, mode) else { return };
    let mut crowd = Crowd::start(&sidecar, mode, AGENTS);
    let supervisors: Vec<i32> =
        crowd.wrapped.iter().flat_map(|agent| [agent.pid(), guardian_of(agent.pid())]).collect();
    if killers == Killers::DaemonAlone {
        for &pid in &supervisors {
            send(pid, Signal::STOP);
        }
    }
    org.device("revoke", DEVICE);
    until("all stops have begun", || (begun(&sidecar) == AGENTS).then_some(()));
    // The daemon's one thread looks for what has arrived between any eight of its tasks, so that one answer may come before
    // most wrappers have been told, but not one answer for each of them.
    for _ in 0..AGENTS {
        sidecar.get("/healthz").expect("the daemon answers");
    }
    // Later than the moment from which the grace counts: what is measured is no longer than what is promised.
    let (began, stalls) = (clock(), Stalls::from_now());
    match killers {
        Killers::All | Killers::DaemonAlone => {}
        Killers::WrappersAlone => sidecar.kill(),
        Killers::DaemonHangs => sidecar.signal(Signal::STOP),
    }
    until("no process is left", || (crowd.left() == 0).then_some(()));
    let took = began.elapsed();
    assert!(took <= GRACE + BEYOND + stalls.allowance(), "{mode:?}, {killers:?}: {took:?}\n{}", sidecar.log());
    if killers == Killers::DaemonHangs {
        sidecar.signal(Signal::CONT);
    }
    for agent in &mut crowd.wrapped {
        let (code, said) = (agent.exit_code(), agent.stderr());
        assert!(!said.contains("after SIGKILL"), "{mode:?}, {killers:?}: {said}");
        if killers != Killers::DaemonAlone {
            assert_eq!(code, 77, "{mode:?}, {killers:?}: {said}");
        }
    }
    assert!(!sidecar.log().contains("outlived SIGKILL"), "{mode:?}, {killers:?}: {}", sidecar.log());
}

#[test]
fn a_crowd_that_does_not_listen_ends_within_the_bound_and_nobody_is_called_a_survivor() {
    for mode in [Mode::Cgroup, Mode::Subreaper, Mode::Pidns] {
        a_crowd_ends(mode, Killers::All);
    }
}

#[test]
fn the_daemon_alone_ends_a_crowd_that_does_not_listen() {
    for mode in [Mode::Cgroup, Mode::Subreaper, Mode::Pidns] {
        a_crowd_ends(mode, Killers::DaemonAlone);
    }
}

#[test]
fn wrappers_alone_end_a_crowd_that_does_not_listen() {
    for mode in [Mode::Cgroup, Mode::Subreaper, Mode::Pidns] {
        a_crowd_ends(mode, Killers::WrappersAlone);
        a_crowd_ends(mode, Killers::DaemonHangs);
    }
}

/// How many system calls that read a process has made, those whose end it has seen included. `None` where the kernel does
/// not tell.
fn reads(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse().ok()
}

#[test]
fn wrapper_and_guardian_read_no_process_tables_while_the_daemon_ends_the_tree() {
    let what = "what a wrapper reads during a stop";
    if !is_root() {
        return skipped(what, "only root is told what our programs read");
    }
    for mode in [Mode::Cgroup, Mode::Subreaper, Mode::Pidns] {
        // Where a loaded machine makes the daemon late, both do look. One stop in three in which it is in time will do.
        let mut read = (0..3).map_while(|_| reads_of_a_stop(mode)).peekable();
        assert!(read.peek().is_none() || read.any(|read| read < FEW), "{mode:?}: the supervisors read process tables");
    }
}

/// Each process of a table is one read; there are well over two hundred.
const FEW: u64 = 150;

/// How often the supervisors of an agent read while it is stopped, beside two hundred other processes. `None` where this cannot
/// be found out.
fn reads_of_a_stop(mode: Mode) -> Option<u64> {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = sidecar_of(&org, &authority, mode)?;
    let _others: Vec<_> = (0..200).map(|_| Running::start(Command::new("sleep").arg("600"))).collect();
    let mut crowd = Crowd::start(&sidecar, mode, 1);
    let wrapper = crowd.wrapped[0].pid();
    let before = reads(wrapper).zip(reads(guardian_of(wrapper))).map(|(own, guard)| own + guard);
    let Some(before) = before else {
        skipped("what a wrapper reads during a stop", "the kernel does not account for it");
        return None;
    };
    org.device("revoke", DEVICE);
    let id = WaitId::Pid(Pid::from_raw(wrapper).unwrap());
    // It stays a zombie, of which the kernel tells all that it and those it has reaped have read.
    rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let read = reads(wrapper).unwrap() - before;
    assert_eq!(crowd.wrapped[0].exit_code(), 77);
    Some(read)
}

/// Makes so many groups below its own, whatever limit there is, and then does not listen.
const GROUPS: &str = r#"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
here = sys.argv[1]
open(here + "/cgroup.max.descendants", "w").write("max")
for n in range(int(sys.argv[2])): os.mkdir(here + "/g%d" % n)
print("agent ready", flush=True)
while True: time.sleep(60)
"#;

#[test]
fn an_agent_with_twenty_thousand_groups_does_not_delay_the_stop_of_another() {
    let what = "an agent with many control groups";
    if !is_root() || !can_make_cgroups() {
        return skipped(what, "this takes root, and control groups of version 2");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let Some(sidecar) = sidecar_of(&org, &authority, Mode::Cgroup) else { return };
    let maker = r#"read here && exec python3 -S -c "$0" "$here" 20000"#;
    let mut command = sidecar.wrap(&["--containment", "cgroup"], &["sh", "-c", maker, GROUPS]);
    command.stdin(Stdio::piped());
    let mut greedy = Wrapped::start(command);
    let leader = until("its leader", || children_of(guardian_of(greedy.pid())).first().copied());
    let leaf = until("it is in its leaf", || {
        cgroup_of(&leader.to_string())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("machineid-")))
    });
    let limit = fs::read_to_string(leaf.join("cgroup.max.descendants")).unwrap();
    assert_ne!(limit.trim(), "max", "a leaf that was made for a run has a limit");
    writeln!(greedy.stdin(), "{}", leaf.display()).unwrap();
    greedy.line_with("agent ready");
    let mut crowd = Crowd::start(&sidecar, Mode::Cgroup, 1);
    org.device("revoke", DEVICE);
    until("all stops have begun", || (begun(&sidecar) == 2).then_some(()));
    let (began, stalls) = (clock(), Stalls::from_now());
    until("the other one is gone", || (crowd.left() == 0).then_some(()));
    let took = began.elapsed();
    println!("  beside 20,000 groups: {took:.0?}");
    assert!(took <= GRACE + Duration::from_millis(300) + stalls.allowance(), "{took:?}");
    assert_eq!((crowd.wrapped[0].exit_code(), greedy.exit_code()), (77, 77), "{}", greedy.stderr());
    until("its groups are removed", || (!Path::new(&leaf).exists()).then_some(()));
}
