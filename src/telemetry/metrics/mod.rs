//! The metrics: `machineid_sidecar_*`, in base units, with labels from closed sets.
//!
//! | file | concept |
//! |---|---|
//! | `labels` | the labels of the series |
//!
//! The registry is passed to the code that counts; it is not global, so that two daemons in one test have separate counts.

mod labels;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use labels::{
    AgentLabels, BuildLabels, CaseLabel, DecisionLabels, FileLabel, PortLabel, ReasonLabel, RequestLabels, ResultLabel,
    StateLabel, StopLabels,
};
use machineid_client::KeyFacts;
use machineid_protocol::event::{Happening, ReloadResult, Source};
use machineid_protocol::local::Killer;
use machineid_protocol::status::{AgentState, StandingKind};
use machineid_protocol::{Code, Decision};

type Level = Gauge<f64, AtomicU64>;

/// The metrics, and the page that shows them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_duration: Histogram,
    last_allow: Level,
    allowed: Gauge,
    state: Family<StateLabel, Gauge>,
    agents: Family<AgentLabels, Gauge>,
    stops: Family<StopLabels, Counter>,
    stop_duration: Histogram,
    stop_bound: Family<CaseLabel, Level>,
    /// A family without labels: it is empty while the key does not expire.
    key_ends: Family<Vec<(&'static str, &'static str)>, Level>,
    key_role: Family<Vec<(&'static str, &'static str)>, Level>,
    /// Kept here, so that thousands of checks a second need not look them up.
    checks: [Counter; 4],
    check_duration: Histogram,
    peers_rejected: Family<ReasonLabel, Counter>,
    reloads: Family<ResultLabel, Counter>,
    audit_dropped: Counter,
    unrecorded_starts: Counter,
    restored: Family<FileLabel, Counter>,
    runtime_problem: Gauge,
    listening: Family<PortLabel, Gauge>,
    panics: Counter,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    Allowed,
    Denied,
    /// No decision was available.
    Undecided,
    /// The question was malformed.
    Malformed,
}

/// A kind of file that the daemon keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnFile {
    /// The socket that clients connect to.
    Socket,
    /// The lock that refuses a second daemon in the same place.
    Lock,
    /// The record of a run.
    Record,
    /// The marker of a device registered since this boot.
    Marker,
    /// The devices that are held on this host.
    Holds,
    /// This host's device id.
    Device,
    /// The secret that proves which sidecar reports to the authority.
    SidecarSecret,
}

impl OwnFile {
    const ALL: [Self; 7] =
        [Self::Socket, Self::Lock, Self::Record, Self::Marker, Self::Holds, Self::Device, Self::SidecarSecret];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Lock => "lock",
            Self::Record => "record",
            Self::Marker => "marker",
            Self::Holds => "holds",
            Self::Device => "device",
            Self::SidecarSecret => "sidecar_secret",
        }
    }
}

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// There was no place for its connection.
    Overloaded,
    /// The process it named is not its own.
    PidNotPermitted,
    /// Clients may not name this device.
    DeviceNotPermitted,
    /// The daemon could not end its agent.
    RemoteRefused,
    /// Its user has registered as many new devices as it may for now.
    RegistrationLimited,
    /// The client lacks the rights for its request.
    NotPrivileged,
}

