//! Push: an authority that supports it says when to validate, so that a revoke need not wait for the next interval.
//!
//! ```text
//!   validate's answer ──announced──▶ ┌──────┐ ──one stream for all devices──▶ the authority
//!   gates come and go ─────────────▶ │ push │ ◀─ready, validate, alive──┘
//!                                    └──┬───┘ ──hint, within its budget──▶ gates
//! ```
//!
//! A hint causes a validation and is never an answer itself: a wrong or malicious stream can cause only validations, at a
//! limited rate ([`budget`]). Polling continues at its own pace, so without push nothing is missed, only found later. Hence
//! the order: subscribe first, then validate. A stream that is silent for too long is closed.
//!
//! | file | concept |
//! |---|---|
//! | `hint` | pure: what an event means |
//! | `budget` | pure: how often a device may be hinted |
//! | `pace` | pure: when to connect again |
//! | `connection` | one open stream |
//! | this file | the task around them |

mod budget;
mod connection;
mod hint;
mod pace;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use budget::{HintBudget, HintTiming};
use connection::Connection;
use hint::{Heard, HintKind};
use machineid_client::Failure;
use machineid_clock::BootTime;
use machineid_protocol::DeviceId;
use machineid_protocol::api::LARGEST_WATCH;
use pace::Pace;

use crate::gate::Gates;
use crate::gate::keyed_client::KeyedClient;

/// How long a new device must exist before a new subscription includes it: gates that only answer one check are gone by then.
/// Also the least time between two subscriptions.
const SETTLE: Duration = Duration::from_millis(250);

/// How long a replaced stream is still read, for events sent on it before the new one was active.
const RETIRE: Duration = Duration::from_secs(1);

/// The pause after a failed subscription for new devices.
const AFTER_A_FAILURE: Duration = Duration::from_secs(2);

/// Subscribes whenever the authority supports it. Never ends; drop it to stop.
pub(crate) async fn watch(gates: Arc<Gates>) {
    let mut keyed_in_force = gates.authority().follow();
    let mut pace = Pace::new(fastrand::u64(..));
    loop {
        let keyed = Arc::clone(&keyed_in_force.borrow_and_update());
        tokio::select! {
            () = watch_with(&gates, &keyed, &mut pace) => {}
            // Another authority or key: the old stream no longer counts.
            changed = keyed_in_force.changed() => {
                gates.authority().note_watching(false);
                if changed.is_err() {
                    return;
                }
                pace = Pace::new(fastrand::u64(..));
            }
        }
    }
}

/// Handles one stream, from the authority's announcement to its loss and the pause after that.
async fn watch_with(gates: &Arc<Gates>, keyed: &KeyedClient, pace: &mut Pace) {
    if keyed.client.extensions().wait_for(|extensions| extensions.watch).await.is_err() {
        return std::future::pending().await;
    }
    let failure = match open(gates, keyed).await {
        Ok(connection) => {
            info!(authority = %keyed.client.base_url(), "push connection open; the authority says when to validate");
            let began = BootTime::now();
            let failure = Session::new(gates, keyed, connection).run().await;
            pace.stood(BootTime::now().saturating_since(began));
            failure
        }
        Err(failure) => Some(failure),
    };
    gates.authority().note_watching(false);
    let wait = pace.next(failure.as_ref().and_then(Failure::retry_after));
    let cause = failure.map_or_else(|| "the stream ended".to_owned(), |failure| failure.to_string());
    if pace.failures() == 1 {
        warn!(%cause, "push connection lost; polling until it is back");
    } else {
        debug!(%cause, ?wait, "push connection failed; polling until it is back");
    }
    tokio::time::sleep(wait).await;
}

/// Subscribes for every device that has a gate now.
async fn open(gates: &Gates, keyed: &KeyedClient) -> Result<Connection, Failure> {
    let devices = devices(gates);
    let named: Vec<DeviceId> = devices.iter().cloned().collect();
    let stream = keyed.client.watch(&keyed.key, &named).await?;
    Connection::opened(stream, devices).await
}

/// The devices to subscribe for, the host's first.
fn devices(gates: &Gates) -> BTreeSet<DeviceId> {
    // Devices beyond the limit are only polled, as all devices are in addition.
    gates.all().iter().take(LARGEST_WATCH).map(|gate| gate.device().clone()).collect()
}

/// A period of uninterrupted subscription.
struct Session<'a> {
    gates: &'a Arc<Gates>,
    keyed: &'a KeyedClient,
    current: Connection,
    retiring: Option<(Connection, BootTime)>,
    budget: HintBudget,
}

/// An event of a session.
enum Happened {
    Heard(Result<Heard, Option<Failure>>),
    HeardOld(Result<Heard, Option<Failure>>),
    Devices,
    Opened(Result<Option<Box<Connection>>, Failure>),
    Time,
}

