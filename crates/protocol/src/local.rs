//! The messages of the local socket: checks, and the event stream of a supervised run.

use serde::{Deserialize, Serialize};

use super::code::CodeKind;
use super::outside::OutsideHelper;
use super::{Code, Containment, DeviceId, RequestId, RunId, Wish};

/// The body of every answer to a check, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckAnswer {
    /// Whether the device may execute. True only with status 200.
    pub allowed: bool,
    /// The reason, as a code.
    pub code: Code,
    /// The authority's id of its answer, if there is one.
    pub request_id: Option<RequestId>,
    /// The device that the answer is about, if the request named a valid one.
    pub device_id: Option<DeviceId>,
    /// RFC 3339 wall-clock time at which the validation behind the answer began, if there was one.
    pub validated_at: Option<String>,
    /// Age of that validation, in milliseconds.
    pub age_ms: Option<u64>,
    /// The reason, as text.
    pub reason: Option<String>,
}

/// The meaning of an answer to a check. Only one form of an answer allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckVerdict {
    /// The device may execute.
    Allowed,
    /// It may not.
    Denied,
    /// The daemon could not find out, or its answer contradicts itself.
    Undecided,
    /// The question was malformed.
    Malformed,
}

impl CheckAnswer {
    /// The meaning of this answer with this HTTP status. Status and body must agree; if they do not, nothing is decided.
    #[must_use]
    pub fn verdict(&self, status: u16) -> CheckVerdict {
        match (status, self.allowed, self.code.kind()) {
            (200, true, CodeKind::Allow | CodeKind::Unknown) => CheckVerdict::Allowed,
            (403, false, _) => CheckVerdict::Denied,
            (400, false, _) => CheckVerdict::Malformed,
            _ => CheckVerdict::Undecided,
        }
    }
}

/// The body of `POST /v1/supervise`: asks whether a process may run, and to supervise it if so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SuperviseRequest {
    /// The pid of the agent's leader in the caller's PID namespace.
    pub pid: i32,
    /// The run id, chosen by the wrapper.
    pub run_id: RunId,
    /// The device to ask about besides the host's; only the host's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Whether the wrapper had no other children when it forked the agent's leader: then all of its children belong to
    /// the agent, and the daemon need not find out which do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// A display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command line, for display.
    #[serde(default)]
    pub command: Vec<String>,
    /// The pid, in the caller's PID namespace, of the process between the caller and the leader that inherits the
    /// agent's orphans: the leader's parent and the caller's child. Every other child of it belongs to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardian: Option<i32>,
    /// The containment that is asked for; `auto` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment: Option<Wish>,
    /// What happens to processes that the leader leaves behind: `stop` or `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<String>,
    /// The first signal of a stop; the daemon's configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Time between the first signal and SIGKILL, such as `10s`; the daemon's configured one when absent or longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace: Option<String>,
}

/// The body of `POST /v1/stop`: the agents to stop, named in exactly one of these ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StopRequest {
    /// The run with this id.
    RunId(RunId),
    /// The run whose leader has this pid, as `GET /v1/status` shows it.
    Pid(i32),
    /// Every run with this name.
    Name(String),
    /// Every run of this device.
    Device(DeviceId),
    /// Every run that the caller may stop; `false` is refused.
    All(bool),
}

/// The body of `POST /v1/outside`: everything that a wrapper sees its agent use outside its tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OutsideReport {
    /// The helpers, at most [`super::outside::MOST_HELPERS`].
    pub helpers: Vec<OutsideHelper>,
}

/// The answer to a [`StopRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopAnswer {
    /// The runs whose stop this request began, without those that were ending already.
    pub run_ids: Vec<RunId>,
}

/// The body of `POST /v1/adopt`: puts a running process with its descendants under supervision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The process, by its pid in the daemon's PID namespace.
    pub pid: i32,
    /// The device that rules it besides the host's; only the host's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// A display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The first signal of a stop; the daemon's configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Time between the first signal and SIGKILL, such as `10s`; the daemon's configured one when absent or longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace: Option<String>,
}

/// The answer to an [`AdoptRequest`]: the process is supervised from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdoptAnswer {
    /// The run that the tree is supervised as.
    pub run_id: RunId,
    /// The device that rules it.
    pub device_id: DeviceId,
    /// The first process of the tree, as the daemon sees it.
    pub pid: i32,
    /// How many processes the tree has now.
    pub processes: usize,
    /// How the tree is held together.
    pub containment: Containment,
    /// The containment in a sentence, and why it is not stronger.
    pub containment_reason: String,
}

/// The body of `POST /v1/hold` and `POST /v1/release`: the devices, named in exactly one of these ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HoldRequest {
    /// This device.
    Device(DeviceId),
    /// Hold: the devices that rule every agent on this host. Release: every device that is held. `false` is refused.
    All(bool),
}

/// The answer to `POST /v1/hold`: the devices are denied on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldAnswer {
    /// The devices that are held.
    pub devices: Vec<DeviceId>,
    /// The runs whose stop this request began.
    pub run_ids: Vec<RunId>,
    /// Why a restart of the daemon would forget the hold, if it would.
    pub problem: Option<String>,
}

/// The answer to `POST /v1/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseAnswer {
    /// The devices that were held and no longer are.
    pub devices: Vec<DeviceId>,
}

/// The answer to `POST /v1/thaw?run_id=ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ThawAnswer {
    /// The run.
    pub run_id: RunId,
    /// Whether the run was frozen.
    pub was_frozen: bool,
}

