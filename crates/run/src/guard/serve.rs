//! The guardian's process: forks the leader, then carries out what [`GuardianCore`] decides in a loop of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Exit;
use machineid_protocol::local::SuperviseEvent;
use machineid_sys::{self as sys, Fork, ForkError, ForkOptions, Namespaces, SignalFd};
use machineid_tree::{
    Advance, FirstSignal, Guardian, Identity, Leaf, Next, Pid as TreePid, ProcessEntry, ScanAttempt, ScanTurn, Stop,
    Tree,
};
use nix::sys::prctl;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

use super::super::child::{self, CommandPlan, LeaderEnds};
use super::super::connection::DaemonConnection;
use super::super::event::WrapperEvent;
use super::super::timer::DeadlineTimer;
use super::super::{Run, wire};
use super::core::{DaemonAnswer, GuardianAction, GuardianCore, GuardianEvent};
use super::handle::GuardianStart;
use super::message::{GuardianOrder, GuardianReport, GuardianStep, SIZE, StopTerms};
use super::{GuardianKind, namespace};

/// Children reaped before everything else is looked at again, a tenth of a second's worth. Not fewer: each look at `/proc` takes
/// the longer the more there are, and an agent that forks as fast as it can makes thousands in that time.
const ROUND: usize = 32_768;
/// Time to the next look when one failed or found nobody.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a tree may take to end after SIGKILL before it is looked at less often: what is left cannot be ended.
const STUBBORN: Duration = Duration::from_secs(10);
/// How often it is looked at then.
const STUBBORN_PAUSE: Duration = Duration::from_secs(1);

/// How long it stands aside at the start.
const ASIDE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// What passes to it.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) wrapper: Pid,
    /// To the wrapper; the wrapper's own end is closed.
    pub(super) control: OwnedFd,
    pub(super) ends: LeaderEnds,
}

/// Becomes the guardian, in the forked process.
pub(super) fn guard(start: &GuardianStart<'_>, inheritance: Inheritance) -> ! {
    let GuardianStart { run, signals, kind, leaf } = *start;
    let Inheritance { wrapper, control, ends } = inheritance;
    let refuse = |step: GuardianStep, errno: Errno| -> ! {
        let _ = send(&control, GuardianReport::Cannot(step, errno.raw_os_error()));
        sys::exit_now(Exit::Wrapper.code())
    };
    let own = rustix::process::getpid();
    // What the terminal sends to the wrapper's group is not for it.
    let mut ready = nix::unistd::setpgid(child::OWN, child::OWN);
    match kind {
        GuardianKind::Sweeper => ready = ready.and_then(|()| prctl::set_child_subreaper(true)),
        GuardianKind::Init(user) => {
            if let Err((step, errno)) = namespace::furnish(user, &control) {
                refuse(step, errno);
            }
        }
    }
    if let Err(errno) = ready {
        refuse(GuardianStep::Prepare, sys::from_nix(errno));
    }
    let plan = CommandPlan {
        command: &run.command,
        environment: &run.environment,
        socket: run.socket.as_os_str(),
        run_id: run.settings.run_id,
        wrapper,
    };
    // A move into the group afterwards waits for every processor to take notice; one who is made there has no need to.
    let straight = leaf.map(|leaf| {
        sys::fork_with(ForkOptions { into_cgroup: Some(leaf.directory()), namespaces: Namespaces::default() })
    });
    let (forked, mut in_leaf) = match straight {
        Some(Ok(forked)) => (Ok(forked), true),
        Some(Err(_)) | None => (sys::fork(), false),
    };
    let leader = match forked {
        Ok(Fork::Child) => {
            let announce = || {
                if let Some(leaf) = leaf.filter(|_| !in_leaf) {
                    in_leaf = leaf.enter(TreePid::own()).is_ok();
                }
                let _ = send(&control, GuardianReport::Here { in_leaf });
                drop(control);
            };
            child::become_command(&plan, signals, own, ends, announce)
        }
        Ok(Fork::Parent(leader)) => leader,
        Err(ForkError::Kernel(errno)) => refuse(GuardianStep::Fork, errno),
        Err(ForkError::Threads | ForkError::NoProc) => refuse(GuardianStep::Prepare, Errno::NOENT),
    };
    let _ = prctl::set_name(match kind {
        GuardianKind::Sweeper => c"machineid-guard",
        GuardianKind::Init(_) => c"machineid-init",
    });
    let timer = match DeadlineTimer::new() {
        Ok(timer) => timer,
        Err(errno) => refuse(GuardianStep::Prepare, errno),
    };
    // The wrapper is about to be told that the leader is there, has the question to ask, and may have been waiting on this
    // very processor. Until it or the leader ends nothing of the following is needed; what it says meanwhile is there to be
    // read.
    let ends = &mut [PollFd::new(&control, PollFlags::empty()), PollFd::new(signals, PollFlags::IN)];
    let _ = rustix::event::poll(ends, Some(&ASIDE));
    let prepared = sys::close_others(&[control.as_fd(), signals.as_fd(), timer.as_fd()]).and_then(|()| {
        // At once, while their numbers are free.
        occupy_standard_streams();
        let leader = identity(leader)?;
        let own = identity(own)?;
        let tree = match kind {
            // The wrapper is out of sight, in a namespace above.
            GuardianKind::Init(_) => Tree::alone(leader, Some(own)),
            // Whoever of the tree loses its parent comes here, wrapper or not.
            GuardianKind::Sweeper => Tree::alone(leader, None).guarded_by(Guardian::Sweeper(own)),
        };
        Ok(tree.with_cookie(run.settings.run_id))
    });
    let mut tree = match prepared {
        Ok(prepared) => prepared,
        Err(errno) => refuse(GuardianStep::Prepare, errno),
    };
    // The wrapper's descriptors of it have just been closed.
    let leaf = leaf.and_then(|leaf| Leaf::reopen(leaf.path(), run.settings.run_id).ok().flatten()).map(Arc::new);
    if let Some(leaf) = &leaf {
        tree = tree.in_leaf(Arc::clone(leaf));
    }
    let guard = GuardianProcess {
        run,
        signals,
        control: Some(control),
        timer,
        core: GuardianCore::new(),
        leader: Leader { pid: leader, state: LeaderState::Lives },
        tree,
        init: matches!(kind, GuardianKind::Init(_)),
        question: None,
        stop: None,
        turns: ScanTurn::default(),
        vanishing: false,
    };
    guard.serve()
}

