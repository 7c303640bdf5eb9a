//! Whether there is a database behind the address: asked by a probe on a connection of its own, and by nothing else. One
//! lost connection, one refused, one late statement make it look; none of them says that the database is gone.

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

/// How often it is asked without cause. An address that leads elsewhere without a broken connection (a virtual IP that
/// moved, while the old primary lives on) is noticed by this.
const PERIOD: Duration = Duration::from_secs(2);

/// What the probe found.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// `None` while the database answers; else why nothing new can be asked.
    trouble: Mutex<Option<StoreError>>,
    suspicion: Notify,
    /// Where the address has led to.
    pub(super) known: Known,
    /// `None` unless it is asked for.
    pub(super) fence: Option<Fence>,
}

impl Health {
    pub(super) fn new(fence: bool) -> Self {
        Self { fence: fence.then(Fence::default), ..Self::default() }
    }

    /// Has the probe look at once.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Why the database is not there, when the probe found it so.
    pub(super) fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether commits are confirmed, or were not asked about.
    pub(super) fn fence_holds(&self) -> bool {
        self.fence.as_ref().is_none_or(Fence::holds)
    }

    fn set(&self, trouble: Option<StoreError>) -> Option<StoreError> {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// Asks until `stop`.
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
                // A host that was busy for a second is no loss.
                found = self.look(options).await;
            }
            // Sessions on a primary that the address no longer leads to decide nothing more.
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
                        warn!(%error, "the database cannot be asked; nothing is decided until it can");
                    }
                    lanes.give_up(&error);
                    // What is lost meanwhile asks for another look at once; not more often than this.
                    tokio::time::sleep(PROBE).await;
                }
            }
        }
    }

    /// On a connection of its own: that all others are busy is no loss. A server with too many connections is there.
    async fn look(&self, options: &PgConnectOptions) -> Result<(), StoreError> {
        let looking = session::open(options, &self.known, Purpose::Operations);
        match tokio::time::timeout(CONNECTED, looking).await {
            Ok(Ok((connection, _))) => {
                // In the background: a proxy may be slow to let go.
                tokio::spawn(connection.close());
                Ok(())
            }
            Ok(Err(error)) if crowded(&error) => Ok(()),
            Ok(Err(error @ (StoreError::Standby | StoreError::ReadOnly | StoreError::Superseded))) => Err(error),
            Ok(Err(_)) | Err(_) => Err(StoreError::Down),
        }
    }
}
