//! The running daemon: assembly and shutdown.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use machineid_audit::key::Chain;
use machineid_blocking::{Bounds, Pool};
use machineid_client::{AuthorityClient, Options};
use machineid_log::Vital;
use machineid_org_key::OrgKey;
use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::{Decision, DeviceId, Exit, span};
use machineid_sys as sys;
use machineid_tree::KILL_PATIENCE;
use rustix::process::Rlimit;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::child::Child;
use super::identity::HostIdentity;
use super::reload::{Reloader, SettingsSource, watch_kill_file};
use super::signals::Signals;
use super::upkeep::{self, Upkeep};
use super::{Fatal, identity, init, keyless, manager, resume};
use crate::config::org_key::{self, KEY_VARIABLE, KeySource};
use crate::config::{self, ConfigError, Environment, Live, Origin, Settings};
use crate::disk::{CannotMake, Exposure, check_own, make_directory};
use crate::gate::attempt::AuthorityLink;
use crate::gate::holds::Holds;
use crate::gate::keyed_client::KeyedClient;
use crate::gate::markers::Markers;
use crate::gate::{Agents, Gates};
use crate::local::activation::HandedSockets;
use crate::local::port::{Port, Ports};
use crate::local::socket::{self, Socket};
use crate::local::{Context, compat, metrics, port, server};
use crate::push;
use crate::registry::{Here, RunRegistry, Store};
use crate::report::{self, Reporter};
use crate::telemetry::{Journal, audit};

/// The runtime polls for I/O after this number of tasks. With its default of 61, the first of a crowd that asks again waits
/// for a quarter of the crowd's answers, and with it the validation that all of them share.
const TASKS_BETWEEN_LOOKS: u32 = 8;
/// The largest file of certificates, in bytes: all public certificate authorities together take a quarter of it.
const LARGEST_CA_FILE: u64 = 1024 * 1024;

/// Reads the configuration and serves until told to end, or until the command ends.
pub(super) fn run(named: Option<&Path>, command: Vec<OsString>, environment: &Environment) -> Result<Exit, Fatal> {
    keep_secrets()?;
    use_permitted_kill();
    let handed = HandedSockets::take(environment)?;
    let settings = config::load(named, environment)?;
    // Before the log is started: it starts a thread, and the environment can only be modified while there is one thread.
    let taken = take_key(&settings, environment)?;
    machineid_log::init(settings.log.format, settings.log.level);
    machineid_log::tell_panics();
    let Some((key, key_source)) = taken else {
        return in_runtime(keyless::wait(&settings, handed.socket));
    };
    if key_source == KeySource::Environment {
        warn!("the org key came from the environment, where other processes may have seen it; a file is safer");
    }
    let identity = identity::resolve(&settings, environment)?;
    let workload = identity::workload(&settings, identity.device(), environment)?;
    let environment = environment.clone();
    in_runtime(async {
        let source = SettingsSource::Files(environment);
        let devices = Devices { host: identity.device().clone(), workload };
        let mut sidecar = Sidecar::start(source, settings, devices, key, key_source, handed)?;
        sidecar.identity = Some(identity);
        sidecar.serve(command).await
    })
}

/// Runs a future in the daemon's runtime.
pub(super) fn in_runtime<T>(work: impl Future<Output = Result<T, Fatal>>) -> Result<T, Fatal> {
    // One thread answers and validates. A second one would be woken for every check, and waking it takes longer than the
    // check: with two threads a strict check is a quarter slower, and a cached one no faster. One thread answers two hundred
    // thousand checks a second and leaves the other processors to the agents. Work that may take long has threads of its own:
    // ending trees, and each kind of call that may block (`blocking`). A `new_current_thread` runtime has no slot for the
    // next task, and a crowd waits longer in it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .event_interval(TASKS_BETWEEN_LOOKS)
        .enable_all()
        .build();
    let runtime = runtime.map_err(Fatal::io("start the async runtime"))?;
    let result = runtime.block_on(work);
    // A task that still hangs must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Prevents core dumps and other processes of this user from reading the daemon's memory.
pub(super) fn keep_secrets() -> Result<(), Fatal> {
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| Fatal::io("protect the daemon's memory from other processes")(sys::from_nix(errno).into()))
}