fn identity(pid: Pid) -> Result<Identity, Errno> {
    ProcessEntry::read(TreePid::from(pid))?.map(|entry| entry.identity).ok_or(Errno::SRCH)
}

/// The command's streams are none of its own: who reads the command's output to its end must not wait for the guardian. Something
/// has to have their numbers all the same, or the next descriptor would be taken for one of them.
fn occupy_standard_streams() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

fn send(control: &OwnedFd, report: GuardianReport) -> Result<usize, Errno> {
    rustix::net::send(control, &report.write(), SendFlags::NOSIGNAL)
}

#[derive(Debug)]
struct Leader {
    pid: Pid,
    state: LeaderState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaderState {
    Lives,
    /// The wrapper has been told; not reaped.
    Ended,
    Reaped,
}

#[derive(Debug)]
struct GuardianProcess<'a> {
    run: &'a Run,
    signals: &'a SignalFd,
    /// `None` when the wrapper has ended.
    control: Option<OwnedFd>,
    timer: DeadlineTimer,
    core: GuardianCore,
    leader: Leader,
    tree: Tree,
    /// Whether its own end ends the tree.
    init: bool,
    /// To the daemon, and since when.
    question: Option<(DaemonConnection, BootTime)>,
    stop: Option<(Stop, BootTime)>,
    turns: ScanTurn,
    /// Children that end leave nothing to be reaped.
    vanishing: bool,
}

