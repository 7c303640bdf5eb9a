//! Notifications for the service manager, if there is one: `sd_notify(3)`.
//!
//! | word | when |
//! |---|---|
//! | `READY=1` | the socket is served. Not the first decision: the unit must start while the authority is away, and deny meanwhile |
//! | `RELOADING=1`, then `READY=1` | around a reload |
//! | `STOPPING=1` | from the first signal to end |
//! | `STATUS=` | the host's standing and how many agents there are, when that changes |
//! | `WATCHDOG=1` | three times per watchdog period, as long as every gate and the enforcer complete their turns |
//!
//! Without `NOTIFY_SOCKET` none of it has an effect.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, error, info};

use crate::gate::Standing;
use crate::local::Context;

/// How often the status is computed.
const STATUS: Duration = Duration::from_secs(1);

/// Notifies that the socket is served, or that a reload is complete.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Notifies that a reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Notifies that the daemon is ending.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify the service manager");
    }
}

/// Feeds the watchdog of a daemon that only waits, and reports what for. Runs until dropped.
pub(super) async fn wait(for_what: &str) {
    tell(&[NotifyState::Status(for_what)]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(limit / 3).await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Updates the status and feeds the watchdog. Runs until dropped.
pub(super) async fn attend(context: Arc<Context>) {
    tokio::join!(show_status(&context), feed_watchdog(&context));
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

/// The status, in one line.
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

/// Feeds the watchdog while gates and enforcer respond. The service manager restarts a daemon that sends nothing for its
/// period. A restart is better than a hang: wrappers enforce their leases meanwhile, and the next daemon adopts their agents.
async fn feed_watchdog(context: &Context) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let turn = async || {
        context.gates.pulse().await;
        context.runs.pulse().await;
    };
    ping_while_responsive(limit / 3, turn, || tell(&[NotifyState::Watchdog])).await;
}

/// Pings once in each period in which `turn` completes.
async fn ping_while_responsive(period: Duration, turn: impl AsyncFn(), ping: impl Fn()) {
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
        let watching = ping_while_responsive(period, async || gate.pulse().await, || ring.send(()).unwrap());
        let test = async {
            let hung = tokio::time::timeout(10 * period, pings.recv()).await;
            assert!(hung.is_err(), "a hung gate must not be kept alive");
            for _ in 0..3 {
                // Commands that arrived while the gate hung are in its mailbox as well.
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
