//! What the daemon says, and what follows from it.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::code::CodeKind;
use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Containment, Exit, Wish};
use machineid_sys as sys;
use machineid_tree::FirstSignal;

use super::super::event::{Action, Allowed, Daemon, Lost, Refusal, Wait};
use super::super::outcome::{Cause, Outcome};
use super::super::verdict::{Verdict, outcome_of, verdict};
use super::{Core, FIRST_RETRY, LONGEST_RESUME_GRACE, LONGEST_RETRY, Lease, Link, Phase};

impl Core {
    pub(super) fn line(&mut self, now: BootTime, line: SuperviseEvent) -> Vec<Action> {
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
                    return self.broken(now, "it answered something else than was asked");
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
                    Phase::Running { lease } | Phase::Leftovers { lease, .. } => *lease,
                    Phase::Asking { .. } | Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => {
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
            SuperviseEvent::Stop { code, request_id, reason, signalled, grace_ms } => {
                let refusal = Refusal { status: 200, code, request_id, reason };
                if matches!(self.phase, Phase::Asking { .. }) {
                    return self.refused(now, &refusal);
                }
                let first_signal = if signalled { FirstSignal::Theirs } else { FirstSignal::Ours };
                self.stop(now, outcome_of(&refusal, true), first_signal, Duration::from_millis(grace_ms))
            }
            SuperviseEvent::Error { code, request_id, reason, .. } => {
                self.refused(now, &Refusal { status: 200, code, request_id, reason })
            }
        }
    }

    /// What the wrapper made itself it knows about, whether or not the daemon can see it.
    fn held_by(&self, said: Containment) -> Containment {
        match self.settings.made {
            Containment::Subreaper => said,
            made @ (Containment::Cgroup | Containment::Pidns) => made,
        }
    }

    /// A run that is about to start with less than it was to have ends instead.
    fn too_weak(&mut self, containment: Containment) -> Option<Vec<Action>> {
        let Wish::Named(floor) = self.settings.containment else { return None };
        if !matches!(self.phase, Phase::Asking { .. }) || containment.satisfies(floor) {
            return None;
        }
        let reason = format!("containment {floor} is not available: the daemon offers {containment}");
        let reason = self.with_own_failure(reason);
        let mut actions = vec![Action::HangUp];
        actions.extend(self.finish(Outcome::before_start(Exit::Wrapper, Cause::WrapperFailed, reason)));
        Some(actions)
    }

    /// Adds why the wrapper could not make a control group by itself.
    fn with_own_failure(&self, reason: String) -> String {
        match (&self.settings.no_leaf, self.settings.containment) {
            (Some(why), Wish::Named(Containment::Cgroup)) => format!("{reason}; for the wrapper: {why}"),
            (Some(_) | None, _) => reason,
        }
    }

    /// The deadline on our clock; `None` when the connection is not one that is being listened to.
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

    pub(super) fn allowed(&mut self, mut lease: Lease, grace: Duration, allowed: Allowed) -> Vec<Action> {
        match &mut self.phase {
            Phase::Asking { .. } => {
                self.grace = self.settings.stop_grace.map_or(grace, |asked| asked.min(grace));
                self.phase = Phase::Running { lease };
                self.containment = Some(allowed.containment);
                vec![Action::Release(allowed)]
            }
            Phase::Running { lease: known } | Phase::Leftovers { lease: known, .. } => {
                // The daemon's configuration may have changed.
                self.grace = self.settings.stop_grace.map_or(grace, |asked| asked.min(grace));
                // See the rule at the top: the same or a later end of the lease is never moved forward by the journey.
                let comparable = lease.boot_ms >= known.boot_ms;
                if comparable && lease.until_boot_ms >= known.until_boot_ms {
                    lease.deadline = lease.deadline.max(known.deadline);
                }
                *known = lease;
                self.news_until = None;
                Vec::new()
            }
            Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => Vec::new(),
        }
    }

