//! The resolved configuration: every value typed, every combination checked. Pure: file, environment and host facts are
//! passed in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_client::{BaseUrl, BaseUrlError, PACKAGED_USER, user_id};
use machineid_log::{LogFormat, LogLevel};
use machineid_protocol::stop_bound::{StopLatency, longest_silence};
use machineid_protocol::{Wish, span};
use machineid_sys as sys;
use rustix::process::Signal;
use toml::Spanned;

use super::accounts::{Group, group_id};
use super::client_pattern::{ClientPattern, ClientPatternError};
use super::error::{ConfigError, Origin};
use super::file::{ConfigText, RawConfig};
use super::paths::{Surroundings, short_hash};
use super::rules::{Rules, StopTerms, SystemUnavailable};

/// The longest path of a unix socket, in bytes, without the terminating zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// The official clients' variable for the authority's URL.
pub(super) const URL_VARIABLE: &str = "MACHINEID_BASE_URL";
/// The official clients' variable for the device id.
pub(super) const ID_VARIABLE: &str = "MACHINEID_DEVICE_ID";

/// All settings of the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) file: Option<PathBuf>,
    pub(crate) authority: AuthoritySettings,
    pub(crate) device: DeviceSettings,
    pub(crate) enforcement: EnforcementSettings,
    pub(crate) local: LocalSettings,
    /// The loopback address of `compat.listen`, if set.
    pub(crate) compat_listen: Option<(SocketAddr, Origin)>,
    pub(crate) log: LogSettings,
    /// The path of the audit file, if set.
    pub(crate) audit_file: Option<(PathBuf, Origin)>,
    /// The key of the audit file's chain.
    pub(crate) audit_key_file: Option<(PathBuf, Origin)>,
    /// The address of `metrics.listen`, if set.
    pub(crate) metrics_listen: Option<(SocketAddr, Origin)>,
    /// The directory of files that outlive a reboot; `None` when this user has none.
    pub(crate) state_dir: Option<PathBuf>,
}

/// `[authority]`: which authority to ask, and how.
#[derive(Clone, Debug)]
pub(crate) struct AuthoritySettings {
    pub(crate) url: BaseUrl,
    pub(crate) org_key_file: Option<(PathBuf, Origin)>,
    /// Time limit for one whole request.
    pub(crate) timeout: Duration,
    pub(crate) ca_file: Option<(PathBuf, Origin)>,
    /// The user who may run the authority on this host, beside root and the daemon's own.
    pub(crate) user: Option<u32>,
}

/// `[device]`: the device ids of this host and its agents.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSettings {
    pub(crate) id_template: String,
    pub(crate) id_origin: Origin,
    /// The template of the device that all replicas of a workload share, if set.
    pub(crate) workload: Option<(String, Origin)>,
    /// The device ids that wrappers and checks may name in addition to the host's.
    pub(crate) allow: Vec<ClientPattern>,
    pub(crate) host_rules_all: bool,
    /// Whether the device is removed at a clean exit.
    pub(crate) ephemeral: bool,
    /// How many devices that are new to the authority one user may register in an hour by starting agents; 0: any number.
    pub(crate) new_per_hour: u32,
}

/// `[enforcement]`: when and how agents are stopped.
#[derive(Clone, Debug)]
pub(crate) struct EnforcementSettings {
    pub(crate) interval: Duration,
    pub(crate) lease: Duration,
    /// How long after a suspend an ALLOW may take, when the lease ended meanwhile.
    pub(crate) resume_grace: Duration,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    /// If named, the minimum: no agent runs with a weaker containment.
    pub(crate) containment: Wish,
    pub(crate) system_unavailable: SystemUnavailable,
    pub(crate) undecided: UndecidedPolicy,
    pub(crate) outside_helpers: OutsidePolicy,
    pub(crate) kill_file: Option<PathBuf>,
    /// The socket of the helper that makes control groups where this daemon may not.
    pub(crate) leaf_helper: PathBuf,
}

/// The handling of agents whose device cannot be validated, until their lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndecidedPolicy {
    /// They continue to run.
    Run,
    /// They are frozen until there is an answer.
    Freeze,
}

/// The handling of agents' daemons outside the tree of an agent that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutsidePolicy {
    /// They are named.
    Report,
    /// Those of the agent's user are ended as well.
    Stop,
}

