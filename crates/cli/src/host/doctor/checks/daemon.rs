//! Checks versions, the socket, the daemon, its standing, and its key.

use machineid_protocol::status::{DeviceReport, StandingKind};
use machineid_protocol::{Code, KeyRole, span};
use std::time::Duration;

use super::super::facts::{CurrentUser, Daemon, HostFacts, Listener, LoginSessions, Owner, SocketState, WrapperFacts};
use super::Check;
use crate::words::{ago, count, millis};

use jiff::Timestamp;
use machineid_client::KEY_NOT_SENT;

const CLIENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// No daemon is older than this, so a clock that shows an earlier time is wrong.
const EARLIEST: &str = "2026-01-01T00:00:00Z";

pub(super) fn checks(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![versions(facts)];
    checks.extend(socket(facts));
    checks.extend(facts.sessions.as_ref().map(lingering));
    match &facts.daemon {
        Err(why) => {
            // The text already says what to do.
            checks.push(Check { remedy: None, ..Check::fail("daemon", why.to_string(), "") });
            checks.push(clock(facts.now, None));
        }
        Ok(daemon) => {
            checks.push(identity(daemon, facts));
            checks.extend(daemon.listener.as_ref().and_then(|listener| reach(listener, &facts.user)));
            checks.extend(files(daemon));
            checks.extend(not_in_force(daemon));
            checks.push(standing(daemon));
            checks.push(authority(daemon, facts.now));
            checks.push(clock(facts.now, Some(daemon)));
            checks.push(org_key(daemon, &facts.user));
            checks.push(stop_bound(daemon));
            checks.push(past_stops(daemon));
        }
    }
    checks
}

fn versions(facts: &HostFacts) -> Check {
    let what = "versions";
    let daemon = facts.daemon.as_ref().ok().map(|daemon| daemon.status.version.as_str());
    let (path, wrapper) = match &facts.wrapper {
        WrapperFacts::Missing => {
            return Check::warn(
                what,
                format!("machineid {CLIENT_VERSION}; machineid-run is neither beside it nor on the search path"),
                "install it where agents are started",
            );
        }
        WrapperFacts::Found { path, version: Err(why) } => {
            let found = format!("machineid {CLIENT_VERSION}; {} does not say its version: {why}", path.display());
            let remedy = format!("try {} --version, and install it again if that fails", path.display());
            return Check::fail(what, found, remedy);
        }
        WrapperFacts::Found { path, version: Ok(version) } => (path, version),
    };
    let mut found = format!("machineid {CLIENT_VERSION}, {} {wrapper}", path.display());
    if let Some(daemon) = daemon {
        found.push_str(", daemon ");
        found.push_str(daemon);
    }
    if wrapper == CLIENT_VERSION && daemon.is_none_or(|daemon| daemon == CLIENT_VERSION) {
        Check::ok(what, found)
    } else {
        Check::warn(
            what,
            found,
            "install one version of all programs and restart the daemon; agents continue \
             meanwhile",
        )
    }
}

fn socket(facts: &HostFacts) -> Option<Check> {
    let what = "socket";
    let path = facts.socket.path.display();
    Some(match &facts.socket.state {
        // The daemon's line says what to do about these two states.
        SocketState::Missing | SocketState::Hidden => return None,
        SocketState::OtherFile => {
            let found = format!("{path} is not a socket");
            Check::fail(what, found, "remove it and restart the daemon, or name the daemon's socket with --socket")
        }
        SocketState::Unreadable(errno) => {
            Check::fail(what, format!("{path}: {errno}"), "name the daemon's socket with --socket")
        }
        SocketState::There { owner, group, mode, may_open, replaceable } => {
            let found = format!("{path}, owner {}, group {}, mode {mode:04o}", named(owner), named(group));
            let user = user(&facts.user);
            if !may_open {
                let remedy = match group.id {
                    0 => "set local.group to a group of the agents' users and restart the daemon".to_owned(),
                    _ => format!("add {user} to the group {}, and log in again", named(group)),
                };
                return Some(Check::fail(what, format!("{found}: {user} may not open it"), remedy));
            }
            if *replaceable {
                let found = format!("{found}; any user may put another socket in its place");
                return Some(Check::warn(what, found, "keep it in a directory that only its owner may write to"));
            }
            if mode & 0o002 != 0 {
                let found = format!("{found}: every user of this host may connect");
                return Some(Check::warn(what, found, "set local.mode = \"0660\" and local.group"));
            }
            Check::ok(what, format!("{found}; {user} may open it"))
        }
    })
}