/// Makes `CAP_KILL` effective where the program's file has it as permitted (`setcap cap_kill=p`): a container platform gives a
/// process that is not root a capability in no other way. Not as effective in the file, because then the program would not
/// start at all where the platform withholds it.
fn use_permitted_kill() {
    let Ok(mut sets) = capabilities(None) else { return };
    if sets.permitted.contains(CapabilitySet::KILL) && !sets.effective.contains(CapabilitySet::KILL) {
        sets.effective.insert(CapabilitySet::KILL);
        // Without it, `machineid doctor` and the start of an agent say what is missing.
        let _ = set_capabilities(None, sets);
    }
}

/// Takes the org key from its source, and removes it from the environment; `None` while the key is still awaited.
fn take_key(settings: &Settings, environment: &Environment) -> Result<Option<(OrgKey, KeySource)>, Fatal> {
    let in_environment = environment.text(KEY_VARIABLE);
    sys::scrub_environment(OsStr::new(KEY_VARIABLE)).map_err(Fatal::ScrubKey)?;
    let configured = settings.authority.org_key_file.as_ref();
    let credentials = environment.path("CREDENTIALS_DIRECTORY");
    let source = org_key::choose(in_environment.is_some(), configured, credentials.as_deref())
        .map_err(|error| unconfigured(settings, environment).unwrap_or(error))?;
    if source.is_awaited() {
        return Ok(None);
    }
    let key = match &source {
        KeySource::Environment => {
            let text = in_environment.unwrap_or_default();
            text.parse().map_err(Fatal::Key)?
        }
        KeySource::File { path, origin, mode_is_the_platforms } => {
            org_key::read_file(path, origin, *mode_is_the_platforms)?
        }
    };
    Ok(Some((key, source)))
}

/// What to say instead of "no org key" when nothing is configured at all; `None` when something is.
pub(super) fn unconfigured(settings: &Settings, environment: &Environment) -> Option<ConfigError> {
    if settings.file.is_some() {
        return None;
    }
    let places: Vec<_> =
        environment.surroundings().config_files().iter().map(|path| path.display().to_string()).collect();
    let problem = format!(
        "nothing is configured: there is no configuration file ({}) and no org key. To try it out without either: \
         machineid-sidecar --dev. To enforce: write the authority's URL and the key's file into that configuration file \
         ([authority] url = …, org_key_file = …), or set MACHINEID_BASE_URL and MACHINEID_ORG_KEY",
        places.join(", ")
    );
    Some(ConfigError::at(&Origin::Default, "authority.org_key_file", problem))
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Sidecar {
    socket: Arc<Socket>,
    context: Arc<Context>,
    device: DeviceId,
    /// The kept device id, if it is kept.
    identity: Option<HostIdentity>,
    /// The directory of run records.
    store: Store,
    /// The secret that proves which sidecar this is.
    secret: Arc<SidecarSecret>,
    /// The limit of descriptors that the daemon was started with.
    descriptors: Rlimit,
    /// The listener of `compat.listen`, unless another program has the port.
    compat: Option<TcpListener>,
    /// Where a reload reads the settings.
    source: SettingsSource,
    /// The listener of `metrics.listen`, unless another program has the port.
    metrics: Option<TcpListener>,
}

/// The devices that rule every agent of this daemon.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) host: DeviceId,
    pub(super) workload: Option<DeviceId>,
}

