//! A running gate as everybody else has it: what is said to it, and what it is seen to hold.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Decision, Denial, DeviceId};
use tokio::sync::{mpsc, oneshot, watch};

use super::attempt::AuthorityLink;
use super::boot_timer::BootTimer;
use super::core::{First, Gate};
use super::driver::{Agents, Driver};
use super::holds::Holds;
use super::standing::{ConfirmedDenial, GateVerdict, Grant, Standing};
use crate::config::Live;

/// Commands waiting for one gate. More than that many askers at once are turned away as overload.
const MAILBOX: usize = 4096;

/// What everybody may see of a gate.
#[derive(Clone, Debug)]
pub(crate) struct GateView {
    pub(crate) standing: Standing,
    /// The last decision, whatever happened since, and when its validation began.
    pub(crate) last_decision: Option<(BootTime, Decision)>,
    pub(crate) lease_until: Option<BootTime>,
    /// How long an ALLOW lasts.
    pub(crate) lease: Duration,
    pub(crate) next_validation: Option<BootTime>,
}

impl GateView {
    pub(super) fn of(gate: &Gate) -> Self {
        Self {
            standing: gate.standing().clone(),
            last_decision: gate.last_decision().cloned(),
            lease_until: gate.lease_until(),
            lease: gate.rules().lease,
            next_validation: gate.next_validation(),
        }
    }
}

#[derive(Debug)]
pub(super) enum GateCommand {
    Ask { deadline: BootTime, reply: oneshot::Sender<GateVerdict> },
    Hint,
    Agents(usize),
    Inherit(BootTime),
    Wake,
    Pulse(oneshot::Sender<()>),
}

/// A running gate. The gate ends when its last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct GateHandle {
    device: DeviceId,
    mailbox: mpsc::Sender<GateCommand>,
    view: watch::Receiver<GateView>,
    holds: Arc<Holds>,
}

impl GateHandle {
    /// Starts a gate in the current runtime. Fails when no timer can be made.
    pub(crate) fn start(
        device: DeviceId,
        live: &Live,
        first: First,
        authority: Arc<AuthorityLink>,
        agents: Arc<dyn Agents>,
    ) -> io::Result<Self> {
        let timer = BootTimer::new()?;
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let holds = Arc::clone(authority.holds());
        let (driver, view) = Driver::new(device.clone(), live, first, authority, agents);
        tokio::spawn(driver.run(commands, timer));
        Ok(Self { device, mailbox, view, holds })
    }

    pub(crate) fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The deny of an operator who holds the device on this host, in force before the gate has heard of it.
    pub(crate) fn held(&self) -> Option<Denial> {
        self.holds.denial(&self.device)
    }

    /// What the gate holds now.
    pub(crate) fn view(&self) -> GateView {
        self.view.borrow().clone()
    }

    /// Looks at what the gate holds now without copying it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&GateView) -> T) -> T {
        look(&self.view.borrow())
    }

    /// The answer that the present standing gives to a caller that accepts one as old as `max_age`.
    pub(crate) fn cached(&self, now: BootTime, max_age: Duration) -> Option<GateVerdict> {
        if let Some(denial) = self.held() {
            return Some(GateVerdict::Denied(ConfirmedDenial { denial, confirmed_at: now }));
        }
        self.look(|view| view.standing.cached(now, max_age, view.lease))
    }

    /// What to make of the ALLOW that [`GateHandle::cached`] would give; `None` when it would give none, or something else.
    pub(crate) fn cached_allow<T>(
        &self,
        now: BootTime,
        max_age: Duration,
        make: impl FnOnce(&Grant) -> T,
    ) -> Option<T> {
        if self.held().is_some() {
            return None;
        }
        self.look(|view| view.standing.cached_grant(now, max_age, view.lease).map(make))
    }

    /// Asks, with an answer by a validation that begins from now on; at `deadline` at the latest.
    pub(crate) async fn ask(&self, deadline: BootTime) -> GateVerdict {
        let (reply, answer) = oneshot::channel();
        match self.mailbox.try_send(GateCommand::Ask { deadline, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return GateVerdict::undecided(Code::Overloaded, "too many checks are waiting already");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return gone(),
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// A reason to validate now.
    pub(crate) fn hint(&self) {
        // A full mailbox has askers in it, who cause a validation as well.
        let _ = self.mailbox.try_send(GateCommand::Hint);
    }

    /// Has the gate look at the clocks: the machine may have slept.
    pub(crate) fn wake(&self) {
        // A full mailbox wakes it as well.
        let _ = self.mailbox.try_send(GateCommand::Wake);
    }

    /// Returns when the gate has had its turn; a hung one never does. One that has ended has nothing left to do.
    pub(crate) async fn pulse(&self) {
        let (turn, had) = oneshot::channel();
        if self.mailbox.send(GateCommand::Pulse(turn)).await.is_ok() {
            let _ = had.await;
        }
    }

    /// Says that agents live on a lease of this device until then, which a daemon before us had.
    pub(crate) fn inherit(&self, until: BootTime) {
        // Only shapes the pace of retries: each run's own deadline holds without it.
        let _ = self.mailbox.try_send(GateCommand::Inherit(until));
    }

    /// Says how many agents live on the device's lease.
    pub(crate) fn set_agents(&self, count: usize) {
        // Only shapes the pace of retries: not worth waiting for.
        let _ = self.mailbox.try_send(GateCommand::Agents(count));
    }
}

/// A gate that only has its turn while a test says so.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct WithoutDriver(mpsc::Receiver<GateCommand>);

#[cfg(test)]
impl WithoutDriver {
    /// Takes every command as a driver would, and answers none but a pulse.
    pub(crate) async fn take_turns(&mut self) -> std::convert::Infallible {
        loop {
            match self.0.recv().await {
                Some(GateCommand::Pulse(turn)) => drop(turn.send(())),
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
impl GateHandle {
    pub(crate) fn without_driver() -> (Self, WithoutDriver) {
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let rules = Live::of_defaults().now().rules();
        let gate = Gate::new(rules, true, First::WhenAsked, 0, BootTime::default());
        let view = watch::channel(GateView::of(&gate)).1;
        let device = "host:test".parse().unwrap();
        (Self { device, mailbox, view, holds: Arc::default() }, WithoutDriver(commands))
    }
}

fn gone() -> GateVerdict {
    GateVerdict::undecided(Code::AuthorityUnreachable, "the daemon is shutting down")
}
