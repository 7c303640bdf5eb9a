//! The record of one run: a file in the runtime directory.
//!
//! It contains what a later daemon needs to supervise the run. The daemon trusts the processes more than the file: each
//! process is named by number *and* start time, each point in time by this boot's clock.

use std::path::PathBuf;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Containment, Denial, DeviceId, RequestId, RunId};
use machineid_sys as sys;
use machineid_tree::{Guardian, Identity, Pid, StartTime};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::registry::TokenHash;

/// The version of the format. Records of other versions are not read: a daemon of another version wrote them, and the
/// wrappers enforce their leases.
const VERSION: u32 = 1;

/// One recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    pub(crate) id: RunId,
    pub(crate) device: DeviceId,
    pub(crate) name: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) uid: u32,
    /// `None` for a tree that was adopted while it ran.
    pub(crate) wrapper: Option<Identity>,
    pub(crate) guardian: Option<Guardian>,
    pub(crate) leader: Identity,
    /// Whether all children of the wrapper belong to the tree.
    pub(crate) alone: bool,
    pub(crate) containment: Containment,
    pub(crate) leaf: Option<PathBuf>,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    /// The token that the agent shows at `compat.listen`, as a hash.
    pub(crate) token: Option<TokenHash>,
    /// The code and request id of the ALLOW on which the run started.
    pub(crate) code: Code,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) started: BootTime,
    /// The end of the lease of each device that rules it.
    pub(crate) leases: Vec<(DeviceId, BootTime)>,
    pub(crate) stop: Option<BegunStop>,
}

/// A stop that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BegunStop {
    pub(crate) denial: Denial,
    pub(crate) began: BootTime,
    pub(crate) kill_at: BootTime,
}

/// The place and boot for which a record is valid: elsewhere the same process numbers and boot times mean something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Here {
    /// The kernel's name for this boot.
    pub(crate) boot_id: String,
    /// The kernel's name for the daemon's PID namespace.
    pub(crate) pid_namespace: String,
}

/// Why a file is not a record of this daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A record of another boot: everything that it names is gone.
    OtherBoot,
    /// A file that is incomplete, foreign, of another version or of another PID namespace; the text says which.
    Foreign(String),
}