/// `[local]`: the socket and its clients.
#[derive(Clone, Debug)]
pub(crate) struct LocalSettings {
    pub(crate) socket: PathBuf,
    /// A default directory is created when it is missing; a configured one is not.
    pub(crate) socket_origin: Origin,
    pub(crate) mode: u32,
    pub(crate) group: Option<(String, Origin)>,
    pub(crate) max_age_cap: Duration,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) runtime_dir_origin: Origin,
    pub(crate) check_timeout: Duration,
    /// The group whose members may see and stop the agents of all users, as root may.
    pub(crate) admin_group: Option<Group>,
    pub(crate) require_local_killer: bool,
}

/// `[log]`: format and level of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSettings {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

impl Settings {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            interval: self.enforcement.interval,
            lease: self.enforcement.lease,
            resume_grace: self.enforcement.resume_grace,
            system_unavailable: self.enforcement.system_unavailable,
        }
    }

    /// The file of the holds: each daemon of a user has its own, and it outlives a reboot where there is a state directory.
    pub(crate) fn holds_file(&self) -> PathBuf {
        match &self.state_dir {
            Some(state) => state.join(format!("holds-{}.json", short_hash(&self.local.socket))),
            None => self.local.runtime_dir.join("holds.json"),
        }
    }

    /// The stop terms of agents whose wrappers set none.
    pub(crate) fn stop_terms(&self) -> StopTerms {
        StopTerms { signal: self.enforcement.stop_signal, grace: self.enforcement.stop_grace }
    }

    pub(crate) fn stop_bound(&self) -> StopLatency {
        let EnforcementSettings { interval, lease, stop_grace, .. } = self.enforcement;
        StopLatency::new(interval, self.authority.timeout, lease, stop_grace)
    }
}

/// The defaults of the settings. The commented file at the top of the repository is tested to match them.
mod defaults {
    pub(super) use machineid_protocol::stop_bound::defaults::{INTERVAL, LEASE, STOP_GRACE, TIMEOUT};

    pub(super) const URL: &str = "https://machineid.io";
    pub(super) const DEVICE_ID: &str = "host:{hostname}:{machine_id}";
    pub(super) const NEW_PER_HOUR: u32 = 30;
    pub(super) const RESUME_GRACE: &str = "3s";
    pub(super) const STOP_SIGNAL: &str = "TERM";
    pub(super) const CONTAINMENT: &str = "auto";
    pub(super) const SYSTEM_UNAVAILABLE: &str = "deny";
    pub(super) const UNDECIDED: &str = "run";
    pub(super) const OUTSIDE_HELPERS: &str = "report";
    pub(super) const LEAF_HELPER: &str = "/run/machineid-sidecar-leaf.sock";
    pub(super) const SOCKET_MODE: &str = "0660";
    pub(super) const MAX_AGE_CAP: &str = "0s";
    pub(super) const LOG_FORMAT: &str = "text";
    pub(super) const LOG_LEVEL: &str = "info";
}

/// Reads values with their origins.
struct Reader<'a> {
    source: Option<&'a ConfigText<'a>>,
}

impl Reader<'_> {
    fn origin<T>(&self, placed: Option<&Spanned<T>>) -> Origin {
        match (self.source, placed) {
            (Some(source), Some(value)) => source.origin(value),
            _ => Origin::Default,
        }
    }

    /// Parses the value, or the default; an error names the value's origin.
    fn text<T, E: std::fmt::Display>(
        &self,
        key: &str,
        placed: Option<&Spanned<String>>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let text = placed.map_or(default, |value| value.get_ref().as_str());
        parse(text).map_err(|error| ConfigError::at(&self.origin(placed), key, error))
    }

    fn duration(&self, key: &str, placed: Option<&Spanned<String>>, default: &str) -> Result<Duration, ConfigError> {
        self.text(key, placed, default, |text| span::parse(text).map_err(|error| format!("{text:?}: {error}")))
    }

    fn positive(&self, key: &str, placed: Option<&Spanned<String>>, default: &str) -> Result<Duration, ConfigError> {
        let span = self.duration(key, placed, default)?;
        if span < Duration::from_millis(10) {
            return Err(ConfigError::at(&self.origin(placed), key, "must be at least 10ms"));
        }
        Ok(span)
    }

    /// Reads a path. It must be absolute, so that it means the same wherever the daemon is started.
    fn path(&self, key: &str, placed: Option<&Spanned<String>>) -> Result<Option<(PathBuf, Origin)>, ConfigError> {
        let Some(value) = placed else { return Ok(None) };
        let path = PathBuf::from(value.get_ref());
        let origin = self.origin(placed);
        if !path.is_absolute() {
            return Err(ConfigError::at(&origin, key, format!("{:?} must be an absolute path", value.get_ref())));
        }
        Ok(Some((path, origin)))
    }

    /// Reads an address with a port.
    fn address(
        &self,
        key: &str,
        placed: Option<&Spanned<String>>,
    ) -> Result<Option<(SocketAddr, Origin)>, ConfigError> {
        let Some(value) = placed else { return Ok(None) };
        let origin = self.origin(placed);
        let text = value.get_ref();
        let address = text.parse().map_err(|_| {
            let problem = format!("{text:?} is not an address with a port; write it as in \"127.0.0.1:9464\"");
            ConfigError::at(&origin, key, problem)
        })?;
        Ok(Some((address, origin)))
    }
}

