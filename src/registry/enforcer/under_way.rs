//! One stop under way.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::{self as clock, BootTime};
use machineid_protocol::event::{Happening, StopRequested};
use machineid_protocol::outside::still_running;
use machineid_protocol::status::{StopReport, SurvivorReport};
use machineid_protocol::{Code, Denial, HoldsAgainst};
use machineid_tree::{Advance, FirstSignal, Guardian, KILL_PATIENCE, Leaf, Next, ProcessTable, Stop};
use tracing::{error, info, warn};

use super::end_watch::{EndWatch, Sign};
use super::{EndReason, SignalBy, TreeToEnd};
use crate::registry::containment::RunContainment;
use crate::registry::ledger::BegunStop;
use crate::registry::outside::LeftHelper;
use crate::registry::reach::{Pinned, PinnedGuardian};
use crate::registry::run::{Run, StopNotice};

/// Pause between two glances at a tree whose end the kernel reports. A glance is needed because the guardian that ends with
/// the tree may be stopped, and then does not end.
const GLANCE: Duration = Duration::from_secs(1);
/// The same pause when the kernel refused to report the end. Each glance costs a system call.
const GLANCE_UNTOLD: Duration = Duration::from_millis(50);

/// Why a tree is stopped whose wrapper has ended.
pub(crate) const WRAPPER_GONE: &str = "the wrapper died";
/// Why what is left of an adopted tree is stopped.
pub(crate) const LEADER_GONE: &str = "its first process ended";

/// What a stop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// No turn before [`UnderWay::due_at`].
    Time,
    /// A read of the process table.
    Table,
    /// Nothing more: no process is left.
    Nothing,
}

/// A stop and its state so far.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) run: Arc<Run>,
    look_at: BootTime,
    /// The time of the next glance: has the tree ended?
    glance_at: BootTime,
    /// The key of this stop in the end watch.
    key: u64,
    reason: EndReason,
    begun: BegunStop,
    stop: Stop,
    signal_by: SignalBy,
    looks: u32,
    found_process: bool,
    survivors_reported: bool,
    requested_told: bool,
}

