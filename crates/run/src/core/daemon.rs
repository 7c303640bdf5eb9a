//! The core's reaction to answers of the daemon.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::code::CodeKind;
use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::outside::MOST_HELPERS;
use machineid_protocol::{Containment, Exit, Wish};
use machineid_sys as sys;
use machineid_tree::FirstSignal;

use super::super::event::{Allowed, ConnectionLost, DaemonRefusal, DaemonState, Wait, WrapperAction};
use super::super::outcome::{EndCause, RunOutcome};
use super::super::verdict::{RefusalKind, outcome_of, verdict};
use super::{FIRST_RETRY, LONGEST_RESUME_GRACE, LONGEST_RETRY, Lease, Link, WrapperCore, WrapperPhase};

impl WrapperCore {
    pub(super) fn line(&mut self, now: BootTime, line: SuperviseEvent) -> Vec<WrapperAction> {
        match line {
            SuperviseEvent::Allow {
                run_id,
                device_id,
                base_url,
                code,
                boot_ms,
                until_boot_ms,
                lease_ms,
                resume_grace_ms,
                stop_grace_ms,
                stop_signal,
                containment,
                killer,
                token,
                request_id: _,
            } => {
                let asked = self.settings.device.as_ref().is_none_or(|device| *device == device_id);
                let allows = matches!(code.kind(), CodeKind::Allow | CodeKind::Unknown);
                if run_id != self.settings.run_id || !asked || !allows {
                    return self.broken(now, "its answer does not match the question");
                }
                let containment = self.held_by(containment);
                if let Some(actions) = self.too_weak(containment) {
                    return actions;
                }
                let length = Duration::from_millis(lease_ms);
                let Some(deadline) = self.named_deadline(now, boot_ms, until_boot_ms, length) else {
                    return Vec::new();
                };
                if deadline <= now {
                    return self.broken(now, "its answer came after the end of the lease it names");
                }
                let lease = Lease { deadline, length, boot_ms, until_boot_ms };
                self.killer = killer;
                self.resume_grace = Duration::from_millis(resume_grace_ms).min(LONGEST_RESUME_GRACE);
                self.retry_pause = FIRST_RETRY;
                let compat = base_url.zip(token);
                if let Some(signal) = stop_signal.as_deref().and_then(|name| sys::parse_signal(name).ok())
                    && self.settings.stop_signal.is_none()
                {
                    self.stop_signal = signal;
                }
                self.allowed(lease, Duration::from_millis(stop_grace_ms), Allowed { device_id, containment, compat })
            }
            SuperviseEvent::Lease { boot_ms, until_boot_ms } => {
                let known = match &self.phase {
                    WrapperPhase::Running { lease } | WrapperPhase::Leftovers { lease, .. } => *lease,
                    WrapperPhase::Asking { .. }
                    | WrapperPhase::Unexplained { .. }
                    | WrapperPhase::Stopping { .. }
                    | WrapperPhase::Done => {
                        return Vec::new();
                    }
                };
                // Only a connection that has said `allow` speaks about this run.
                if matches!(self.link, Link::Up { .. })
                    && boot_ms >= known.boot_ms
                    && let Some(deadline) = self.named_deadline(now, boot_ms, until_boot_ms, known.length)
                {
                    self.set_lease(now, Lease { deadline, boot_ms, until_boot_ms, ..known });
                }
                Vec::new()
            }
            SuperviseEvent::Undecided { reason } => {
                self.undecided = reason;
                Vec::new()
            }
            SuperviseEvent::Outside { helpers } => {
                self.helpers = helpers;
                self.helpers.truncate(MOST_HELPERS);
                Vec::new()
            }
            SuperviseEvent::Look {} => vec![WrapperAction::LookOutside],
            SuperviseEvent::Stop { code, request_id, reason, signalled, grace_ms } => {
                let refusal = DaemonRefusal { status: 200, code, request_id, reason };
                if matches!(self.phase, WrapperPhase::Asking { .. }) {
                    return self.refused(now, &refusal);
                }
                let first_signal = if signalled { FirstSignal::Theirs } else { FirstSignal::Ours };
                self.stop(now, outcome_of(&refusal, true), first_signal, Duration::from_millis(grace_ms))
            }
            SuperviseEvent::Error { code, request_id, reason, .. } => {
                self.refused(now, &DaemonRefusal { status: 200, code, request_id, reason })
            }
        }
    }

