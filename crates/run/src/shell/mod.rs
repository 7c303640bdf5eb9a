//! The poll loop: turns descriptors into events (`hear`), and the actions of [`WrapperCore`] into system calls (`act`).

mod act;
mod error;
mod hear;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use machineid_clock::{BootTime, Moment, Suspends};
use machineid_protocol::outside::OutsideHelper;
use machineid_protocol::{Containment, DeviceId, Exit};
use machineid_sys::{self as sys, Inherited, SignalFd};
use machineid_tree::{
    Guardian, Identity, Leaf, OomWatch, Pid, ProcessEntry, ProcessTable, StopSummary, Survivor, Tree,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use self::error::RunStartError;
use super::child::LeaderHandle;
use super::connection::DaemonConnection;
use super::containment::{self, MadeContainment};
use super::core::WrapperCore;
use super::event::{ConnectionLost, RunSettings, WrapperAction, WrapperEvent};
use super::guard::{GuardianHandle, LeaderStart, explain_numbers};
use super::outcome::{self, EndCause, OomKills, RunOutcome};
use super::outside::{self, Outside};
use super::outside_look::OutsideLooks;
use super::say::say;
use super::stopping::{LookResult, Stopping};
use super::terminal::Terminal;
use super::timer::DeadlineTimer;
use super::{Run, status_file};

/// Runs the command and returns the wrapper's exit code.
pub(super) fn run(run: &Run) -> Exit {
    match Shell::start(run) {
        Ok(shell) => shell.serve(),
        Err(error) => {
            let outcome = RunOutcome::before_start(Exit::Wrapper, error.cause(), error.to_string());
            report(run, &outcome, None, (None, &[]), None, OomKills::None);
            outcome.exit
        }
    }
}

/// Which processes have got the Ctrl-C or Ctrl-\ by which the command ended. Without the wrapper every process in the
/// foreground gets it, and a script around the command ends, since it sees its child ended *by the signal*; an exit
/// code of 130 would tell it to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupt {
    /// The signal did not come from the terminal.
    None,
    /// The command alone: it had the terminal.
    SeenByCommand,
    /// The wrapper, and the other processes of its group.
    SeenByAll,
}

#[derive(Debug)]
struct Shell<'a> {
    run: &'a Run,
    core: WrapperCore,
    pending: VecDeque<WrapperAction>,
    suspends: Suspends,
    signals: SignalFd,
    timer: DeadlineTimer,
    terminal: Terminal,
    guardian: GuardianHandle,
    child: LeaderHandle,
    /// `None` until the first question has been sent: `/proc` is read while the daemon answers.
    tree: Option<Tree>,
    /// The containment that the wrapper has made itself.
    made: Containment,
    /// The tree's control group, made by the wrapper or by the daemon.
    leaf: Option<Arc<Leaf>>,
    /// Whether the terminal was taken back because the agent is frozen.
    holds_terminal: bool,
    /// A request to the daemon on a connection of its own, whose answer does not matter.
    errand: Option<DaemonConnection>,
    /// The connection on which the first question was begun while the processes were made, and when.
    first_connection: Option<(BootTime, Result<DaemonConnection, ConnectionLost>)>,
    connection: Option<DaemonConnection>,
    /// The connection on which the daemon is asked whether it ended the leader.
    inquiry: Option<DaemonConnection>,
    device_id: Option<DeviceId>,
    interrupt: Interrupt,
    /// Whether the daemon is this process's parent and was started by the same command line.
    beside_daemon: bool,
    stopping: Option<Stopping>,
    /// The stop, if it was given up.
    given_up: Option<StopSummary>,
    /// Whether the SIGCONT that ended the wrapper's own suspension has been acted on already.
    continued: bool,
    outcome: Option<RunOutcome>,
    /// Looks for what the agent uses outside its tree.
    outside: OutsideLooks,
    /// What the kernel ends for lack of memory from the start on.
    oom: Option<OomWatch>,
}

