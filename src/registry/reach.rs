//! The processes of a run as the daemon reaches them: held by descriptors in advance, so that ending the tree needs no new
//! one.

use machineid_protocol::RunId;
use machineid_tree::{Activity, Guardian, Identity, Process, ProcessEntry, ProcessTable, Tree};
use rustix::io::Errno;
use rustix::process::Signal;
use tracing::{error, info, warn};

/// A process of a run, with its pidfd where one is available.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) identity: Identity,
    process: Option<Process>,
    /// Whether the missing descriptor means that the process has ended.
    known_dead: bool,
}

impl From<Process> for Pinned {
    fn from(process: Process) -> Self {
        Self { identity: process.identity(), process: Some(process), known_dead: false }
    }
}

impl Pinned {
    /// Finds the process of this identity, which may be gone by now. A process that cannot be inspected counts as alive: what
    /// is done about the dead cannot be undone.
    pub(crate) fn find(identity: Identity) -> Self {
        match Process::pin(identity.pid, identity.start) {
            Ok(process) => Self { identity, known_dead: process.is_none(), process },
            Err(errno) => {
                warn!(pid = identity.pid.as_raw(), %errno, "cannot inspect a process; assuming that it is alive");
                Self { identity, process: None, known_dead: false }
            }
        }
    }

    /// The descriptor, while the process may be alive.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Whether the process has ended, as far as the daemon can tell.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.process {
            Some(process) => process.has_exited().unwrap_or(false),
            None => self.known_dead,
        }
    }

    /// Whether the process is stopped (SIGSTOP); `false` when unknown.
    pub(crate) fn is_stopped(&self) -> bool {
        let entry = ProcessEntry::read(self.identity.pid).ok().flatten();
        entry.is_some_and(|entry| entry.identity == self.identity && entry.activity == Activity::Stopped)
    }

    /// Whether the process can act: alive and not stopped.
    pub(crate) fn can_act(&self) -> bool {
        !self.has_ended() && !self.is_stopped()
    }

    pub(crate) fn kill(&self) -> Result<(), Errno> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> Result<(), Errno> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal).map(drop))
    }
}

/// The guardian, or the first process of the run's own PID namespace.
#[derive(Debug)]
pub(crate) struct PinnedGuardian {
    pub(crate) role: Guardian,
    pub(crate) pinned: Pinned,
}

/// The processes of one run.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) leader: Pinned,
    /// `None` for a process that was adopted while it ran.
    pub(crate) wrapper: Option<Pinned>,
    pub(crate) guardian: Option<PinnedGuardian>,
    /// The tree without its leaf and cookie.
    tree: Tree,
    alone: bool,
}

impl Reach {
    /// `table` must contain the wrapper's children, unless the wrapper is `alone`: all its children belong to the tree.
    pub(crate) fn new(
        leader: Pinned,
        wrapper: Pinned,
        guardian: Option<PinnedGuardian>,
        alone: bool,
        table: &ProcessTable,
    ) -> Self {
        let supervisor = Some(wrapper.identity);
        let leader_is = leader.identity;
        let tree = if alone { Tree::alone(leader_is, supervisor) } else { Tree::new(leader_is, supervisor, table) };
        let tree = match &guardian {
            Some(guardian) => tree.guarded_by(guardian.role),
            None => tree,
        };
        Self { leader, wrapper: Some(wrapper), guardian, tree, alone }
    }

    /// The processes of a tree that was adopted while it ran: no process supervises it but the daemon. `tree` knows the
    /// members that looks have found.
    pub(crate) fn adopted(leader: Pinned, tree: Tree) -> Self {
        Self { leader, wrapper: None, guardian: None, tree, alone: true }
    }

    /// Whether the tree was adopted while it ran.
    pub(crate) fn is_adopted(&self) -> bool {
        self.wrapper.is_none()
    }

    /// The tree to end. `shares_wrapper`: other runs have the same wrapper. Without a guardian to tell the wrapper's children
    /// apart, the tree then consists of the leader's descendants.
    pub(crate) fn tree(&self, run: RunId, shares_wrapper: bool) -> Tree {
        if self.is_adopted() {
            // The run id is in no environment: the processes are older than the run.
            return self.tree.clone();
        }
        let tree = match &self.guardian {
            None if shares_wrapper => Tree::alone(self.leader.identity, None),
            None | Some(_) => self.tree.clone(),
        };
        tree.with_cookie(run)
    }

    pub(crate) fn guardian(&self) -> Option<Guardian> {
        self.guardian.as_ref().map(|guardian| guardian.role)
    }

    /// The process of the guardian.
    pub(crate) fn guardian_process(&self) -> Option<Identity> {
        self.guardian.as_ref().map(|guardian| guardian.pinned.identity)
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Sends SIGKILL to the processes held by descriptors, for when the process table cannot be read.
    pub(crate) fn kill_held(&self) {
        let first = self.guardian.as_ref().filter(|guardian| matches!(guardian.role, Guardian::Init(_)));
        for held in first.map(|guardian| &guardian.pinned).into_iter().chain([&self.leader]) {
            // Repeated until the process is gone.
            let _ = held.kill();
        }
    }

    /// Continues the supervisors that are stopped (Ctrl-Z is enough) although their tree is gone: they can then report the
    /// end, as a wrapper does with its exit code, its line and its status file. Returns them. A wrapper that has other runs is
    /// left as it is: these go on, and it with them.
    pub(crate) fn continue_stopped_supervisors(&self, run_id: RunId, shares_wrapper: bool) -> Vec<Supervisor> {
        let mut continued = Vec::new();
        for (role, supervisor) in self.supervisors() {
            if (shares_wrapper && role == Supervisor::Wrapper) || supervisor.has_ended() || !supervisor.is_stopped() {
                continue;
            }
            continued.push(role);
            let pid = supervisor.identity.pid.as_raw();
            match supervisor.send(Signal::CONT) {
                Ok(()) => {
                    info!(%run_id, pid, ?role, "continued a supervisor of the agent that was stopped (SIGSTOP)");
                }
                Err(errno) => warn!(%run_id, pid, ?role, %errno, "cannot continue a supervisor of the agent (SIGCONT)"),
            }
        }
        continued
    }

    /// Ends those of these supervisors that have not ended by themselves: their parents would wait for ever. Not a wrapper that
    /// has other runs.
    pub(crate) fn kill_supervisors(&self, run_id: RunId, late: &[Supervisor], shares_wrapper: bool) {
        let is_late = |(role, supervisor): &(Supervisor, &Pinned)| {
            late.contains(role) && !(shares_wrapper && *role == Supervisor::Wrapper) && !supervisor.has_ended()
        };
        for (role, supervisor) in self.supervisors().filter(is_late) {
            let pid = supervisor.identity.pid.as_raw();
            match supervisor.kill() {
                Ok(()) => {
                    warn!(%run_id, pid, ?role, "ended a supervisor of the agent that was stopped and did not end when continued");
                }
                Err(errno) => {
                    error!(%run_id, pid, ?role, %errno, "cannot end a supervisor of the agent that was stopped (SIGSTOP)");
                }
            }
        }
    }

    fn supervisors(&self) -> impl Iterator<Item = (Supervisor, &Pinned)> {
        let guardian = self.guardian.as_ref().map(|guardian| (Supervisor::Guardian, &guardian.pinned));
        guardian.into_iter().chain(self.wrapper.as_ref().map(|wrapper| (Supervisor::Wrapper, wrapper)))
    }
}

/// A process of a run that supervises its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervisor {
    /// The process between wrapper and leader.
    Guardian,
    /// The process that asked for the run.
    Wrapper,
}
