//! The logs of a failed run, kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::authority::Authority;
use crate::member::Member;
use crate::plan::Side;
use crate::world::World;

/// Copies all logs to where they outlive the run.
pub(crate) fn logs(world: &World, seed: u64) -> PathBuf {
    let to = directory(seed);
    for node in [&world.databases.primary, &world.databases.synchronous, &world.databases.asynchronous] {
        copy(&node.directory().join("log"), &to.join(format!("postgres-{}.log", node.name)));
    }
    for side in Side::BOTH {
        authority(&world.authorities[side.index()], &format!("authority-{side:?}"), &to);
    }
    members(&world.members, &to);
    to
}

/// Copies what an authority logged.
pub(crate) fn authority(authority: &Authority, name: &str, to: &Path) {
    copy(&authority.directory().join("log"), &to.join(format!("{name}.log")));
}

/// Where the logs of a run with this seed are kept.
pub(crate) fn directory(seed: u64) -> PathBuf {
    let name = format!("machineid-failover-logs-{seed}-{}", std::process::id());
    let to = crate::arguments::scratch().join(name);
    let _ = fs::create_dir_all(&to);
    to
}

/// Copies what sidecars logged and agents wrote.
pub(crate) fn members(members: &[Member], to: &Path) {
    for member in members {
        let from = member.sidecar.directory();
        copy(&from.join("log"), &to.join(format!("sidecar-{:02}.log", member.number)));
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("beats-") {
                copy(&entry.path(), &to.join(format!("agent-{:02}-{name}", member.number)));
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::copy(from, to);
}
