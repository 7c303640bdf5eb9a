//! The guardian's process: forks the leader, then carries out what [`GuardianCore`] decides, in a loop.

use std::fs::OpenOptions;
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
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::unistd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

use super::super::child::{self, CommandPlan, LeaderEnds};
use super::super::connection::DaemonConnection;
use super::super::event::WrapperEvent;
use super::super::timer::DeadlineTimer;
use super::super::{Run, wire};
use super::core::{GuardianAction, GuardianCore, GuardianEvent, LeaseAnswer};
use super::handle::GuardianStart;
use super::message::{GuardianOrder, GuardianReport, GuardianStep, GuardianTerms, SIZE};
use super::{GuardianKind, isolation, namespace};

/// How many children are reaped before everything else is looked at again, which takes a tenth of a second. Not fewer:
/// each look at `/proc` takes longer the more zombies there are, and an agent in a fork storm makes thousands in that
/// time.
const ROUND: usize = 32_768;
/// Time to the next look after one that failed or found no process.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after SIGKILL a tree is looked at often. What is left after that cannot be ended.
const STUBBORN: Duration = Duration::from_secs(10);
/// Time between two looks after that.
const STUBBORN_PAUSE: Duration = Duration::from_secs(1);

/// How long the guardian waits at the start, to leave the processor to the wrapper, in milliseconds.
const ASIDE_MS: u8 = 2;

