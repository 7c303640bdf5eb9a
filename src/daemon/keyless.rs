//! Waits for the org key, in a service that was installed before it was given one.
//!
//! systemd passes credentials to a unit when it starts, so the wait ends by a restart, which `machineid-sidecar-key.path`
//! triggers in the packaged units. Exiting instead was rejected: systemd would restart the service again and again, or give
//! up just before the key comes. Meanwhile clients are told what to do instead of finding no daemon.

use std::os::unix::net::UnixListener;
use std::path::Path;

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

/// The same when the file is there: systemd made the placeholder's credential, and not the file's.
const NOT_HANDED_OVER: &str = "the key file /etc/machineid/org-key is there, but systemd was told not to hand it over: a drop-in \
                               empties LoadCredential= (images for LXC have one: systemctl cat machineid-sidecar shows it), so \
                               nothing is allowed; give it back in a drop-in that is read later: printf \
                               '[Service]\\nLoadCredential=org-key:/etc/machineid/org-key\\n' | sudo install -D -m 644 /dev/stdin \
                               /etc/systemd/system/machineid-sidecar.service.d/zzzz-org-key.conf && sudo systemctl daemon-reload \
                               && sudo systemctl restart machineid-sidecar";

/// The packaged unit's key file.
const KEY_FILE: &str = "/etc/machineid/org-key";

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
    // At the start: a file that comes later is handed over by the restart that it triggers.
    let what_to_do = if Path::new(KEY_FILE).exists() { NOT_HANDED_OVER } else { WHAT_TO_DO };
    warn!("{what_to_do}");
    manager::ready();
    let shutdown = CancellationToken::new();
    let working = async {
        loop {
            let signal = signals.next().await;
            if signal == Signal::TERM || signal == Signal::INT {
                info!(signal = sys::signal_name(signal), "ending");
                break;
            }
            warn!("{what_to_do}");
        }
        manager::stopping();
        shutdown.cancel();
    };
    let refusing = refuse::every_question(&socket, &Code::Starting, what_to_do, &shutdown);
    let waiting = shutdown.run_until_cancelled(manager::wait(what_to_do));
    let reaping = shutdown.run_until_cancelled(init::reap_orphans(None));
    tokio::join!(working, refusing, waiting, reaping);
    Ok(Exit::Success)
}
