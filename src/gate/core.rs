//! The gate's core: a pure state machine. It is told events and the time, and returns actions.
//!
//! Invariants, each tested as a property:
//! - an asker is told "allowed" only by an ALLOW of an attempt that began after the question (P1);
//! - no lease ends later than `lease` after its attempt began, and its end stops the agents, whatever hangs (P3); a lease
//!   that ended during a suspend stops them `resume_grace` after waking, unless an ALLOW comes before;
//! - of overlapping attempts, an ALLOW is dropped when an attempt that began later has already been answered; a deny always
//!   counts (P4);
//! - at most two attempts are in flight; every asker is answered once, at its deadline at the latest.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Decision, Denial};

use super::backoff;
use super::standing::{ConfirmedDenial, GateVerdict, Grant, Standing};
use crate::config::{Rules, SystemUnavailable};

/// Attempts in flight at once, for one device.
const MOST_IN_FLIGHT: usize = 2;
/// How long an asker that arrives during an attempt waits for its end before a second attempt begins.
const COALESCE: Duration = Duration::from_millis(50);
/// The pause before a registration that the authority refused is repeated.
const REGISTER_AGAIN: Duration = Duration::from_mins(1);

/// The id of an attempt. Ids are ordered by the attempts' beginnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId(u64);

/// The id of an open question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AskerId(pub(crate) u64);

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    /// A decision of the authority, or of this host.
    Decided(Decision),
    /// The plan has no place left: the device could not be registered.
    LimitReached,
    /// No usable answer. `code` says whether the authority itself reported that.
    NoAnswer { code: Code, cause: Arc<str>, retry_after: Option<Duration> },
}

/// What an attempt found out about the device's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// The authority was not asked, or did not answer.
    NotAsked,
    /// The authority knows the device.
    Yes,
    /// The authority answered and refused.
    Refused,
}

/// What a caller asks for. A check that registered its device would let every local user fill the plan with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskPurpose {
    /// Only to know. Never makes the device known to the authority.
    Check,
    /// To start an agent, or to go on running one: the device is registered first, if it is not yet.
    Start,
}

/// An input of the gate.
#[derive(Clone, Debug)]
pub(crate) enum GateEvent {
    /// A caller asks and waits until `deadline`.
    Asked { asker: AskerId, deadline: BootTime, purpose: AskPurpose },
    /// A reason to validate now: reload, changed key, signal, push.
    Hinted,
    /// The machine was suspended and has woken. Comes before every other event after waking.
    Resumed,
    /// An attempt ended.
    Finished { attempt: AttemptId, registered: Registered, outcome: AttemptOutcome },
    /// This number of agents now lives on the device's lease.
    Agents(usize),
    /// Agents live on a lease that a previous daemon obtained and that ends at `until`.
    Inherited { until: BootTime },
    /// A reload changed the settings.
    Ruled(Rules),
    /// A reload changed the authority or the key. `registered`: the device is registered there.
    AuthorityChanged { registered: bool },
    /// This host denies by itself, without asking the authority.
    Denied(Denial),
    /// The time of `next_wake` has come.
    Woke,
}

/// An output of the gate, for the driver to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin an attempt now: register first when `register`, then validate.
    Begin { attempt: AttemptId, register: bool },
    /// Abort this attempt: its answer no longer counts.
    Abandon { attempt: AttemptId },
    /// Answer this asker.
    Answer { asker: AskerId, verdict: GateVerdict },
    /// The end of the lease moved: an ALLOW, or a reload that made leases shorter.
    LeaseMoved { until: BootTime },
    /// The newest attempt brought no answer, unlike the attempt before it, if any.
    BecameUnavailable { cause: Arc<str> },
    /// The newest answer is an ALLOW, and the previous standing was not "allowed".
    BecameAllowed,
    /// Every agent of the device must stop.
    StopAgents { denial: Denial },
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: AttemptId,
    began: BootTime,
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    id: AskerId,
    /// The first attempt whose answer is fresh enough for this asker.
    fresh_from: AttemptId,
    asked: BootTime,
    deadline: BootTime,
}