/// The values of this moment that the page shows.
#[derive(Debug)]
pub(crate) struct Now {
    /// The time of the newest ALLOW for the host's device, in seconds since 1970. `None` when it is no longer known: then the
    /// metric keeps its value.
    pub(crate) last_allow: Option<f64>,
    /// The standing of the host's device.
    pub(crate) standing: StandingKind,
    pub(crate) agents: Vec<(AgentState, Killer)>,
    pub(crate) stop_bound_connected: Duration,
    pub(crate) stop_bound_cut_off: Duration,
    /// Whether the daemon cannot keep its socket, its lock or its records in place.
    pub(crate) runtime_problem: bool,
    /// The settings that name a port, and whether the daemon listens there.
    pub(crate) ports: Vec<(&'static str, bool)>,
    /// How often the process has panicked.
    pub(crate) panics: u64,
    /// What the authority told of the org key in use.
    pub(crate) key: KeyFacts,
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The counters of checks, one for each result.
fn check_counters(registry: &mut Registry) -> [Counter; 4] {
    let checks = register(registry, "checks", "Local checks, by answer", Family::<ResultLabel, Counter>::default());
    CheckResult::ALL.map(|result| checks.get_or_create_owned(&ResultLabel { result: result.word() }))
}

/// The counters of recreated files, one for each kind.
fn restored_counters(registry: &mut Registry) -> Family<FileLabel, Counter> {
    let text = "Files of the daemon that were missing and were recreated, by kind";
    register(registry, "files_restored", text, Family::default())
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Registry::with_prefix("machineid_sidecar");
        let r = &mut all;
        let metrics = Self {
            decisions: register(
                r,
                "decisions",
                "Answers to validations, by code and by source of the decision",
                Family::default(),
            ),
            requests: register(r, "authority_requests", "Requests to the authority, by outcome", Family::default()),
            request_duration: register(
                r,
                "authority_request_duration_seconds",
                "Time from sending a request to the authority to its answer or failure",
                histogram([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            ),
            last_allow: register(
                r,
                "last_allow_timestamp_seconds",
                "Start of the validation that gave the newest ALLOW for the host's device; 0 before the first",
                Level::default(),
            ),
            allowed: register(r, "allowed", "Whether the host's device is allowed now", Gauge::default()),
            state: register(r, "state", "1 for the present state of the host's device", Family::default()),
            agents: register(
                r,
                "agents",
                "Supervised agents, by state and by the process that ends them",
                Family::default(),
            ),
            stops: register(r, "stops", "Stops of agents, by code and by outcome", Family::default()),
            stop_duration: register(
                r,
                "stop_duration_seconds",
                "Time from the beginning of a stop until nothing of the agent is left",
                histogram([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0]),
            ),
            key_ends: register(
                r,
                "org_key_ends_timestamp_seconds",
                "When the org key in use expires; absent unless another key has taken its place or it expires within a week",
                Family::default(),
            ),
            key_role: register(
                r,
                "org_key_role",
                "1 for the role of the org key in use, if the authority tells it; a host needs no more than host",
                Family::default(),
            ),
            stop_bound: register(
                r,
                "stop_bound_seconds",
                "The longest possible time from a revoke until the last process is gone, while the authority answers \
                 and while it does not",
                Family::default(),
            ),
            checks: check_counters(r),
            check_duration: register(
                r,
                "check_duration_seconds",
                "Time from a local check to its answer",
                histogram([
                    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                ]),
            ),
            peers_rejected: register(r, "peers_rejected", "Local clients refused, by reason", Family::default()),
            reloads: register(r, "reloads", "Reloads of the configuration, by result", Family::default()),
            audit_dropped: register(r, "audit_dropped", "Audit records that could not be written", Counter::default()),
            unrecorded_starts: register(
                r,
                "unrecorded_starts",
                "Agents that started although their record could not be written, or not in time",
                Counter::default(),
            ),
            restored: restored_counters(r),
            runtime_problem: register(
                r,
                "runtime_problem",
                "1 while the daemon cannot keep its socket, its lock or its records in place",
                Gauge::default(),
            ),
            listening: register(
                r,
                "port_listening",
                "1 while the daemon listens on the port that the setting names, 0 while it cannot",
                Family::default(),
            ),
            panics: register(
                r,
                "panics",
                "Internal errors that ended one task of the daemon but not the daemon",
                Counter::default(),
            ),
            registry: Registry::default(),
        };
        r.register("build", "What is running", Info::new(BuildLabels { version: machineid_version::VERSION }));
        metrics.begin();
        Self { registry: all, ..metrics }
    }

    /// Creates every series of the closed sets at zero: a rate needs a value before the first event.
    fn begin(&self) {
        for reason in Rejected::ALL {
            series(&self.peers_rejected, &ReasonLabel { reason: reason.word() });
        }
        for file in OwnFile::ALL {
            series(&self.restored, &FileLabel { file: file.as_str() });
        }
        for result in [ReloadResult::Applied, ReloadResult::Unchanged, ReloadResult::Partial, ReloadResult::Refused] {
            series(&self.reloads, &ResultLabel { result: result.as_str() });
        }
    }

    /// Counts an agent that started without a record.
    pub(crate) fn started_unrecorded(&self) {
        self.unrecorded_starts.inc();
    }

    /// Counts recreated files of the daemon.
    pub(crate) fn restored(&self, what: OwnFile, count: usize) {
        self.restored.get_or_create(&FileLabel { file: what.as_str() }).inc_by(count as u64);
    }

    pub(crate) fn audit_dropped(&self) -> Counter {
        self.audit_dropped.clone()
    }

    /// Counts an event of the journal.
    pub(crate) fn count(&self, what: &Happening) {
        let stop = |cause, outcome| {
            self.stops.get_or_create(&StopLabels { cause: labels::code(cause), outcome }).inc();
        };
        match what {
            Happening::AgentStopping(requested) => stop(&requested.code, "requested"),
            Happening::AgentSurvived(survived) => stop(&survived.report.code, "survived"),
            Happening::AgentStopped(stopped) => {
                stop(&stopped.report.code, "confirmed");
                self.stop_duration.observe(Duration::from_millis(stopped.report.took_ms).as_secs_f64());
            }
            Happening::ConfigReloaded(reloaded) => {
                self.reloads.get_or_create(&ResultLabel { result: reloaded.result.as_str() }).inc();
            }
            Happening::Decision(_)
            | Happening::AgentStarted(_)
            | Happening::AgentEnded(_)
            | Happening::OutsideHelper(_)
            | Happening::AuthorityUp(_)
            | Happening::AuthorityDown(_)
            | Happening::DeviceHeld(_)
            | Happening::DeviceReleased(_)
            | Happening::FilesRestored(_) => {}
        }
    }

    /// Counts an answer to a validation, whether or not it changed anything.
    pub(crate) fn decided(&self, decision: &Decision, source: Source) {
        let source = match source {
            Source::Authority => "authority",
            Source::Local => "local",
        };
        self.decisions.get_or_create(&DecisionLabels { code: labels::decision(decision), source }).inc();
    }

    /// Counts a request to the authority. `endpoint` and `outcome` are words out of closed sets.
    pub(crate) fn asked(&self, endpoint: &'static str, outcome: &'static str, took: Duration) {
        self.requests.get_or_create(&RequestLabels { endpoint, outcome }).inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// Counts a local check.
    pub(crate) fn checked(&self, result: CheckResult, took: Duration) {
        let [allowed, denied, undecided, malformed] = &self.checks;
        match result {
            CheckResult::Allowed => allowed,
            CheckResult::Denied => denied,
            CheckResult::Undecided => undecided,
            CheckResult::Malformed => malformed,
        }
        .inc();
        self.check_duration.observe(took.as_secs_f64());
    }

    /// Counts a client that was refused.
    pub(crate) fn peer_rejected(&self, reason: Rejected) {
        self.peers_rejected.get_or_create(&ReasonLabel { reason: reason.word() }).inc();
    }

    /// The page, as of now.
    pub(crate) fn page(&self, now: &Now) -> String {
        if let Some(at) = now.last_allow {
            self.last_allow.set(at);
        }
        self.runtime_problem.set(i64::from(now.runtime_problem));
        for (setting, listens) in &now.ports {
            self.listening.get_or_create(&PortLabel { setting }).set(i64::from(*listens));
        }
        self.allowed.set(i64::from(now.standing == StandingKind::Allowed));
        for (kind, state) in [
            (StandingKind::Unknown, "unknown"),
            (StandingKind::Allowed, "allowed"),
            (StandingKind::Denied, "denied"),
            (StandingKind::Unavailable, "unavailable"),
        ] {
            self.state.get_or_create(&StateLabel { state }).set(i64::from(kind == now.standing));
        }
        for (state, state_word) in [(AgentState::Running, "running"), (AgentState::Stopping, "stopping")] {
            for killer in [Killer::Daemon, Killer::Wrapper] {
                let count = now.agents.iter().filter(|agent| **agent == (state, killer)).count();
                let labels = AgentLabels { state: state_word, killer: killer.as_str() };
                self.agents.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.key_role.clear();
        if let Some(role) = now.key.role {
            self.key_role.get_or_create(&vec![("role", role.as_str())]).set(1.0);
        }
        self.key_ends.clear();
        if let Some(ends) = now.key.ends {
            self.key_ends.get_or_create(&Vec::new()).set(ends.as_duration().as_secs_f64());
        }
        for (case, bound) in [("connected", now.stop_bound_connected), ("cut_off", now.stop_bound_cut_off)] {
            self.stop_bound.get_or_create(&CaseLabel { case }).set(bound.as_secs_f64());
        }
        self.panics.inner().store(now.panics, Ordering::Relaxed);
        machineid_metrics::page(&self.registry)
    }
}

fn histogram<const N: usize>(bounds: [f64; N]) -> Histogram {
    Histogram::new(bounds)
}

fn series<L: Clone + std::hash::Hash + Eq, M: Default, C: MetricConstructor<M>>(family: &Family<L, M, C>, labels: &L) {
    drop(family.get_or_create(labels));
}

impl CheckResult {
    const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Undecided, Self::Malformed];

    const fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::Malformed => "malformed",
        }
    }
}

impl Rejected {
    const ALL: [Self; 6] = [
        Self::Overloaded,
        Self::PidNotPermitted,
        Self::DeviceNotPermitted,
        Self::RemoteRefused,
        Self::RegistrationLimited,
        Self::NotPrivileged,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::PidNotPermitted => "pid_not_permitted",
            Self::DeviceNotPermitted => "device_not_permitted",
            Self::RemoteRefused => "remote_refused",
            Self::RegistrationLimited => "registration_limited",
            Self::NotPrivileged => "not_privileged",
        }
    }

    /// The reason for a refusal with this code; `None` if the code refuses no client.
    pub(crate) fn of(code: &Code) -> Option<Self> {
        match code.as_str() {
            "PID_NOT_PERMITTED" => Some(Self::PidNotPermitted),
            "DEVICE_NOT_PERMITTED" => Some(Self::DeviceNotPermitted),
            "REMOTE_REFUSED" => Some(Self::RemoteRefused),
            "REGISTRATION_LIMITED" => Some(Self::RegistrationLimited),
            "OVERLOADED" => Some(Self::Overloaded),
            _ => None,
        }
    }
}
