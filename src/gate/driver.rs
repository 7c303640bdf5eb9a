//! The task around one gate's core: reads the clock, makes attempts, carries actions out. Decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::{BootTime, Moment, Suspends};
use machineid_log::Vital;
use machineid_protocol::event::{DecisionChange, Happening, Source};
use machineid_protocol::status::StandingKind;
use machineid_protocol::{Code, Decision, Denial, DeviceId, RequestId};
use machineid_sys::{self as sys, TimeSlice};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::attempt::{Authority, Means};
use super::boot_timer::BootTimer;
use super::core::{Action, AskerId, AttemptId, Event, First, Gate, Outcome, Registered};
use super::handle::{Command, Report};
use super::standing::{Standing, Verdict};
use crate::config::{Following, Live};

/// Commands taken in one go, before anything else has its turn.
const CROWD: usize = 256;
/// Askers answered in one go. Were a whole crowd woken at once, who asks anew first would wait for the last of them, and the
/// runtime would lose their order.
const ANSWERED: usize = 16;

/// What a gate tells about the agents that live on its leases.
pub(crate) trait Agents: Send + Sync + 'static {
    /// An ALLOW moved the end of the device's lease.
    fn lease_moved(&self, device: &DeviceId, until: BootTime);
    /// The device cannot be asked about any more.
    fn unavailable(&self, device: &DeviceId, cause: &Arc<str>);
    /// The device is allowed again, or for the first time.
    fn allowed(&self, device: &DeviceId);
    /// Every agent of the device must stop.
    fn stop(&self, device: &DeviceId, denial: &Denial);
}

pub(super) struct Driver {
    device: DeviceId,
    gate: Gate,
    authority: Arc<Authority>,
    agents: Arc<dyn Agents>,
    publish: watch::Sender<Report>,
    suspends: Suspends,
    attempts: JoinSet<(AttemptId, Registered, Outcome)>,
    under_way: HashMap<AttemptId, AbortHandle>,
    replies: HashMap<AskerId, oneshot::Sender<Verdict>>,
    /// Decided and yet to be told, in the order of the questions.
    answers: VecDeque<(oneshot::Sender<Verdict>, Verdict)>,
    next_asker: u64,
    /// Of the thread that answers, as far as this crowd goes.
    turns: TimeSlice,
    settings: Following,
    /// Those that the core has been told of: what it says about registering holds for these.
    means: Arc<Means>,
    /// Of the means.
    changes: watch::Receiver<Arc<Means>>,
    /// Of the kill file.
    kills: watch::Receiver<Option<Denial>>,
}

impl Driver {
    /// One that has yet to run, and what it will be seen to hold.
    pub(super) fn new(
        device: DeviceId,
        live: &Live,
        first: First,
        authority: Arc<Authority>,
        agents: Arc<dyn Agents>,
    ) -> (Self, watch::Receiver<Report>) {
        let start = Moment::now();
        let mut settings = live.follow();
        let mut changes = authority.follow();
        let kills = authority.follow_kill_file();
        let means = Arc::clone(&changes.borrow_and_update());
        let gate =
            Gate::new(settings.now().rules(), means.has_registered(&device), first, fastrand::u64(..), start.boot);
        let (publish, report) = watch::channel(Report::of(&gate));
        let driver = Self {
            device,
            gate,
            authority,
            agents,
            publish,
            suspends: Suspends::from(start),
            attempts: JoinSet::new(),
            under_way: HashMap::new(),
            replies: HashMap::new(),
            answers: VecDeque::new(),
            next_asker: 0,
            turns: TimeSlice::Ordinary,
            settings,
            means,
            changes,
            kills,
        };
        (driver, report)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut timer: BootTimer) {
        let _vital = Vital;
        self.tell(Event::Woke);
        loop {
            self.answer_some();
            let wake = self.gate.next_wake();
            let event = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.event_of(command),
                    None => return,
                },
                settings = self.settings.changed() => Event::Ruled(settings.rules()),
                // The sender lives in the authority that we hold.
                Ok(()) = self.changes.changed() => {
                    self.means = Arc::clone(&self.changes.borrow_and_update());
                    Event::AuthorityChanged { registered: self.means.has_registered(&self.device) }
                },
                // Its sender too.
                Ok(()) = self.kills.changed() => match self.kills.borrow_and_update().clone() {
                    Some(denial) => Event::Denied(denial),
                    None => Event::Hinted,
                },
                Some(finished) = self.attempts.join_next() => match finished {
                    Ok((attempt, registered, outcome)) => Event::Finished { attempt, registered, outcome },
                    Err(error) => match self.lost(&error) {
                        Some(event) => event,
                        // It was given up.
                        None => continue,
                    },
                },
                fired = timer.wait_until(wake) => {
                    if let Err(error) = fired {
                        tracing::error!(device_id = %self.device, %error, "the boot clock's timer failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Event::Woke
                },
                () = tokio::task::yield_now(), if !self.answers.is_empty() => continue,
            };
            self.tell(event);
            // Askers come in crowds: those who are here already need not each wait for a round of all that is above, with its
            // timer set anew.
            for _ in 0..CROWD {
                let Ok(command) = commands.try_recv() else { break };
                let event = self.event_of(command);
                self.tell(event);
            }
        }
    }

