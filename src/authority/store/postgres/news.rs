//! What servers on one database tell each other: which devices may have changed.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use tracing::warn;

use super::super::StoreError;
use super::{Db, PROBE, Postgres, Transaction};
use crate::authority::changes::Change;
use crate::authority::org::OrgId;
use crate::protocol::DeviceId;

const CHANNEL: &str = "machineid_changes";

/// The longest payload that the database passes on is just under 8,000 bytes. What is longer is told as a change of the
/// whole organisation.
const LONGEST: usize = 7_900;

/// A notification.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct News {
    from: String,
    org: OrgId,
    /// `None` for all of them.
    devices: Option<Vec<DeviceId>>,
    /// The organisation's key is another one, or nobody's.
    #[serde(default)]
    key: bool,
    /// It is only what sidecars report that changed.
    #[serde(default)]
    reports: bool,
}

impl News {
    /// `None` when there is nothing to tell.
    fn of(from: &str, change: &Change) -> Option<String> {
        let of = |org: &OrgId, devices| Self { from: from.to_owned(), org: *org, devices, key: false, reports: false };
        let news = match change {
            Change::Devices(_, devices) if devices.is_empty() => return None,
            Change::Devices(org, devices) => of(org, Some(devices.clone())),
            Change::Org(org) => of(org, None),
            Change::Key(org) => Self { key: true, ..of(org, None) },
            Change::Reports(org, devices) => Self { reports: true, ..of(org, Some(devices.clone())) },
            Change::Anything => return None,
        };
        let text = |news: &Self| serde_json::to_string(news).ok();
        text(&news).filter(|text| text.len() <= LONGEST).or_else(|| text(&Self { devices: None, ..news }))
    }
}

impl Postgres {
    /// Commits, which also tells the other servers; then tells those who listen here.
    pub(super) async fn commit(
        &self,
        mut tx: Transaction<'static, Db>,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<(), StoreError> {
        let changes: Vec<Change> = changes.into_iter().collect();
        for news in changes.iter().filter_map(|change| News::of(&self.server, change)) {
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(news).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        for change in changes {
            self.changes.tell(change);
        }
        Ok(())
    }

    /// Starts to pass on what other servers tell. When the connection breaks something may be missed, so that everything
    /// is said to have changed.
    pub(super) async fn listen(&self) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        let store = self.clone();
        tokio::spawn(async move {
            while let Some(heard) = store.stop.run_until_cancelled(listener.try_recv()).await {
                match heard {
                    Ok(Some(news)) => match serde_json::from_str::<News>(news.payload()) {
                        Ok(news) if news.from == store.server => {}
                        Ok(News { org, reports: true, devices, .. }) => {
                            store.changes.tell(Change::Reports(org, devices.unwrap_or_default()));
                        }
                        Ok(News { org, key: true, .. }) => store.changes.tell(Change::Key(org)),
                        Ok(News { org, devices: Some(devices), .. }) => {
                            store.changes.tell(Change::Devices(org, devices));
                        }
                        Ok(News { org, devices: None, .. }) => store.changes.tell(Change::Org(org)),
                        // Of a newer version, then.
                        Err(_) => store.changes.tell(Change::Anything),
                    },
                    Ok(None) => {
                        store.health.lost.notify_one();
                        // The listener connects anew; until then it hears nothing.
                        store.changes.tell(Change::Anything);
                    }
                    Err(error) => {
                        warn!(%error, "cannot hear of other servers' changes; trying again");
                        tokio::time::sleep(PROBE).await;
                    }
                }
            }
        });
        Ok(())
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
        let of = |devices| News { from: from.to_owned(), org, devices, key: false, reports: false };
        assert_eq!(read(&few), of(Some(ids(10))));
        assert_eq!(read(&Change::Devices(org, ids(500))), of(None));
        assert_eq!(read(&Change::Org(org)), of(None));
        assert_eq!(read(&Change::Reports(org, ids(500))), News { reports: true, ..of(None) });
        assert_eq!(News::of(from, &Change::Devices(org, Vec::new())), None);
    }
}
