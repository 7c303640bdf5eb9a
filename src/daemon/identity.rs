//! The device id of this host: expanded from its template, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use machineid_protocol::DeviceId;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::config::{self, ConfigError, Environment, Settings};
use crate::disk::{make_directory, replace_file};

/// The resolved id with its template. A renamed host keeps its id until the template changes: `hostnamectl` must not undo the
/// revoke of a device.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    template: String,
    device_id: DeviceId,
}

/// The device id that the template gives on this host now.
pub(super) fn expand(settings: &Settings, environment: &Environment) -> Result<DeviceId, ConfigError> {
    let device = &settings.device;
    config::expand_device_id(&device.id_template, &config::host_facts(), &|name| environment.text(name))
        .map_err(|problem| ConfigError::at(&device.id_origin, "device.id", problem))
}

/// The device that all replicas of this host's workload share, if one is configured. It comes from the environment, which a
/// cluster sets, and is not kept.
pub(super) fn workload(
    settings: &Settings,
    host: &DeviceId,
    environment: &Environment,
) -> Result<Option<DeviceId>, ConfigError> {
    let Some((template, origin)) = &settings.device.workload else { return Ok(None) };
    let at = |problem: String| ConfigError::at(origin, "device.workload", problem);
    let workload = config::expand_device_id(template, &config::host_facts(), &|name| environment.text(name))
        .map_err(|problem| at(problem.to_string()))?;
    if workload == *host {
        return Err(at(format!(
            "{workload} is device.id as well; replicas need an id of their own and one that they share"
        )));
    }
    Ok(Some(workload))
}

/// The host's device id, and the file that it is kept in.
#[derive(Debug)]
pub(super) struct HostIdentity {
    place: Option<PathBuf>,
    kept: Kept,
}

impl HostIdentity {
    /// This host's device id.
    pub(super) fn device(&self) -> &DeviceId {
        &self.kept.device_id
    }

    /// Writes the file again if it is gone; returns whether it was.
    pub(super) fn restore(&self) -> std::io::Result<bool> {
        let Some(place) = &self.place else { return Ok(false) };
        let gone = !place.try_exists()?;
        if gone {
            write(place, &self.kept)?;
        }
        Ok(gone)
    }
}

/// The kept id if the template is the same, otherwise the template's present value, which is then kept.
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

/// How the org key is protected from agents on this host, in a sentence.
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
