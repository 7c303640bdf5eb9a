//! Reports to an authority that accepts them: the devices and agents of this host, so that an operator who revokes a device
//! can see that its agents are gone. Reports go only to the authority that the key belongs to and never delay enforcement: a
//! failed report is repeated later, and no other task waits for it.
//!
//! | file | concept |
//! |---|---|
//! | `snapshot` | the content of a report |
//! | `happened` | the events in it |
//! | `identity` | the secret of this sidecar, and its id |
//! | this file | when to report |

mod happened;
mod identity;
mod snapshot;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use machineid_client::Failure;
use machineid_clock::Doubling;
use machineid_protocol::RunId;
use machineid_protocol::report::{Report, SidecarId};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::config::Live;
use crate::gate::Gates;
use crate::gate::keyed_client::KeyedClient;
use crate::registry::RunRegistry;
use crate::telemetry::Journal;
use crate::telemetry::ring::EventNumber;
pub(crate) use identity::{id_of, resolve as resolve_secret, restore as restore_secret};
use snapshot::Snapshot;

/// The longest time between two reports: that nothing changed is worth knowing too.
const AT_LEAST: Duration = Duration::from_secs(10);

/// How long changes are collected before a report.
const COLLECT: Duration = Duration::from_millis(30);

/// The least time between two reports.
const AT_MOST: Duration = Duration::from_millis(250);

/// The pause after a failure, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Time limit for the last report of a sidecar that ends.
const LAST_WORD: Duration = Duration::from_secs(3);

/// The task that reports, with the sources of its data.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) gates: Arc<Gates>,
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) live: Live,
    pub(crate) journal: Arc<Journal>,
    /// The id of this sidecar.
    pub(crate) id: SidecarId,
}

/// What the authority has been told.
#[derive(Debug)]
struct KnownToAuthority {
    stops: HashSet<(RunId, bool)>,
    /// The number of the next event to report.
    next: EventNumber,
}

impl Reporter {
    /// Reports whenever the authority accepts reports, until `stop`, and then once more: that the last agent is gone.
    pub(crate) async fn tell(self, stop: CancellationToken) {
        let id = self.id;
        let mut told = KnownToAuthority { stops: HashSet::new(), next: 1 };
        if stop.run_until_cancelled(self.tell_on(id, &mut told)).await.is_some() {
            return;
        }
        let keyed = self.gates.authority().keyed_client();
        if keyed.client.extensions().borrow().report {
            // The daemon is ending: it does not wait long for an authority that may be gone.
            let _ = tokio::time::timeout(LAST_WORD, self.tell_once(id, &keyed, &mut told)).await;
        }
    }

    async fn tell_on(&self, id: SidecarId, told: &mut KnownToAuthority) {
        let authority = self.gates.authority();
        let mut keyed_in_force = authority.follow();
        let (mut held, mut devices, mut agents) = (authority.stirred(), self.gates.changes(), self.runs.stirred());
        let mut happened = self.journal.watch();
        let mut asked = Arc::clone(&keyed_in_force.borrow());
        let mut failures = 0_u32;
        loop {
            let keyed = Arc::clone(&keyed_in_force.borrow_and_update());
            if !Arc::ptr_eq(&keyed, &asked) {
                // An authority that is asked with another key may know nothing yet.
                told.stops.clear();
                if keyed.client.base_url() != asked.client.base_url() {
                    // Another authority: earlier events do not concern it.
                    told.next = self.journal.ring().newest() + 1;
                }
                asked = Arc::clone(&keyed);
            }
            let mut announced = keyed.client.extensions();
            tokio::select! {
                announced = announced.wait_for(|extensions| extensions.report) => {
                    if announced.is_err() {
                        return;
                    }
                }
                changed = keyed_in_force.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
            // Before the look: a change during it causes another report.
            for stirred in [&mut held, &mut devices, &mut agents] {
                stirred.mark_unchanged();
            }
            happened.mark_unchanged();
            let pause = match self.tell_once(id, &keyed, told).await {
                Ok(()) => {
                    if std::mem::take(&mut failures) > 0 {
                        info!("the authority accepts reports again");
                    }
                    AT_MOST
                }
                Err(cause) => {
                    failures = failures.saturating_add(1);
                    debug!(%cause, failures, "the authority did not accept the report");
                    after_failures(failures, cause.retry_after())
                }
            };
            tokio::time::sleep(pause).await;
            if self.journal.ring().newest() >= told.next {
                continue;
            }
            tokio::select! {
                _ = held.changed() => {}
                _ = devices.changed() => {}
                _ = agents.changed() => {}
                _ = happened.changed() => {}
                () = tokio::time::sleep(AT_LEAST.mul_f64(0.9 + 0.2 * fastrand::f64())) => continue,
            }
            tokio::time::sleep(COLLECT).await;
        }
    }

    async fn tell_once(&self, id: SidecarId, keyed: &KeyedClient, told: &mut KnownToAuthority) -> Result<(), Failure> {
        let Snapshot { report, stops, next } = snapshot::take(id, self, &self.live.now(), &told.stops, told.next);
        send(keyed, &report).await?;
        told.stops.retain(|known| stops.contains(known));
        told.stops.extend(report.stops.iter().map(|stop| (stop.run_id, stop.confirmed)));
        told.next = next;
        Ok(())
    }
}

async fn send(keyed: &KeyedClient, report: &Report) -> Result<(), Failure> {
    keyed.client.report(&keyed.key, report).await
}

fn after_failures(failures: u32, retry_after: Option<Duration>) -> Duration {
    let ceiling = Doubling { first: FIRST_PAUSE, longest: LONGEST_PAUSE }.after(failures);
    (ceiling.mul_f64(0.5 + 0.5 * fastrand::f64())).max(retry_after.unwrap_or_default())
}
