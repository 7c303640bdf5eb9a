//! What the pure core is told and what it answers: the interface between deciding and doing.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Code, Containment, DeviceId, Exit, RequestId, RunId, Wish};
use machineid_tree::FirstSignal;
use rustix::process::Signal;

use super::outcome::RunOutcome;

/// Whether to go on asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// One question.
    No,
    /// Until allowed.
    Forever,
    /// Until allowed, for this long at most.
    For(Duration),
}

/// What happens to processes the leader leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// They are stopped.
    Stop,
    /// They are waited for, still supervised.
    Wait,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub(super) struct RunSettings {
    pub(super) run_id: RunId,
    pub(super) device: Option<DeviceId>,
    pub(super) timeout: Duration,
    pub(super) wait: Wait,
    /// What the daemon is configured to when `None`.
    pub(super) stop_grace: Option<Duration>,
    /// What the daemon is configured to when `None`.
    pub(super) stop_signal: Option<Signal>,
    /// What is to hold the tree together.
    pub(super) containment: Wish,
    /// What does so by the wrapper's own doing.
    pub(super) made: Containment,
    /// Why the wrapper could make no control group, when it tried.
    pub(super) no_leaf: Option<String>,
    pub(super) leftovers: Leftovers,
    /// The socket, for messages.
    pub(super) socket: String,
}

/// An answer that is no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DaemonRefusal {
    /// The HTTP status.
    pub(super) status: u16,
    pub(super) code: Code,
    pub(super) request_id: Option<RequestId>,
    pub(super) reason: Option<String>,
}

/// What a failed attempt says about the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DaemonState {
    /// Nobody listens: it does not run.
    Absent,
    /// Its queue is full; another attempt may succeed in a moment.
    Busy,
    /// It is there, or something is.
    There,
}

/// Why an attempt failed or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionLost {
    /// In words.
    pub(super) why: String,
    /// What that says about the daemon.
    pub(super) daemon: DaemonState,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrapperEvent {
    /// A line came on the stream of an answer with status 200.
    Line(SuperviseEvent),
    /// The answer is no.
    Refused(DaemonRefusal),
    /// The attempt failed, or the stream ended or cannot be understood.
    Lost(ConnectionLost),
    /// A signal came to the wrapper. `ignored`: the wrapper was started with it ignored.
    /// `from_terminal`: the kernel sent it for a key.
    Signal { signal: i32, ignored: bool, from_terminal: bool },
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The leader ended. `alone`: nobody else of the tree lives.
    LeaderEnded { exit: Exit, alone: bool },
    /// The command could not be executed.
    CannotExecute(Exit, String),
    /// The daemon says that it has not begun to stop this run, or nothing at all.
    NotStopped,
    /// The agent's processes stand still, or go on.
    Frozen(bool),
    /// The guardian has begun to stop the tree by itself, with SIGKILL at this point.
    GuardianStops { kill_at: BootTime },
    /// The guardian was killed.
    GuardianKilled,
    /// The machine has slept and woken. Told before anything else that is told after waking.
    Resumed,
    /// Nobody of the tree is left.
    TreeEmpty,
    /// What is left of the tree was killed a while ago and does not go.
    Stuck,
    /// Time has passed.
    Tick,
}

/// What the child needs to know to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) device_id: DeviceId,
    /// What holds the tree together, as far as the daemon can tell.
    pub(super) containment: Containment,
    /// The daemon's own listener for unmodified clients, and the agent's key for it.
    pub(super) compat: Option<(String, String)>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WrapperAction {
    /// Connect and ask; an earlier connection is closed.
    Ask,
    /// Close the connection.
    HangUp,
    /// Ask on a connection of its own whether the daemon has begun to stop this run.
    Inquire,
    /// Let the child execute the command.
    Release(Allowed),
    /// Send the leader's process group this signal; after the leader's end, whoever is left.
    Forward(i32),
    /// The leader was stopped by this signal: give it the terminal if that is what it lacks, else stop as well.
    Suspend(i32),
    /// Continue the leader, with the terminal if it is ours to give.
    Resume,
    /// The leader has ended: the terminal is the wrapper's again.
    TakeTerminal,
    /// The agent stands still: the keys of the terminal come to the wrapper. Or it goes on, and has them again.
    HoldTerminal(bool),
    /// Let the agent's processes go on.
    Thaw,
    /// Begin the stop.
    BeginStop { first_signal: FirstSignal, grace: Duration },
    /// Let the grace end this much from now, if that is sooner.
    Hasten(Duration),
    /// Tell people.
    Notice(String),
    /// Tell them if they are at a terminal.
    Remark(String),
    /// The end. A child that was not released is ended without executing anything.
    Finish(RunOutcome),
}