fn flag(placed: Option<&Spanned<bool>>, default: bool) -> bool {
    placed.map_or(default, |value| *value.get_ref())
}

/// Resolves a file's text (if there is a file), the environment and the surroundings into settings.
///
/// Fails with the first [`ConfigError`]: an unknown key, an impossible value, an inconsistent combination.
pub(crate) fn resolve(
    file: Option<(&Path, &str)>,
    env: &dyn Fn(&str) -> Option<String>,
    around: &Surroundings,
) -> Result<Settings, ConfigError> {
    let source = file.map(|(path, text)| ConfigText { path, text });
    let written = source.as_ref().map(ConfigText::parse).transpose()?.unwrap_or_default();
    let reader = Reader { source: source.as_ref() };
    let authority = authority(&reader, &written, env, around)?;
    let enforcement = enforcement(&reader, &written, authority.timeout)?;
    Ok(Settings {
        file: file.map(|(path, _)| path.to_owned()),
        device: device(&reader, &written, env)?,
        local: local(&reader, &written, &authority, around)?,
        compat_listen: compat_listen(&reader, &written)?,
        log: LogSettings {
            format: reader.text("log.format", written.log.format.as_ref(), defaults::LOG_FORMAT, str::parse)?,
            level: reader.text("log.level", written.log.level.as_ref(), defaults::LOG_LEVEL, str::parse)?,
        },
        audit_file: reader.path("audit.file", written.audit.file.as_ref())?,
        audit_key_file: reader.path("audit.key_file", written.audit.key_file.as_ref())?,
        metrics_listen: reader.address("metrics.listen", written.metrics.listen.as_ref())?,
        state_dir: around.state_dir(),
        authority,
        enforcement,
    })
}

fn authority(
    reader: &Reader<'_>,
    written: &RawConfig,
    env: &dyn Fn(&str) -> Option<String>,
    around: &Surroundings,
) -> Result<AuthoritySettings, ConfigError> {
    let section = &written.authority;
    let allow_http = flag(section.allow_http.as_ref(), false);
    let parse = |text: &str| BaseUrl::parse(text, allow_http).map_err(|error| format!("{error}{}", http_hint(error)));
    let url = match env(URL_VARIABLE).filter(|value| !value.trim().is_empty()) {
        Some(text) => {
            parse(&text).map_err(|error| ConfigError::at(&Origin::Environment(URL_VARIABLE), "authority.url", error))?
        }
        None => reader.text("authority.url", section.url.as_ref(), defaults::URL, parse)?,
    };
    Ok(AuthoritySettings {
        url,
        org_key_file: reader.path("authority.org_key_file", section.org_key_file.as_ref())?,
        timeout: reader.positive("authority.timeout", section.timeout.as_ref(), defaults::TIMEOUT)?,
        ca_file: reader.path("authority.ca_file", section.ca_file.as_ref())?,
        user: authority_user(reader, section.user.as_ref(), around)?,
    })
}

fn authority_user(
    reader: &Reader<'_>,
    placed: Option<&Spanned<String>>,
    around: &Surroundings,
) -> Result<Option<u32>, ConfigError> {
    let Some(name) = placed.map(Spanned::get_ref) else { return Ok(user_id(PACKAGED_USER, &around.users)) };
    user_id(name, &around.users).map(Some).ok_or_else(|| {
        let problem = format!("there is no user {name:?} in /etc/passwd; name another one, or a number");
        ConfigError::at(&reader.origin(placed), "authority.user", problem)
    })
}

