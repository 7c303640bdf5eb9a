//! Reaps orphans. The first process of a PID namespace (a container's entrypoint) inherits every orphan in it: of `docker
//! exec`, of probes, of agents whose wrappers are gone. Unreaped, they fill the container's process table.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use machineid_sys as sys;
use rustix::process::{Pid, WaitOptions, waitpid};
use signal_hook::consts::SIGCHLD;
use signal_hook_tokio::Signals;
use tracing::warn;

/// Pause while a child of the daemon, which another task reaps, comes before the orphans.
const AGAIN: Duration = Duration::from_millis(100);

/// Reaps orphans as long as it is polled, if this is the first process. Another task waits for `own`.
pub(super) async fn reap_orphans(own: Option<Pid>) -> Infallible {
    let first = rustix::process::getpid().as_raw_pid() == 1;
    let ended = first.then(|| Signals::new([SIGCHLD]));
    let mut ended = match ended {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => {
            warn!(%error, "cannot watch for ended processes: orphans of this container stay in its process table");
            return std::future::pending().await;
        }
        None => return std::future::pending().await,
    };
    loop {
        match sys::ended_child() {
            Ok(Some(pid)) if Some(pid) == own => tokio::time::sleep(AGAIN).await,
            Ok(Some(pid)) => {
                // This was an orphan: no task waits for it.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
            Ok(None) | Err(_) => {
                ended.next().await;
            }
        }
    }
}
