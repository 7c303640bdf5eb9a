//! What `--isolate` hides: the places where an agent would meet a process that works for it outside its tree.
//!
//! Directories become empty ones of the command's own; sockets refuse connections. Places of the user that do not exist yet
//! are made, so that a daemon that starts later is hidden as well. One whose directory is removed or renamed on the host and
//! made again is not.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{error, fmt, io};

use machineid_agents::{
    AgentProfile, CONTAINER_SOCKETS, MANAGER_SOCKETS, MeetingPath, MeetingPoint, TABLE, USER_SOCKETS, Variables,
};
use nix::unistd::geteuid;

/// The places to hide.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// In the order in which they are covered; none is below another.
    pub(super) covered: Vec<Covered>,
    /// What stays visible in covered directories.
    pub(super) kept: Vec<PathBuf>,
}

/// A place to hide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Covered {
    /// A directory, which becomes an empty one of this mode.
    Directory { path: PathBuf, mode: u32 },
    /// A socket.
    Socket(PathBuf),
}

/// Why nothing can be hidden.
#[derive(Debug)]
pub(super) enum IsolationError {
    /// This place is not a directory.
    NotDirectory(PathBuf),
    /// This directory could not be made.
    Make(PathBuf, io::Error),
}

impl fmt::Display for IsolationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDirectory(path) => {
                write!(
                    f,
                    "--isolate cannot hide {}: it is a link or a file, not a directory; remove it",
                    path.display()
                )
            }
            Self::Make(path, error) => write!(f, "--isolate cannot make {} to hide it: {error}", path.display()),
        }
    }
}

impl error::Error for IsolationError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NotDirectory(_) => None,
            Self::Make(_, error) => Some(error),
        }
    }
}

/// Who starts the command, and with what.
struct Surroundings<'a> {
    uid: u32,
    variables: Variables<'a>,
}

impl Isolation {
    /// Finds the places to hide from this agent, and makes those of the user that are missing. `socket` is the daemon's.
    pub(super) fn prepare(
        agent: Option<&'static AgentProfile>,
        variables: Variables<'_>,
        socket: &Path,
    ) -> Result<Self, IsolationError> {
        let around = Surroundings { uid: geteuid().as_raw(), variables };
        let mut covered = Vec::new();
        for known in TABLE {
            let own = agent == Some(known);
            for point in known.daemon.iter().flat_map(|daemon| daemon.meeting_points) {
                match *point {
                    MeetingPoint::State(below) => {
                        let directory = known.state_directory(variables).map(|state| state.join(below));
                        covered.extend(directory.map(|path| state(&path, own)).transpose()?.flatten());
                    }
                    MeetingPoint::OfUser(name) => covered.extend(around.of_user(name)?),
                    // Avoided by a variable; see `adjust`.
                    MeetingPoint::Loopback(_) => {}
                }
            }
        }
        for place in USER_SOCKETS {
            match *place {
                MeetingPath::OfUser(name) => covered.extend(around.of_user(name)?),
                MeetingPath::At(path) => covered.extend(existing(Path::new(path), 0o755)),
            }
        }
        covered.extend(around.runtime());
        covered.extend(around.named_sockets());
        let managers = if around.uid == 0 { MANAGER_SOCKETS } else { &[] };
        covered.extend(CONTAINER_SOCKETS.iter().chain(managers).filter_map(|path| socket_at(Path::new(path))));
        covered.sort();
        covered.dedup();
        let covered = outermost(covered);
        let wanted = [Some(shown_for(socket, &covered)), around.path("SSH_AUTH_SOCK")];
        let kept = wanted.into_iter().flatten().filter_map(|path| path.canonicalize().ok());
        let kept = kept.filter(|path| is_covered(path, &covered)).collect();
        Ok(Self { covered, kept })
    }
}

/// Sets the variables by which agents do not use a daemon that no mount hides.
pub(super) fn adjust(environment: &mut Vec<(OsString, OsString)>) {
    for &(name, value) in TABLE.iter().filter_map(|agent| agent.daemon.as_ref()).flat_map(|daemon| daemon.isolated_by) {
        environment.retain(|(other, _)| other != name);
        environment.push((name.into(), value.into()));
    }
}

impl Surroundings<'_> {
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.variables)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The user's directory with this name. Below /tmp it is made if it is missing.
    fn of_user(&self, name: &str) -> Result<Option<Covered>, IsolationError> {
        let path = PathBuf::from(format!("{name}{}", self.uid));
        let path = match name.strip_prefix("/tmp/tmux-").and_then(|_| self.path("TMUX_TMPDIR")) {
            Some(directory) => directory.join(format!("tmux-{}", self.uid)),
            None => path,
        };
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => Ok(existing(&path, 0o700)),
            Ok(_) => Err(IsolationError::NotDirectory(path)),
            Err(_) if name.starts_with("/tmp/") => make(&path).map(|()| existing(&path, 0o700)),
            Err(_) => Ok(None),
        }
    }

    /// The runtime directory. Where it does not exist, a login could make it later: then the one above is covered.
    fn runtime(&self) -> Vec<Covered> {
        let usual = PathBuf::from(format!("/run/user/{}", self.uid));
        let above = Path::new("/run/user");
        let usual = if usual.exists() { existing(&usual, 0o700) } else { existing(above, 0o755) };
        let named =
            self.path("XDG_RUNTIME_DIR").filter(|path| path.parent().is_some_and(|above| above != Path::new("")));
        usual.into_iter().chain(named.and_then(|path| existing(&path, 0o700))).collect()
    }

    /// Sockets that the environment names: of a tmux server, the bus, a container engine.
    fn named_sockets(&self) -> Vec<Covered> {
        let text = |name: &str| (self.variables)(name).and_then(|value| value.into_string().ok()).unwrap_or_default();
        let mut found = Vec::new();
        found.extend(text("TMUX").split(',').next().map(PathBuf::from));
        let bus = text("DBUS_SESSION_BUS_ADDRESS");
        found.extend(bus.split([';', ',']).filter_map(|part| part.strip_prefix("unix:path=").map(PathBuf::from)));
        for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
            found.extend(text(name).strip_prefix("unix://").map(PathBuf::from));
        }
        found.iter().filter_map(|path| socket_at(path)).collect()
    }
}

