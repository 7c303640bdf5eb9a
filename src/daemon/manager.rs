//! What the service manager is told, where there is one: `sd_notify(3)`.
//!
//! | word | when |
//! |---|---|
//! | `READY=1` | the socket is served. Not the first decision: the unit must come up while the authority is away, and denies meanwhile |
//! | `RELOADING=1`, then `READY=1` | around a reload |
//! | `STOPPING=1` | from the first signal to end |
//! | `STATUS=` | the host's standing and how many agents there are, when that changes |
//! | `WATCHDOG=1` | every third of the time it asks for, as long as every gate and the enforcer have had their turn |
//!
//! Without `NOTIFY_SOCKET` all of it is nothing.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, error, info};

use crate::gate::Standing;
use crate::local::Context;

/// How often the status is looked at.
const STATUS: Duration = Duration::from_secs(1);

/// The socket is served; or a reload is over.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify the service manager");
    }
}

/// Keeps the watchdog content for a daemon that has nothing to do but to wait, and says for what. Works until dropped.
pub(super) async fn wait(for_what: &str) {
    tell(&[NotifyState::Status(for_what)]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(limit / 3).await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Keeps the status true and the watchdog content. Works until dropped.
pub(super) async fn attend(context: Arc<Context>) {
    tokio::join!(show_status(&context), content_watchdog(&context));
}

async fn show_status(context: &Context) {
    let mut shown = String::new();
    loop {
        let status = status(context);
        if status != shown {
            tell(&[NotifyState::Status(&status)]);
            shown = status;
        }
        tokio::time::sleep(STATUS).await;
    }
}

/// One line.
fn status(context: &Context) -> String {
    let standing = context.gates.host().look(|view| match &view.standing {
        Standing::Unknown => "no decision yet".to_owned(),
        Standing::Allowed { .. } => "allowed".to_owned(),
        Standing::Denied { refusal, .. } => format!("denied ({})", refusal.denial.code),
        Standing::Unavailable { .. } => "no answer from the authority".to_owned(),
    });
    match context.runs.all().iter().filter(|run| run.admission().is_some()).count() {
        0 => format!("{standing}; no agents"),
        1 => format!("{standing}; 1 agent"),
        agents => format!("{standing}; {agents} agents"),
    }
}

/// The manager ends and restarts a daemon that says nothing for that long. It is better gone than hung: wrappers live on their
/// leases at the longest, and the next one takes their agents over.
async fn content_watchdog(context: &Context) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let turn = async || {
        context.gates.pulse().await;
        context.runs.pulse().await;
    };
    content(limit / 3, turn, || tell(&[NotifyState::Watchdog])).await;
}

/// Pings once in each period in which everybody has had a turn.
async fn content(period: Duration, turn: impl AsyncFn(), ping: impl Fn()) {
    let mut silent = false;
    loop {
        tokio::time::sleep(period).await;
        match (tokio::time::timeout(period, turn()).await, silent) {
            (Ok(()), was_silent) => {
                ping();
                if was_silent {
                    info!("all gates and the enforcer respond again");
                }
                silent = false;
            }
            (Err(_), false) => {
                error!(
                    "a gate or the enforcer hangs: the service manager's watchdog is not notified until it \
                        responds again"
                );
                silent = true;
            }
            (Err(_), true) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::gate::handle::GateHandle;

    #[tokio::test]
    async fn a_hung_gate_stops_the_pings_and_they_come_back_with_it() {
        let (gate, mut driver) = GateHandle::without_driver();
        let (ring, mut pings) = mpsc::unbounded_channel();
        let period = Duration::from_millis(20);
        let watching = content(period, async || gate.pulse().await, || ring.send(()).unwrap());
        let test = async {
            let hung = tokio::time::timeout(10 * period, pings.recv()).await;
            assert!(hung.is_err(), "a hung gate must not be kept alive");
            for _ in 0..3 {
                // What waited for the gate while it hung is in its mailbox as well.
                tokio::select! {
                    Some(()) = pings.recv() => {},
                    never = driver.take_turns() => match never {},
                }
            }
            while pings.try_recv().is_ok() {}
            let hung = tokio::time::timeout(10 * period, pings.recv()).await;
            assert!(hung.is_err(), "it hangs again");
        };
        tokio::select! {
            () = test => {},
            () = watching => unreachable!("it works until it is dropped"),
        }
    }
}
