//! One stop that is under way.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::{self as clock, BootTime};
use machineid_protocol::event::{Happening, StopRequested};
use machineid_protocol::status::{StopReport, SurvivorReport};
use machineid_protocol::{Code, Denial, HoldsAgainst};
use machineid_tree::{Advance, FirstSignal, Guardian, KILL_PATIENCE, Leaf, Next, ProcessTable, Stop};
use tracing::{error, info, warn};

use super::endings::{Endings, Sign};
use super::{Ending, Reason, SignalBy};
use crate::runs::hold::Hold;
use crate::runs::ledger::StopEntry;
use crate::runs::reach::PinnedGuardian;
use crate::runs::run::{Run, StopNotice};

/// Time between two glances at a tree whose end the kernel tells: the guardian that ends with the tree may be stopped, and
/// then does not.
const GLANCE: Duration = Duration::from_secs(1);
/// The same, where the kernel has not taken the order to tell. Each glance costs a system call.
const GLANCE_UNTOLD: Duration = Duration::from_millis(50);

/// What a stop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing before [`UnderWay::due_at`].
    Time,
    /// A look at every process of the host.
    Table,
    /// Nothing any more: no process is left.
    Nothing,
}

/// A stop, with what became of it so far.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) run: Arc<Run>,
    look_at: BootTime,
    /// When to glance at whether it has ended.
    glance_at: BootTime,
    /// By which `endings` knows it.
    key: u64,
    reason: Reason,
    entry: StopEntry,
    stop: Stop,
    signal_by: SignalBy,
    looks: u32,
    found_somebody: bool,
    survivors_reported: bool,
    requested_told: bool,
}

impl UnderWay {
    /// Begins a stop; the leader is signalled at once, through the descriptor held since its start. `None` when the
    /// daemon does not reach the tree.
    pub(super) fn begin(now: BootTime, ending: Ending, shares_wrapper: bool, key: u64) -> Option<Self> {
        let Ending { run, signal_by, reason } = ending;
        let reach = run.opened.reach.as_ref()?;
        let tree = run.tree(shares_wrapper)?;
        let entry = run.stop()?;
        let signal_by = match signal_by {
            SignalBy::Wrapper if !reach.wrapper.can_act() => SignalBy::Us,
            SignalBy::Us | SignalBy::Wrapper | SignalBy::Earlier => signal_by,
        };
        let first_signal = match signal_by {
            SignalBy::Us => FirstSignal::Ours,
            SignalBy::Wrapper | SignalBy::Earlier => FirstSignal::Theirs,
        };
        let grace = entry.kill_at.saturating_since(now);
        let mut stop = Stop::begin(now, tree, run.terms().signal, first_signal, grace);
        if signal_by == SignalBy::Us
            && let Some(leader) = reach.leader.process().filter(|_| !reach.leader.has_ended())
        {
            stop.send_at_once(leader);
        }
        Some(Self {
            run,
            look_at: now,
            glance_at: now,
            key,
            reason,
            entry,
            stop,
            signal_by,
            looks: 0,
            found_somebody: false,
            survivors_reported: false,
            requested_told: false,
        })
    }

    /// When it is to have a turn.
    pub(super) fn due_at(&self) -> BootTime {
        if self.sign().is_some() { self.look_at.min(self.glance_at) } else { self.look_at }
    }

    /// The key by which `endings` knows it.
    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    /// Takes note that the kernel has told that it may have ended: a glance is due.
    pub(super) fn note_told(&mut self) {
        self.glance_at = BootTime::default();
    }

    /// Has nothing told of it any more.
    pub(super) fn leave(&self, endings: &Endings) {
        if let Some(sign) = self.sign() {
            endings.leave(sign);
        }
    }

    /// Whether a process table is read at once: for its first look, for its first one with SIGKILL, and as long as somebody
    /// forks as fast as is killed, up to the end of our patience.
    pub(super) fn is_urgent(&self, now: BootTime) -> bool {
        let ladder = self.stop.ladder();
        let killing = now >= ladder.kill_at();
        self.looks == 0 || (killing && (ladder.killed() == 0 || (ladder.is_storm() && !ladder.is_overdue(now))))
    }

    /// Does what is due and can be done without looking at every process of the host.
    pub(super) fn advance(&mut self, now: BootTime, endings: &Endings) -> Needs {
        if now < self.look_at && !self.may_have_ended() {
            self.rest(now, endings, false);
            return Needs::Time;
        }
        let tree = self.stop.tree();
        let kernel_counts = tree.leaf().is_some() || matches!(tree.guardian(), Some(Guardian::Init(_)));
        let advance = match self.stop.advance(now) {
            // That a wrapper of whatever make inherits the orphans is its own word.
            Advance::Empty if !kernel_counts => self.stop.advance_by_descent(now),
            advance @ (Advance::Empty | Advance::Next(_) | Advance::NeedsTable) => advance,
        };
        match advance {
            Advance::Empty => Needs::Nothing,
            Advance::NeedsTable => Needs::Table,
            Advance::Next(next) => self.note_look(now, next, endings),
        }
    }