/// Which side ends the tree when it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Killer {
    /// The daemon can signal the tree; the wrapper does so as well.
    Daemon,
    /// The daemon cannot reach the tree (another PID namespace, another user): only the wrapper ends it.
    Wrapper,
}

impl Killer {
    /// The name, as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Wrapper => "wrapper",
        }
    }
}

/// One line of the stream that answers a [`SuperviseRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum SuperviseEvent {
    /// The agent may start. Sent only after the run is recorded and its lease runs.
    Allow {
        /// The run id, as asked.
        run_id: RunId,
        /// The agent's device.
        device_id: DeviceId,
        /// The URL for requests of an unmodified client in the agent, if the daemon listens for them.
        base_url: Option<String>,
        /// The code of the ALLOW.
        code: Code,
        /// The authority's id of the ALLOW.
        request_id: Option<RequestId>,
        /// The daemon's boot clock when this line was written, in milliseconds.
        boot_ms: u64,
        /// The daemon's boot clock at which the lease ends, in milliseconds.
        until_boot_ms: u64,
        /// The length of a whole lease, in milliseconds.
        lease_ms: u64,
        /// How long after a suspend a new ALLOW may take, when the lease ended meanwhile, in milliseconds; absent from
        /// daemons of other makers.
        #[serde(default)]
        resume_grace_ms: u64,
        /// Time between the first signal of a stop and SIGKILL, in milliseconds, after the daemon's limit.
        stop_grace_ms: u64,
        /// The first signal of a stop, after the daemon's configuration; absent from daemons of other makers.
        #[serde(default)]
        stop_signal: Option<String>,
        /// How the process tree is held together.
        containment: Containment,
        /// Which side ends the tree when it must end.
        killer: Killer,
        /// The agent's key for the daemon's own listener, if there is one.
        token: Option<String>,
    },
    /// A new ALLOW has moved the end of the lease.
    Lease {
        /// The daemon's boot clock when this line was written, in milliseconds.
        boot_ms: u64,
        /// The daemon's boot clock at which the lease now ends, in milliseconds.
        until_boot_ms: u64,
    },
    /// Why the authority cannot decide, sent as soon as a device that rules the agent cannot be validated, and once
    /// more without a reason when it can again. It has no effect; it explains a lease that ends.
    Undecided {
        /// The reason, as text.
        reason: Option<String>,
    },
    /// The processes outside the tree that the agent uses, without ordinary services; sent when they change, also during a stop.
    /// It has no effect; it tells what a stop leaves.
    Outside {
        /// The helpers.
        helpers: Vec<OutsideHelper>,
    },
    /// The daemon may not read the descriptors of the agent's processes: the wrapper looks for what the agent uses outside its
    /// tree, and tells by `POST /v1/outside`.
    Look {},
    /// The tree must end.
    Stop {
        /// The reason, as a code.
        code: Code,
        /// The authority's id of the deny.
        request_id: Option<RequestId>,
        /// The reason, as text.
        reason: Option<String>,
        /// Whether the daemon has already sent the first signal to every process.
        signalled: bool,
        /// Time until SIGKILL, in milliseconds.
        grace_ms: u64,
    },
    /// The question was refused or could not be answered: nothing may start.
    Error {
        /// The reason, as a code.
        code: Code,
        /// The authority's id of its answer, if there is one.
        request_id: Option<RequestId>,
        /// The device that was asked about, if the request named a valid one.
        device_id: Option<DeviceId>,
        /// The reason, as text.
        reason: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, allowed: bool, code: Code) -> CheckVerdict {
        let answer = CheckAnswer {
            allowed,
            code,
            request_id: None,
            device_id: None,
            validated_at: None,
            age_ms: None,
            reason: None,
        };
        answer.verdict(status)
    }

    #[test]
    fn only_one_form_is_a_yes() {
        for status in [100_u16, 200, 201, 204, 302, 400, 403, 404, 500, 503] {
            for allowed in [true, false] {
                for code in Code::KNOWN.iter().cloned().chain([Code::from("NEW")]) {
                    let kind = code.kind();
                    let yes = status == 200 && allowed && matches!(kind, CodeKind::Allow | CodeKind::Unknown);
                    let said = verdict(status, allowed, code);
                    assert_eq!(said == CheckVerdict::Allowed, yes, "{status} {allowed} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_deny_is_told_from_no_answer() {
        assert_eq!(verdict(403, false, Code::DeviceRevoked), CheckVerdict::Denied);
        assert_eq!(verdict(503, false, Code::SystemUnavailable), CheckVerdict::Undecided);
        assert_eq!(verdict(503, false, Code::CheckTimeout), CheckVerdict::Undecided);
        assert_eq!(verdict(400, false, Code::BadRequest), CheckVerdict::Malformed);
        assert_eq!(verdict(200, false, Code::DeviceRevoked), CheckVerdict::Undecided);
    }

    #[test]
    fn events_look_as_documented() {
        let stop = SuperviseEvent::Stop {
            code: Code::DeviceRevoked,
            request_id: RequestId::from_foreign("r-1"),
            reason: None,
            signalled: true,
            grace_ms: 10_000,
        };
        assert_eq!(
            serde_json::to_string(&stop).unwrap(),
            r#"{"event":"stop","code":"DEVICE_REVOKED","request_id":"r-1","reason":null,"signalled":true,"grace_ms":10000}"#
        );
        let lease: SuperviseEvent =
            serde_json::from_str(r#"{"event":"lease","boot_ms":1,"until_boot_ms":30001}"#).unwrap();
        assert_eq!(lease, SuperviseEvent::Lease { boot_ms: 1, until_boot_ms: 30_001 });
    }
}
