//! Which device this host is.

use std::fs;
use std::path::{Path, PathBuf};

use machineid_protocol::DeviceId;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::config::{self, ConfigError, Environment, Settings};
use crate::disk::{make_directory, replace_file};

/// The resolved id with the template it came from. A host that is renamed stays the device it was, until the template
/// changes: its revoke must not be shaken off by `hostnamectl`.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    template: String,
    device_id: DeviceId,
}

/// What the template says on this host now.
pub(super) fn expand(settings: &Settings, environment: &Environment) -> Result<DeviceId, ConfigError> {
    let device = &settings.device;
    config::expand_device_id(&device.id_template, &config::host_facts(), &|name| environment.text(name))
        .map_err(|problem| ConfigError::at(&device.id_origin, "device.id", problem))
}

/// What is kept of this host's device id, and where.
#[derive(Debug)]
pub(super) struct HostIdentity {
    place: Option<PathBuf>,
    kept: Kept,
}

impl HostIdentity {
    /// Which device this host is.
    pub(super) fn device(&self) -> &DeviceId {
        &self.kept.device_id
    }

    /// Writes it down again when its file is gone. Whether it was.
    pub(super) fn restore(&self) -> std::io::Result<bool> {
        let Some(place) = &self.place else { return Ok(false) };
        let gone = !place.try_exists()?;
        if gone {
            write(place, &self.kept)?;
        }
        Ok(gone)
    }
}

/// The id this host had under the same template, else what the template says now, which is then kept.
pub(super) fn resolve(settings: &Settings, environment: &Environment) -> Result<HostIdentity, ConfigError> {
    let template = &settings.device.id_template;
    let place = settings.state_dir.as_ref().map(|directory| directory.join("device.json"));
    let kept = place.as_deref().and_then(read).filter(|kept| kept.template == *template);
    if let Some(kept) = kept {
        return Ok(HostIdentity { place, kept });
    }
    let kept = Kept { template: template.clone(), device_id: expand(settings, environment)? };
    let Some(place) = place else { return Ok(HostIdentity { place: None, kept }) };
    match write(&place, &kept) {
        Ok(()) => debug!(device_id = %kept.device_id, place = %place.display(), "saved this host's device id"),
        Err(error) => {
            warn!(place = %place.display(), %error, "cannot save this host's device id: a renamed host will be \
                                                     another device");
            return Ok(HostIdentity { place: None, kept });
        }
    }
    Ok(HostIdentity { place: Some(place), kept })
}

fn read(place: &Path) -> Option<Kept> {
    serde_json::from_slice(&fs::read(place).ok()?).ok()
}

fn write(place: &Path, kept: &Kept) -> std::io::Result<()> {
    if let Some(directory) = place.parent() {
        make_directory(directory, 0o700)?;
    }
    replace_file(place, &serde_json::to_vec_pretty(kept)?)
}

/// What keeps the org key from agents on this host.
pub(super) fn key_protection() -> String {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "agents that do not run as root cannot reach the org key".to_owned();
    }
    format!(
        "agents of users other than uid {} cannot reach the org key; agents of that user are not given it, but could \
         read it",
        uid.as_raw()
    )
}