    /// What tells that the tree has ended.
    fn sign(&self) -> Option<Sign<'_>> {
        match (self.leaf(), self.guardian()) {
            (Some(leaf), _) => Some(Sign::Group(leaf.events())),
            (None, Some(guardian)) => guardian.pinned.process().map(|process| Sign::Process(process.as_fd())),
            (None, None) => None,
        }
    }

    fn may_have_ended(&self) -> bool {
        match (self.leaf(), self.guardian()) {
            // One that cannot be looked at tells nothing.
            (Some(leaf), _) => leaf.state().is_ok_and(|state| !state.populated),
            // One that is stopped does not end.
            (None, Some(guardian)) => !guardian.pinned.can_act(),
            (None, None) => false,
        }
    }

    /// Waits to be told that it has ended. A sign that says so already would tell at once, again and again: one that is over
    /// although the tree is not (a control group that was removed, a guardian that was killed).
    fn rest(&mut self, now: BootTime, endings: &Endings, may_have_ended: bool) {
        let watched = !may_have_ended && self.sign().is_some_and(|sign| endings.watch(self.key, sign));
        self.glance_at = now + if watched { GLANCE } else { GLANCE_UNTOLD };
    }

    fn guardian(&self) -> Option<&PinnedGuardian> {
        self.run.opened.reach.as_ref()?.guardian.as_ref()
    }

    /// It waits for a look at every process of the host.
    pub(super) fn wait_for_table(&mut self, until: BootTime) {
        self.look_at = until;
        self.glance_at = until;
    }

    /// When a look at every process has taken too long.
    pub(super) fn table_deadline(&self, now: BootTime) -> Option<BootTime> {
        self.stop.table_deadline(now)
    }

    /// Sends what is due by this table.
    pub(super) fn look(&mut self, now: BootTime, table: &ProcessTable, endings: &Endings) -> Needs {
        let next = self.stop.step(now, table);
        self.note_look(now, next, endings)
    }

    fn note_look(&mut self, now: BootTime, next: Next, endings: &Endings) -> Needs {
        self.looks = self.looks.saturating_add(1);
        self.thaw();
        self.found_somebody |= self.stop.ladder().found_any();
        let Next::LookAt(at) = next else { return Needs::Nothing };
        let kill_at = self.stop.ladder().kill_at();
        let may_have_ended = self.may_have_ended();
        // After a look that found none, the next one says whether it is over.
        let waits = !may_have_ended && self.stop.ladder().is_calm() && self.stop.ladder().found_any();
        self.look_at = if !waits || now >= kill_at || self.sign().is_none() {
            at
        } else if self.stop.keeps_until_kill() {
            kill_at
        } else {
            kill_at.min(now + GLANCE)
        };
        self.rest(now, endings, may_have_ended);
        Needs::Time
    }

    /// What can be done without a process table: the kernel knows the members of the leaf, and some are held.
    pub(super) fn act_blindly(&mut self, now: BootTime, look_at: BootTime) {
        self.wait_for_table(look_at);
        if let Some(leaf) = self.leaf().filter(|leaf| leaf.can_freeze()) {
            // Frozen, the leader could not act on its signal.
            let _ = leaf.thaw();
        }
        if now < self.stop.ladder().kill_at() {
            return;
        }
        if let Some(leaf) = self.leaf() {
            // Tried again until it is empty.
            let _ = leaf.kill();
        }
        if let Some(reach) = &self.run.opened.reach {
            reach.kill_held();
        }
    }

    /// A frozen tree acts on the stop signal only when it is thawed, and must not run before it has it. Where the signal is
    /// ours the stop thaws by itself once all were asked; the wrapper's is sent, and followed by its own thawing, a moment
    /// after the first look.
    fn thaw(&mut self) {
        let after = match self.signal_by {
            SignalBy::Us => return self.run.note_frozen(false),
            SignalBy::Earlier => 1,
            SignalBy::Wrapper => 2,
        };
        if self.looks != after {
            return;
        }
        if let Some(leaf) = self.leaf().filter(|leaf| leaf.can_freeze())
            && let Err(errno) = leaf.thaw()
        {
            warn!(run_id = %self.run.id(), %errno, "cannot thaw the agent for its stop; SIGKILL still ends it");
        }
        self.run.note_frozen(false);
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.hold()?.leaf.as_deref()
    }

    fn hold(&self) -> Option<&Hold> {
        self.run.admission().map(|admission| &admission.hold)
    }

    /// Tells the wrapper that the stop has begun.
    pub(super) fn tell_wrapper(&self) {
        match &self.reason {
            Reason::Denied(denial) => self.run.notify_stop(StopNotice {
                denial: denial.clone(),
                signalled: match self.signal_by {
                    SignalBy::Us | SignalBy::Earlier => true,
                    SignalBy::Wrapper => false,
                },
                kill_at: self.entry.kill_at,
            }),
            Reason::WrapperGone => {}
        }
    }

    /// One line for what was asked for; what it came to is another.
    pub(super) fn log_begin(&self, now: BootTime) {
        let Reason::Denied(denial) = &self.reason else { return };
        let report = self.stop.report(now);
        warn!(
            run_id = %self.run.id(), device_id = %self.run.opened.device, code = %denial.code,
            request_id = denial.request_id.as_ref().map_or("", |id| id.as_str()),
            reason = denial.reason.as_deref().unwrap_or(""), mechanism = %report.containment,
            signalled = report.signalled, "stopping the agent"
        );
    }

    /// That the stop was requested, once. The end of a wrapper is one only when it left a process.
    pub(super) fn requested(&mut self) -> Option<Happening> {
        let denial = match &self.reason {
            _ if self.requested_told => return None,
            Reason::Denied(denial) => denial.clone(),
            Reason::WrapperGone if self.left_somebody() => Denial::local(Code::LocalStop, "the wrapper died"),
            Reason::WrapperGone => return None,
        };
        self.requested_told = true;
        Some(requested(&self.run, denial))
    }

    /// Whether there was a process to stop.
    fn left_somebody(&self) -> bool {
        let ladder = self.stop.ladder();
        self.found_somebody || ladder.signalled() > 0 || ladder.killed() > 0
    }

    /// The processes that outlived SIGKILL, once: to be reported before the stop is over.
    pub(super) fn survivors(&mut self, now: BootTime) -> Option<StopReport> {
        let early = now < self.stop.ladder().kill_at() + KILL_PATIENCE;
        if self.survivors_reported || early || self.stop.survivors().is_empty() {
            return None;
        }
        let report = self.report(now, false);
        self.survivors_reported = true;
        for survivor in &report.survivors {
            let (run_id, pid) = (self.run.id(), survivor.pid);
            error!(%run_id, pid, reason = survivor.reason, "a process outlived SIGKILL; retrying until it is gone");
        }
        Some(report)
    }

    /// Nothing is left. `None` when there was nothing to stop.
    pub(super) fn confirm(&self, now: BootTime) -> Option<StopReport> {
        let (run_id, device_id) = (self.run.id(), &self.run.opened.device);
        let report = self.report(now, true);
        let StopReport { mechanism, signalled, killed, took_ms, .. } = &report;
        match &self.reason {
            Reason::Denied(denial) => {
                info!(
                    %run_id, %device_id, code = %denial.code, %mechanism, signalled, killed, took_ms,
                    "agent stopped: nothing of it is left"
                );
            }
            Reason::WrapperGone if self.left_somebody() => {
                warn!(
                    %run_id, %device_id, %mechanism, signalled, killed, took_ms,
                    "the wrapper died; its agent was stopped, nothing of it is left"
                );
            }
            Reason::WrapperGone => {
                info!(%run_id, %device_id, "agent ended by itself");
                return None;
            }
        }
        Some(report)
    }

    fn report(&self, now: BootTime, confirmed: bool) -> StopReport {
        let done = self.stop.report(now);
        let opened = &self.run.opened;
        let (code, request_id) = match &self.reason {
            Reason::Denied(denial) => (denial.code.clone(), denial.request_id.clone()),
            Reason::WrapperGone => (Code::LocalStop, None),
        };
        StopReport {
            run_id: opened.id,
            name: opened.name.clone(),
            device_id: opened.device.clone(),
            code,
            request_id,
            began_at: clock::wall_at(self.entry.began).to_string(),
            mechanism: done.containment,
            holds_against: self.hold().map_or(HoldsAgainst::Bugs, |hold| hold.holds_against),
            signalled: done.signalled,
            killed: done.killed,
            took_ms: u64::try_from(now.saturating_since(self.entry.began).as_millis()).unwrap_or(u64::MAX),
            confirmed,
            survivors: done
                .survivors
                .iter()
                .filter(|_| !confirmed)
                .map(|survivor| SurvivorReport {
                    pid: survivor.pid.as_raw(),
                    reason: survivor.reason.in_words().to_owned(),
                })
                .collect(),
        }
    }
}

/// The event of a stop that was requested.
pub(super) fn requested(run: &Run, denial: Denial) -> Happening {
    let Denial { code, request_id, reason, .. } = denial;
    Happening::AgentStopping(StopRequested { agent: run.as_named(), code, request_id, reason })
}
