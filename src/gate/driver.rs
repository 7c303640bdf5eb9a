//! The task around one gate's core: reads the clock, makes attempts and carries out actions. It decides nothing.

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

use super::attempt::AuthorityLink;
use super::boot_timer::BootTimer;
use super::core::{Action, AskerId, AttemptId, AttemptOutcome, First, Gate, GateEvent, Registered};
use super::handle::{GateCommand, GateView};
use super::keyed_client::KeyedClient;
use super::standing::{GateVerdict, Standing};
use crate::config::{Following, Live};

/// The most commands taken at once, before other events get their turn.
const CROWD: usize = 256;
/// The most askers answered at once. If a whole crowd were woken at once, the first asker that asks again would wait for all
/// others, and the runtime would not keep their order.
const ANSWERED: usize = 16;

/// Notifications of a gate for the agents that live on its leases.
pub(crate) trait Agents: Send + Sync + 'static {
    /// An ALLOW moved the end of the device's lease.
    fn lease_moved(&self, device: &DeviceId, until: BootTime);
    /// The device can no longer be validated.
    fn unavailable(&self, device: &DeviceId, cause: &Arc<str>);
    /// The device is allowed again, or for the first time.
    fn allowed(&self, device: &DeviceId);
    /// Every agent of the device must stop.
    fn stop(&self, device: &DeviceId, denial: &Denial);
}

pub(super) struct Driver {
    device: DeviceId,
    gate: Gate,
    authority: Arc<AuthorityLink>,
    agents: Arc<dyn Agents>,
    publish: watch::Sender<GateView>,
    suspends: Suspends,
    attempts: JoinSet<(AttemptId, Registered, AttemptOutcome)>,
    under_way: HashMap<AttemptId, AbortHandle>,
    replies: HashMap<AskerId, oneshot::Sender<GateVerdict>>,
    /// Answers that are decided but not sent yet, in the order of the questions.
    answers: VecDeque<(oneshot::Sender<GateVerdict>, GateVerdict)>,
    next_asker: u64,
    /// The scheduling of this thread, as set for the current crowd.
    turns: TimeSlice,
    settings: Following,
    /// The client that the core knows of: its decisions about registration refer to this one.
    keyed: Arc<KeyedClient>,
    /// Changes of the client.
    changes: watch::Receiver<Arc<KeyedClient>>,
    /// Changes of the kill file.
    kills: watch::Receiver<Option<Denial>>,
}

