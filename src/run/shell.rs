//! The poll loop: turns descriptors into events, and what [`Core`] answers into system calls.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::child::{self, Child, Plan};
use super::connection::Connection;
use super::core::Core;
use super::event::{Action, Allowed, Event};
use super::outcome::{self, Cause, Outcome};
use super::terminal::Terminal;
use super::{Run, say, wire, write_status};
use crate::clock::BootTime;
use crate::protocol::local::SuperviseEvent;
use crate::protocol::{DeviceId, Exit};
use crate::sys::{self, Inherited, SignalFd};
use crate::tree::{Identity, Next, Pid, Process, ProcessEntry, ProcessTable, Stop, Survivor, Tree};

/// Time to the next look when the table shows nobody but a child is still to be reaped.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// Signals taken and children reaped before everything else is looked at again: an agent that floods the wrapper with
/// either must not keep it from its deadline.
const ROUND: usize = 64;

/// Runs the command and says how the wrapper is to exit.
pub(super) fn run(run: &Run) -> Exit {
    match Shell::start(run) {
        Ok(shell) => shell.serve(),
        Err(reason) => {
            let outcome = Outcome::before_start(Exit::Wrapper, Cause::WrapperFailed, reason);
            report(run, &outcome, None, &[], None);
            outcome.exit
        }
    }
}

/// Who has seen a Ctrl-C that the command ended by. Without the wrapper everybody in the foreground has, and a script around
/// the command ends, since it sees its child ended *by the signal*; an exit code of 130 would tell it to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupt {
    /// It did not come from the terminal.
    None,
    /// The command alone: it had the terminal.
    SeenByCommand,
    /// The wrapper, and whoever shares its group.
    SeenByAll,
}

#[derive(Debug)]
struct Shell<'a> {
    run: &'a Run,
    core: Core,
    pending: VecDeque<Action>,
    signals: SignalFd,
    timer: OwnedFd,
    terminal: Terminal,
    child: Child,
    tree: Tree,
    connection: Option<Connection>,
    /// On which the daemon is asked whether it ended the leader.
    inquiry: Option<Connection>,
    device_id: Option<DeviceId>,
    interrupt: Interrupt,
    /// The daemon is our parent and was started by the same command line.
    beside_daemon: bool,
    stop: Option<(Stop, BootTime)>,
    survivors: Vec<Survivor>,
    /// The SIGCONT that ended our own stop has been acted on already.
    continued: bool,
    outcome: Option<Outcome>,
}

impl<'a> Shell<'a> {
    fn start(run: &'a Run) -> Result<Self, String> {
        let text = |what: &str, errno: Errno| format!("{what}: {errno}");
        Inherited::expect_children().map_err(|errno| text("cannot wait for children", errno))?;
        let signals = SignalFd::open().map_err(|errno| text("cannot receive signals", errno))?;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
                .map_err(|errno| text("no timer to be had", errno))?;
        let terminal = Terminal::find();
        let plan = Plan {
            command: &run.command,
            environment: &run.environment,
            socket: run.socket.as_os_str(),
            run_id: run.settings.run_id,
        };
        let mut child = Child::start(&plan, &signals).map_err(|error| error.to_string())?;
        let tree = match tree_of(&child, run.question.alone) {
            Ok(tree) => tree,
            Err(errno) => {
                child.abandon();
                return Err(text("cannot read /proc", errno));
            }
        };
        let (core, actions) = Core::begin(BootTime::now(), run.settings.clone());
        Ok(Self {
            run,
            core,
            pending: actions.into(),
            signals,
            timer,
            terminal,
            child,
            tree,
            connection: None,
            inquiry: None,
            device_id: run.settings.device.clone(),
            interrupt: Interrupt::None,
            beside_daemon: false,
            stop: None,
            survivors: Vec::new(),
            continued: false,
            outcome: None,
        })
    }

