//! Waits for the org key, in a service that was installed before it was given one.
//!
//! systemd passes credentials to a unit when it starts, so the wait ends by a restart, which `machineid-sidecar-key.path`
//! triggers in the packaged units. Exiting instead was rejected: systemd would restart the service again and again, or give
//! up just before the key comes. Meanwhile clients are told what to do instead of finding no daemon.

use std::os::unix::net::UnixListener;

use machineid_protocol::{Code, Exit};
use machineid_sys as sys;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::signals::Signals;
use super::{Fatal, init, manager};
use crate::config::{ConfigError, Origin, Settings};
use crate::disk::{CannotMake, make_directory};
use crate::local::{refuse, socket};

/// The text for the log, the unit's status and clients that ask.
const WHAT_TO_DO: &str = "no org key yet, so nothing is allowed; put the key into its file, and the service reads it \
                          without a restart: sudo install -m 600 /dev/stdin /etc/machineid/org-key";

/// Refuses every request until told to end.
pub(super) async fn wait(settings: &Settings, handed: Option<UnixListener>) -> Result<Exit, Fatal> {
    let runtime_dir = &settings.local.runtime_dir;
    make_directory(runtime_dir, 0o700)
        .map_err(CannotMake::at(runtime_dir))
        .map_err(|error| ConfigError::at(&Origin::Default, "local.runtime_dir", error))?;
    let socket = match handed {
        Some(handed) => socket::take_over(&settings.local, handed)?,
        None => socket::bind(&settings.local)?,
    };
    let mut signals = Signals::watch(false).map_err(Fatal::io("watch for signals"))?;
    warn!("{WHAT_TO_DO}");
    manager::ready();
    let shutdown = CancellationToken::new();
    let working = async {
        loop {
            let signal = signals.next().await;
            if signal == Signal::TERM || signal == Signal::INT {
                info!(signal = sys::signal_name(signal), "ending");
                break;
            }
            warn!("{WHAT_TO_DO}");
        }
        manager::stopping();
        shutdown.cancel();
    };
    let refusing = refuse::every_question(&socket, &Code::Starting, WHAT_TO_DO, &shutdown);
    let waiting = shutdown.run_until_cancelled(manager::wait(WHAT_TO_DO));
    let reaping = shutdown.run_until_cancelled(init::reap_orphans(None));
    tokio::join!(working, refusing, waiting, reaping);
    Ok(Exit::Success)
}