impl RunRecord {
    /// The file's text.
    pub(crate) fn to_text(&self, here: &Here) -> Vec<u8> {
        let (guardian, guardian_kind) = match self.guardian {
            None => (None, None),
            Some(Guardian::Sweeper(identity)) => (Some(identity), Some(RecordedGuardian::Sweeper)),
            Some(Guardian::Init(identity)) => (Some(identity), Some(RecordedGuardian::Init)),
        };
        let written = Written {
            version: VERSION,
            boot_id: here.boot_id.clone(),
            pid_namespace: here.pid_namespace.clone(),
            run_id: self.id,
            device: self.device.clone(),
            name: self.name.clone(),
            command: self.command.clone(),
            uid: self.uid,
            wrapper: self.wrapper.map(Into::into),
            adopted: self.wrapper.is_none(),
            guardian: guardian.map(Into::into),
            guardian_kind,
            leader: self.leader.into(),
            alone: self.alone,
            containment: self.containment,
            // A path that is not UTF-8 (no known program makes one) is left out; a later daemon does without that leaf.
            leaf: self.leaf.as_ref().and_then(|leaf| leaf.to_str()).map(str::to_owned),
            stop_signal: sys::signal_name(self.stop_signal),
            stop_grace_ms: millis(self.stop_grace),
            token_sha256: self.token.map(TokenHash::to_hex),
            code: self.code.clone(),
            request_id: self.request_id.clone(),
            started_boot_ms: self.started.as_millis(),
            leases: self
                .leases
                .iter()
                .map(|(device, until)| WrittenLease { device: device.clone(), until_boot_ms: until.as_millis() })
                .collect(),
            stop: self.stop.as_ref().map(|stop| WrittenStop {
                code: stop.denial.code.clone(),
                request_id: stop.denial.request_id.clone(),
                reason: stop.denial.reason.clone(),
                began_boot_ms: stop.began.as_millis(),
                kill_at_boot_ms: stop.kill_at.as_millis(),
            }),
        };
        // Strings and numbers only: serialization cannot fail.
        let mut text = serde_json::to_vec_pretty(&written).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads a file's text. An unknown key, an impossible number or another version makes the file foreign.
    pub(crate) fn from_text(text: &[u8], here: &Here) -> Result<Self, Unfit> {
        let foreign = |problem: &str| Unfit::Foreign(problem.to_owned());
        let head: WrittenHead = serde_json::from_slice(text).map_err(|error| Unfit::Foreign(error.to_string()))?;
        if head.version != VERSION {
            return Err(Unfit::Foreign(format!("it has version {}, not {VERSION}", head.version)));
        }
        if head.boot_id != here.boot_id {
            return Err(Unfit::OtherBoot);
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| Unfit::Foreign(error.to_string()))?;
        if written.pid_namespace != here.pid_namespace {
            return Err(foreign("it was written in another PID namespace"));
        }
        let identity = |process: ProcessName| process.identity().ok_or_else(|| foreign("a pid is not above 1"));
        let guardian = match (written.guardian, written.guardian_kind) {
            (None, None) => None,
            (Some(process), Some(RecordedGuardian::Sweeper)) => Some(Guardian::Sweeper(identity(process)?)),
            (Some(process), Some(RecordedGuardian::Init)) => Some(Guardian::Init(identity(process)?)),
            (Some(_), None) | (None, Some(_)) => return Err(foreign("it names only half of the guardian's identity")),
        };
        if written.wrapper.is_none() != written.adopted {
            return Err(foreign("it names no wrapper, or one for an adopted process"));
        }
        if written.leases.is_empty() {
            return Err(foreign("it names no lease"));
        }
        let token = written.token_sha256.as_deref().map(TokenHash::from_hex);
        if token == Some(None) {
            return Err(foreign("its token's hash is not valid"));
        }
        let leaf = written.leaf.map(PathBuf::from);
        let leaf_fits = |leaf: &PathBuf| {
            leaf.is_absolute() && leaf.file_name().is_some_and(|name| name == &*format!("machineid-{}", written.run_id))
        };
        if !leaf.as_ref().is_none_or(leaf_fits) {
            return Err(foreign("its control group is not named after the run"));
        }
        Ok(Self {
            id: written.run_id,
            device: written.device,
            name: written.name,
            command: written.command,
            uid: written.uid,
            wrapper: written.wrapper.map(identity).transpose()?,
            guardian,
            leader: identity(written.leader)?,
            alone: written.alone,
            containment: written.containment,
            leaf,
            stop_signal: sys::parse_signal(&written.stop_signal).map_err(|error| Unfit::Foreign(error.to_string()))?,
            stop_grace: Duration::from_millis(written.stop_grace_ms),
            token: token.flatten(),
            code: written.code,
            request_id: written.request_id,
            started: BootTime::from_millis(written.started_boot_ms),
            leases: written
                .leases
                .into_iter()
                .map(|lease| (lease.device, BootTime::from_millis(lease.until_boot_ms)))
                .collect(),
            stop: written.stop.map(|stop| BegunStop {
                denial: Denial { code: stop.code, request_id: stop.request_id, reason: stop.reason, revoked_at: None },
                began: BootTime::from_millis(stop.began_boot_ms),
                kill_at: BootTime::from_millis(stop.kill_at_boot_ms),
            }),
        })
    }
}

/// The fields that must be right before the others are read.
#[derive(Debug, Deserialize)]
struct WrittenHead {
    version: u32,
    boot_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    boot_id: String,
    pid_namespace: String,
    run_id: RunId,
    device: DeviceId,
    name: Option<String>,
    command: Vec<String>,
    uid: u32,
    wrapper: Option<ProcessName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adopted: bool,
    guardian: Option<ProcessName>,
    guardian_kind: Option<RecordedGuardian>,
    leader: ProcessName,
    alone: bool,
    containment: Containment,
    leaf: Option<String>,
    stop_signal: String,
    stop_grace_ms: u64,
    token_sha256: Option<String>,
    code: Code,
    request_id: Option<RequestId>,
    started_boot_ms: u64,
    leases: Vec<WrittenLease>,
    stop: Option<WrittenStop>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessName {
    pid: i32,
    start: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecordedGuardian {
    Sweeper,
    Init,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLease {
    device: DeviceId,
    until_boot_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStop {
    code: Code,
    request_id: Option<RequestId>,
    reason: Option<String>,
    began_boot_ms: u64,
    kill_at_boot_ms: u64,
}

impl From<Identity> for ProcessName {
    fn from(identity: Identity) -> Self {
        Self { pid: identity.pid.as_raw(), start: identity.start.0 }
    }
}

impl ProcessName {
    fn identity(self) -> Option<Identity> {
        let pid = Pid::new(self.pid).filter(|pid| !pid.is_init())?;
        Some(Identity { pid, start: StartTime(self.start) })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Fuzz target: a foreign file is either rejected, or a record that is written back as the same record.
pub(crate) fn fuzz(data: &[u8]) {
    let here = Here { boot_id: "boot".to_owned(), pid_namespace: "pid:[1]".to_owned() };
    let Ok(record) = RunRecord::from_text(data, &here) else { return };
    assert_eq!(RunRecord::from_text(&record.to_text(&here), &here).ok().as_ref(), Some(&record));
    for process in [Some(record.leader), record.wrapper, record.guardian.map(Guardian::identity)] {
        assert!(process.is_none_or(|process| process.pid.as_raw() > 1), "{record:?}");
    }
}

#[cfg(test)]
#[path = "run_record_tests.rs"]
pub(in crate::registry::ledger) mod tests;