    fn serve(mut self) -> Exit {
        loop {
            self.carry_out();
            if let Some(outcome) = self.outcome.take() {
                return self.end(&outcome);
            }
            self.wait();
            // First the daemon's word, then what may follow from it: a leader that ended because the daemon stopped it is
            // then already known to have been stopped.
            self.read_stream();
            self.read_inquiry();
            self.read_signals();
            self.reap();
            self.step_stop();
            self.event(Event::Tick);
        }
    }

    fn event(&mut self, event: Event) {
        let actions = self.core.handle(BootTime::now(), event);
        self.pending.extend(actions);
    }

    fn wait(&mut self) {
        let stop_at = self.stop.as_ref().map(|(_, at)| *at);
        self.set_timer(self.core.wake_at().into_iter().chain(stop_at).min());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        for connection in self.connection.iter().chain(&self.inquiry) {
            fds.push(PollFd::new(connection, connection.interest()));
        }
        // EINTR or a failure for want of memory: the loop looks at everything again anyway.
        let _ = rustix::event::poll(&mut fds, None);
        let mut expirations = [0_u8; 8];
        let _ = rustix::io::read(&self.timer, &mut expirations);
    }

    fn set_timer(&self, at: Option<BootTime>) {
        let value = at.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |at| {
            // All zero would disarm it.
            let since_boot = at.since_boot().max(Duration::from_nanos(1));
            Timespec {
                tv_sec: i64::try_from(since_boot.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since_boot.subsec_nanos()),
            }
        });
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting);
    }

    fn read_stream(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        for event in connection.advance() {
            if matches!(event, Event::Lost(_) | Event::Refused(_)) {
                self.connection = None;
            }
            self.event(event);
            self.carry_out();
        }
    }

    fn read_inquiry(&mut self) {
        let Some(inquiry) = &mut self.inquiry else { return };
        if let Some(answer) = inquiry.advance().into_iter().next() {
            self.inquiry = None;
            let stops = matches!(answer, Event::Line(SuperviseEvent::Stop { .. }));
            self.event(if stops { answer } else { Event::NotStopped });
            self.carry_out();
        }
    }

    fn inquire(&mut self) {
        match Connection::open(&self.run.socket, wire::inquiry(self.run.settings.run_id)) {
            Ok(connection) => self.inquiry = Some(connection),
            Err(_) => self.event(Event::NotStopped),
        }
    }

    fn read_signals(&mut self) {
        for _ in 0..ROUND {
            let Ok(Some(arrived)) = self.signals.next() else { break };
            if !arrived.own {
                if arrived.signal == libc::SIGINT && arrived.from_kernel {
                    self.interrupt = Interrupt::SeenByAll;
                }
                let ignored = Inherited::get().ignores(arrived.signal);
                self.event(Event::Signal { signal: arrived.signal, ignored });
                self.carry_out();
            }
        }
        self.continued = false;
    }

    /// Reaps whatever has ended, orphans of the tree too.
    fn reap(&mut self) {
        let mut ended = false;
        let mut left = ROUND;
        let alone = loop {
            if left == 0 {
                break false;
            }
            left -= 1;
            match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) => {
                    ended |= !status.stopped();
                    if pid == self.child.pid && !self.child.ended {
                        self.leader_changed(status);
                        self.carry_out();
                    }
                }
                Ok(None) => break false,
                Err(Errno::INTR) => {}
                // ECHILD. As a subreaper we are the parent of every orphan: without children, the tree is empty.
                Err(_) => break true,
            }
        };
        if self.child.ended && (alone || (ended && self.tree.has_bystanders() && self.nobody_is_left())) {
            self.event(Event::TreeEmpty);
            self.carry_out();
        }
    }

    fn nobody_is_left(&mut self) -> bool {
        ProcessTable::scan().is_ok_and(|table| self.tree.members(&table).is_empty())
    }

    fn leader_changed(&mut self, status: rustix::process::WaitStatus) {
        if let Some(signal) = status.stopping_signal() {
            self.event(Event::LeaderStopped(signal));
            return;
        }
        self.child.ended = true;
        if let Some(errno) = self.child.exec_error() {
            let (exit, reason) =
                child::explain(self.run.command.first().map_or(OsStr::new(""), OsString::as_os_str), errno);
            self.event(Event::CannotExecute(exit, reason));
            return;
        }
        let number = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        let exit = match status.terminating_signal() {
            Some(signal) => Exit::Signal(number(signal)),
            None => Exit::Command(number(status.exit_status().unwrap_or(255))),
        };
        self.event(Event::LeaderEnded(exit));
    }

    fn step_stop(&mut self) {
        // Most runs end with nobody left, which the reaping has just shown: a look at /proc would find that out again, for
        // a third of the time that the whole wrapper costs.
        if self.outcome.is_some() {
            return;
        }
        let now = BootTime::now();
        let Some((stop, at)) = &mut self.stop else { return };
        if now < *at {
            return;
        }
        let Ok(table) = ProcessTable::scan() else {
            *at = now + REAP_PAUSE;
            return;
        };
        let over = match stop.step(now, &table) {
            Next::LookAt(next) => {
                *at = next;
                false
            }
            Next::Over => {
                *at = now + REAP_PAUSE;
                true
            }
        };
        let survivors = stop.survivors(now);
        if self.survivors.is_empty() && !survivors.is_empty() {
            let list: Vec<_> = survivors
                .iter()
                .map(|survivor| format!("{} ({})", survivor.pid, outcome::survivor_reason(survivor.reason)))
                .collect();
            say(&format!("machineid-run: still running after SIGKILL: {}; trying until it is gone", list.join(", ")));
            self.survivors = survivors;
        }
        // With bystanders there is never a moment without children, so the table has to be believed.
        if over && self.child.ended && self.tree.has_bystanders() {
            self.event(Event::TreeEmpty);
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.pending.pop_front() {
            match action {
                Action::Ask => self.ask(),
                Action::HangUp => self.connection = None,
                Action::Inquire => self.inquire(),
                Action::Release(allowed) => self.release(allowed),
                Action::Forward(signal) => self.forward(signal),
                Action::Suspend(signal) => self.suspend(signal),
                Action::Resume => {
                    if !self.continued {
                        self.resume();
                    }
                }
                Action::TakeTerminal => {
                    if self.terminal.is_handed_over() {
                        self.interrupt = Interrupt::SeenByCommand;
                    }
                    self.terminal.take_back();
                }
                Action::BeginStop { first_signal, grace } => {
                    let now = BootTime::now();
                    let stop = Stop::begin(now, self.tree.clone(), self.core.stop_signal(), first_signal, grace);
                    self.stop = Some((stop, now));
                }
                Action::Hasten(grace) => {
                    if let Some((stop, at)) = &mut self.stop {
                        let now = BootTime::now();
                        stop.hasten(now, grace);
                        *at = now;
                    }
                }
                Action::Notice(text) => {
                    if !self.run.quiet {
                        say(&format!("machineid-run: {text}"));
                    }
                }
                Action::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    fn ask(&mut self) {
        let mut question = self.run.question.clone();
        question.pid = self.child.pid.as_raw_pid();
        match Connection::open(&self.run.socket, wire::request(&question)) {
            Ok(connection) => {
                self.beside_daemon = connection.is_to_parent();
                self.connection = Some(connection);
            }
            Err(lost) => {
                self.connection = None;
                self.event(Event::Lost(lost));
            }
        }
    }

    fn release(&mut self, allowed: Allowed) {
        // First the terminal: the command must not find itself in the background for a moment.
        if self.terminal.wants_handing_over() {
            self.terminal.hand_over(self.child.pid);
        }
        // A child that is gone is reaped and reported as such.
        let _ = self.child.release(&allowed);
        self.device_id = Some(allowed.device_id);
    }

    /// To the leader's whole group, as a terminal does it. After the leader's end its number may belong to others, so
    /// whoever is left is pinned and signalled one by one.
    fn forward(&mut self, signal: i32) {
        if !self.child.ended {
            let _ = sys::send_to_group(self.child.pid, signal);
            return;
        }
        let (Ok(table), Some(signal)) = (ProcessTable::scan(), Signal::from_named_raw(signal)) else { return };
        for member in self.tree.members(&table) {
            if let Ok(Some(process)) = Process::pin(member.identity.pid, member.identity.start) {
                let _ = process.signal(signal);
            }
        }
    }

    /// The leader was stopped. For want of the terminal, while it is ours: it gets it. Else, on a terminal, the wrapper
    /// stops with it, so that the shell sees a stopped job; whoever shares the wrapper's group too, as they would have.
    /// Without a terminal nobody would continue the wrapper, and it has a deadline to watch.
    fn suspend(&mut self, signal: i32) {
        if self.beside_daemon {
            // The daemon belongs to the same job of the shell: it would be suspended as well, and stop nobody.
            say(
                "machineid-run: not suspended: the daemon runs in this job, and must go on; start it apart to use Ctrl-Z",
            );
            let _ = sys::send_to_group(self.child.pid, libc::SIGCONT);
            return;
        }
        if matches!(signal, libc::SIGTTIN | libc::SIGTTOU) && self.terminal.hand_over(self.child.pid) {
            let _ = sys::send_to_group(self.child.pid, libc::SIGCONT);
            return;
        }
        if !self.terminal.is_controlling() {
            return;
        }
        let whole_group = self.terminal.is_handed_over() && signal != libc::SIGSTOP;
        self.terminal.take_back();
        sys::stop_by(signal, whole_group);
        self.resume();
        self.continued = true;
    }

    fn resume(&mut self) {
        if self.child.ended || self.stop.is_some() {
            return;
        }
        if self.device_id.is_some() && self.terminal.wants_handing_over() {
            self.terminal.hand_over(self.child.pid);
        }
        let _ = sys::send_to_group(self.child.pid, libc::SIGCONT);
    }

    fn end(mut self, outcome: &Outcome) -> Exit {
        self.connection = None;
        if !self.child.ended {
            // It has executed nothing and never will.
            self.child.abandon();
            let _ = sys::send_to_group(self.child.pid, libc::SIGKILL);
            while matches!(rustix::process::waitpid(Some(self.child.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
        }
        self.terminal.take_back();
        let took = self.stop.as_ref().map(|(stop, _)| BootTime::now().saturating_since(stop.ladder().began()));
        report(self.run, outcome, self.device_id.as_ref(), &self.survivors, took);
        if outcome.cause == Cause::Signalled && outcome.signal == Some(libc::SIGINT) {
            match self.interrupt {
                Interrupt::None => {}
                Interrupt::SeenByAll => sys::die_by(libc::SIGINT, false),
                Interrupt::SeenByCommand => sys::die_by(libc::SIGINT, true),
            }
        }
        outcome.exit
    }
}

fn report(
    run: &Run,
    outcome: &Outcome,
    device: Option<&DeviceId>,
    survivors: &[Survivor],
    stop_took: Option<Duration>,
) {
    if let Some(line) = outcome.line() {
        say(&line);
    }
    if let Some(path) = &run.status_file {
        let text = outcome::status_json(outcome, run.settings.run_id, device, survivors, stop_took);
        if let Err(error) = write_status(path, &text) {
            say(&format!("machineid-run: cannot write the status file {}: {error}", path.display()));
        }
    }
}

fn tree_of(child: &Child, alone: bool) -> Result<Tree, Errno> {
    let identity = |pid: Pid| -> Result<Identity, Errno> {
        ProcessEntry::read(pid)?.map(|entry| entry.identity).ok_or(Errno::SRCH)
    };
    let leader = identity(Pid::from(child.pid))?;
    let own = identity(Pid::own())?;
    if alone { Ok(Tree::alone(leader, Some(own))) } else { Ok(Tree::new(leader, Some(own), &ProcessTable::scan()?)) }
}