impl<'a> Shell<'a> {
    fn start(run: &'a Run) -> Result<Self, RunStartError> {
        if let Some(daemon) = outside::find(run) {
            match run.outside {
                Outside::Refuse => return Err(RunStartError::Outside(daemon)),
                Outside::Allow if run.quiet => {}
                Outside::Allow => say(&format!("machineid-run: {}", daemon.warning())),
            }
        }
        Inherited::expect_children().map_err(RunStartError::Children)?;
        let signals = SignalFd::open().map_err(RunStartError::Signals)?;
        let MadeContainment { mut guardian, pipes, mut leaf, no_leaf } =
            containment::make(run, &signals).map_err(RunStartError::Containment)?;
        // While the guardian makes the leader.
        let first_connection = (BootTime::now(), DaemonConnection::begin(run));
        let timer = DeadlineTimer::new().map_err(RunStartError::Timer);
        let terminal = Terminal::find();
        let leader = guardian.leader().map_err(RunStartError::Leader);
        let (child, timer, unscattered) = match leader.and_then(|leader| Ok((leader, timer?))) {
            Ok((LeaderStart { pid, in_leaf, unscattered }, timer)) => {
                if let Some(empty) = leaf.take_if(|_| !in_leaf) {
                    let _ = empty.remove();
                }
                (pipes.into_child(pid), timer, unscattered)
            }
            Err(error) => {
                // The pipe closes with this function: a leader that may exist executes nothing.
                guardian.end();
                let _ = leaf.map(|leaf| leaf.remove());
                return Err(error);
            }
        };
        let made = match (&leaf, guardian.is_init()) {
            (_, true) => Containment::Pidns,
            (Some(_), false) => Containment::Cgroup,
            (None, false) => Containment::Subreaper,
        };
        let no_leaf = no_leaf.map(|why| why.to_string());
        let start = Moment::now();
        let (core, actions) = WrapperCore::begin(start.boot, RunSettings { made, no_leaf, ..run.settings.clone() });
        let mut pending = VecDeque::from(actions);
        pending.extend(unscattered.map(|errno| WrapperAction::Notice(explain_numbers(errno))));
        Ok(Self {
            run,
            core,
            pending,
            suspends: Suspends::from(start),
            signals,
            timer,
            terminal,
            guardian,
            child,
            tree: None,
            made,
            leaf,
            holds_terminal: false,
            errand: None,
            first_connection: Some(first_connection),
            connection: None,
            inquiry: None,
            device_id: run.settings.device.clone(),
            interrupt: Interrupt::None,
            beside_daemon: false,
            stopping: None,
            given_up: None,
            continued: false,
            outcome: None,
            outside: OutsideLooks::default(),
            oom: None,
        })
    }

    fn serve(mut self) -> Exit {
        self.carry_out();
        if let Err(errno) = self.learn_tree() {
            let reason = format!("cannot read /proc: {errno}");
            self.outcome = Some(RunOutcome::before_start(Exit::Wrapper, EndCause::WrapperFailed, reason));
        }
        let mut more = false;
        loop {
            self.carry_out();
            if let Some(outcome) = self.outcome.take() {
                return self.end(&outcome);
            }
            self.brief_guardian();
            if !more {
                self.wait();
            }
            if self.suspends.until(Moment::now()).is_some() {
                self.event(WrapperEvent::Resumed);
            }
            // The daemon's lines first, then what may follow from them: a leader that ended because the daemon stopped
            // it is then already known to be stopped.
            self.read_stream();
            self.read_inquiry();
            self.read_signals();
            self.read_leaf();
            self.read_guardian();
            more = self.reap();
            self.step_stop();
            self.event(WrapperEvent::Tick);
        }
    }

    fn event(&mut self, event: WrapperEvent) {
        let actions = self.core.handle(BootTime::now(), event);
        self.pending.extend(actions);
    }

    /// Reads the identities of the processes, so that they are never mistaken for others. None of them can have been
    /// reaped yet.
    fn learn_tree(&mut self) -> Result<(), Errno> {
        let identity = |pid: Pid| -> Result<Identity, Errno> {
            ProcessEntry::read(pid)?.map(|entry| entry.identity).ok_or(Errno::SRCH)
        };
        let leader = identity(Pid::from(self.child.pid))?;
        let own = identity(Pid::own())?;
        let guardian = identity(Pid::from(self.guardian.pid()))?;
        // While the daemon answers. The command begins in this process's group, or in one below it.
        self.oom = OomWatch::of(Pid::own());
        let tree = if self.run.question.alone {
            Tree::alone(leader, Some(own))
        } else {
            Tree::new(leader, Some(own), &ProcessTable::scan()?)
        };
        let role = if self.guardian.is_init() { Guardian::Init(guardian) } else { Guardian::Sweeper(guardian) };
        let tree = tree.guarded_by(role).with_cookie(self.run.settings.run_id);
        self.tree = Some(match &self.leaf {
            Some(leaf) => tree.in_leaf(Arc::clone(leaf)),
            None => tree,
        });
        self.arm_leaf();
        Ok(())
    }

    /// Reads the leaf's state once: from here on its descriptor reports changes.
    fn arm_leaf(&self) {
        let _ = self.leaf.as_ref().map(|leaf| leaf.state());
    }

    fn brief_guardian(&mut self) {
        if let Some(deadline) = self.core.deadline() {
            self.guardian.deadline(deadline);
        }
        if let Some(stopping) = &self.stopping {
            self.guardian.stopping(stopping.kill_at());
        }
    }