/// What the guardian takes over from the wrapper.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) wrapper: Pid,
    /// The connection to the wrapper; the wrapper's own end is closed here.
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
    // Signals that the terminal sends to the wrapper's group must not reach the guardian.
    let mut ready = unistd::setpgid(child::OWN, child::OWN);
    let mut numbers = 0;
    match kind {
        GuardianKind::Sweeper => ready = ready.and_then(|()| prctl::set_child_subreaper(true)),
        GuardianKind::Init(user) => {
            if let Err((step, errno)) = namespace::furnish(user, &control) {
                refuse(step, errno);
            }
            // Never a reason not to start.
            numbers = namespace::scatter_process_numbers().err().map_or(0, Errno::raw_os_error);
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
    // A process that is moved into the group later waits for every processor; one that is made inside does not.
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
                // Before any process learns the leader's number: the daemon is asked about a leader that is isolated.
                if let Some(isolation) = &run.isolation
                    && let Err((step, errno)) = isolation::enter(isolation)
                {
                    let _ = send(&control, GuardianReport::Cannot(step, errno.raw_os_error()));
                    sys::exit_now(Exit::Wrapper.code());
                }
                if let Some(leaf) = leaf.filter(|_| !in_leaf) {
                    in_leaf = leaf.enter(TreePid::own()).is_ok();
                }
                let _ = send(&control, GuardianReport::Here { in_leaf, numbers });
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
    // The wrapper is about to learn that the leader exists, has the question to ask, and may have been waiting for this
    // very processor. Until wrapper or leader ends, nothing of the following is needed; orders that come meanwhile can
    // be read later.
    let ends = &mut [PollFd::new(control.as_fd(), PollFlags::empty()), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let _ = poll(ends, ASIDE_MS);
    let prepared = sys::close_others(&[control.as_fd(), signals.as_fd(), timer.as_fd()]).and_then(|()| {
        // At once, while these numbers are free.
        occupy_standard_streams();
        let leader = identity(leader)?;
        let own = identity(own)?;
        let tree = match kind {
            // The wrapper cannot be seen: it is in the namespace above.
            GuardianKind::Init(_) => Tree::alone(leader, Some(own)),
            // Every orphan of the tree comes to the guardian, whether the wrapper lives or not.
            GuardianKind::Sweeper => Tree::alone(leader, None).guarded_by(Guardian::Sweeper(own)),
        };
        Ok(tree.with_cookie(run.settings.run_id))
    });
    let mut tree = match prepared {
        Ok(prepared) => prepared,
        Err(errno) => refuse(GuardianStep::Prepare, errno),
    };
    // The leaf's descriptors that were opened by the wrapper have just been closed.
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

/// Replaces the standard streams, which belong to the command: a reader that waits for the end of the command's output
/// must not wait for the guardian. Their numbers stay in use, or the next descriptor would be taken for one of them.
fn occupy_standard_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = unistd::dup2_stdin(&null);
        let _ = unistd::dup2_stdout(&null);
        let _ = unistd::dup2_stderr(&null);
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
    /// The wrapper has been told that the leader has ended; it is not reaped.
    Ended,
    Reaped,
}

#[derive(Debug)]
struct GuardianProcess<'a> {
    run: &'a Run,
    signals: &'a SignalFd,
    /// The connection to the wrapper; `None` when the wrapper has ended.
    control: Option<OwnedFd>,
    timer: DeadlineTimer,
    core: GuardianCore,
    leader: Leader,
    tree: Tree,
    /// Whether this process's end ends the tree.
    init: bool,
    /// The question to the daemon, and when it was asked.
    question: Option<(DaemonConnection, BootTime)>,
    stop: Option<(Stop, BootTime)>,
    turns: ScanTurn,
    /// Whether children that end need not be reaped.
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
                    // A wrapper that reads nothing is noticed because it sends nothing.
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
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.control.iter().map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.question.iter().map(|(question, _)| PollFd::new(question.as_fd(), question.interest())));
        let _ = poll(&mut fds, PollTimeout::NONE);
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
                        if let GuardianOrder::Terms(GuardianTerms { in_leaf: true, .. }, _) = order {
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

    /// Finds the control group that the daemon has made, if the wrapper has made none.
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
            Err(_) => self.event(GuardianEvent::Answer(LeaseAnswer::Unknown)),
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

    /// Reaps all children that have ended, and ends this process after the last one. Returns whether there may be more
    /// to reap.
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
                        let alone = leader_was_last();
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

    /// Reaps the children behind the leader, which the kernel lists first while it is not reaped: a wrapper that is
    /// stopped can make that a long time. The kernel's list of children names the others; in a kernel without it they
    /// have to wait.
    fn reap_all_but_leader(&self) {
        let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") else { return };
        let pids = children.split_ascii_whitespace().filter_map(|number| number.parse().ok().and_then(Pid::from_raw));
        for pid in pids.filter(|&pid| pid != self.leader.pid) {
            look_at(pid, WaitIdOptions::empty());
        }
    }

    /// Ends this process: no other one is left.
    fn end(&self) -> ! {
        // A wrapper that lives does the same; the second removal finds nothing to do.
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
            // From here on the way in which a process ends does not matter.
            self.vanishing = sys::let_children_vanish().is_ok();
        }
        let stubborn = now > kill_at + STUBBORN;
        // All zombies have just been reaped, so this look sees only living processes.
        let next = match stop.advance(now) {
            Advance::Next(next) => next,
            // What is left has ended and is to be reaped, which may depend on the wrapper.
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
            // A process that ends meanwhile is a child of this one, and wakes it.
            Next::LookAt(_) if now < kill_at && stop.ladder().is_calm() => kill_at,
            Next::LookAt(next) => next,
            Next::Over => now + PAUSE,
        };
    }
}

/// Whether every child has ended: then the tree is empty, since each orphan of it is a child.
fn leader_was_last() -> bool {
    // When it is asked for stopped children only, the kernel reports that there are no children once all have ended.
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

fn read_answer(event: &WrapperEvent, asked_at: BootTime) -> LeaseAnswer {
    match event {
        WrapperEvent::Line(SuperviseEvent::Stop { grace_ms, .. }) => {
            LeaseAnswer::Stopping { grace: Duration::from_millis(*grace_ms) }
        }
        WrapperEvent::Line(SuperviseEvent::Lease { boot_ms, until_boot_ms }) => {
            // Computed as in the wrapper: never later than the true point.
            let left = Duration::from_millis(until_boot_ms.saturating_sub(*boot_ms));
            LeaseAnswer::Lease { deadline: asked_at + left }
        }
        WrapperEvent::Line(
            SuperviseEvent::Allow { .. }
            | SuperviseEvent::Undecided { .. }
            | SuperviseEvent::Outside { .. }
            | SuperviseEvent::Look {}
            | SuperviseEvent::Error { .. },
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
        | WrapperEvent::Tick => LeaseAnswer::Unknown,
    }
}