impl Sidecar {
    /// Binds the socket, or takes over those that were passed, and starts the host's gate. Must be called inside the
    /// runtime.
    pub(super) fn start(
        source: SettingsSource,
        settings: Settings,
        devices: Devices,
        key: OrgKey,
        key_source: KeySource,
        mut handed: HandedSockets,
    ) -> Result<Self, Fatal> {
        let Devices { host: device, workload } = devices;
        sys::check_proc().map_err(|problem| Fatal::Proc(problem.into()))?;
        let descriptors = machineid_sys::raise_descriptor_limit();
        let runtime_dir = &settings.local.runtime_dir;
        make_directory(runtime_dir, 0o700)
            .map_err(CannotMake::at(runtime_dir))
            .map_err(|error| ConfigError::at(&Origin::Default, "local.runtime_dir", error))?;
        check_runtime_dir(&settings)?;
        let ca_pem = ca_pem_of(&settings)?;
        let client = client_of(&settings, ca_pem)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let writes = Pool::new("state", Bounds { at_a_time: 2, most: 16 });
        let url = client.base_url().to_string();
        let markers = Markers::open(runtime_dir.clone(), &boot_id, &url, writes.clone());
        // The socket comes first: a second daemon must fail before it sends any request.
        let socket = match handed.socket.take() {
            Some(handed) => socket::take_over(&settings.local, handed)?,
            None => socket::bind(&settings.local)?,
        };
        let store = Store::open(runtime_dir, here(&boot_id)).map_err(|error| {
            let problem = format!("cannot keep records of runs in {}: {error}", runtime_dir.join("runs").display());
            ConfigError::at(&Origin::Default, "local.runtime_dir", problem)
        })?;
        let secret = report::resolve_secret(runtime_dir).map_err(Fatal::io("make this sidecar's secret"))?;
        let secret = Arc::new(secret);
        let client = client.of_sidecar(Arc::clone(&secret));
        let mut open = |setting, named: Option<&(SocketAddr, Origin)>| {
            let (address, _) = named?;
            Some(Port::open(setting, *address, handed.port(*address)))
        };
        let (compat, compat_listener) = open("compat.listen", settings.compat_listen.as_ref()).unzip();
        let (metrics, metrics_listener) = open("metrics.listen", settings.metrics_listen.as_ref()).unzip();
        let ports = Ports { compat, metrics, unclaimed: handed.into_unclaimed() };
        for address in &ports.unclaimed {
            warn!(%address, "the service manager hands over a socket that no setting names");
        }
        let audit = audit_of(&settings)?;
        let journal = Journal::start(audit).map_err(Fatal::io("start the audit's thread"))?;
        let live = Live::new(settings);
        let place = live.now().holds_file();
        let holds =
            Arc::new(Holds::open(place.clone()).map_err(|source| Fatal::Holds { path: place.clone(), source })?);
        let keyed = KeyedClient::new(client, key, key_source, markers);
        let authority = Arc::new(AuthorityLink::new(keyed, device.clone(), live.clone(), holds, Arc::clone(&journal)));
        let runs = RunRegistry::start(store.clone(), live.clone(), Arc::clone(&journal))
            .map_err(Fatal::io("start the enforcer's thread"))?;
        let runs = Arc::new(runs);
        // Before the gates, so that no deny of theirs can miss a run.
        runs.adopt_all(&store);
        let agents: Arc<dyn Agents> = Arc::<RunRegistry>::clone(&runs);
        let gates = Gates::start(device.clone(), workload.as_ref(), &live, &authority, &agents);
        let gates = gates.map_err(Fatal::io("start the gate"))?;
        runs.attach(&gates);
        let key_protection = identity::key_protection();
        let gates = Arc::new(gates);
        let context = Arc::new(Context::new(live, gates, runs, journal, writes, key_protection, ports));
        let (socket, compat, metrics) = (Arc::new(socket), compat_listener.flatten(), metrics_listener.flatten());
        Ok(Self { socket, context, device, identity: None, store, secret, descriptors, compat, source, metrics })
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.context.settings()
    }

    /// Serves until SIGTERM or SIGINT, or, with a command, until that ends; then its exit code is the daemon's.
    pub(super) async fn serve(mut self, command: Vec<OsString>) -> Result<Exit, Fatal> {
        let _vital = Vital;
        let mut signals = Signals::watch(!command.is_empty()).map_err(Fatal::io("watch for signals"))?;
        let shutdown = CancellationToken::new();
        let upkeep = self.upkeep();
        self.announce();
        let reload = Arc::new(Notify::new());
        let helpers = self.start_helpers(&reload);
        manager::ready();
        let reported = CancellationToken::new();
        let (source, until) = (self.reporter(), reported.clone());
        let reporting = tokio::spawn(machineid_log::kept_up("reports", move || source.clone().tell(until.clone())));
        self.serve_ports(&shutdown);
        // Spawned on the thread that answers: a connection accepted on another thread would first have to wake it.
        let serving =
            tokio::spawn(server::serve(Arc::clone(&self.socket), Arc::clone(&self.context), shutdown.clone()));
        // Fails only when the runtime ends.
        let serving = async { drop(serving.await) };
        let working = async {
            let exit = match command.split_first() {
                None => self.wait_for_the_end(&mut signals, &reload).await,
                Some(_) => self.supervise(&command, &mut signals).await,
            };
            manager::stopping();
            // First, so that the ends of streams that follow are attributed to the daemon, not to their wrappers.
            self.context.runs.close();
            shutdown.cancel();
            exit
        };
        let keeping = shutdown.run_until_cancelled(upkeep::watch(upkeep));
        let resuming = shutdown.run_until_cancelled(resume::watch(Arc::clone(&self.context)));
        let attending = shutdown.run_until_cancelled(manager::attend(Arc::clone(&self.context)));
        let ((), exit, _, _, _) = tokio::join!(serving, working, resuming, attending, keeping);
        drop(helpers);
        let stop = self.settings().enforcement.stop_grace + KILL_PATIENCE;
        self.context.runs.settle(stop).await;
        reported.cancel();
        // Fails only when the runtime ends.
        let _ = reporting.await;
        self.leave().await;
        self.context.journal.flush();
        exit
    }