/// The newest attempt's outcome, as far as it matters to agents that live on a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Yes,
    Not,
    /// No attempt yet, or a deny, which stops the agents.
    Otherwise,
}

impl Answered {
    fn of(standing: &Standing) -> Self {
        match standing {
            Standing::Allowed { .. } => Self::Yes,
            Standing::Unavailable { .. } => Self::Not,
            Standing::Unknown | Standing::Denied { .. } => Self::Otherwise,
        }
    }
}

/// When a gate makes its first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// At once: the host must be registered, and known to be ready.
    AtOnce,
    /// When a caller asks, which every user of the gate does immediately: an attempt begun before the question would not be
    /// fresh enough.
    WhenAsked,
}

/// What is known about the device's registration.
#[derive(Clone, Copy, Debug)]
struct RegistrationState {
    /// There is a reason to register: this is the host's gate, or an agent was started or lives here.
    wanted: bool,
    done: bool,
}

/// One device's gate: what is known about its permission, and what is to be done about it.
///
/// A gate performs no I/O and reads no clock. Its caller (the *driver*) tells it what happened and when, carries out what it
/// answers, and wakes it in time. The methods are of three kinds:
///
/// - **input**: [`handle`](Self::handle) takes one [`GateEvent`] with the time of now. It never fails and never blocks.
/// - **output**: the [`Action`]s that `handle` appends. The caller carries them out in their order, all of them, before it
///   calls `handle` again: an `Answer` that follows a `StopAgents` must not be sent before it.
/// - **polling**: [`next_wake`](Self::next_wake) is the latest time of the next `handle`, with [`GateEvent::Woke`] if nothing
///   else happens before. It may change with each `handle`, so the caller asks again after each. The other methods only read.
///
/// # Order
///
/// 1. [`new`](Self::new); for a device whose agents a previous daemon left, [`GateEvent::Inherited`] next.
/// 2. [`GateEvent::Agents`] whenever the number of agents on the lease changes. A gate with agents and no ALLOW stops them
///    when the lease ends.
/// 3. Each `Begin` is one attempt. The caller begins it at once and reports it once, by [`GateEvent::Finished`], unless the
///    gate abandons it. An outcome that comes later is ignored.
/// 4. Each [`GateEvent::Asked`] is answered by one `Answer`, at its deadline at the latest. A caller whose asker is gone may
///    drop the answer.
/// 5. After a suspend, [`GateEvent::Resumed`] comes before every other event.
///
/// # Time
///
/// `now` is a time of the boot clock and never less than in the previous call. A late call has no effect beyond its lateness:
/// leases, deadlines and pauses are compared with `now`, and a lease that ended meanwhile ends first. An early call changes
/// nothing.
#[derive(Debug)]
pub(crate) struct Gate {
    rules: Rules,
    rng: fastrand::Rng,
    standing: Standing,
    last_decision: Option<(BootTime, Decision)>,
    lease_until: Option<BootTime>,
    /// The end of the grace for an ALLOW after a lease that ended during a suspend.
    grace_until: Option<BootTime>,
    registration: RegistrationState,
    /// The first attempt whose result about the registration counts: earlier ones asked another authority.
    registers_from: AttemptId,
    register_again: BootTime,
    next_attempt: AttemptId,
    newest_answered: Option<AttemptId>,
    in_flight: Vec<InFlight>,
    askers: Vec<Asker>,
    due: BootTime,
    hinted: bool,
    /// Whether the next periodic validation comes at a random phase.
    scatter: bool,
    failures: u32,
    agents: usize,
}

