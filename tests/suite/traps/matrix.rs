//! Every shape in every containment, as root, as an ordinary user, and as an ordinary user under root's daemon; ended by a
//! revoke, by SIGKILL to its wrapper, and by the end of its lease with the daemon killed.
//!
//! A control group goes with its tree, and whatever a killed daemon left to others its next start ends.
//!
//! One test for each containment, user and event, with one daemon for all shapes at once and one for the comets, which on a
//! small host leave nothing to others.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use machineid_protocol::Containment;
use rustix::process::Signal;
use serde_json::Value;

use super::census::{end_those_with, with_marks};
use super::comet;
use super::shapes::{CLEANS_UP, COUNTS, GAVE_UP, Pace, SHAPES, STOPS_WRAPPER, Shape, Stage, Temper, Witness};
use crate::harness::authority::Authority;
use crate::harness::place::{Place, can_make_cgroups, can_make_pid_namespaces, cgroup_of, is_root, skipped};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;
use crate::harness::wrapper::unique_sleep;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Auto,
    Cgroup,
    Pidns,
    Subreaper,
}

/// Who runs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    Root,
    Ordinary,
    OrdinaryUnderRoot,
}

/// What ends the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Revoke,
    WrapperKilled,
    LeaseEnds,
}

impl Mode {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cgroup => "cgroup",
            Self::Pidns => "pidns",
            Self::Subreaper => "subreaper",
        }
    }

    /// What it must come to where this user can have a control group.
    const fn comes_to(self) -> Containment {
        match self {
            Self::Auto | Self::Cgroup => Containment::Cgroup,
            Self::Pidns => Containment::Pidns,
            Self::Subreaper => Containment::Subreaper,
        }
    }

    /// The place for it, if this host has it: found out without our programs, so that what they could have
    /// and do not get is a failure.
    pub(super) fn place(self, user: User) -> Result<Place, &'static str> {
        let place = match user {
            User::Root if is_root() => Place::own(),
            User::OrdinaryUnderRoot if is_root() => Place::ordinary_under_root(),
            User::Root | User::OrdinaryUnderRoot => return Err("this takes root"),
            // With a control group of its own, or none could be had.
            User::Ordinary if is_root() && matches!(self, Self::Auto | Self::Cgroup) => {
                Place::ordinary_delegated().ok_or("no control group of version 2 can be made here")?
            }
            User::Ordinary if is_root() => Place::ordinary(),
            User::Ordinary => Place::own(),
        };
        match self {
            Self::Auto | Self::Cgroup if !(is_root() || can_make_cgroups()) => {
                Err("this user can make no control group")
            }
            Self::Cgroup if is_root() && !can_make_cgroups() => Err("no control group of version 2 can be made here"),
            Self::Pidns if !can_make_pid_namespaces(&place) => Err("this user can make no PID namespace"),
            Self::Auto | Self::Cgroup | Self::Pidns | Self::Subreaper => Ok(place),
        }
    }
}

/// A shape on its stage.
struct Trial {
    shape: &'static Shape,
    stage: Stage,
    wrapped: Wrapped,
    witness: Option<Witness>,
    _mark: Ender,
}

/// Ends the processes that have this mark, when dropped.
pub(super) struct Ender(pub(super) String);

impl Ender {
    pub(super) fn mark(&self) -> &str {
        &self.0
    }
}

impl Drop for Ender {
    fn drop(&mut self) {
        end_those_with(&[&self.0]);
    }
}

impl Trial {
    fn start(sidecar: &Sidecar, scratch: &Path, mode: Mode, shape: &'static Shape) -> Self {
        let mark = unique_sleep().to_string();
        let place = sidecar.place();
        let stage = Stage {
            directory: scratch.join(&mark),
            comet: comet_program(place),
            // All of them together never fill the table of processes, even if none is reaped or ended.
            pace: Pace { nap: Duration::from_millis(5), hops: 2_500 },
            wrapper: place.reachable(env!("CARGO_BIN_EXE_machineid-run")),
            socket: sidecar.socket(),
            mark,
        };
        fs::create_dir(&stage.directory).unwrap();
        place.give_to_agents(&stage.directory);
        let command = shape.command(&stage);
        let command: Vec<&str> = command.iter().map(|word| word.to_str().unwrap()).collect();
        let status = stage.directory.join("status.json");
        // On a busy host an answer may come after the end of the short lease it names; then it is asked for again.
        let flags = ["--wait=1m", "--containment", mode.word(), "--status-file", status.to_str().unwrap()];
        let witness = shape.is_comets().then(|| Witness::of(&stage));
        let wrapped = Wrapped::start(sidecar.wrap(&flags, &command));
        Self { shape, _mark: Ender(stage.mark.clone()), stage, wrapped, witness }
    }