    /// The containment of the tree. What the wrapper made itself counts even if the daemon cannot see it.
    fn held_by(&self, said: Containment) -> Containment {
        match self.settings.made {
            Containment::Subreaper => said,
            made @ (Containment::Cgroup | Containment::Pidns) => made,
        }
    }

    /// Ends a run that is about to start with a weaker containment than it asked for.
    fn too_weak(&mut self, containment: Containment) -> Option<Vec<WrapperAction>> {
        let Wish::Named(floor) = self.settings.containment else { return None };
        if !matches!(self.phase, WrapperPhase::Asking { .. }) || containment.satisfies(floor) {
            return None;
        }
        let reason = format!("containment {floor} is not available: the daemon offers {containment}");
        let reason = self.with_own_failure(reason);
        let mut actions = vec![WrapperAction::HangUp];
        actions.extend(self.finish(RunOutcome::before_start(Exit::Wrapper, EndCause::WrapperFailed, reason)));
        Some(actions)
    }

    /// Adds to a reason why the wrapper could not make a control group itself.
    fn with_own_failure(&self, reason: String) -> String {
        match (&self.settings.no_leaf, self.settings.containment) {
            (Some(why), Wish::Named(Containment::Cgroup)) => format!("{reason}; for the wrapper: {why}"),
            (Some(_) | None, _) => reason,
        }
    }

    /// The deadline on this process's clock; `None` when there is no connection to which it could belong.
    pub(super) fn named_deadline(
        &mut self,
        now: BootTime,
        boot_ms: u64,
        until_boot_ms: u64,
        length: Duration,
    ) -> Option<BootTime> {
        let offset = match self.link {
            Link::Up { offset } => offset,
            Link::Asking { since, .. } => i128::from(since.as_millis()) - i128::from(boot_ms),
            Link::Down { .. } => return None,
        };
        self.link = Link::Up { offset };
        let millis = (i128::from(until_boot_ms) + offset).clamp(0, i128::from(u64::MAX));
        let named = BootTime::from_millis(u64::try_from(millis).unwrap_or(0));
        Some(named.min(now + length))
    }

