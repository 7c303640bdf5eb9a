//! The probe: it alone decides whether the database can be reached, on a connection of its own. A lost connection, a
//! refused one or a late statement triggers a probe, but none of them proves that the database is down.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::StoreError;
use super::fence::Fence;
use super::lanes::Lanes;
use super::session::{self, Known, Purpose};
use super::{CONNECTED, PROBE, crowded};

/// The interval between probes without a cause. This finds an address that leads elsewhere without a broken connection
/// (a virtual IP that moved while the old primary stays up).
const PERIOD: Duration = Duration::from_secs(2);

/// The result of the last probe.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// `None` while the database answers; otherwise why no new question can be asked.
    trouble: Mutex<Option<StoreError>>,
    suspicion: Notify,
    /// The servers that the address has led to.
    pub(super) known: Known,
    /// The fence; `None` without `--fence`.
    pub(super) fence: Option<Fence>,
}

impl Health {
    pub(super) fn new(fence: bool) -> Self {
        Self { fence: fence.then(Fence::default), ..Self::default() }
    }

    /// Triggers a probe at once.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// The reason for the outage, if the last probe failed.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether commits are confirmed; true without `--fence`.
    pub(super) fn fence_holds(&self) -> bool {
        self.fence.as_ref().is_none_or(Fence::holds)
    }

    fn set(&self, trouble: Option<StoreError>) -> Option<StoreError> {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// Probes until `stop`.
    pub(super) async fn watch(&self, options: &PgConnectOptions, lanes: &Lanes, stop: &CancellationToken) {
        loop {
            let pause = if self.trouble().is_some() { PROBE } else { PERIOD };
            let suspected = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => false,
                () = self.suspicion.notified() => true,
            };
            let mut found = self.look(options).await;
            if found.is_err() && !suspected {
                // Probe again: a host that was busy for a second is not a failure.
                found = self.look(options).await;
            }
            // Sessions on a primary that the address no longer leads to must decide nothing more.
            if let Err(StoreError::Standby | StoreError::ReadOnly) = &found {
                self.known.astray();
            }
            let before = match &found {
                Ok(()) => self.set(None),
                Err(error) => self.set(Some(error.clone())),
            };
            match (before, found) {
                (None, Ok(())) => {}
                (Some(_), Ok(())) => info!("the database answers again"),
                (before, Err(error)) => {
                    if before.is_none() {
                        warn!(%error, "the database is not available; no validation is decided until it is");
                    }
                    lanes.give_up(&error);
                    // Connections that are lost meanwhile request another probe at once; this limits how often.
                    tokio::time::sleep(PROBE).await;
                }
            }
        }
    }

    /// Probes on a new connection: that all others are busy is not a failure. A server that refuses it for too many
    /// connections is up.
    async fn look(&self, options: &PgConnectOptions) -> Result<(), StoreError> {
        let looking = session::open(options, &self.known, Purpose::Operations);
        match tokio::time::timeout(CONNECTED, looking).await {
            Ok(Ok((connection, _))) => {
                // In the background, since a proxy may be slow to close.
                tokio::spawn(connection.close());
                Ok(())
            }
            Ok(Err(error)) if crowded(&error) => Ok(()),
            Ok(Err(error @ (StoreError::Standby | StoreError::ReadOnly | StoreError::Superseded))) => Err(error),
            Ok(Err(_)) | Err(_) => Err(StoreError::Down),
        }
    }
}
