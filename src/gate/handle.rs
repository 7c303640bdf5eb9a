//! The handle of a running gate: commands to it, and its published view.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Decision, Denial, DeviceId};
use tokio::sync::{mpsc, oneshot, watch};

use super::attempt::AuthorityLink;
use super::boot_timer::BootTimer;
use super::core::{AskPurpose, First, Gate};
use super::driver::{Agents, Driver};
use super::holds::Holds;
use super::standing::{ConfirmedDenial, GateVerdict, Grant, Standing};
use crate::config::Live;

/// The most commands waiting for one gate. Further askers are refused as overload.
const MAILBOX: usize = 4096;

/// The published state of a gate.
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
    Ask { deadline: BootTime, purpose: AskPurpose, reply: oneshot::Sender<GateVerdict> },
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
    /// Starts a gate in the current runtime. Fails when no timer is available.
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

    /// The deny of a hold on this device, in force before the gate has heard of it.
    pub(crate) fn held(&self) -> Option<Denial> {
        self.holds.denial(&self.device)
    }

    /// A copy of the gate's present view.
    pub(crate) fn view(&self) -> GateView {
        self.view.borrow().clone()
    }

    /// Reads the gate's present view without copying it.
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

    /// Applies `make` to the ALLOW that [`GateHandle::cached`] would return; `None` when it would return something else.
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

    /// Asks the gate. The answer comes from a validation that begins after this call, at `deadline` at the latest.
    pub(crate) async fn ask(&self, deadline: BootTime, purpose: AskPurpose) -> GateVerdict {
        let (reply, answer) = oneshot::channel();
        match self.mailbox.try_send(GateCommand::Ask { deadline, purpose, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return GateVerdict::undecided(Code::Overloaded, "too many checks are waiting already");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return gone(),
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// Hints the gate to validate now.
    pub(crate) fn hint(&self) {
        // If the mailbox is full, it contains Ask commands, each of which triggers a validation; dropping the hint is safe.
        let _ = self.mailbox.try_send(GateCommand::Hint);
    }

    /// Makes the gate read the clocks: the machine may have been suspended.
    pub(crate) fn wake(&self) {
        // If the mailbox is full, the gate is about to run anyway.
        let _ = self.mailbox.try_send(GateCommand::Wake);
    }

    /// Returns when the gate has completed a turn; never returns if it hangs. A gate that has ended has nothing left to do.
    pub(crate) async fn pulse(&self) {
        let (turn, had) = oneshot::channel();
        if self.mailbox.send(GateCommand::Pulse(turn)).await.is_ok() {
            let _ = had.await;
        }
    }

    /// Tells the gate that agents live on a lease of a previous daemon that ends at `until`.
    pub(crate) fn inherit(&self, until: BootTime) {
        // A lost command only affects the pace of retries: each run's own deadline holds without it.
        let _ = self.mailbox.try_send(GateCommand::Inherit(until));
    }

    /// Tells the gate how many agents live on the device's lease.
    pub(crate) fn set_agents(&self, count: usize) {
        // A lost command only affects the pace of retries.
        let _ = self.mailbox.try_send(GateCommand::Agents(count));
    }
}

/// A gate whose commands a test takes instead of a driver.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct WithoutDriver(mpsc::Receiver<GateCommand>);

#[cfg(test)]
impl WithoutDriver {
    /// Takes every command as a driver would, and answers only a pulse.
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