    /// The wrapper's own account of the end.
    fn status(&self) -> Value {
        let text = fs::read_to_string(self.stage.directory.join("status.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn noted(&self) -> Vec<String> {
        fs::read_to_string(self.stage.noted()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn comet_program(place: &Place) -> Vec<std::ffi::OsString> {
    let mut words = vec![place.reachable(std::env::current_exe().unwrap()).into_os_string()];
    words.extend(comet::ARGUMENTS.map(Into::into));
    words
}

/// Whether nothing of the shape may be left after this.
fn must_be_gone(shape: &Shape, mode: Mode, user: User, event: Event) -> bool {
    match shape.temper {
        Temper::Uncooperative | Temper::Hostile => true,
        Temper::Murderous => match mode {
            Mode::Pidns => true,
            // The daemon has the control group; at the end of the lease it is gone, and its next start would end them.
            Mode::Cgroup | Mode::Auto => event != Event::LeaseEnds && user == User::OrdinaryUnderRoot,
            Mode::Subreaper => false,
        },
    }
}

fn trial_of_all(mode: Mode, user: User, event: Event) {
    let name = format!("{} as {user:?}, {event:?}", mode.word());
    let (comets, others): (Vec<&'static Shape>, Vec<&'static Shape>) =
        SHAPES.iter().partition(|shape| shape.is_comets());
    if let Err(why) = mode.place(user) {
        return skipped(&name, why);
    }
    // Said when all are gone: else each wrapper's output would be shown.
    let wrong: String = thread::scope(|scope| {
        let trials = [others, comets]
            .map(|shapes| scope.spawn(move || what_is_wrong(mode.place(user).unwrap(), mode, user, event, &shapes)));
        trials.map(|trial| trial.join().unwrap()).concat()
    });
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
}

fn what_is_wrong(place: Place, mode: Mode, user: User, event: Event, shapes: &[&'static Shape]) -> String {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:matrix").at(place);
    let lease = if event == Event::LeaseEnds { "5s" } else { "2m" };
    setup.authority = format!("url = \"{}\"\ntimeout = \"3s\"", authority.url());
    setup.enforcement = format!("interval = \"200ms\"\nlease = \"{lease}\"\nstop_grace = \"6s\"");
    let mut sidecar = setup.start();
    let scratch = sidecar.directory().join("stages");
    fs::create_dir(&scratch).unwrap();

    let mut trials: Vec<Trial> = shapes.iter().map(|shape| Trial::start(&sidecar, &scratch, mode, shape)).collect();
    all_are_ready(&mut trials);
    let leaves = held_as_asked(&sidecar, mode, trials.len());

    for trial in trials.iter().filter(|trial| trial.shape.temper != Temper::Uncooperative) {
        fs::write(trial.stage.go(), "").unwrap();
    }
    match event {
        Event::Revoke => assert_eq!(org.device("revoke", "host:matrix").status, 200),
        Event::WrapperKilled => trials.iter().for_each(|trial| trial.wrapped.signal(Signal::KILL)),
        Event::LeaseEnds => sidecar.kill(),
    }
    let deadline = Deadline::from_now();
    let mut wrong = String::new();
    for trial in &mut trials {
        let gone = must_be_gone(trial.shape, mode, user, event);
        let what = end_of(trial, event, gone, &deadline);
        if let Some(what) = what.or_else(|| account_of(trial, mode, event)) {
            let _ = writeln!(wrong, "{}: {what}", trial.shape.name);
        }
    }
    if event == Event::LeaseEnds {
        sidecar.start_again();
        // One that its agent has stopped does not end before there is a daemon: what was waited for it is spent.
        let deadline = Deadline::from_now();
        let marks: Vec<&str> = trials.iter().map(|trial| trial.stage.mark.as_str()).collect();
        let mut left = Vec::new();
        deadline.wait_until(|| {
            left = with_marks(&marks);
            left.is_empty()
        });
        let left: Vec<_> = left.iter().map(|found| (trials[found.mark].shape.name, found)).collect();
        if !left.is_empty() {
            let _ = writeln!(wrong, "the daemon's next start leaves {left:?}");
        }
    }
    let deadline = Deadline::from_now();
    if gone_everywhere(mode, user, event) && !deadline.wait_until(|| !leaves.iter().any(|leaf| leaf.exists())) {
        let _ = writeln!(wrong, "control groups are left: {leaves:?}");
    }
    wrong
}

/// Whether every shape must be gone in the end, and its control group with it.
fn gone_everywhere(mode: Mode, user: User, event: Event) -> bool {
    event == Event::LeaseEnds || SHAPES.iter().all(|shape| must_be_gone(shape, mode, user, event))
}

fn all_are_ready(trials: &mut [Trial]) {
    for trial in trials {
        until(&format!("{:?} is ready", trial.shape.name), || {
            assert!(
                !trial.wrapped.has_ended() || trial.shape.temper != Temper::Uncooperative,
                "{:?} ended before it was ready: {}",
                trial.shape.name,
                trial.wrapped.stderr()
            );
            trial.shape.is_ready(&trial.stage).then_some(())
        });
    }
}

/// The daemon must say that they are held by what was asked for. Gives their control groups.
fn held_as_asked(sidecar: &Sidecar, mode: Mode, count: usize) -> Vec<PathBuf> {
    let status = sidecar.status();
    let agents = status["agents"].as_array().unwrap();
    // The nested one is a run of its own.
    assert!(agents.len() >= count, "{status}");
    let asked = agents.iter().filter(|agent| agent["containment"] == mode.comes_to().as_str()).count();
    assert!(asked >= count, "{asked} of {count} are held by {}: {status}", mode.comes_to());
    let groups = agents.iter().filter_map(|agent| cgroup_of(&agent["pid"].to_string()));
    groups
        .filter(|group| group.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"machineid-")))
        .collect()
}

/// What is wrong with how this trial ended.
fn end_of(trial: &mut Trial, event: Event, gone: bool, deadline: &Deadline) -> Option<String> {
    let mark = trial.stage.mark.clone();
    // Without a daemon nothing ends a wrapper that is stopped; its tree must end all the same.
    let stands_still = event == Event::LeaseEnds && trial.shape.name == STOPS_WRAPPER;
    let ended = stands_still || deadline.wait_until(|| trial.wrapped.has_ended());
    if !gone {
        return None;
    }
    if !ended {
        return Some("its wrapper does not end".to_owned());
    }
    // Once the wrapper has ended by itself no process is left: it reports no earlier. A guardian may be a moment behind.
    let by_itself = event != Event::WrapperKilled && trial.shape.temper == Temper::Uncooperative;
    if by_itself {
        let left: Vec<_> = with_marks(&[&mark]).into_iter().filter(|found| !found.is_supervisor()).collect();
        if !left.is_empty() {
            return Some(format!("the wrapper ended before {left:?}"));
        }
        if trial.witness.as_ref().is_some_and(|witness| !witness.is_alone(Duration::ZERO)) {
            return Some("the wrapper ended before its comets".to_owned());
        }
    }
    if trial.witness.as_ref().is_some_and(|witness| !witness.is_alone(deadline.left())) {
        return Some("comets are left".to_owned());
    }
    if trial.noted().iter().any(|line| line == GAVE_UP) {
        return Some("comets ended by themselves alone".to_owned());
    }
    let mut left = Vec::new();
    deadline.wait_until(|| {
        left = with_marks(&[&mark]);
        left.retain(|found| !(stands_still && found.is_supervisor()));
        left.is_empty()
    });
    (!left.is_empty()).then(|| format!("{left:?} are left"))
}

/// What is wrong with the account the wrapper gives, and with what the members noted.
fn account_of(trial: &mut Trial, mode: Mode, event: Event) -> Option<String> {
    if trial.shape.temper != Temper::Uncooperative {
        return None;
    }
    let noted = trial.noted();
    let asked = event != Event::WrapperKilled || mode != Mode::Pidns;
    if trial.shape.name == CLEANS_UP && asked && noted != ["cleaned up"] {
        return Some(format!("noted {noted:?}"));
    }
    if trial.shape.name == COUNTS && asked {
        let mut times = BTreeMap::new();
        for line in &noted {
            *times.entry(line.as_str()).or_insert(0) += 1;
        }
        if times.len() != 2 || times.values().any(|count| *count != 1) {
            return Some(format!("two processes, one stop signal each; noted {noted:?}"));
        }
    }
    let expected = match event {
        Event::Revoke => 77,
        Event::LeaseEnds => 75,
        Event::WrapperKilled => 128 + 9,
    };
    let code = trial.wrapped.exit_code();
    if code != expected {
        return Some(format!("exit code {code} instead of {expected}: {}", trial.wrapped.stderr()));
    }
    if event != Event::WrapperKilled {
        let status = trial.status();
        // One may be gone before its wrapper has heard of the stop, which then sends no signal. Of two that hold one
        // lease the inner may be the first.
        let did_nothing = status["signalled"] == 0 && status["killed"] == 0;
        // On a host whose processors others hold, one may take longer to go after its SIGKILL than is waited before it is
        // told of; that it has gone was seen above.
        let told = status["survivors"].as_array().cloned().unwrap_or_default();
        let going = |survivor: &Value| survivor["reason"] == "it was killed and has not exited yet";
        if !told.iter().all(going) || !(status["took_ms"].is_u64() || did_nothing) {
            return Some(format!("survivors {}, took {}: {status}", status["survivors"], status["took_ms"]));
        }
    }
    None
}

/// How long all trials together may take to end.
const ALL_ENDED: Duration = Duration::from_secs(40);

/// The moment by which all trials must have ended. Generous: what must be gone in time is in the wrappers' own accounts,
/// which name survivors after a bounded wait.
struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "a test's own deadline")]
    fn from_now() -> Self {
        Self(Instant::now() + ALL_ENDED)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own deadline")]
    fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// As [`until`], without the panic: the whole table is wanted.
    fn wait_until(&self, mut condition: impl FnMut() -> bool) -> bool {
        loop {
            let last = self.left().is_zero();
            if condition() {
                return true;
            }
            if last {
                return false;
            }
            crate::harness::let_time_pass(Duration::from_millis(20));
        }
    }
}

macro_rules! trials {
    ($($name:ident: $mode:ident $user:ident $event:ident;)*) => {
        $(#[test] fn $name() { trial_of_all(Mode::$mode, User::$user, Event::$event); })*
    };
}

trials! {
    a_revoke_leaves_nothing_in_a_cgroup_as_root: Cgroup Root Revoke;
    a_revoke_leaves_nothing_in_a_cgroup_as_an_ordinary_user: Cgroup Ordinary Revoke;
    a_revoke_leaves_nothing_in_a_cgroup_under_roots_daemon: Cgroup OrdinaryUnderRoot Revoke;
    a_revoke_leaves_nothing_in_a_pid_namespace_as_root: Pidns Root Revoke;
    a_revoke_leaves_nothing_in_a_pid_namespace_as_an_ordinary_user: Pidns Ordinary Revoke;
    a_revoke_leaves_nothing_in_a_pid_namespace_under_roots_daemon: Pidns OrdinaryUnderRoot Revoke;
    a_revoke_leaves_nothing_under_subreapers_as_root: Subreaper Root Revoke;
    a_revoke_leaves_nothing_under_subreapers_as_an_ordinary_user: Subreaper Ordinary Revoke;
    a_revoke_leaves_nothing_under_subreapers_under_roots_daemon: Subreaper OrdinaryUnderRoot Revoke;
    a_revoke_leaves_nothing_where_auto_decides_as_root: Auto Root Revoke;
    a_revoke_leaves_nothing_where_auto_decides_as_an_ordinary_user: Auto Ordinary Revoke;
    a_revoke_leaves_nothing_where_auto_decides_under_roots_daemon: Auto OrdinaryUnderRoot Revoke;

    a_killed_wrapper_leaves_nothing_in_a_cgroup_as_root: Cgroup Root WrapperKilled;
    a_killed_wrapper_leaves_nothing_in_a_cgroup_as_an_ordinary_user: Cgroup Ordinary WrapperKilled;
    a_killed_wrapper_leaves_nothing_in_a_cgroup_under_roots_daemon: Cgroup OrdinaryUnderRoot WrapperKilled;
    a_killed_wrapper_leaves_nothing_in_a_pid_namespace_as_root: Pidns Root WrapperKilled;
    a_killed_wrapper_leaves_nothing_in_a_pid_namespace_as_an_ordinary_user: Pidns Ordinary WrapperKilled;
    a_killed_wrapper_leaves_nothing_in_a_pid_namespace_under_roots_daemon: Pidns OrdinaryUnderRoot WrapperKilled;
    a_killed_wrapper_leaves_nothing_under_subreapers_as_root: Subreaper Root WrapperKilled;
    a_killed_wrapper_leaves_nothing_under_subreapers_as_an_ordinary_user: Subreaper Ordinary WrapperKilled;
    a_killed_wrapper_leaves_nothing_under_subreapers_under_roots_daemon: Subreaper OrdinaryUnderRoot WrapperKilled;

    the_end_of_a_lease_without_a_daemon_leaves_nothing_in_a_cgroup_as_root: Cgroup Root LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_in_a_cgroup_as_an_ordinary_user: Cgroup Ordinary LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_in_a_cgroup_of_roots_daemon: Cgroup OrdinaryUnderRoot LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_in_a_pid_namespace_as_root: Pidns Root LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_in_a_pid_namespace_as_an_ordinary_user: Pidns Ordinary LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_under_subreapers_as_root: Subreaper Root LeaseEnds;
    the_end_of_a_lease_without_a_daemon_leaves_nothing_under_subreapers_as_an_ordinary_user: Subreaper Ordinary LeaseEnds;
}