impl Gate {
    pub(crate) fn new(rules: Rules, registered: bool, first: First, seed: u64, now: BootTime) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let due = match first {
            First::AtOnce => now,
            First::WhenAsked => now + rules.interval.mul_f64(rng.f64()),
        };
        Self {
            rules,
            rng,
            standing: Standing::Unknown,
            last_decision: None,
            lease_until: None,
            grace_until: None,
            registration: RegistrationState {
                wanted: match first {
                    First::AtOnce => true,
                    First::WhenAsked => false,
                },
                done: registered,
            },
            registers_from: AttemptId(1),
            register_again: now,
            next_attempt: AttemptId(1),
            newest_answered: None,
            in_flight: Vec::with_capacity(MOST_IN_FLIGHT),
            askers: Vec::new(),
            due,
            hinted: false,
            scatter: true,
            failures: 0,
            agents: 0,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The last decision, whatever happened since, and when its validation began.
    pub(crate) fn last_decision(&self) -> Option<&(BootTime, Decision)> {
        self.last_decision.as_ref()
    }

    /// The end of the lease that running agents live on.
    pub(crate) fn lease_until(&self) -> Option<BootTime> {
        self.lease_until
    }

    /// When the agents are stopped if no ALLOW comes before.
    fn agents_until(&self) -> Option<BootTime> {
        self.lease_until.map(|until| self.grace_until.map_or(until, |grace| grace.max(until)))
    }

    /// When the next periodic validation is due; `None` while the largest number of attempts is in flight.
    pub(crate) fn next_validation(&self) -> Option<BootTime> {
        (self.in_flight.len() < MOST_IN_FLIGHT).then_some(self.due)
    }

    /// When the gate needs an [`GateEvent::Woke`], if no other event comes before.
    pub(crate) fn next_wake(&self) -> Option<BootTime> {
        let asker_deadline = self.askers.iter().map(|asker| asker.deadline).min();
        let patience = (self.in_flight.len() < MOST_IN_FLIGHT).then(|| self.patience_ends()).flatten();
        [self.next_validation(), self.agents_until(), asker_deadline, patience].into_iter().flatten().min()
    }

    /// Takes an event and appends the resulting actions to `actions`, in order.
    pub(crate) fn handle(&mut self, now: BootTime, event: GateEvent, actions: &mut Vec<Action>) {
        let mut slot_freed = false;
        let before = Answered::of(&self.standing);
        match event {
            GateEvent::Asked { asker, deadline, purpose } => {
                self.registration.wanted |= purpose == AskPurpose::Start;
                self.askers.push(Asker { id: asker, fresh_from: self.next_attempt, asked: now, deadline });
            }
            GateEvent::Hinted => self.hinted = true,
            GateEvent::Resumed => self.resume(now, actions),
            GateEvent::Agents(count) => {
                self.agents = count;
                self.registration.wanted |= count > 0;
            }
            GateEvent::Finished { attempt, registered, outcome } => {
                slot_freed = self.finish(now, attempt, registered, outcome, actions);
            }
            GateEvent::Inherited { until } => {
                self.registration.wanted = true;
                self.inherit(now, until);
            }
            GateEvent::Ruled(rules) => self.rule(now, rules, actions),
            GateEvent::AuthorityChanged { registered } => {
                self.registration.done = registered;
                self.registers_from = self.next_attempt;
                self.register_again = now;
                self.hinted = true;
            }
            GateEvent::Denied(denial) => self.deny_here(now, denial, actions),
            GateEvent::Woke => {}
        }
        self.end_lease(now, actions);
        match &self.standing {
            Standing::Unavailable { cause, .. } if before != Answered::Not => {
                actions.push(Action::BecameUnavailable { cause: Arc::clone(cause) });
            }
            Standing::Allowed { .. } if before != Answered::Yes => actions.push(Action::BecameAllowed),
            Standing::Unavailable { .. } | Standing::Allowed { .. } | Standing::Unknown | Standing::Denied { .. } => {}
        }
        self.give_up_on_late_askers(now, actions);
        self.begin_if_wanted(now, slot_freed, actions);
    }

    /// Takes over the lease of a previous daemon, which paces retries as one of this gate does. It is never longer than one
    /// of this gate, and a deny has ended it.
    fn inherit(&mut self, now: BootTime, until: BootTime) {
        let denied = matches!(self.standing, Standing::Denied { .. });
        let until = until.min(now + self.rules.lease);
        if !denied && self.lease_until.is_none_or(|held| until > held) {
            self.lease_until = Some(until);
        }
    }

    /// Denies like an attempt that begins and ends now: everything in flight was asked before, so that its ALLOW is dropped.
    fn deny_here(&mut self, now: BootTime, denial: Denial, actions: &mut Vec<Action>) {
        let attempt = self.next_attempt;
        self.next_attempt = AttemptId(attempt.0 + 1);
        let verdict = self.deny(now, now, attempt, denial, actions);
        for asker in self.askers.drain(..) {
            actions.push(Action::Answer { asker: asker.id, verdict: verdict.clone() });
        }
    }

    /// Applies new rules. A shorter lease counts from now on for agents that live on a longer one, not from the last ALLOW:
    /// that may be older than the new lease because of the old interval alone, and the agents would be stopped although
    /// nothing is wrong. A longer lease begins with the next ALLOW.
    fn rule(&mut self, now: BootTime, rules: Rules, actions: &mut Vec<Action>) {
        self.rules = rules;
        let until = now + rules.lease;
        if self.lease_until.is_some_and(|held| until < held) {
            self.lease_until = Some(until);
            actions.push(Action::LeaseMoved { until });
        }
        self.due = self.due.min(now + self.jittered_interval());
        self.hinted = true;
    }

    /// Handles the end of a suspend. Attempts from before it have lost their connections and would occupy both slots until
    /// they time out, so they are aborted. Agents whose lease ended meanwhile get time for a new ALLOW: the gate could not
    /// ask during the suspend.
    fn resume(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        actions.extend(self.in_flight.drain(..).map(|flying| Action::Abandon { attempt: flying.id }));
        self.hinted = true;
        // All gates of a host, and all hosts of a rack, wake together.
        self.scatter = true;
        if self.lease_until.is_some_and(|until| until <= now) {
            self.grace_until = Some(now + self.rules.resume_grace);
            self.become_unavailable(
                now,
                Arc::from("the machine was suspended past the end of the lease; asking again"),
            );
        }
    }

    fn finish(
        &mut self,
        now: BootTime,
        attempt: AttemptId,
        registered: Registered,
        outcome: AttemptOutcome,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(place) = self.in_flight.iter().position(|flying| flying.id == attempt) else { return false };
        let began = self.in_flight.swap_remove(place).began;
        match registered {
            Registered::NotAsked => {}
            Registered::Yes | Registered::Refused if attempt < self.registers_from => {}
            Registered::Yes => self.registration.done = true,
            Registered::Refused => self.register_again = now + REGISTER_AGAIN,
        }
        let verdict = match outcome {
            // A suspend during the request can cause this.
            AttemptOutcome::Decided(Decision::Allow { .. }) if began + self.rules.lease <= now => {
                self.fail(now, Code::AuthorityUnreachable, Arc::from("the ALLOW came after the end of its lease"), None)
            }
            AttemptOutcome::Decided(Decision::Deny(denial))
                if denial.code == Code::SystemUnavailable
                    && self.rules.system_unavailable == SystemUnavailable::Retry =>
            {
                let cause = Arc::from("the authority could not complete a decision");
                self.fail(now, Code::SystemUnavailable, cause, None)
            }
            AttemptOutcome::Decided(Decision::Deny(denial)) => self.deny(now, began, attempt, denial, actions),
            AttemptOutcome::LimitReached => {
                let denial = Denial::local(
                    Code::DeviceLimitReached,
                    "the plan has no place left for this device; remove or revoke one, or take a larger plan",
                );
                let verdict = self.deny(now, began, attempt, denial, actions);
                self.due = now + REGISTER_AGAIN;
                verdict
            }
            AttemptOutcome::Decided(Decision::Allow { code, request_id }) => {
                let grant = Grant { code, request_id, confirmed_at: began };
                self.allow(now, attempt, grant, actions)
            }
            // A later attempt has been answered: this failure says nothing new, and no asker waits for it.
            AttemptOutcome::NoAnswer { code, cause, retry_after }
                if self.newest_answered.is_some_and(|newest| newest > attempt) =>
            {
                GateVerdict::Undecided { code, cause, retry_after }
            }
            AttemptOutcome::NoAnswer { code, cause, retry_after } => self.fail(now, code, cause, retry_after),
        };
        self.askers.retain(|asker| {
            let fresh = asker.fresh_from <= attempt;
            if fresh {
                actions.push(Action::Answer { asker: asker.id, verdict: verdict.clone() });
            }
            !fresh
        });
        true
    }

    fn allow(&mut self, now: BootTime, attempt: AttemptId, grant: Grant, actions: &mut Vec<Action>) -> GateVerdict {
        let until = grant.confirmed_at + self.rules.lease;
        let overtaken = self.newest_answered.is_some_and(|newest| newest > attempt);
        if overtaken {
            // No asker is left for this answer: the later attempt answered them all.
            return GateVerdict::Allowed { grant, until };
        }
        self.newest_answered = Some(attempt);
        self.answered(now, grant.confirmed_at);
        self.last_decision = Some((
            grant.confirmed_at,
            Decision::Allow { code: grant.code.clone(), request_id: grant.request_id.clone() },
        ));
        let since = match &self.standing {
            Standing::Allowed { since, .. } => *since,
            Standing::Unknown | Standing::Denied { .. } | Standing::Unavailable { .. } => now,
        };
        self.standing = Standing::Allowed { since, grant: grant.clone() };
        if self.grace_until.take().is_some() {
            self.due = now + self.random_phase();
        }
        if self.lease_until.is_none_or(|held| until > held) {
            self.lease_until = Some(until);
            actions.push(Action::LeaseMoved { until });
        }
        GateVerdict::Allowed { grant, until }
    }

    fn deny(
        &mut self,
        now: BootTime,
        began: BootTime,
        attempt: AttemptId,
        denial: Denial,
        actions: &mut Vec<Action>,
    ) -> GateVerdict {
        self.newest_answered = self.newest_answered.max(Some(attempt));
        self.answered(now, began);
        self.last_decision = Some((began, Decision::Deny(denial.clone())));
        let since = match &self.standing {
            Standing::Denied { since, refusal } if refusal.denial.code == denial.code => *since,
            Standing::Unknown | Standing::Allowed { .. } | Standing::Denied { .. } | Standing::Unavailable { .. } => {
                now
            }
        };
        let refusal = ConfirmedDenial { denial: denial.clone(), confirmed_at: began };
        self.standing = Standing::Denied { since, refusal: refusal.clone() };
        (self.lease_until, self.grace_until) = (None, None);
        actions.push(Action::StopAgents { denial });
        GateVerdict::Denied(refusal)
    }

    /// Ends a series of failures; the next validation is due one interval after this one began.
    fn answered(&mut self, now: BootTime, began: BootTime) {
        if self.failures > 0 {
            self.failures = 0;
            self.due = (began + self.jittered_interval()).max(now);
        }
    }

    fn fail(&mut self, now: BootTime, code: Code, cause: Arc<str>, retry_after: Option<Duration>) -> GateVerdict {
        self.failures = self.failures.saturating_add(1);
        let lease_left = self.agents_until().filter(|_| self.agents > 0).map(|until| until.saturating_since(now));
        self.due = now + backoff::delay(self.failures, lease_left, retry_after, &mut self.rng);
        self.become_unavailable(now, Arc::clone(&cause));
        GateVerdict::Undecided { code, cause, retry_after }
    }

    fn become_unavailable(&mut self, now: BootTime, cause: Arc<str>) {
        let (since, last_allowed) = match &self.standing {
            Standing::Unavailable { since, last_allowed, .. } => (*since, *last_allowed),
            Standing::Allowed { grant, .. } => (now, Some(grant.confirmed_at)),
            Standing::Unknown | Standing::Denied { .. } => (now, None),
        };
        self.standing = Standing::Unavailable { since, cause, last_allowed };
    }

    fn end_lease(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        if self.agents_until().is_none_or(|until| now < until) {
            return;
        }
        (self.lease_until, self.grace_until) = (None, None);
        let cause = match &self.standing {
            Standing::Unavailable { cause, .. } => Arc::clone(cause),
            Standing::Unknown | Standing::Allowed { .. } | Standing::Denied { .. } => {
                Arc::from("no validation was answered within the lease")
            }
        };
        let denial = Denial::local(Code::LeaseExpired, format!("the lease ended with no new ALLOW: {cause}"));
        self.become_unavailable(now, cause);
        actions.push(Action::StopAgents { denial });
    }

    fn give_up_on_late_askers(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        if self.askers.iter().all(|asker| now < asker.deadline) {
            return;
        }
        let (code, cause) = match &self.standing {
            Standing::Unknown => (Code::Starting, "the daemon is still waiting for its first decision"),
            Standing::Allowed { .. } | Standing::Denied { .. } | Standing::Unavailable { .. } => {
                (Code::CheckTimeout, "no answer from the authority within the check's deadline")
            }
        };
        let verdict = GateVerdict::Undecided { code, cause: Arc::from(cause), retry_after: None };
        self.askers.retain(|asker| {
            let late = asker.deadline <= now;
            if late {
                actions.push(Action::Answer { asker: asker.id, verdict: verdict.clone() });
            }
            !late
        });
    }

    fn begin_if_wanted(&mut self, now: BootTime, slot_freed: bool, actions: &mut Vec<Action>) {
        if self.in_flight.len() >= MOST_IN_FLIGHT {
            return;
        }
        let asked = self.has_waiting_asker() && (slot_freed || self.in_flight.is_empty());
        let impatient = self.patience_ends().is_some_and(|end| end <= now);
        let due = self.due <= now;
        if !(asked || impatient || self.hinted || due) {
            return;
        }
        self.hinted = false;
        let attempt = self.next_attempt;
        self.next_attempt = AttemptId(attempt.0 + 1);
        self.in_flight.push(InFlight { id: attempt, began: now });
        if asked || impatient || due || self.scatter {
            self.due = now + self.pause();
        }
        let register = self.registration.wanted && !self.registration.done && self.register_again <= now;
        actions.push(Action::Begin { attempt, register });
    }

    /// Time to the next periodic validation. A hinted validation does not postpone it: all devices of a host are hinted at
    /// the same moment, and would otherwise be validated at the same moment from then on.
    fn pause(&mut self) -> Duration {
        // The first periodic validation comes at a random phase, so that hosts that boot together spread out.
        let pause = if std::mem::take(&mut self.scatter) { self.random_phase() } else { self.jittered_interval() };
        // After waking the network may lose the first request: use the second slot soon.
        if self.grace_until.is_some() { pause.min(self.rules.resume_grace / 3) } else { pause }
    }

    /// Whether a caller asked after the newest attempt began.
    fn has_waiting_asker(&self) -> bool {
        self.askers.iter().any(|asker| asker.fresh_from == self.next_attempt)
    }

    /// When the first waiting asker has waited long enough for a second attempt to begin.
    fn patience_ends(&self) -> Option<BootTime> {
        let waiting = self.askers.iter().filter(|asker| asker.fresh_from == self.next_attempt);
        waiting.map(|asker| asker.asked + COALESCE).min()
    }

    /// The interval, or up to a tenth less, so that gates that began together drift apart. Never more: the longest silence
    /// and the tolerable outage that users are told are computed from the interval itself.
    fn jittered_interval(&mut self) -> Duration {
        self.rules.interval.mul_f64(0.9 + 0.1 * self.rng.f64())
    }

    fn random_phase(&mut self) -> Duration {
        self.rules.interval.mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