    fn wait(&mut self) {
        let stop_at = self.stopping.as_ref().map(Stopping::look_at);
        self.timer.set(self.core.wake_at().into_iter().chain(stop_at).min());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        let guardian = self.guardian.socket();
        fds.extend(guardian.map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        fds.extend(self.leaf.iter().map(|leaf| PollFd::new(leaf.events(), PollFlags::POLLPRI)));
        for connection in self.connection.iter().chain(&self.inquiry).chain(&self.errand) {
            fds.push(PollFd::new(connection.as_fd(), connection.interest()));
        }
        // EINTR, or no memory: the loop looks at everything again anyway.
        let _ = poll(&mut fds, PollTimeout::NONE);
        self.timer.clear();
    }

    fn step_stop(&mut self) {
        // Most runs end with no process left, which the guardian has just reported: a look at `/proc` would find the
        // same, for a third of the CPU time that the whole wrapper takes.
        if self.outcome.is_some() {
            return;
        }
        let Some(stopping) = &mut self.stopping else { return };
        let now = BootTime::now();
        stopping.set_led(now, self.connection.is_some() && self.core.daemon_ends_it());
        if self.guardian.is_gone() && self.child.ended && now >= stopping.kill_at() {
            // The remaining processes are this one's to reap now, and the way in which they end does not matter.
            let _ = sys::let_children_vanish();
        }
        match stopping.step(now) {
            LookResult::Empty if self.guardian.is_gone() => self.tree_is_empty(),
            LookResult::NotEmpty | LookResult::Empty => {}
            LookResult::EmptyForLong => self.guardian.dismiss(),
            LookResult::Stuck => {
                self.given_up = Some(stopping.stop().report(BootTime::now()));
                self.event(WrapperEvent::Stuck);
            }
        }
    }

    fn end(mut self, outcome: &RunOutcome) -> Exit {
        self.connection = None;
        let stop = self.given_up.take();
        if let Some(stop) = &stop {
            let survivors = &stop.survivors;
            let survivor = |survivor: &Survivor| format!("{} ({})", survivor.pid, survivor.reason.in_words());
            let list = survivors.iter().map(survivor).collect::<Vec<_>>().join(", ");
            say(&format!("machineid-run: still running after SIGKILL: {list}; the guardian keeps retrying"));
        } else {
            self.clear_away();
        }
        let stop = stop.or_else(|| self.stopping.as_ref().map(|stopping| stopping.stop().report(BootTime::now())));
        if let Some(line) = stop.as_ref().and_then(|stop| outcome.leftovers(stop)).filter(|_| !self.run.quiet) {
            say(&line);
        }
        self.terminal.take_back();
        if outcome.started && outcome.cause != EndCause::Exited {
            self.terminal.restore_settings();
        }
        if outcome.was_stopped() {
            self.terminal.reset_modes(self.run.variable("TERM"));
        }
        let ran = (self.core.containment(), self.core.helpers());
        let oom = OomKills::since(self.oom.as_ref());
        if let Some(line) = outcome.out_of_memory(oom).filter(|_| !self.run.quiet) {
            say(&line);
        }
        report(self.run, outcome, self.device_id.as_ref(), ran, stop.as_ref(), oom);
        if outcome.cause == EndCause::Signalled
            && let Some(signal) = outcome.signal.filter(|&signal| is_interrupt(signal))
        {
            match self.interrupt {
                Interrupt::None => {}
                Interrupt::SeenByAll => sys::die_by(signal, false),
                Interrupt::SeenByCommand => sys::die_by(signal, true),
            }
        }
        outcome.exit
    }

    /// Ends and reaps this process's own children: the guardian, and a leader that has executed nothing and never will.
    fn clear_away(&mut self) {
        self.child.abandon();
        if !self.child.ended {
            let _ = sys::send_to_group(self.child.pid, libc::SIGKILL);
        }
        self.guardian.end();
        // A leader that the guardian did not reap is a child of this process now; ECHILD means that it did.
        while matches!(rustix::process::waitpid(Some(self.child.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
        let _ = self.leaf.as_ref().map(|leaf| leaf.remove());
    }
}

/// Whether a key of the terminal sends this signal to end the foreground.
const fn is_interrupt(signal: i32) -> bool {
    matches!(signal, libc::SIGINT | libc::SIGQUIT)
}

fn report(
    run: &Run,
    outcome: &RunOutcome,
    device: Option<&DeviceId>,
    (containment, outside): (Option<Containment>, &[OutsideHelper]),
    stop: Option<&StopSummary>,
    oom: OomKills,
) {
    if let Some(line) = outcome.line() {
        say(&(line + &outcome.left_outside(outside)));
    }
    if let Some(path) = &run.status_file {
        let text = outcome::status_json(outcome, run.settings.run_id, device, (containment, outside), stop, oom);
        if let Err(error) = status_file::write(path, &text) {
            say(&format!("machineid-run: cannot write the status file {}: {error}", path.display()));
        }
    }
}