    /// Serves the ports of the configuration, each as soon as it is free.
    fn serve_ports(&mut self, shutdown: &CancellationToken) {
        if let Some(port) = self.context.ports.compat.clone() {
            tokio::spawn(compat::serve(port, self.compat.take(), Arc::clone(&self.context), shutdown.clone()));
        }
        if let Some(port) = self.context.ports.metrics.clone() {
            let context = Arc::clone(&self.context);
            let routes = move |_| metrics::routes(context);
            tokio::spawn(port::serve(port, self.metrics.take(), routes, metrics::MOST, shutdown.clone()));
        }
    }

    /// Starts the tasks that enforce nothing: restarted when they panic, and ended when the handles are dropped.
    fn start_helpers(&self, reload: &Arc<Notify>) -> [AbortOnDropHandle<()>; 3] {
        let context = || Arc::clone(&self.context);
        let (source, of_reload, asked) = (self.source.clone(), context(), Arc::clone(reload));
        let reloading = move || Reloader::new(source.clone(), Arc::clone(&of_reload)).run(Arc::clone(&asked));
        let of_kill_file = context();
        let killing = move || watch_kill_file(Arc::clone(&of_kill_file));
        let gates = Arc::clone(&self.context.gates);
        let pushing = move || push::watch(Arc::clone(&gates));
        [
            AbortOnDropHandle::new(tokio::spawn(machineid_log::kept_up("reload", reloading))),
            AbortOnDropHandle::new(tokio::spawn(machineid_log::kept_up("kill file", killing))),
            AbortOnDropHandle::new(tokio::spawn(machineid_log::kept_up("push", pushing))),
        ]
    }

    fn reporter(&self) -> Reporter {
        let Context { gates, runs, live, journal, .. } = &*self.context;
        let journal = Arc::clone(journal);
        Reporter {
            gates: Arc::clone(gates),
            runs: Arc::clone(runs),
            live: live.clone(),
            journal,
            id: report::id_of(&self.secret),
        }
    }

    fn upkeep(&mut self) -> Arc<Upkeep> {
        Arc::new(Upkeep {
            socket: Arc::clone(&self.socket),
            context: Arc::clone(&self.context),
            store: self.store.clone(),
            runtime_dir: self.settings().local.runtime_dir.clone(),
            secret: Arc::clone(&self.secret),
            identity: self.identity.take(),
            seen: Mutex::default(),
        })
    }

    fn announce(&self) {
        let settings = self.settings();
        let bound = settings.stop_bound();
        info!(
            version = machineid_version::VERSION,
            socket = %settings.local.socket.display(),
            device_id = %self.device,
            authority = %settings.authority.url,
            stops_within = span::format(bound.connected),
            stops_within_cut_off = span::format(bound.cut_off),
            "machineid-sidecar is serving"
        );
    }