impl Driver {
    /// Creates a driver, not running yet, and the receiver of its view.
    pub(super) fn new(
        device: DeviceId,
        live: &Live,
        first: First,
        authority: Arc<AuthorityLink>,
        agents: Arc<dyn Agents>,
    ) -> (Self, watch::Receiver<GateView>) {
        let start = Moment::now();
        let mut settings = live.follow();
        let mut changes = authority.follow();
        let kills = authority.follow_kill_file();
        let keyed = Arc::clone(&changes.borrow_and_update());
        let gate =
            Gate::new(settings.now().rules(), keyed.has_registered(&device), first, fastrand::u64(..), start.boot);
        let (publish, view) = watch::channel(GateView::of(&gate));
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
            keyed,
            changes,
            kills,
        };
        (driver, view)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<GateCommand>, mut timer: BootTimer) {
        let _vital = Vital;
        self.tell(GateEvent::Woke);
        loop {
            self.answer_some();
            let wake = self.gate.next_wake();
            let event = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.event_of(command),
                    None => return,
                },
                settings = self.settings.changed() => GateEvent::Ruled(settings.rules()),
                // The sender lives in the `AuthorityLink` that the driver holds.
                Ok(()) = self.changes.changed() => {
                    self.keyed = Arc::clone(&self.changes.borrow_and_update());
                    GateEvent::AuthorityChanged { registered: self.keyed.has_registered(&self.device) }
                },
                // The sender lives there as well.
                Ok(()) = self.kills.changed() => match self.kills.borrow_and_update().clone() {
                    Some(denial) => GateEvent::Denied(denial),
                    None => GateEvent::Hinted,
                },
                Some(finished) = self.attempts.join_next() => match finished {
                    Ok((attempt, registered, outcome)) => GateEvent::Finished { attempt, registered, outcome },
                    Err(error) => match self.lost(&error) {
                        Some(event) => event,
                        // It was abandoned.
                        None => continue,
                    },
                },
                fired = timer.wait_until(wake) => {
                    if let Err(error) = fired {
                        tracing::error!(device_id = %self.device, %error, "the boot clock's timer failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    GateEvent::Woke
                },
                () = tokio::task::yield_now(), if !self.answers.is_empty() => continue,
            };
            self.tell(event);
            // Askers come in crowds: a command that has already arrived need not wait for a full round of the loop with its
            // new timer.
            for _ in 0..CROWD {
                let Ok(command) = commands.try_recv() else { break };
                let event = self.event_of(command);
                self.tell(event);
            }
        }
    }

    fn event_of(&mut self, command: GateCommand) -> GateEvent {
        match command {
            GateCommand::Ask { deadline, purpose, reply } => {
                self.next_asker += 1;
                let asker = AskerId(self.next_asker);
                self.replies.insert(asker, reply);
                GateEvent::Asked { asker, deadline, purpose }
            }
            GateCommand::Hint => GateEvent::Hinted,
            GateCommand::Agents(count) => GateEvent::Agents(count),
            GateCommand::Inherit(until) => GateEvent::Inherited { until },
            GateCommand::Wake => GateEvent::Woke,
            GateCommand::Pulse(turn) => {
                // A receiver that gave up waiting needs no answer.
                let _ = turn.send(());
                GateEvent::Woke
            }
        }
    }

    fn tell(&mut self, event: GateEvent) {
        let moment = Moment::now();
        if self.suspends.until(moment).is_some() {
            self.authority.woke(moment);
            self.handle(moment.boot, GateEvent::Resumed);
        }
        self.handle(moment.boot, event);
    }

    fn handle(&mut self, now: BootTime, event: GateEvent) {
        let before = self.gate.standing().clone();
        if let GateEvent::Finished { attempt, .. } = &event {
            self.under_way.remove(attempt);
        }
        self.count(&event);
        let asked = matches!(event, GateEvent::Asked { .. });
        let mut actions = Vec::new();
        self.gate.handle(now, event, &mut actions);
        if asked && actions.is_empty() {
            // Only another asker waits: the view is unchanged.
            return;
        }
        // Published before any action is carried out: code that admits an agent reads the view, and must not see an ALLOW
        // that a stop already sent has overtaken.
        self.publish.send_replace(GateView::of(&self.gate));
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
                let keyed = Arc::clone(&self.keyed);
                self.begin(attempt, async move { authority.attempt(&keyed, &device, register).await });
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

    fn begin(&mut self, attempt: AttemptId, work: impl Future<Output = (Registered, AttemptOutcome)> + Send + 'static) {
        let handle = self.attempts.spawn(async move {
            let (registered, outcome) = work.await;
            (attempt, registered, outcome)
        });
        self.under_way.insert(attempt, handle);
    }

    /// The event for an attempt that ended without a result. An attempt that panicked brought no answer: its slot is free
    /// again, and the lease runs on. `None` for an abandoned attempt.
    fn lost(&self, error: &JoinError) -> Option<GateEvent> {
        let (attempt, _) = self.under_way.iter().find(|(_, handle)| handle.id() == error.id())?;
        tracing::error!(device_id = %self.device, %error, "a validation failed to run; retrying");
        let cause = Arc::from("the validation failed to run because of an internal error: the log says where");
        let outcome = AttemptOutcome::NoAnswer { code: Code::AuthorityUnreachable, cause, retry_after: None };
        Some(GateEvent::Finished { attempt: *attempt, registered: Registered::NotAsked, outcome })
    }

    fn answer_some(&mut self) {
        // Answering a crowd takes milliseconds, and the crowd asks again meanwhile; an authority on this host must not wait
        // that long for the processor. For a single asker short turns are a loss: it and this thread would preempt each
        // other.
        let turns = if self.answers.len() > ANSWERED { TimeSlice::Short } else { TimeSlice::Ordinary };
        if turns != self.turns {
            self.turns = turns;
            sys::set_time_slice(turns);
        }
        for (reply, verdict) in self.answers.drain(..self.answers.len().min(ANSWERED)) {
            // An asker that went away needs no answer.
            let _ = reply.send(verdict.told_under(self.gate.standing()));
        }
    }

    /// Counts an answer, whether or not it changes anything.
    fn count(&self, event: &GateEvent) {
        let GateEvent::Finished { outcome, .. } = event else { return };
        let metrics = &self.authority.journal().metrics;
        match outcome {
            AttemptOutcome::Decided(decision) => metrics.decided(decision, source_of(decision)),
            AttemptOutcome::LimitReached => {
                let limit = Decision::Deny(Denial::local(Code::DeviceLimitReached, ""));
                metrics.decided(&limit, Source::Authority);
            }
            AttemptOutcome::NoAnswer { .. } => {}
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

/// Whether subscribers need to be notified of this change.
fn is_news(before: &Standing, now: &Standing) -> bool {
    match (before, now) {
        (Standing::Denied { refusal: old, .. }, Standing::Denied { refusal, .. }) => {
            (&old.denial.code, &old.denial.revoked_at) != (&refusal.denial.code, &refusal.denial.revoked_at)
        }
        (old, new) => std::mem::discriminant(old) != std::mem::discriminant(new),
    }
}

/// The origin of a decision.
fn source_of(decision: &Decision) -> Source {
    match decision {
        Decision::Allow { .. } => Source::Authority,
        Decision::Deny(denial) => source_of_denial(denial),
    }
}

fn source_of_denial(denial: &Denial) -> Source {
    // A decision of the authority has a request id, or a code that this host does not use.
    let local = matches!(denial.code, Code::LocalKill | Code::LocalStop) && denial.request_id.is_none();
    if local { Source::Local } else { Source::Authority }
}

fn shown(request_id: Option<&RequestId>) -> &str {
    request_id.map_or("", RequestId::as_str)
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