impl<'a> Session<'a> {
    fn new(gates: &'a Arc<Gates>, keyed: &'a KeyedClient, connection: Connection) -> Self {
        Self { gates, keyed, current: connection, retiring: None, budget: HintBudget::default() }
    }

    /// Runs until the stream is lost; `None` when the authority closed it.
    async fn run(&mut self) -> Option<Failure> {
        self.gates.authority().note_watching(true);
        // The subscription is active: validating now finds every earlier change.
        self.hint(&self.current.devices().clone(), HintKind::Change);
        let mut changes = self.gates.changes();
        // A device may have been added between the subscription and this line.
        changes.mark_changed();
        let mut opening: Option<Opening<'a>> = None;
        loop {
            let wake = self.wake();
            let happened = tokio::select! {
                heard = self.current.next() => Happened::Heard(heard),
                heard = of_the_old(&mut self.retiring) => Happened::HeardOld(heard),
                Ok(()) = changes.changed(), if opening.is_none() => Happened::Devices,
                opened = of_the_new(&mut opening) => Happened::Opened(opened),
                () = sleep_until(wake) => Happened::Time,
            };
            match happened {
                Happened::Heard(Ok(heard)) | Happened::HeardOld(Ok(heard)) => self.act_on(heard),
                Happened::Heard(Err(failure)) => return failure,
                Happened::HeardOld(Err(_)) => self.retiring = None,
                Happened::Devices => {
                    opening = Some(Box::pin(reopen(self.gates, self.keyed, self.current.devices().clone())));
                }
                Happened::Opened(opened) => {
                    opening = None;
                    match opened {
                        Ok(Some(connection)) => self.replace(*connection),
                        Ok(None) => {}
                        Err(cause) => debug!(%cause, "cannot subscribe for the new devices; polling them"),
                    }
                }
                Happened::Time => self.on_time(),
            }
        }
    }

    fn act_on(&mut self, heard: Heard) {
        match heard {
            Heard::Alive | Heard::Ready { .. } | Heard::Other => {}
            Heard::Validate(devices, why) => self.hint(&devices, why),
            Heard::ValidateAll(why) => self.hint(&devices(self.gates), why),
        }
    }

    /// Switches to a new stream and validates the devices that only it covers. The old stream is still read for a moment.
    fn replace(&mut self, connection: Connection) {
        let fresh = connection.devices() - self.current.devices();
        let old = std::mem::replace(&mut self.current, connection);
        self.retiring = Some((old, BootTime::now() + RETIRE));
        self.hint(&fresh, HintKind::Change);
    }

    /// Makes the gates of these devices validate, as far as their budgets allow; the rest follows when they do.
    fn hint(&mut self, devices: &BTreeSet<DeviceId>, why: HintKind) {
        let now = BootTime::now();
        for device in devices {
            // Devices without a gate must cost nothing.
            let Some(gate) = self.gates.get(device) else { continue };
            match self.budget.ask(now, device, why) {
                HintTiming::Now => gate.hint(),
                HintTiming::Later => {}
            }
        }
    }

    fn wake(&self) -> Option<BootTime> {
        let retires = self.retiring.as_ref().map(|(_, at)| *at);
        [self.budget.next_due(), retires].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = BootTime::now();
        for device in self.budget.due(now) {
            if let Some(gate) = self.gates.get(&device) {
                gate.hint();
            }
        }
        if self.retiring.as_ref().is_some_and(|(_, at)| *at <= now) {
            self.retiring = None;
        }
    }
}

type Opening<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Option<Box<Connection>>, Failure>> + Send + 'a>>;

/// Opens another subscription if there are devices that the present one does not cover. Devices that it covers needlessly
/// cost nothing and stay until then.
async fn reopen(
    gates: &Gates,
    keyed: &KeyedClient,
    covered: BTreeSet<DeviceId>,
) -> Result<Option<Box<Connection>>, Failure> {
    tokio::time::sleep(SETTLE).await;
    if devices(gates).is_subset(&covered) {
        return Ok(None);
    }
    match open(gates, keyed).await {
        Ok(connection) => Ok(Some(Box::new(connection))),
        Err(failure) => {
            // A pause before the next attempt, however many devices are added meanwhile.
            tokio::time::sleep(AFTER_A_FAILURE).await;
            Err(failure)
        }
    }
}

async fn of_the_old(retiring: &mut Option<(Connection, BootTime)>) -> Result<Heard, Option<Failure>> {
    match retiring {
        Some((connection, _)) => connection.next().await,
        None => std::future::pending().await,
    }
}

async fn of_the_new(opening: &mut Option<Opening<'_>>) -> Result<Option<Box<Connection>>, Failure> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<BootTime>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_since(BootTime::now())).await,
        None => std::future::pending().await,
    }
}