/// A logout must not remove the socket and the records of a running daemon.
fn lingering(sessions: &LoginSessions) -> Check {
    let what = "lingering";
    let user = named(&sessions.user);
    if sessions.lingers {
        return Check::ok(what, format!("the socket's directory stays when {user} logs out"));
    }
    let name = sessions.user.name.clone().unwrap_or_else(|| sessions.user.id.to_string());
    Check::warn(
        what,
        format!("the socket is below /run/user/{}, which is removed when {user} logs out", sessions.user.id),
        format!("loginctl enable-linger {name}"),
    )
}

/// The daemon's report about its own files, when they are not in place.
fn files(daemon: &Daemon) -> Option<Check> {
    let problem = daemon.status.files.problem.as_ref()?;
    Some(Check { remedy: None, ..Check::fail("files", problem, "") })
}

fn identity(daemon: &Daemon, facts: &HostFacts) -> Check {
    let what = "daemon";
    let status = &daemon.status;
    let started = ago(&status.started_at, facts.now);
    let Some(listener) = &daemon.listener else {
        return Check::ok(what, format!("pid {}, started {started}", status.pid));
    };
    let who = if listener.uid == 0 { "root".to_owned() } else { format!("uid {}", listener.uid) };
    let found = format!("pid {}, runs as {who}, started {started}", status.pid);
    if listener.trusted {
        Check::ok(what, found)
    } else {
        Check::fail(
            what,
            format!(
                "{found}: neither root, nor this user, nor the owner of the socket's directory; wrappers refuse it"
            ),
            "find out which process made it; start the real daemon, or name its socket with --socket",
        )
    }
}

/// Whether the daemon itself can end this user's agents, and not only their wrappers.
fn reach(listener: &Listener, user: &CurrentUser) -> Option<Check> {
    let what = "reach";
    if listener.pid.is_none() {
        return Some(Check::warn(
            what,
            "the daemon is in a PID namespace that this one does not contain: only the wrapper ends agents started here",
            "share the PID namespace (Kubernetes: shareProcessNamespace), or let machineid-run be the container's PID 1",
        ));
    }
    (!listener.powers.kill && listener.uid != user.uid && listener.uid != 0).then(|| {
        let found = format!(
            "the daemon's uid {} may not signal processes of uid {}: only the wrapper ends this user's agents",
            listener.uid, user.uid
        );
        Check::warn(what, found, "run the daemon as root or with CAP_KILL, or one as this user")
    })
}

fn standing(daemon: &Daemon) -> Check {
    let what = "standing";
    let Some(device) = daemon.status.devices.iter().find(|device| device.host) else {
        return Check::fail(what, "the daemon names no device of this host", "see its log");
    };
    let id = &device.device_id;
    let log = "see `machineid status` and the daemon's log";
    match (device.standing, &daemon.not_ready) {
        (StandingKind::Denied, _) => denied(device),
        (_, Some(words)) => Check::fail(what, format!("{id}: not ready: {words}"), log),
        (StandingKind::Allowed, None) => Check::ok(what, format!("{id} is allowed; the daemon is ready")),
        (StandingKind::Unknown, None) => Check::warn(what, format!("{id}: no answer yet"), log),
        (StandingKind::Unavailable, None) => {
            let error = device.last_error.as_deref().unwrap_or("the authority gave no answer");
            Check::fail(what, format!("{id}: {error}"), "see the authority's line; until then nothing starts")
        }
    }
}