fn http_hint(error: BaseUrlError) -> &'static str {
    if error == BaseUrlError::Unencrypted { " (authority.allow_http = true)" } else { "" }
}

fn device(
    reader: &Reader<'_>,
    written: &RawConfig,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<DeviceSettings, ConfigError> {
    let section = &written.device;
    let from_env = env(ID_VARIABLE).filter(|value| !value.trim().is_empty());
    let id_origin = match from_env {
        Some(_) => Origin::Environment(ID_VARIABLE),
        None => reader.origin(section.id.as_ref()),
    };
    let from_file = || section.id.as_ref().map_or(defaults::DEVICE_ID.to_owned(), |value| value.get_ref().clone());
    let pattern = |text: &String| {
        let wrong = |error: ClientPatternError| format!("{text:?}: {error}");
        text.parse()
            .map_err(|error| ConfigError::at(&reader.origin(section.allow.as_ref()), "device.allow", wrong(error)))
    };
    Ok(DeviceSettings {
        id_template: from_env.unwrap_or_else(from_file),
        id_origin,
        workload: section.workload.as_ref().map(|value| (value.get_ref().clone(), reader.origin(Some(value)))),
        allow: section.allow.iter().flat_map(Spanned::get_ref).map(pattern).collect::<Result<_, _>>()?,
        host_rules_all: flag(section.host_rules_all.as_ref(), true),
        ephemeral: flag(section.ephemeral.as_ref(), false),
        new_per_hour: section.new_per_hour.as_ref().map_or(defaults::NEW_PER_HOUR, |value| *value.get_ref()),
    })
}

fn enforcement(
    reader: &Reader<'_>,
    written: &RawConfig,
    timeout: Duration,
) -> Result<EnforcementSettings, ConfigError> {
    let section = &written.enforcement;
    let interval = reader.positive("enforcement.interval", section.interval.as_ref(), defaults::INTERVAL)?;
    let lease = reader.positive("enforcement.lease", section.lease.as_ref(), defaults::LEASE)?;
    let needed = longest_silence(interval, timeout);
    if lease < needed {
        // The error names the key that is written: the lease if it is, otherwise the interval that is too long for the
        // default lease.
        let (key, origin) = match (section.lease.as_ref(), section.interval.as_ref()) {
            (Some(_), _) | (None, None) => ("enforcement.lease", reader.origin(section.lease.as_ref())),
            (None, Some(_)) => ("enforcement.interval", reader.origin(section.interval.as_ref())),
        };
        return Err(ConfigError::at(
            &origin,
            key,
            format!(
                "enforcement.lease is {}, shorter than enforcement.interval + authority.timeout = {}: agents \
                 would be stopped although nothing is wrong; make the lease at least {}, or validate more often",
                span::format(lease),
                span::format(needed),
                span::format(whole_seconds(needed)),
            ),
        ));
    }
    let system_unavailable = |text: &str| match text {
        "deny" => Ok(SystemUnavailable::Deny),
        "retry" => Ok(SystemUnavailable::Retry),
        other => Err(format!("{other:?} is unknown; write \"deny\" or \"retry\"")),
    };
    let containment = |text: &str| text.parse::<Wish>().map_err(|error| format!("{text:?} is unknown; {error}"));
    let outside_helpers = |text: &str| match text {
        "report" => Ok(OutsidePolicy::Report),
        "stop" => Ok(OutsidePolicy::Stop),
        other => Err(format!("{other:?} must be \"report\" or \"stop\"")),
    };
    let undecided = |text: &str| match text {
        "run" => Ok(UndecidedPolicy::Run),
        "freeze" => Ok(UndecidedPolicy::Freeze),
        other => Err(format!("{other:?} is unknown; write \"run\" or \"freeze\"")),
    };
    Ok(EnforcementSettings {
        interval,
        lease,
        resume_grace: reader.duration(
            "enforcement.resume_grace",
            section.resume_grace.as_ref(),
            defaults::RESUME_GRACE,
        )?,
        stop_signal: reader.text(
            "enforcement.stop_signal",
            section.stop_signal.as_ref(),
            defaults::STOP_SIGNAL,
            sys::parse_signal,
        )?,
        stop_grace: reader.duration("enforcement.stop_grace", section.stop_grace.as_ref(), defaults::STOP_GRACE)?,
        containment: reader.text(
            "enforcement.containment",
            section.containment.as_ref(),
            defaults::CONTAINMENT,
            containment,
        )?,
        system_unavailable: reader.text(
            "enforcement.system_unavailable",
            section.system_unavailable.as_ref(),
            defaults::SYSTEM_UNAVAILABLE,
            system_unavailable,
        )?,
        outside_helpers: reader.text(
            "enforcement.outside_helpers",
            section.outside_helpers.as_ref(),
            defaults::OUTSIDE_HELPERS,
            outside_helpers,
        )?,
        undecided: reader.text("enforcement.undecided", section.undecided.as_ref(), defaults::UNDECIDED, undecided)?,
        kill_file: reader.path("enforcement.kill_file", section.kill_file.as_ref())?.map(|(path, _)| path),
        leaf_helper: reader
            .path("enforcement.leaf_helper", section.leaf_helper.as_ref())?
            .map_or_else(|| PathBuf::from(defaults::LEAF_HELPER), |(path, _)| path),
    })
}

fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

fn local(
    reader: &Reader<'_>,
    written: &RawConfig,
    authority: &AuthoritySettings,
    around: &Surroundings,
) -> Result<LocalSettings, ConfigError> {
    let section = &written.local;
    let (socket, socket_origin) = match reader.path("local.socket", section.socket.as_ref())? {
        Some(named) => named,
        None => (around.socket().ok_or_else(|| no_place("local.socket"))?, Origin::Default),
    };
    let length = socket.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        return Err(ConfigError::at(
            &socket_origin,
            "local.socket",
            format!(
                "the path has {length} bytes; a unix socket's may have {LONGEST_SOCKET_PATH} at most; choose a shorter one"
            ),
        ));
    }
    let (runtime_dir, runtime_dir_origin) = match reader.path("local.runtime_dir", section.runtime_dir.as_ref())? {
        Some(named) => named,
        None => (around.runtime_dir(&socket).ok_or_else(|| no_place("local.runtime_dir"))?, Origin::Default),
    };
    let mode = |text: &str| match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err(format!(
            "{text:?} is not a mode for a socket; write octal digits as in \"0660\", the owner's 6 \
                         included"
        )),
    };
    let check_timeout = match section.check_timeout.as_ref() {
        None => authority.timeout + Duration::from_secs(1),
        written => reader.positive("local.check_timeout", written, "")?,
    };
    Ok(LocalSettings {
        socket,
        socket_origin,
        mode: reader.text("local.mode", section.mode.as_ref(), defaults::SOCKET_MODE, mode)?,
        group: section.group.as_ref().map(|group| (group.get_ref().clone(), reader.origin(section.group.as_ref()))),
        max_age_cap: reader.duration("local.max_age_cap", section.max_age_cap.as_ref(), defaults::MAX_AGE_CAP)?,
        runtime_dir,
        runtime_dir_origin,
        check_timeout,
        admin_group: admin_group(reader, written, around)?,
        require_local_killer: flag(section.require_local_killer.as_ref(), false),
    })
}

