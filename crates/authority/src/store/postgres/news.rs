//! News between the servers of one database: which devices may have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use machineid_protocol::DeviceId;
use serde::{Deserialize, Serialize};
use sqlx::Acquire;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tracing::warn;

use super::super::StoreError;
use super::{CONNECTED, PROBE, Postgres, Writing, prepared, session};
use crate::changes::Change;
use crate::org::OrgId;

const CHANNEL: &str = "machineid_changes";

/// How long the connection may be silent before it is checked.
const SILENCE: Duration = Duration::from_secs(2);

/// The longest payload: the database passes on just under 8,000 bytes. A longer one is replaced by a change of the
/// whole organisation.
const LONGEST: usize = 7_900;

/// A notification.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct News {
    from: String,
    org: OrgId,
    /// The devices; `None` means all of them.
    devices: Option<Vec<DeviceId>>,
    /// The organisation's key was changed or is no longer valid.
    #[serde(default)]
    key: bool,
    /// Only the reports of sidecars changed.
    #[serde(default)]
    reports: bool,
    /// A validation of these devices is a deny now.
    #[serde(default)]
    denied: bool,
}

impl News {
    /// The notification of a change; `None` when there is nothing to tell.
    fn of(from: &str, change: &Change) -> Option<String> {
        let of = |org: &OrgId, devices| Self {
            from: from.to_owned(),
            org: *org,
            devices,
            key: false,
            reports: false,
            denied: false,
        };
        let news = match change {
            Change::Devices(_, devices) | Change::Denied(_, Some(devices)) if devices.is_empty() => return None,
            Change::Devices(org, devices) => of(org, Some(devices.clone())),
            Change::Org(org) => of(org, None),
            Change::Denied(org, devices) => Self { denied: true, ..of(org, devices.clone()) },
            Change::Key(org) => Self { key: true, ..of(org, None) },
            Change::Reports(org, devices) => Self { reports: true, ..of(org, Some(devices.clone())) },
            Change::Anything => return None,
        };
        let text = |news: &Self| serde_json::to_string(news).ok();
        text(&news).filter(|text| text.len() <= LONGEST).or_else(|| text(&Self { devices: None, ..news }))
    }
}

/// The hints of a transaction. They are told here when the commit ends in any way, also when its caller is gone.
struct Hints<'a> {
    store: &'a Postgres,
    changes: Vec<Change>,
    confirmed: bool,
}

impl Drop for Hints<'_> {
    fn drop(&mut self) {
        // A commit without an answer may become visible at any later time. The database sends its news then, and not
        // before.
        if !self.confirmed && !self.changes.is_empty() {
            self.store.hears_itself.store(true, Ordering::Release);
        }
        for change in self.changes.drain(..) {
            self.store.changes.tell(change);
        }
    }
}

impl Postgres {
    /// Commits, which also notifies the other servers of the changes; then notifies the listeners here.
    pub(in super::super) async fn commit(&self, mut writing: Writing) -> Result<(), StoreError> {
        let changes = std::mem::take(&mut writing.told);
        for news in changes.iter().filter_map(|change| News::of(&self.server, change)) {
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(news).execute(&mut *writing.tx).await?;
        }
        let mut hints = Hints { store: self, changes, confirmed: false };
        let committed = writing.commit().await;
        hints.confirmed = committed.is_ok();
        committed
    }

    /// Starts to pass on the news of other servers; when this returns, the listener is connected.
    pub(super) async fn listen(&self) -> Result<(), StoreError> {
        let mut listener = self.listener().await?;
        let store = self.clone();
        tokio::spawn(async move {
            loop {
                let ended = store.stop.run_until_cancelled(store.hear(&mut listener)).await;
                if ended.is_none() {
                    return;
                }
                store.health.suspect();
                let Some(again) = store.stop.run_until_cancelled(store.listen_again()).await else { return };
                listener = again;
                // Told only now: this server missed the news of everything that was committed before the new connection
                // listened.
                store.changes.tell(Change::Anything);
            }
        });
        Ok(())
    }

    /// A listener on a new connection. It has a pool to itself: sqlx returns a listener's connection to its pool, which
    /// blocks forever when that connection is dead.
    async fn listener(&self) -> Result<PgListener, StoreError> {
        let health = Arc::clone(&self.health);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECTED)
            .max_lifetime(None)
            .idle_timeout(None)
            .after_connect(move |connection, _| {
                let health = Arc::clone(&health);
                Box::pin(async move { prepared(connection, &health).await })
            })
            .connect_lazy_with(self.options.as_ref().clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // The loss is told to listeners, and this module makes the new connection.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        tokio::time::timeout(CONNECTED, listening).await.unwrap_or(Err(StoreError::Late))
    }

    async fn listen_again(&self) -> PgListener {
        let mut warned = false;
        loop {
            match self.listener().await {
                Ok(listener) => return listener,
                Err(error) if !warned => {
                    warn!(%error, "cannot receive other servers' changes; retrying");
                    warned = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Passes on news until the connection is lost, is dead, or leads to a server that is no longer the current one.
    async fn hear(&self, listener: &mut PgListener) {
        loop {
            match tokio::time::timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(news))) => self.pass_on(news.payload()),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => return warn!(%error, "the connection that receives other servers' changes failed"),
                // A silently cut connection looks like one on which there is no news.
                Err(_) => {
                    let Ok(connection) = listener.acquire().await else { return };
                    if !session::still_good(connection, &self.health.known).await {
                        return;
                    }
                }
            }
        }
    }

    fn pass_on(&self, payload: &str) {
        match serde_json::from_str::<News>(payload) {
            // Own news were told at the commit, unless the commit had no answer.
            Ok(news) if news.from == self.server && !self.hears_itself.load(Ordering::Acquire) => {}
            Ok(News { org, reports: true, devices, .. }) => {
                self.changes.tell(Change::Reports(org, devices.unwrap_or_default()));
            }
            Ok(News { org, key: true, .. }) => self.changes.tell(Change::Key(org)),
            Ok(News { org, denied: true, devices, .. }) => self.changes.tell(Change::Denied(org, devices)),
            Ok(News { org, devices: Some(devices), .. }) => self.changes.tell(Change::Devices(org, devices)),
            Ok(News { org, devices: None, .. }) => self.changes.tell(Change::Org(org)),
            // A notification of a newer version.
            Err(_) => self.changes.tell(Change::Anything),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_too_many_devices_are_of_the_whole_organisation() {
        let (from, org) = ("a server", OrgId::random());
        let read = |change: &Change| serde_json::from_str::<News>(&News::of(from, change).unwrap()).unwrap();
        let ids =
            |count: usize| (0..count).map(|n| format!("device-{n:0100}").parse().unwrap()).collect::<Vec<DeviceId>>();
        let few = Change::Devices(org, ids(10));
        let of = |devices| News { from: from.to_owned(), org, devices, key: false, reports: false, denied: false };
        assert_eq!(read(&few), of(Some(ids(10))));
        assert_eq!(read(&Change::Devices(org, ids(500))), of(None));
        assert_eq!(read(&Change::Org(org)), of(None));
        assert_eq!(read(&Change::Reports(org, ids(500))), News { reports: true, ..of(None) });
        assert_eq!(News::of(from, &Change::Devices(org, Vec::new())), None);
        assert_eq!(News::of(from, &Change::Denied(org, Some(Vec::new()))), None);
        for (told, devices) in [(Some(ids(10)), Some(ids(10))), (Some(ids(500)), None), (None, None)] {
            assert_eq!(read(&Change::Denied(org, told)), News { denied: true, ..of(devices) });
        }
    }
}