/// An agent's directory. It is made for the agent that starts, since a daemon could make it later.
fn state(path: &Path, own: bool) -> Result<Option<Covered>, IsolationError> {
    if own && !path.exists() {
        make(path)?;
    }
    Ok(existing(path, 0o700))
}

/// Makes a directory. Where this user may make none, no daemon of this user can either.
fn make(path: &Path) -> Result<(), IsolationError> {
    match DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EROFS | libc::ENOENT)) => Ok(()),
        Err(error) => Err(IsolationError::Make(path.to_path_buf(), error)),
    }
}

fn existing(path: &Path, mode: u32) -> Option<Covered> {
    let path = path.canonicalize().ok().filter(|path| path.is_dir() && path.parent().is_some())?;
    Some(Covered::Directory { path, mode })
}

fn socket_at(path: &Path) -> Option<Covered> {
    let path = path.canonicalize().ok()?;
    let found = path.metadata().ok()?;
    (!found.is_dir()).then_some(Covered::Socket(path))
}

impl Covered {
    fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. } | Self::Socket(path) => path,
        }
    }
}

/// What is shown of the daemon: the socket's directory, since a daemon that starts again makes another socket in it; the
/// socket alone where the directory is one that is covered.
fn shown_for(socket: &Path, covered: &[Covered]) -> PathBuf {
    let above = socket.parent().and_then(|above| above.canonicalize().ok());
    above.filter(|above| covered.iter().all(|cover| cover.path() != above)).unwrap_or_else(|| socket.to_path_buf())
}

fn is_covered(path: &Path, covered: &[Covered]) -> bool {
    covered.iter().any(|cover| matches!(cover, Covered::Directory { path: above, .. } if path.starts_with(above)))
}

/// Leaves out what is below another: it is hidden with it.
fn outermost(covered: Vec<Covered>) -> Vec<Covered> {
    let all = covered.clone();
    let hidden = |place: &Covered| {
        let others = all.iter().filter(|other| other.path() != place.path());
        is_covered(place.path(), &others.cloned().collect::<Vec<_>>())
    };
    covered.into_iter().filter(|place| !hidden(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_agents::by_name;

    fn directory(path: &str) -> Covered {
        Covered::Directory { path: path.into(), mode: 0o700 }
    }

    #[test]
    fn what_is_below_a_covered_directory_is_covered_with_it() {
        let all = vec![directory("/run/user/7"), Covered::Socket("/run/user/7/bus".into()), directory("/run/user/77")];
        assert_eq!(outermost(all), [directory("/run/user/7"), directory("/run/user/77")]);
    }

    #[test]
    fn the_agents_places_are_made_and_what_it_needs_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(at("run/machineid")).unwrap();
        let variables = |name: &str| match name {
            "HOME" => Some(home.path().into()),
            "XDG_RUNTIME_DIR" => Some(at("run").into()),
            "TMUX_TMPDIR" => Some(at("").into()),
            _ => None,
        };
        let made = Isolation::prepare(by_name("codex"), &variables, &at("run/machineid/sidecar.sock")).unwrap();
        let covers = |path: PathBuf| made.covered.contains(&Covered::Directory { path, mode: 0o700 });
        assert!(covers(at(".codex/app-server-control")) && covers(at("run")), "{made:?}");
        assert!(covers(at(&format!("tmux-{}", geteuid()))), "{made:?}");
        // Another agent's directories are not made.
        assert!(!at(".cline").exists() && !at(".claude").exists());
        assert_eq!(made.kept, [at("run/machineid")]);
    }

    #[test]
    fn a_link_in_place_of_the_users_directory_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", home.path().join(format!("tmux-{}", geteuid()))).unwrap();
        let variables = |name: &str| (name == "TMUX_TMPDIR").then(|| home.path().into());
        let error = Isolation::prepare(None, &variables, Path::new("/s")).unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
    }

    #[test]
    fn variables_keep_work_away_from_ports() {
        let mut environment = vec![("CLINE_SESSION_BACKEND_MODE".into(), "hub".into()), ("A".into(), "1".into())];
        adjust(&mut environment);
        let expected: [(OsString, OsString); 2] =
            [("A".into(), "1".into()), ("CLINE_SESSION_BACKEND_MODE".into(), "local".into())];
        assert_eq!(environment, expected);
    }
}