impl UnderWay {
    /// Begins a stop; the leader is signalled at once, through the descriptor held since its start. `None` when the
    /// daemon does not reach the tree.
    pub(super) fn begin(now: BootTime, ending: TreeToEnd, shares_wrapper: bool, key: u64) -> Option<Self> {
        let TreeToEnd { run, signal_by, reason } = ending;
        let reach = run.opened.reach.as_ref()?;
        let tree = run.tree(shares_wrapper)?;
        let begun = run.stop()?;
        let signal_by = match signal_by {
            SignalBy::Wrapper if !reach.wrapper.as_ref().is_some_and(Pinned::can_act) => SignalBy::Us,
            SignalBy::Us | SignalBy::Wrapper | SignalBy::Earlier => signal_by,
        };
        let first_signal = match signal_by {
            SignalBy::Us => FirstSignal::Ours,
            SignalBy::Wrapper | SignalBy::Earlier => FirstSignal::Theirs,
        };
        let grace = begun.kill_at.saturating_since(now);
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
            begun,
            stop,
            signal_by,
            looks: 0,
            found_process: false,
            survivors_reported: false,
            requested_told: false,
        })
    }

    /// The time of this stop's next turn.
    pub(super) fn due_at(&self) -> BootTime {
        if self.sign().is_some() { self.look_at.min(self.glance_at) } else { self.look_at }
    }

    /// The key of this stop in the end watch.
    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    /// Notes the kernel's report that the tree may have ended: a glance is due.
    pub(super) fn note_told(&mut self) {
        self.glance_at = BootTime::default();
    }

    /// Stops watching for the tree's end.
    pub(super) fn leave(&self, end_watch: &EndWatch) {
        if let Some(sign) = self.sign() {
            end_watch.leave(sign);
        }
    }

    /// Whether a process table is read at once: for the first look, for the first look with SIGKILL, and while processes fork
    /// as fast as they are killed, until that has gone on for too long.
    pub(super) fn is_urgent(&self, now: BootTime) -> bool {
        let ladder = self.stop.ladder();
        let killing = now >= ladder.kill_at();
        self.looks == 0 || (killing && (ladder.killed() == 0 || (ladder.is_storm() && !ladder.is_overdue(now))))
    }

    /// Does what is due and needs no process table.
    pub(super) fn advance(&mut self, now: BootTime, end_watch: &EndWatch) -> Needs {
        if now < self.look_at && !self.may_have_ended() {
            self.rest(now, end_watch, false);
            return Needs::Time;
        }
        let tree = self.stop.tree();
        let kernel_counts = tree.leaf().is_some() || matches!(tree.guardian(), Some(Guardian::Init(_)));
        let advance = match self.stop.advance(now) {
            // That the wrapper inherits the orphans is only the wrapper's claim.
            Advance::Empty if !kernel_counts => self.stop.advance_by_descent(now),
            advance @ (Advance::Empty | Advance::Next(_) | Advance::NeedsTable) => advance,
        };
        match advance {
            Advance::Empty => Needs::Nothing,
            Advance::NeedsTable => Needs::Table,
            Advance::Next(next) => self.note_look(now, next, end_watch),
        }
    }

    /// The sign by which the kernel reports the tree's end.
    fn sign(&self) -> Option<Sign<'_>> {
        match (self.leaf(), self.guardian()) {
            (Some(leaf), _) => Some(Sign::Group(leaf.events())),
            (None, Some(guardian)) => guardian.pinned.process().map(|process| Sign::Process(process.as_fd())),
            (None, None) => None,
        }
    }

    fn may_have_ended(&self) -> bool {
        match (self.leaf(), self.guardian()) {
            // A control group that cannot be read proves nothing.
            (Some(leaf), _) => leaf.state().is_ok_and(|state| !state.populated),
            // A stopped guardian does not end by itself.
            (None, Some(guardian)) => !guardian.pinned.can_act(),
            (None, None) => false,
        }
    }

    /// Waits for the report that the tree has ended. A sign whose condition already holds although the tree has not ended (a
    /// removed control group, a killed guardian) is not watched: it would report at once, again and again.
    fn rest(&mut self, now: BootTime, end_watch: &EndWatch, may_have_ended: bool) {
        let watched = !may_have_ended && self.sign().is_some_and(|sign| end_watch.watch(self.key, sign));
        self.glance_at = now + if watched { GLANCE } else { GLANCE_UNTOLD };
    }

    fn guardian(&self) -> Option<&PinnedGuardian> {
        self.run.opened.reach.as_ref()?.guardian.as_ref()
    }

    /// Puts the stop off until the next read of the process table.
    pub(super) fn wait_for_table(&mut self, until: BootTime) {
        self.look_at = until;
        self.glance_at = until;
    }

    /// The time at which reading the process table has taken too long.
    pub(super) fn table_deadline(&self, now: BootTime) -> Option<BootTime> {
        self.stop.table_deadline(now)
    }

    /// Sends the signals that are due according to this table.
    pub(super) fn look(&mut self, now: BootTime, table: &ProcessTable, end_watch: &EndWatch) -> Needs {
        let next = self.stop.step(now, table);
        self.note_look(now, next, end_watch)
    }

    fn note_look(&mut self, now: BootTime, next: Next, end_watch: &EndWatch) -> Needs {
        self.looks = self.looks.saturating_add(1);
        self.thaw();
        self.found_process |= self.stop.ladder().found_any();
        let Next::LookAt(at) = next else { return Needs::Nothing };
        let kill_at = self.stop.ladder().kill_at();
        let may_have_ended = self.may_have_ended();
        // After a look that found no process, the next look confirms the end.
        let waits = !may_have_ended && self.stop.ladder().is_calm() && self.stop.ladder().found_any();
        self.look_at = if !waits || now >= kill_at || self.sign().is_none() {
            at
        } else if self.stop.keeps_until_kill() {
            kill_at
        } else {
            kill_at.min(now + GLANCE)
        };
        self.rest(now, end_watch, may_have_ended);
        Needs::Time
    }

    /// Acts without a process table: the kernel knows the members of the leaf, and the daemon holds descriptors of some
    /// processes.
    pub(super) fn act_blindly(&mut self, now: BootTime, look_at: BootTime) {
        self.wait_for_table(look_at);
        if let Some(leaf) = self.leaf().filter(|leaf| leaf.can_freeze()) {
            // A frozen leader could not act on its signal.
            let _ = leaf.thaw();
        }
        if now < self.stop.ladder().kill_at() {
            return;
        }
        if let Some(leaf) = self.leaf() {
            // Repeated until the leaf is empty.
            let _ = leaf.kill();
        }
        if let Some(reach) = &self.run.opened.reach {
            reach.kill_held();
        }
    }

    /// Thaws a frozen tree, which acts on the stop signal only then and must not run before it has the signal. When the
    /// enforcer sends the signal, the stop itself thaws once all processes have it. When the wrapper sends it, the thaw
    /// follows a moment after the first look.
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
        self.apply_freeze()?.leaf.as_deref()
    }

    fn apply_freeze(&self) -> Option<&RunContainment> {
        self.run.admission().map(|admission| &admission.containment)
    }

    /// Tells the wrapper that the stop has begun.
    pub(super) fn tell_wrapper(&self) {
        match &self.reason {
            EndReason::Denied(denial) => self.run.notify_stop(StopNotice {
                denial: denial.clone(),
                signalled: match self.signal_by {
                    SignalBy::Us | SignalBy::Earlier => true,
                    SignalBy::Wrapper => false,
                },
                kill_at: self.begun.kill_at,
            }),
            EndReason::WrapperGone | EndReason::LeaderGone => {}
        }
    }

    /// Logs the beginning of the stop; its result is logged separately.
    pub(super) fn log_begin(&self, now: BootTime) {
        let EndReason::Denied(denial) = &self.reason else { return };
        let report = self.stop.report(now);
        warn!(
            run_id = %self.run.id(), device_id = %self.run.opened.device, code = %denial.code,
            request_id = denial.request_id.as_ref().map_or("", |id| id.as_str()),
            reason = denial.reason.as_deref().unwrap_or(""), mechanism = %report.containment,
            signalled = report.signalled, "stopping the agent"
        );
    }

    /// The event that the stop was requested; `None` after the first call. The end of a wrapper counts as a request only if
    /// it left a process.
    pub(super) fn requested(&mut self) -> Option<Happening> {
        let denial = match &self.reason {
            _ if self.requested_told => return None,
            EndReason::Denied(denial) => denial.clone(),
            EndReason::WrapperGone if self.left_process() => Denial::local(Code::LocalStop, WRAPPER_GONE),
            EndReason::LeaderGone if self.left_process() => Denial::local(Code::LocalStop, LEADER_GONE),
            EndReason::WrapperGone | EndReason::LeaderGone => return None,
        };
        self.requested_told = true;
        Some(requested(&self.run, denial))
    }

    /// Whether there was a process to stop.
    fn left_process(&self) -> bool {
        let ladder = self.stop.ladder();
        self.found_process || ladder.signalled() > 0 || ladder.killed() > 0
    }

    /// A report of the processes that outlived SIGKILL, once, before the stop is complete.
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

    /// The report that nothing is left; `None` when there was nothing to stop.
    pub(super) fn confirm(&self, now: BootTime) -> Option<StopReport> {
        let (run_id, device_id) = (self.run.id(), &self.run.opened.device);
        let report = self.report(now, true);
        let StopReport { mechanism, signalled, killed, took_ms, .. } = &report;
        match &self.reason {
            EndReason::Denied(denial) => match self.still_outside() {
                None => info!(
                    %run_id, %device_id, code = %denial.code, %mechanism, signalled, killed, took_ms,
                    "agent stopped: nothing of it is left"
                ),
                Some(outside) => warn!(
                    %run_id, %device_id, code = %denial.code, %mechanism, signalled, killed, took_ms,
                    "agent stopped: nothing of its tree is left; {outside}"
                ),
            },
            EndReason::WrapperGone if self.left_process() => {
                let outside = self.still_outside();
                warn!(
                    %run_id, %device_id, %mechanism, signalled, killed, took_ms, outside,
                    "the wrapper died; its agent was stopped, nothing of it is left"
                );
            }
            EndReason::LeaderGone if self.left_process() => {
                info!(
                    %run_id, %device_id, %mechanism, signalled, killed, took_ms,
                    "the first process of an adopted tree ended; what it left was stopped"
                );
            }
            EndReason::WrapperGone | EndReason::LeaderGone => {
                info!(%run_id, %device_id, "agent ended by itself");
                return None;
            }
        }
        Some(report)
    }

    /// Whether a decision or the end of the lease is the reason.
    pub(super) fn is_denied(&self) -> bool {
        match &self.reason {
            // A stop that goes on after a restart of the daemon has its recorded reason, which may be the end of a supervisor.
            EndReason::Denied(denial) => {
                let reason = denial.reason.as_deref();
                reason != Some(WRAPPER_GONE) && reason != Some(LEADER_GONE)
            }
            EndReason::WrapperGone | EndReason::LeaderGone => false,
        }
    }

    /// The helpers that the stop leaves. The thread that ends some of them may not have begun when a tree ends within
    /// milliseconds: they count as being ended all the same.
    pub(super) fn left_helpers(&self) -> Vec<LeftHelper> {
        let mut left = self.run.left_helpers();
        for left in left.iter_mut().filter(|left| self.is_denied() && left.ends_with_run) {
            left.helper.ending = true;
        }
        left
    }

    /// The helpers that the stop leaves, for the log.
    fn still_outside(&self) -> Option<String> {
        let left: Vec<_> = self.left_helpers().into_iter().map(|left| left.helper).collect();
        still_running(&left)
    }

    fn report(&self, now: BootTime, confirmed: bool) -> StopReport {
        let done = self.stop.report(now);
        let opened = &self.run.opened;
        let (code, request_id) = match &self.reason {
            EndReason::Denied(denial) => (denial.code.clone(), denial.request_id.clone()),
            EndReason::WrapperGone | EndReason::LeaderGone => (Code::LocalStop, None),
        };
        StopReport {
            run_id: opened.id,
            name: opened.name.clone(),
            device_id: opened.device.clone(),
            code,
            request_id,
            began_at: clock::wall_at(self.begun.began).to_string(),
            mechanism: done.containment,
            holds_against: self.apply_freeze().map_or(HoldsAgainst::Bugs, |containment| containment.holds_against),
            signalled: done.signalled,
            killed: done.killed,
            took_ms: u64::try_from(now.saturating_since(self.begun.began).as_millis()).unwrap_or(u64::MAX),
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
            // The roster, which notes the report, knows which of them live.
            outside: Vec::new(),
        }
    }
}

/// The event of a stop that was requested.
pub(super) fn requested(run: &Run, denial: Denial) -> Happening {
    let Denial { code, request_id, reason, .. } = denial;
    Happening::AgentStopping(StopRequested { agent: run.as_named(), code, request_id, reason })
}