/// A deliberate deny is no fault of the host; a deny because of a wrong setting is.
fn denied(device: &DeviceReport) -> Check {
    let what = "standing";
    let id = &device.device_id;
    let Some(last) = &device.last_decision else {
        return Check::warn(what, format!("{id} is denied"), "see `machineid status`");
    };
    let request = last.request_id.as_ref().map_or_else(String::new, |request| format!(", request_id {request}"));
    let found = format!("{id} is denied: {}{request}", last.code);
    let decided = |remedy: &str| Check::warn(what, found.clone(), remedy);
    let wrong = |remedy: &str| Check::fail(what, found.clone(), remedy);
    match &last.code {
        Code::InvalidOrgKey | Code::OrgNotFound => wrong(
            "put the organisation's current key into the daemon's key file; the daemon reads it without a \
                   restart",
        ),
        Code::InvalidDeviceId => wrong("correct device.id in the configuration"),
        Code::DeviceNotFound => wrong(&format!("it was never registered or was removed: machineid register {id}")),
        Code::DeviceLimitReached => wrong("the plan is full: remove a device (machineid remove) or take a larger plan"),
        Code::DeviceRevoked => decided(&format!("if it is to run again: machineid unrevoke {id}")),
        Code::OrgDisabled | Code::PlanFrozen | Code::EntitlementExpired | Code::PlanNotActive => {
            decided("the organisation may not execute; see its page at the authority")
        }
        Code::LocalKill => decided("remove the kill file if agents are to run again"),
        Code::LocalStop => decided("an operator stopped it on this host"),
        Code::SystemUnavailable
        | Code::Unspecified
        | Code::DeviceNotPermitted
        | Code::PidNotPermitted
        | Code::RemoteRefused
        | Code::RegistrationLimited
        | Code::AuthorityUnreachable
        | Code::Starting
        | Code::CheckTimeout
        | Code::LeaseExpired
        | Code::Overloaded
        | Code::BadRequest
        | Code::Allow
        | Code::Other(_) => decided("see `machineid status` and the authority"),
    }
}

fn authority(daemon: &Daemon, now: Timestamp) -> Check {
    let what = "authority";
    let authority = &daemon.status.authority;
    let url = &authority.url;
    let last =
        authority.last_answer_at.as_ref().map(|at| format!(", last answer {}", ago(at, now))).unwrap_or_default();
    match authority.reachable {
        Some(true) if is_open_http(url) => {
            let found = format!("{url} answers{last}; the org key travels unencrypted");
            Check::warn(what, found, "use https, and take authority.allow_http out")
        }
        Some(true) => Check::ok(what, format!("{url} answers{last}")),
        Some(false) => {
            let error = authority.last_error.as_deref().unwrap_or("no usable answer");
            let found = format!("{url} gives no usable answer{last}: {error}");
            let cure = cure(daemon, error);
            Check::fail(what, found, format!("no agent can start; running ones stop when their lease ends. {cure}"))
        }
        None => Check::warn(what, format!("{url} was not asked yet"), "ask again in a moment"),
    }
}

/// What to do about an authority that gives no usable answer.
fn cure(daemon: &Daemon, error: &str) -> String {
    if error.contains(KEY_NOT_SENT) {
        return "Find that user's process (ss -ltnp, or ss -lxp for a unix socket) and end it; if that user may run the \
                authority or a proxy, name it with authority.user"
            .to_owned();
    }
    let socket = daemon.authority_socket.as_ref();
    let start = "systemctl start machineid-authority.socket machineid-authority";
    match socket.map(|socket| (&socket.state, socket.path.display())) {
        Some((SocketState::Missing, path)) => {
            format!("There is no {path}: start the authority ({start}), or correct authority.url")
        }
        Some((SocketState::OtherFile, path)) => {
            format!("{path} is no socket: remove it and start the authority again ({start}), or correct authority.url")
        }
        Some((SocketState::Hidden | SocketState::There { .. } | SocketState::Unreadable(_), _)) | None => {
            "Fix the authority, the network or authority.url".to_owned()
        }
    }
}

fn is_open_http(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    url.scheme() == "http" && !here
}