impl GuardianProcess<'_> {
    fn serve(mut self) -> ! {
        let mut more = false;
        loop {
            if !more {
                self.wait();
            }
            self.hear_wrapper();
            self.hear_daemon();
            self.drain_signals();
            more = self.reap();
            self.event(GuardianEvent::Tick);
            self.step_stop();
        }
    }

    fn event(&mut self, event: GuardianEvent) {
        for action in self.core.handle(BootTime::now(), event) {
            match action {
                GuardianAction::Tell(report) => {
                    // A wrapper that reads nothing is noticed by its silence.
                    let _ = self.control.as_ref().map(|control| send(control, report));
                }
                GuardianAction::Ask => self.ask(),
                GuardianAction::LookAtListener => {
                    let can_act = self.question.as_ref().is_some_and(|(question, _)| question.listener_can_act());
                    self.event(GuardianEvent::Listener { can_act });
                }
                GuardianAction::DropQuestion => self.question = None,
                GuardianAction::Begin { first_signal, kill_at } => self.begin(first_signal, kill_at),
            }
        }
    }

    fn wait(&self) {
        let stop_at = self.stop.as_ref().map(|(_, at)| *at);
        self.timer.set(self.core.wake_at().into_iter().chain(stop_at).min());
        let mut fds = vec![PollFd::new(self.signals, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        fds.extend(self.control.iter().map(|control| PollFd::new(control, PollFlags::IN)));
        fds.extend(self.question.iter().map(|(question, _)| PollFd::new(question, question.interest())));
        let _ = rustix::event::poll(&mut fds, None);
        self.timer.clear();
    }

    fn hear_wrapper(&mut self) {
        while let Some(control) = &self.control {
            let mut bytes = [0_u8; SIZE + 1];
            match rustix::net::recv(control, &mut bytes[..], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok((count, _)) if count > 0 => match GuardianOrder::read(&bytes[..count]) {
                    Some(order) => {
                        if let GuardianOrder::Terms(StopTerms { in_leaf: true, .. }, _) = order {
                            self.find_leaf();
                        }
                        self.event(GuardianEvent::Told(order));
                    }
                    None => self.wrapper_gone(),
                },
                Ok(_) | Err(_) => self.wrapper_gone(),
            }
        }
    }

    /// The control group that the daemon has made, if the wrapper did not.
    fn find_leaf(&mut self) {
        if self.tree.leaf().is_none()
            && let Ok(Some(leaf)) = Leaf::around(TreePid::from(self.leader.pid), self.run.settings.run_id)
        {
            self.tree = self.tree.clone().in_leaf(Arc::new(leaf));
        }
    }

    fn wrapper_gone(&mut self) {
        self.control = None;
        self.event(GuardianEvent::WrapperGone);
    }

    fn ask(&mut self) {
        let asked = DaemonConnection::open(&self.run.socket)
            .and_then(|connection| connection.ask(wire::inquiry(self.run.settings.run_id)));
        match asked {
            Ok(connection) => self.question = Some((connection, BootTime::now())),
            Err(_) => self.event(GuardianEvent::Answer(DaemonAnswer::Unknown)),
        }
    }

    fn hear_daemon(&mut self) {
        let Some((question, asked_at)) = &mut self.question else { return };
        let Some(event) = question.advance().into_iter().next() else { return };
        let answer = read_answer(&event, *asked_at);
        self.question = None;
        self.event(GuardianEvent::Answer(answer));
    }

    fn drain_signals(&self) {
        while matches!(self.signals.next(), Ok(Some(_))) {}
    }

    /// Reaps whatever has ended. Ends with the last child. Says whether there may be more to reap.
    fn reap(&mut self) -> bool {
        if self.leader.state == LeaderState::Lives {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            let stopped = rustix::process::waitid(WaitId::Pid(self.leader.pid), options).ok().flatten();
            if let Some(signal) = stopped.and_then(|status| status.stopping_signal()) {
                self.event(GuardianEvent::LeaderStopped(signal));
            }
        }
        for _ in 0..ROUND {
            match sys::ended_child() {
                Err(Errno::CHILD) => self.end(),
                Ok(None) | Err(_) => return false,
                Ok(Some(pid)) if pid == self.leader.pid && self.leader.state != LeaderState::Reaped => {
                    if self.leader.state == LeaderState::Lives {
                        self.leader.state = LeaderState::Ended;
                        let status = look_at(pid, WaitIdOptions::NOWAIT);
                        let alone = nobody_else_lives();
                        self.event(GuardianEvent::LeaderEnded { exit: exit_of(status.as_ref()), alone });
                    }
                    if !self.core.may_reap_leader() {
                        self.reap_all_but_leader();
                        return false;
                    }
                    self.leader.state = LeaderState::Reaped;
                    look_at(pid, WaitIdOptions::empty());
                }
                Ok(Some(pid)) => {
                    look_at(pid, WaitIdOptions::empty());
                }
            }
        }
        true
    }

    /// The leader stands in front of all others for as long as it is not reaped, which a wrapper that was stopped can make a
    /// long time. The kernel's list of children names them one by one; where it is not built in they have to wait.
    fn reap_all_but_leader(&self) {
        let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") else { return };
        let pids = children.split_ascii_whitespace().filter_map(|number| number.parse().ok().and_then(Pid::from_raw));
        for pid in pids.filter(|&pid| pid != self.leader.pid) {
            look_at(pid, WaitIdOptions::empty());
        }
    }

    /// Nobody is left.
    fn end(&self) -> ! {
        // The wrapper does it when it lives; who comes second finds nothing to do.
        let _ = self.tree.leaf().map(|leaf| leaf.remove());
        sys::exit_now(Exit::Success.code())
    }

    fn begin(&mut self, first_signal: FirstSignal, kill_at: BootTime) {
        let now = BootTime::now();
        let grace = kill_at.saturating_since(now);
        self.stop = Some((Stop::begin(now, self.tree.clone(), self.core.signal(), first_signal, grace), now));
    }

    fn step_stop(&mut self) {
        let now = BootTime::now();
        let Some((stop, at)) = &mut self.stop else { return };
        if now < *at {
            return;
        }
        let kill_at = stop.ladder().kill_at();
        if self.init && now >= kill_at {
            // The kernel ends everything in the namespace with its first process.
            sys::exit_now(Exit::Success.code());
        }
        if now >= kill_at && self.core.may_reap_leader() && !self.vanishing {
            // Whoever it is that ends now, nobody waits for how.
            self.vanishing = sys::let_children_vanish().is_ok();
        }
        let stubborn = now > kill_at + STUBBORN;
        // Reaped whoever had ended, a moment ago; so this has only the living to go through.
        let next = match stop.advance(now) {
            Advance::Next(next) => next,
            // What is left is to be reaped. The wrapper may have to be waited for with that.
            Advance::Empty => Next::Over,
            Advance::NeedsTable => match self.turns.scan(now, stop.table_deadline(now)) {
                Ok(ScanAttempt::Table(table)) => stop.step(now, &table),
                Ok(ScanAttempt::RetryAt(at)) => Next::LookAt(at),
                Err(Errno::TIME) => Next::LookAt(now),
                Err(_) => Next::Over,
            },
        };
        *at = match next {
            Next::LookAt(_) | Next::Over if stubborn => now + STUBBORN_PAUSE,
            // Whoever ends meanwhile is its child, and wakes it.
            Next::LookAt(_) if now < kill_at && stop.ladder().is_calm() => kill_at,
            Next::LookAt(next) => next,
            Next::Over => now + PAUSE,
        };
    }
}

/// Whether every child has ended: then the tree is empty, since each orphan of it is a child.
fn nobody_else_lives() -> bool {
    // Asked for stopped children only, the kernel says that there are none to wait for when all have ended.
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(rustix::process::waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// The state of a child that has ended; without `NOWAIT` it is reaped.
fn look_at(pid: Pid, options: WaitIdOptions) -> Option<WaitIdStatus> {
    let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    rustix::process::waitid(WaitId::Pid(pid), options).ok().flatten()
}

fn exit_of(status: Option<&WaitIdStatus>) -> Exit {
    let number = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match status.and_then(WaitIdStatus::terminating_signal) {
        Some(signal) => Exit::Signal(number(signal)),
        None => Exit::Command(number(status.and_then(WaitIdStatus::exit_status).unwrap_or(255))),
    }
}

fn read_answer(event: &WrapperEvent, asked_at: BootTime) -> DaemonAnswer {
    match event {
        WrapperEvent::Line(SuperviseEvent::Stop { grace_ms, .. }) => {
            DaemonAnswer::Stopping { grace: Duration::from_millis(*grace_ms) }
        }
        WrapperEvent::Line(SuperviseEvent::Lease { boot_ms, until_boot_ms }) => {
            // As the wrapper does: never later than the true point.
            let left = Duration::from_millis(until_boot_ms.saturating_sub(*boot_ms));
            DaemonAnswer::Lease { deadline: asked_at + left }
        }
        WrapperEvent::Line(
            SuperviseEvent::Allow { .. } | SuperviseEvent::Undecided { .. } | SuperviseEvent::Error { .. },
        )
        | WrapperEvent::Refused(_)
        | WrapperEvent::Lost(_)
        | WrapperEvent::Signal { .. }
        | WrapperEvent::LeaderStopped(_)
        | WrapperEvent::LeaderEnded { .. }
        | WrapperEvent::CannotExecute(..)
        | WrapperEvent::NotStopped
        | WrapperEvent::Frozen(_)
        | WrapperEvent::GuardianStops { .. }
        | WrapperEvent::GuardianKilled
        | WrapperEvent::Resumed
        | WrapperEvent::TreeEmpty
        | WrapperEvent::Stuck
        | WrapperEvent::Tick => DaemonAnswer::Unknown,
    }
}
