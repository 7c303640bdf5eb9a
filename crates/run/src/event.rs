//! The interface of the pure core: the events that it takes and the actions that it returns.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Code, Containment, DeviceId, Exit, RequestId, RunId, Wish};
use machineid_tree::FirstSignal;
use rustix::process::Signal;

use super::outcome::RunOutcome;

/// Whether to keep asking for permission to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Ask once.
    No,
    /// Ask until allowed.
    Forever,
    /// Ask until allowed, for this long at most.
    For(Duration),
}

/// What happens to processes that the leader leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// They are stopped.
    Stop,
    /// They are waited for, still supervised.
    Wait,
}

/// The settings of a run, by the command line.
#[derive(Clone, Debug)]
pub(super) struct RunSettings {
    pub(super) run_id: RunId,
    pub(super) device: Option<DeviceId>,
    pub(super) timeout: Duration,
    pub(super) wait: Wait,
    /// `None`: the daemon's configured grace.
    pub(super) stop_grace: Option<Duration>,
    /// `None`: the daemon's configured signal.
    pub(super) stop_signal: Option<Signal>,
    /// The containment that was asked for.
    pub(super) containment: Wish,
    /// The containment that the wrapper has made itself.
    pub(super) made: Containment,
    /// Why the wrapper could make no control group, if it tried.
    pub(super) no_leaf: Option<String>,
    pub(super) leftovers: Leftovers,
    /// The socket's path, for messages.
    pub(super) socket: String,
}

/// A negative answer of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DaemonRefusal {
    /// The HTTP status.
    pub(super) status: u16,
    pub(super) code: Code,
    pub(super) request_id: Option<RequestId>,
    pub(super) reason: Option<String>,
}

/// What a failed attempt shows about the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DaemonState {
    /// No process listens: the daemon does not run.
    Absent,
    /// The queue of its socket is full; another attempt may succeed in a moment.
    Busy,
    /// A process listens, most likely the daemon.
    There,
}

/// Why an attempt failed or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionLost {
    /// The reason, as text.
    pub(super) why: String,
    /// What the failure shows about the daemon.
    pub(super) daemon: DaemonState,
}

/// An event for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrapperEvent {
    /// A line of an answer with status 200.
    Line(SuperviseEvent),
    /// A negative answer.
    Refused(DaemonRefusal),
    /// The attempt failed, or the stream ended or cannot be parsed.
    Lost(ConnectionLost),
    /// A signal came to the wrapper. `ignored`: the wrapper was started with it ignored. `from_terminal`: the kernel
    /// sent it for a key.
    Signal { signal: i32, ignored: bool, from_terminal: bool },
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The leader ended. `alone`: no other process of the tree lives.
    LeaderEnded { exit: Exit, alone: bool },
    /// The command could not be executed.
    CannotExecute(Exit, String),
    /// The daemon says that it has not begun to stop this run, or gives no answer.
    NotStopped,
    /// The agent's processes were frozen, or thawed.
    Frozen(bool),
    /// The guardian has begun to stop the tree by itself, with SIGKILL at this point.
    GuardianStops { kill_at: BootTime },
    /// The guardian was killed.
    GuardianKilled,
    /// The machine has resumed from a suspend. Comes before any other event after the resume.
    Resumed,
    /// No process of the tree is left.
    TreeEmpty,
    /// Processes of the tree were sent SIGKILL a while ago and have not ended.
    Stuck,
    /// Time has passed.
    Tick,
}

/// What the leader needs to know to execute the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) device_id: DeviceId,
    /// How the tree is held together, as far as the daemon can tell.
    pub(super) containment: Containment,
    /// Base URL of the daemon's own listener for unmodified clients, and the agent's key for it.
    pub(super) compat: Option<(String, String)>,
}

/// An action for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrapperAction {
    /// Connect and ask for permission; an earlier connection is closed.
    Ask,
    /// Close the connection.
    HangUp,
    /// Ask on a separate connection whether the daemon has begun to stop this run.
    Inquire,
    /// Let the leader execute the command.
    Release(Allowed),
    /// Send this signal to the leader's process group or, after the leader's end, to all remaining processes.
    Forward(i32),
    /// The leader was stopped by this signal: give it the terminal if that is what it lacks, else stop the wrapper as
    /// well.
    Suspend(i32),
    /// Continue the leader, with the terminal if the wrapper has it.
    Resume,
    /// The leader has ended: take the terminal back.
    TakeTerminal,
    /// `true`: the agent is frozen, so the wrapper takes the terminal's keys. `false`: the agent continues, and gets
    /// them back.
    HoldTerminal(bool),
    /// Thaw the agent's processes.
    Thaw,
    /// Look for what the agent uses outside its tree, and tell the daemon.
    LookOutside,
    /// Begin the stop.
    BeginStop { first_signal: FirstSignal, grace: Duration },
    /// Shorten the grace to end this much from now, if that is sooner.
    Hasten(Duration),
    /// Print a line, unless `--quiet`.
    Notice(String),
    /// Print a line if stderr is a terminal, unless `--quiet`.
    Remark(String),
    /// End the run. A leader that was not released ends without executing anything.
    Finish(RunOutcome),
}
