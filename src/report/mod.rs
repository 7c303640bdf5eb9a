//! Reports: tells an authority that takes them what this host holds and runs, so that an operator who revokes a device
//! can see that its agents are gone. Only to the authority whose key it is, and never in enforcement's way: whatever goes
//! wrong here is tried again later, and nothing waits for it.
//!
//! | file | concept |
//! |---|---|
//! | `snapshot` | what is told |
//! | `identity` | which sidecar tells it |
//! | this one | when |

mod identity;
mod snapshot;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use crate::client::Failure;
use crate::config::Live;
use crate::gate::Gates;
use crate::gate::attempt::Means;
use crate::protocol::RunId;
use crate::protocol::report::Report;
use crate::runs::Runs;
use snapshot::Snapshot;

/// How often something is told at least: that nothing changed is worth knowing too.
const AT_LEAST: Duration = Duration::from_secs(10);

/// How long what changes together is collected.
const COLLECT: Duration = Duration::from_millis(30);

/// The least time between two reports.
const AT_MOST: Duration = Duration::from_millis(250);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a report is made from.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) gates: Arc<Gates>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) live: Live,
}

impl Reporter {
    /// Tells whenever the authority takes reports. Ends never; drop it.
    pub(crate) async fn tell(self) {
        let id = identity::resolve(&self.live.now().local.runtime_dir);
        let authority = self.gates.authority();
        let mut means_in_force = authority.follow();
        let (mut held, mut devices, mut agents) = (authority.stirred(), self.gates.changes(), self.runs.stirred());
        let mut told = HashSet::new();
        let mut failures = 0_u32;
        loop {
            let means = Arc::clone(&means_in_force.borrow_and_update());
            let mut announced = means.client.extensions();
            tokio::select! {
                announced = announced.wait_for(|extensions| extensions.report) => {
                    if announced.is_err() {
                        return;
                    }
                }
                // Another authority, which knows nothing yet.
                changed = means_in_force.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    told.clear();
                    continue;
                }
            }
            // Before the look: what changes during it is told next time.
            for stirred in [&mut held, &mut devices, &mut agents] {
                stirred.mark_unchanged();
            }
            let Snapshot { report, stops } = self.look(id, &told);
            let pause = match send(&means, &report).await {
                Ok(()) => {
                    if std::mem::take(&mut failures) > 0 {
                        info!("the authority takes reports again");
                    }
                    told.retain(|known| stops.contains(known));
                    told.extend(report.stops.iter().map(|stop| (stop.run_id, stop.confirmed)));
                    AT_MOST
                }
                Err(cause) => {
                    failures = failures.saturating_add(1);
                    debug!(%cause, failures, "the authority did not take the report");
                    after_failures(failures, cause.retry_after())
                }
            };
            tokio::time::sleep(pause).await;
            tokio::select! {
                _ = held.changed() => {}
                _ = devices.changed() => {}
                _ = agents.changed() => {}
                () = tokio::time::sleep(AT_LEAST.mul_f64(0.9 + 0.2 * fastrand::f64())) => continue,
            }
            tokio::time::sleep(COLLECT).await;
        }
    }

    fn look(&self, id: crate::protocol::report::SidecarId, told: &HashSet<(RunId, bool)>) -> Snapshot {
        snapshot::take(id, &self.gates, &self.runs, &self.live.now(), told)
    }
}

async fn send(means: &Means, report: &Report) -> Result<(), Failure> {
    means.client.report(&means.key, report).await
}

fn after_failures(failures: u32, retry_after: Option<Duration>) -> Duration {
    let ceiling = Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(failures.min(10))).min(LONGEST_PAUSE);
    (ceiling.mul_f64(0.5 + 0.5 * fastrand::f64())).max(retry_after.unwrap_or_default())
}