    async fn wait_for_the_end(&self, signals: &mut Signals, reload: &Notify) -> Result<Exit, Fatal> {
        let mut reaping = std::pin::pin!(init::reap_orphans(None));
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                never = &mut reaping => match never {},
            };
            if signal == Signal::USR1 {
                self.context.gates.hint_all();
            } else if signal == Signal::HUP && self.ends_with_terminal() {
                info!("ending with the terminal");
                return Ok(Exit::Success);
            } else if signal == Signal::HUP {
                self.context.journal.reopen_audit();
                // A reload that is already pending will read the same files.
                reload.notify_one();
            } else {
                info!(signal = sys::signal_name(signal), "ending; running agents live on their leases");
                return Ok(Exit::Success);
            }
        }
    }

    async fn supervise(&self, command: &[OsString], signals: &mut Signals) -> Result<Exit, Fatal> {
        let mut child = Child::start(command, &self.settings().local.socket, self.descriptors)
            .map_err(Fatal::io("start machineid-run"))?;
        let mut reaping = std::pin::pin!(init::reap_orphans(child.pid()));
        // With the terminal of `--dev` its command ends too: by itself, or when the time is over by the end of its wrapper.
        let mut hung_up = std::pin::pin!(None::<tokio::time::Sleep>);
        loop {
            tokio::select! {
                never = &mut reaping => match never {},
                exit = child.wait() => return exit.map_err(Fatal::WrapperLost),
                signal = signals.next() => {
                    child.forward(signal);
                    if signal == Signal::HUP && self.ends_with_terminal() && hung_up.is_none() {
                        hung_up.set(Some(tokio::time::sleep(self.settings().enforcement.stop_grace)));
                    }
                },
                () = async { if let Some(over) = hung_up.as_mut().as_pin_mut() { over.await } }, if hung_up.is_some() => {
                    child.forward(Signal::KILL);
                    hung_up.set(None);
                },
            }
        }
    }

    /// Whether SIGHUP means the end: for `--dev`, which has no files to read again, unless it was started to outlive its
    /// terminal (`nohup`).
    fn ends_with_terminal(&self) -> bool {
        match &self.source {
            SettingsSource::BuiltIn => !sys::Inherited::get().ignores(Signal::HUP.as_raw()),
            SettingsSource::Files(_) => false,
        }
    }

    async fn leave(&self) {
        if !self.settings().device.ephemeral {
            return;
        }
        let newest = self.context.gates.host().view().last_decision;
        let allowed = matches!(newest, Some((_, Decision::Allow { .. })));
        if !allowed {
            // If a revoked device were removed, the next start would register it again and be allowed.
            info!(device_id = %self.device, "this host's device is not removed: its newest decision is not ALLOW");
            return;
        }
        // The authority may know of a revoke that this host has not heard of yet.
        match self.context.gates.authority().remove_if_active(&self.device).await {
            Ok(()) => info!(device_id = %self.device, "removed this host's device, as device.ephemeral says"),
            Err(error) => warn!(device_id = %self.device, %error, "cannot remove this host's device"),
        }
    }
}

/// The boot and PID namespace in which run records are valid.
fn here(boot_id: &str) -> Here {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    Here { boot_id: boot_id.trim().to_owned(), pid_namespace: namespace.to_string_lossy().into_owned() }
}

/// Checks that no other user can plant the records of runs, by which processes are ended.
fn check_runtime_dir(settings: &Settings) -> Result<(), Fatal> {
    let directory = &settings.local.runtime_dir;
    let runs = directory.join("runs");
    for directory in [directory, &runs] {
        let problem = match check_own(directory) {
            Ok(Ok(())) => continue,
            // The directory of records is made later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(Err(exposure @ Exposure::Writable { .. })) => {
                warn!(directory = %directory.display(), problem = %exposure, "other users may write to local.runtime_dir");
                continue;
            }
            Ok(Err(exposure @ Exposure::Foreign { .. })) => exposure.to_string(),
            Err(error) => error.to_string(),
        };
        let problem = format!("{} is not safe: {problem}", directory.display());
        return Err(ConfigError::at(&settings.local.runtime_dir_origin, "local.runtime_dir", problem).into());
    }
    Ok(())
}

/// The audit file and how its records are hashed, if one is configured.
pub(super) fn audit_of(settings: &Settings) -> Result<Option<(PathBuf, Chain)>, ConfigError> {
    let Some((file, _)) = &settings.audit_file else { return Ok(None) };
    let Some((path, origin)) = &settings.audit_key_file else { return Ok(Some((file.clone(), Chain::default()))) };
    let chain = audit::key::read(path);
    let chain =
        chain.map_err(|error| ConfigError::at(origin, "audit.key_file", format!("{}: {error}", path.display())))?;
    Ok(Some((file.clone(), chain)))
}

/// The configured certificates to trust, if any.
pub(super) fn ca_pem_of(settings: &Settings) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some((path, origin)) = &settings.authority.ca_file else { return Ok(None) };
    let read = config::read_whole(path, LARGEST_CA_FILE);
    read.map(Some).map_err(|problem| {
        ConfigError::at(origin, "authority.ca_file", format!("cannot read {}: {problem}", path.display()))
    })
}

pub(super) fn client_of(settings: &Settings, ca_pem: Option<Vec<u8>>) -> Result<AuthorityClient, ConfigError> {
    let authority = &settings.authority;
    let user_agent = concat!("machineid-sidecar/", env!("CARGO_PKG_VERSION")).to_owned();
    let options = Options {
        base_url: authority.url.clone(),
        timeout: authority.timeout,
        ca_pem,
        user_agent,
        authority_user: authority.user,
    };
    AuthorityClient::new(options).map_err(|error| {
        let origin = authority.ca_file.as_ref().map_or(Origin::Default, |(_, origin)| origin.clone());
        ConfigError::at(&origin, "authority.ca_file", error)
    })
}