    fn event_of(&mut self, command: Command) -> Event {
        match command {
            Command::Ask { deadline, reply } => {
                self.next_asker += 1;
                let asker = AskerId(self.next_asker);
                self.replies.insert(asker, reply);
                Event::Asked { asker, deadline }
            }
            Command::Hint => Event::Hinted,
            Command::Agents(count) => Event::Agents(count),
            Command::Inherit(until) => Event::Inherited { until },
            Command::Wake => Event::Woke,
            Command::Pulse(turn) => {
                // Who gave up waiting need not know.
                let _ = turn.send(());
                Event::Woke
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let moment = Moment::now();
        if self.suspends.until(moment).is_some() {
            self.authority.woke(moment);
            self.handle(moment.boot, Event::Resumed);
        }
        self.handle(moment.boot, event);
    }

    fn handle(&mut self, now: BootTime, event: Event) {
        let before = self.gate.standing().clone();
        if let Event::Finished { attempt, .. } = &event {
            self.under_way.remove(attempt);
        }
        self.count(&event);
        let asked = matches!(event, Event::Asked { .. });
        let mut actions = Vec::new();
        self.gate.handle(now, event, &mut actions);
        if asked && actions.is_empty() {
            // One more who waits: nothing of the report has changed.
            return;
        }
        // Published before anything is carried out: whoever admits an agent looks at the report, and must not see an
        // ALLOW that a stop already sent has overtaken.
        self.publish.send_replace(Report::of(&self.gate));
        if is_news(&before, self.gate.standing()) {
            self.authority.stir();
        }
        self.log_change(&before);
        for action in actions {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Begin { attempt, register } => {
                let (authority, device) = (Arc::clone(&self.authority), self.device.clone());
                let means = Arc::clone(&self.means);
                self.begin(attempt, async move { authority.attempt(&means, &device, register).await });
            }
            Action::Abandon { attempt } => {
                if let Some(handle) = self.under_way.remove(&attempt) {
                    handle.abort();
                }
            }
            Action::Answer { asker, verdict } => {
                self.answers.extend(self.replies.remove(&asker).map(|reply| (reply, verdict)));
            }
            Action::LeaseMoved { until } => self.agents.lease_moved(&self.device, until),
            Action::BecameUnavailable { cause } => self.agents.unavailable(&self.device, &cause),
            Action::BecameAllowed => self.agents.allowed(&self.device),
            Action::StopAgents { denial } => self.agents.stop(&self.device, &denial),
        }
    }

    fn begin(&mut self, attempt: AttemptId, work: impl Future<Output = (Registered, Outcome)> + Send + 'static) {
        let handle = self.attempts.spawn(async move {
            let (registered, outcome) = work.await;
            (attempt, registered, outcome)
        });
        self.under_way.insert(attempt, handle);
    }

    /// What follows from an attempt that has ended without a result. One that panicked brought no answer: its place is free
    /// again, and the lease runs on. One that was given up is no news.
    fn lost(&self, error: &JoinError) -> Option<Event> {
        let (attempt, _) = self.under_way.iter().find(|(_, handle)| handle.id() == error.id())?;
        tracing::error!(device_id = %self.device, %error, "a validation failed to run; trying again");
        let cause = Arc::from("the validation failed to run because of an internal error: the log says where");
        let outcome = Outcome::NoAnswer { code: Code::AuthorityUnreachable, cause, retry_after: None };
        Some(Event::Finished { attempt: *attempt, registered: Registered::NotAsked, outcome })
    }

    fn answer_some(&mut self) {
        // A crowd takes milliseconds to answer, and asks again meanwhile: the authority, when it is on this host, must not
        // wait that long for its turn. Somebody alone would: his is then taken by who has just answered him.
        let turns = if self.answers.len() > ANSWERED { TimeSlice::Short } else { TimeSlice::Ordinary };
        if turns != self.turns {
            self.turns = turns;
            sys::set_time_slice(turns);
        }
        for (reply, verdict) in self.answers.drain(..self.answers.len().min(ANSWERED)) {
            // An asker who went away needs no answer.
            let _ = reply.send(verdict.told_under(self.gate.standing()));
        }
    }

    /// Counts an answer, whether or not it changes anything.
    fn count(&self, event: &Event) {
        let Event::Finished { outcome, .. } = event else { return };
        let metrics = &self.authority.journal().metrics;
        match outcome {
            Outcome::Decided(decision) => metrics.decided(decision, source_of(decision)),
            Outcome::LimitReached => {
                let limit = Decision::Deny(Denial::local(Code::DeviceLimitReached, ""));
                metrics.decided(&limit, Source::Authority);
            }
            Outcome::NoAnswer { .. } => {}
        }
    }

    fn log_change(&self, before: &Standing) {
        let device_id = &self.device;
        match (before, self.gate.standing()) {
            (old, new) if old == new => {}
            (Standing::Allowed { .. }, Standing::Allowed { grant, .. }) => {
                debug!(%device_id, code = %grant.code, request_id = shown(grant.request_id.as_ref()), "still allowed");
            }
            (_, Standing::Allowed { grant, .. }) => {
                info!(%device_id, code = %grant.code, request_id = shown(grant.request_id.as_ref()), "allowed");
                self.tell_change(
                    StandingKind::Allowed,
                    Source::Authority,
                    &grant.code,
                    grant.request_id.as_ref(),
                    None,
                );
            }
            (Standing::Denied { refusal: old, .. }, Standing::Denied { refusal, .. })
                if old.denial.code == refusal.denial.code =>
            {
                let denial = &refusal.denial;
                debug!(%device_id, code = %denial.code, request_id = shown(denial.request_id.as_ref()), "still denied");
            }
            (_, Standing::Denied { refusal, .. }) => {
                let denial = &refusal.denial;
                let (request_id, reason) = (denial.request_id.as_ref(), denial.reason.as_deref());
                warn!(
                    %device_id, code = %denial.code, request_id = shown(request_id), reason = reason.unwrap_or(""),
                    "denied"
                );
                let source = source_of_denial(denial);
                self.tell_change(StandingKind::Denied, source, &denial.code, request_id, reason);
            }
            (Standing::Unavailable { .. }, Standing::Unavailable { .. }) | (_, Standing::Unknown) => {}
            (_, Standing::Unavailable { cause, .. }) => {
                warn!(%device_id, %cause, "no decision available from the authority");
                let code = &Code::AuthorityUnreachable;
                self.tell_change(StandingKind::Unavailable, Source::Local, code, None, Some(cause));
            }
        }
    }

    fn tell_change(
        &self,
        standing: StandingKind,
        source: Source,
        code: &Code,
        request_id: Option<&RequestId>,
        reason: Option<&str>,
    ) {
        self.authority.journal().tell(Happening::Decision(DecisionChange {
            device_id: self.device.clone(),
            standing,
            source,
            code: code.clone(),
            request_id: request_id.cloned(),
            reason: reason.map(str::to_owned),
        }));
    }
}

/// Whether subscribers were last told another standing.
fn is_news(before: &Standing, now: &Standing) -> bool {
    match (before, now) {
        (Standing::Denied { refusal: old, .. }, Standing::Denied { refusal, .. }) => {
            (&old.denial.code, &old.denial.revoked_at) != (&refusal.denial.code, &refusal.denial.revoked_at)
        }
        (old, new) => std::mem::discriminant(old) != std::mem::discriminant(new),
    }
}

/// Who made a decision.
fn source_of(decision: &Decision) -> Source {
    match decision {
        Decision::Allow { .. } => Source::Authority,
        Decision::Deny(denial) => source_of_denial(denial),
    }
}

fn source_of_denial(denial: &Denial) -> Source {
    // What an authority says comes with its name for it, or without a code of this host's.
    let local = matches!(denial.code, Code::LocalKill | Code::LocalStop) && denial.request_id.is_none();
    if local { Source::Local } else { Source::Authority }
}

fn shown(request_id: Option<&RequestId>) -> &str {
    request_id.map_or("", RequestId::as_str)
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
