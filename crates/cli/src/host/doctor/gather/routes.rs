//! Services that would start something for this user outside the tree that asked for it.
//!
//! A socket counts when a process accepts a connection to it; the connection is closed without a request.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::super::facts::{CurrentUser, EscapeRoute, RouteKind};
use super::helpers;
use crate::Env;

/// The sockets of container engines; the names below the runtime directory belong to rootless engines.
const ENGINES: [&str; 8] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
];
const ROOTLESS_ENGINES: [&str; 3] = ["docker.sock", "podman/podman.sock", "containerd/containerd.sock"];

pub(super) fn all(user: &CurrentUser, env: Env<'_>) -> Vec<EscapeRoute> {
    let variable = |name| env(name).map(PathBuf::from);
    let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", user.uid).into());
    let mut found = BTreeSet::new();
    let mut add = |kind, place: &Path| {
        found.insert(EscapeRoute { kind, place: place.display().to_string() });
    };

    let named = env("DOCKER_HOST").and_then(|host| host.to_str()?.strip_prefix("unix://").map(PathBuf::from));
    let engines = ENGINES.iter().map(PathBuf::from).chain(ROOTLESS_ENGINES.iter().map(|name| runtime.join(name)));
    for socket in engines.chain(named).filter(|socket| answers(socket)) {
        // `/var/run` is `/run` by another name.
        add(RouteKind::Containers, &socket.canonicalize().unwrap_or(socket));
    }
    for (kind, socket) in [
        (RouteKind::SystemManager, PathBuf::from("/run/systemd/private")),
        (RouteKind::UserManager, runtime.join("systemd/private")),
        (RouteKind::UserManager, runtime.join("bus")),
    ] {
        if answers(&socket) {
            add(kind, &socket);
        }
    }
    let bus = Path::new("/run/dbus/system_bus_socket");
    if Path::new("/run/systemd/system").exists() && answers(bus) {
        add(RouteKind::SystemBus, bus);
    }
    for socket in below(&variable("TMUX_TMPDIR").unwrap_or("/tmp".into()).join(format!("tmux-{}", user.uid))) {
        if answers(&socket) {
            add(RouteKind::Tmux, &socket);
        }
    }
    for directory in screen_directories(user, variable("SCREENDIR")) {
        // Older versions use a pipe. A connection would look like a user's session, so none is made.
        for place in below(&directory).into_iter().filter(|place| is_channel(place) && may_write(place)) {
            add(RouteKind::Screen, &place);
        }
    }
    let running = running();
    let runs = |names: &[&str]| running.iter().any(|name| names.contains(&name.as_str()));
    if runs(&["cron", "crond", "fcron", "anacron", "cronie"]) && may_use("cron", user) {
        add(RouteKind::Cron, Path::new("crontab"));
    }
    if runs(&["atd"]) && may_use("at", user) {
        add(RouteKind::At, Path::new("at"));
    }
    helpers::add(&mut found, user, env);
    found.into_iter().collect()
}

fn screen_directories(user: &CurrentUser, named: Option<PathBuf>) -> Vec<PathBuf> {
    let own =
        |name: &String| ["/run/screen", "/tmp/screens", "/tmp/uscreens"].map(|at| format!("{at}/S-{name}").into());
    named.into_iter().chain(user.name.iter().flat_map(own)).collect()
}

/// Whether a process accepts connections on this socket.
fn answers(socket: &Path) -> bool {
    let Ok(address) = SocketAddrUnix::new(socket) else { return false };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(fd) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else { return false };
    // A full queue and a socket of another type also show a listening process.
    matches!(rustix::net::connect(&fd, &address), Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE))
}

fn may_write(place: &Path) -> bool {
    rustix::fs::accessat(CWD, place, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

fn is_channel(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|found| found.file_type().is_socket() || found.file_type().is_fifo())
}

fn below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// The names of all visible processes.
fn running() -> BTreeSet<String> {
    let is_process = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    let names = below(Path::new("/proc")).into_iter().filter(is_process);
    names.filter_map(|process| Some(fs::read_to_string(process.join("comm")).ok()?.trim().to_owned())).collect()
}

/// Whether `/etc/NAME.allow` and `/etc/NAME.deny` let this user hand in jobs.
fn may_use(service: &str, user: &CurrentUser) -> bool {
    let list = |kind| fs::read_to_string(format!("/etc/{service}.{kind}")).ok();
    may_hand_in(user, list("allow").as_deref(), list("deny").as_deref())
}

/// The rule of crontab(1) and at(1): with a list of allowed users only those may; otherwise all but the denied users
/// may. Without either list systems differ, and permission is assumed.
fn may_hand_in(user: &CurrentUser, allow: Option<&str>, deny: Option<&str>) -> bool {
    let on = |list: &str| user.name.as_deref().is_some_and(|name| list.lines().any(|line| line.trim() == name));
    match (allow, deny) {
        _ if user.uid == 0 => true,
        (Some(allow), _) => on(allow),
        (None, Some(deny)) => !on(deny),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_for_those_on_the_lists() {
        let user = |uid, name: &str| CurrentUser { uid, name: Some(name.to_owned()) };
        let ann = user(1000, "ann");
        assert!(may_hand_in(&ann, Some("bob\nann\n"), None));
        assert!(!may_hand_in(&ann, Some("bob\n"), Some("")));
        assert!(!may_hand_in(&ann, None, Some("ann\n")));
        assert!(may_hand_in(&ann, None, Some("bob\n")));
        assert!(may_hand_in(&ann, None, None));
        assert!(may_hand_in(&user(0, "root"), Some(""), Some("root\n")));
        assert!(!may_hand_in(&CurrentUser { uid: 7, name: None }, Some("ann\n"), None));
    }

    #[test]
    fn a_socket_at_which_no_process_listens_is_no_route() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(answers(&path));
        drop(listener);
        assert!(path.exists() && !answers(&path));
        assert!(!answers(&directory.path().join("none")));
    }
}