    pub(super) fn allowed(&mut self, mut lease: Lease, grace: Duration, allowed: Allowed) -> Vec<WrapperAction> {
        match &mut self.phase {
            WrapperPhase::Asking { .. } => {
                self.grace = self.settings.stop_grace.map_or(grace, |asked| asked.min(grace));
                self.phase = WrapperPhase::Running { lease };
                self.containment = Some(allowed.containment);
                vec![WrapperAction::Release(allowed)]
            }
            WrapperPhase::Running { lease: known } | WrapperPhase::Leftovers { lease: known, .. } => {
                // The daemon's configuration may have changed.
                self.grace = self.settings.stop_grace.map_or(grace, |asked| asked.min(grace));
                // See the module's rule on deadlines: the same or a later end of the lease must not move the deadline
                // forward because the answer took longer.
                let comparable = lease.boot_ms >= known.boot_ms;
                if comparable && lease.until_boot_ms >= known.until_boot_ms {
                    lease.deadline = lease.deadline.max(known.deadline);
                }
                *known = lease;
                self.news_until = None;
                Vec::new()
            }
            WrapperPhase::Unexplained { .. } | WrapperPhase::Stopping { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    pub(super) fn set_lease(&mut self, now: BootTime, new: Lease) {
        if let WrapperPhase::Running { lease } | WrapperPhase::Leftovers { lease, .. } = &mut self.phase {
            *lease = new;
            if new.deadline > now {
                self.news_until = None;
            }
        }
    }

    pub(super) fn broken(&mut self, now: BootTime, why: &str) -> Vec<WrapperAction> {
        let mut actions = vec![WrapperAction::HangUp];
        actions.extend(self.lost(now, &ConnectionLost { why: why.to_owned(), daemon: DaemonState::There }));
        actions
    }

    pub(super) fn refused(&mut self, now: BootTime, refusal: &DaemonRefusal) -> Vec<WrapperAction> {
        let mut actions = vec![WrapperAction::HangUp];
        let verdict = verdict(refusal);
        match &mut self.phase {
            WrapperPhase::Asking { last, .. } => {
                let mut outcome = outcome_of(refusal, false);
                match (verdict, self.settings.wait) {
                    (RefusalKind::Refused, _) | (_, Wait::No) => {
                        if verdict == RefusalKind::Refused {
                            outcome.reason = outcome.reason.map(|reason| self.with_own_failure(reason));
                        }
                        actions.extend(self.finish(outcome));
                    }
                    (RefusalKind::Denied | RefusalKind::Undecided, Wait::Forever | Wait::For(_)) => {
                        let why = outcome.code.as_ref().map_or_else(String::new, ToString::to_string);
                        *last = Some(outcome);
                        actions.extend(self.retry(now, &why));
                    }
                }
            }
            WrapperPhase::Running { .. } | WrapperPhase::Leftovers { .. } => match verdict {
                RefusalKind::Denied => {
                    let outcome = outcome_of(refusal, true);
                    actions.extend(self.stop(now, outcome, FirstSignal::Ours, self.grace));
                }
                // These answers say nothing about the agent. The deadline bounds how long that can last.
                RefusalKind::Undecided | RefusalKind::Refused => actions.extend(self.retry(now, "")),
            },
            WrapperPhase::Unexplained { .. } | WrapperPhase::Stopping { .. } | WrapperPhase::Done => {
                self.link = Link::Down { retry_at: now };
            }
        }
        actions
    }

    pub(super) fn lost(&mut self, now: BootTime, lost: &ConnectionLost) -> Vec<WrapperAction> {
        match &mut self.phase {
            WrapperPhase::Asking { last, .. } => {
                let remedy = match lost.daemon {
                    DaemonState::Absent => {
                        "; start it (`machineid-sidecar`, or the service that runs it), name another socket with --socket, \
                         or use --wait to wait for it"
                    }
                    DaemonState::Busy | DaemonState::There => "",
                };
                let reason = format!("no answer from the daemon at {}: {}{remedy}", self.settings.socket, lost.why);
                let outcome = RunOutcome::before_start(Exit::Undecided, EndCause::CouldNotAsk, reason);
                if self.settings.wait == Wait::No && lost.daemon != DaemonState::Busy {
                    return self.finish(outcome);
                }
                // A deny says more than a connection that failed afterwards.
                if last.as_ref().is_none_or(|last| last.cause != EndCause::Denied) {
                    *last = Some(outcome);
                }
                self.retry(now, &lost.why)
            }
            WrapperPhase::Running { .. } | WrapperPhase::Leftovers { .. } => self.retry(now, ""),
            // The inquiry has a connection of its own, which may lead to another daemon.
            WrapperPhase::Unexplained { .. } | WrapperPhase::Stopping { .. } | WrapperPhase::Done => {
                self.link = Link::Down { retry_at: now };
                Vec::new()
            }
        }
    }

    pub(super) fn retry(&mut self, now: BootTime, why: &str) -> Vec<WrapperAction> {
        self.link = Link::Down { retry_at: now + self.retry_pause };
        self.retry_pause = (self.retry_pause * 2).min(LONGEST_RETRY);
        match &mut self.phase {
            WrapperPhase::Asking { told, .. } if !*told && self.settings.wait != Wait::No => {
                *told = true;
                vec![WrapperAction::Notice(format!("waiting until it is allowed to run ({why})"))]
            }
            WrapperPhase::Asking { .. }
            | WrapperPhase::Running { .. }
            | WrapperPhase::Unexplained { .. }
            | WrapperPhase::Leftovers { .. }
            | WrapperPhase::Stopping { .. }
            | WrapperPhase::Done => Vec::new(),
        }
    }
}