fn compat_listen(reader: &Reader<'_>, written: &RawConfig) -> Result<Option<(SocketAddr, Origin)>, ConfigError> {
    let key = "compat.listen";
    let listen = reader.address(key, written.compat.listen.as_ref())?;
    match listen {
        // A client that sends an agent's token is answered as that agent, and the port is not encrypted.
        Some((address, origin)) if !address.ip().is_loopback() => {
            let problem = format!("{address} is not an address of this host alone; write one as in \"127.0.0.1:8425\"");
            Err(ConfigError::at(&origin, key, problem))
        }
        listen => Ok(listen),
    }
}

fn admin_group(reader: &Reader<'_>, written: &RawConfig, around: &Surroundings) -> Result<Option<Group>, ConfigError> {
    let placed = written.local.admin_group.as_ref();
    let Some(name) = placed.map(Spanned::get_ref) else { return Ok(None) };
    let gid = group_id(name, &around.groups).ok_or_else(|| {
        let problem = format!(
            "there is no group {name:?} in /etc/group; make it (groupadd {name}), or name another one or its number"
        );
        ConfigError::at(&reader.origin(placed), "local.admin_group", problem)
    })?;
    Ok(Some(Group { name: name.clone(), gid }))
}

fn no_place(key: &str) -> ConfigError {
    let problem = "XDG_RUNTIME_DIR is not set, so there is no default place; set local.socket and local.runtime_dir in \
                   the configuration file, or run as root";
    ConfigError::at(&Origin::Default, key, problem)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