fn clock(now: Timestamp, daemon: Option<&Daemon>) -> Check {
    let what = "clock";
    let parse = |text: &str| text.parse::<Timestamp>().ok();
    if parse(EARLIEST).is_some_and(|earliest| now < earliest) {
        let found =
            format!("the wall clock says {now}, which is too early; TLS will reject the authority's certificate");
        return Check::fail(what, found, "set it (timedatectl set-ntp true)");
    }
    let newest = daemon.and_then(|daemon| {
        let answer = daemon.status.authority.last_answer_at.as_deref().and_then(parse);
        answer.max(parse(&daemon.status.started_at))
    });
    // The tolerance for the daemon's rounding, and for a clock that is being adjusted.
    match newest.filter(|newest| newest.duration_since(now).as_secs() > 1) {
        Some(newest) => {
            let back = span::format(Duration::from_secs(newest.duration_since(now).as_secs().unsigned_abs()));
            let found = format!("the wall clock is {back} behind what the daemon last saw: it was set back");
            Check::warn(
                what,
                found,
                "leases do not run on it; logs and certificates do: set it (timedatectl set-ntp true)",
            )
        }
        None => Check::ok(what, "leases run on the boot clock, whatever is done to the wall clock"),
    }
}

/// Settings and ports that are not in force, each with the daemon's own text about what to do.
fn not_in_force(daemon: &Daemon) -> impl Iterator<Item = Check> {
    let remedy = "until then the rest of the configuration is in force, and enforcement goes on";
    daemon.status.configuration.problems.iter().map(move |problem| Check::warn("configuration", problem, remedy))
}

/// The daemon's own text about which users could read the key, and whether this user's agents could.
fn org_key(daemon: &Daemon, user: &CurrentUser) -> Check {
    let what = "org key";
    let configuration = &daemon.status.configuration;
    let found = format!("from {}; {}", configuration.key_source, configuration.key_protection);
    if let Some(ends) = &daemon.status.authority.key_ends {
        let found = format!("{found}; it expires at {ends}");
        return Check::warn(what, found, "put the new key in its place before that; nothing needs a restart");
    }
    if let Some(role) = daemon.status.authority.key_role.filter(|role| *role != KeyRole::Host) {
        let found =
            format!("{found}; its role is {role}, so a process that reads it could lift this host's own revoke");
        return Check::warn(what, found, "give this host a key of the role host: machineid key create --role host");
    }
    let reachable = user.uid == 0 || daemon.listener.is_some_and(|listener| listener.uid == user.uid);
    if reachable {
        let found = format!("{found}; agents of this user could");
        Check::warn(what, found, "run the agents as an ordinary user that is not the daemon's")
    } else {
        Check::ok(what, found)
    }
}

fn stop_bound(daemon: &Daemon) -> Check {
    let bound = daemon.status.stop_bound;
    let span = |ms| span::format(Duration::from_millis(ms));
    let (connected, cut_off) = (span(bound.connected_ms), span(bound.cut_off_ms));
    Check::ok("stop bound", format!("{connected} while the authority answers, {cut_off} while it does not"))
}

/// Whether a past stop left a process alive. This evidence counts more than any precondition.
fn past_stops(daemon: &Daemon) -> Check {
    let what = "past stops";
    let stops = &daemon.status.recent_stops;
    let failed: Vec<String> = stops
        .iter()
        .filter(|stop| !stop.confirmed)
        .map(|stop| {
            let survivors: Vec<String> =
                stop.survivors.iter().map(|left| format!("pid {} ({})", left.pid, left.reason)).collect();
            let name = stop.name.clone().unwrap_or_else(|| stop.run_id.to_string());
            let left = if survivors.is_empty() { "a process".to_owned() } else { survivors.join(", ") };
            format!("{name}: {left} after {}", millis(stop.took_ms))
        })
        .collect();
    if stops.is_empty() {
        Check::ok(what, "no agent that this user may see was stopped yet")
    } else if failed.is_empty() {
        Check::ok(what, format!("after the last {}, no process was left", count(stops.len(), "stop", "stops")))
    } else {
        let found = format!("not over: {}", failed.join("; "));
        Check::fail(
            what,
            found,
            "the daemon keeps retrying; end them as root, or find what they wait for (ps -o stat,wchan)",
        )
    }
}

fn named(owner: &Owner) -> String {
    owner.name.clone().unwrap_or_else(|| owner.id.to_string())
}

fn user(user: &CurrentUser) -> String {
    user.name.clone().unwrap_or_else(|| format!("uid {}", user.uid))
}