    pub(super) fn set_lease(&mut self, now: BootTime, new: Lease) {
        if let Phase::Running { lease } | Phase::Leftovers { lease, .. } = &mut self.phase {
            *lease = new;
            if new.deadline > now {
                self.news_until = None;
            }
        }
    }

    pub(super) fn broken(&mut self, now: BootTime, why: &str) -> Vec<Action> {
        let mut actions = vec![Action::HangUp];
        actions.extend(self.lost(now, &Lost { why: why.to_owned(), daemon: Daemon::There }));
        actions
    }

    pub(super) fn refused(&mut self, now: BootTime, refusal: &Refusal) -> Vec<Action> {
        let mut actions = vec![Action::HangUp];
        let verdict = verdict(refusal);
        match &mut self.phase {
            Phase::Asking { last, .. } => {
                let mut outcome = outcome_of(refusal, false);
                match (verdict, self.settings.wait) {
                    (Verdict::Refused, _) | (_, Wait::No) => {
                        if verdict == Verdict::Refused {
                            outcome.reason = outcome.reason.map(|reason| self.with_own_failure(reason));
                        }
                        actions.extend(self.finish(outcome));
                    }
                    (Verdict::Denied | Verdict::Undecided, Wait::Forever | Wait::For(_)) => {
                        let why = outcome.code.as_ref().map_or_else(String::new, ToString::to_string);
                        *last = Some(outcome);
                        actions.extend(self.retry(now, &why));
                    }
                }
            }
            Phase::Running { .. } | Phase::Leftovers { .. } => match verdict {
                Verdict::Denied => {
                    let outcome = outcome_of(refusal, true);
                    actions.extend(self.stop(now, outcome, FirstSignal::Ours, self.grace));
                }
                // They say nothing about the agent. The deadline bounds how long that can go on.
                Verdict::Undecided | Verdict::Refused => actions.extend(self.retry(now, "")),
            },
            Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => {
                self.link = Link::Down { retry_at: now };
            }
        }
        actions
    }

    pub(super) fn lost(&mut self, now: BootTime, lost: &Lost) -> Vec<Action> {
        match &mut self.phase {
            Phase::Asking { last, .. } => {
                let remedy = match lost.daemon {
                    Daemon::Absent => {
                        "; start it (`machineid-sidecar`, or the service that runs it), name another socket with --socket, \
                         or use --wait to wait for it"
                    }
                    Daemon::Busy | Daemon::There => "",
                };
                let reason = format!("no answer from the daemon at {}: {}{remedy}", self.settings.socket, lost.why);
                let outcome = Outcome::before_start(Exit::Undecided, Cause::CouldNotAsk, reason);
                if self.settings.wait == Wait::No && lost.daemon != Daemon::Busy {
                    return self.finish(outcome);
                }
                // A deny says more than a connection that failed afterwards.
                if last.as_ref().is_none_or(|last| last.cause != Cause::Denied) {
                    *last = Some(outcome);
                }
                self.retry(now, &lost.why)
            }
            Phase::Running { .. } | Phase::Leftovers { .. } => self.retry(now, ""),
            // The inquiry has a connection of its own: it may be another daemon's that answers.
            Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => {
                self.link = Link::Down { retry_at: now };
                Vec::new()
            }
        }
    }

    pub(super) fn retry(&mut self, now: BootTime, why: &str) -> Vec<Action> {
        self.link = Link::Down { retry_at: now + self.retry_pause };
        self.retry_pause = (self.retry_pause * 2).min(LONGEST_RETRY);
        match &mut self.phase {
            Phase::Asking { told, .. } if !*told && self.settings.wait != Wait::No => {
                *told = true;
                vec![Action::Notice(format!("waiting until it is allowed to run ({why})"))]
            }
            Phase::Asking { .. }
            | Phase::Running { .. }
            | Phase::Unexplained { .. }
            | Phase::Leftovers { .. }
            | Phase::Stopping { .. }
            | Phase::Done => Vec::new(),
        }
    }
}
