//! Where a client looks for the daemon's socket.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The system daemon's socket.
pub const SYSTEM_SOCKET: &str = "/run/machineid/sidecar.sock";

/// The socket that a client uses: the one named by a flag, else by `MACHINEID_SOCKET`, else the system daemon's if it
/// exists, else the user's below `XDG_RUNTIME_DIR`. An empty variable counts as unset. Without any of them the system
/// daemon's path is returned, so that a message can name a path.
///
/// `environment` looks a variable up; a relative path is taken from `directory`.
#[must_use]
pub fn find(
    flag: Option<&Path>,
    environment: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
    directory: &Path,
) -> PathBuf {
    let variable = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = flag.map(Path::to_owned).or_else(|| variable("MACHINEID_SOCKET")) {
        return directory.join(named);
    }
    let system = Path::new(SYSTEM_SOCKET);
    match variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()) {
        Some(runtime) if !exists(system) => runtime.join("machineid/sidecar.sock"),
        Some(_) | None => system.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flag: Option<&str>, variables: &[(&str, &str)], system_exists: bool) -> String {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
        let path = find(
            flag.map(Path::new),
            lookup,
            |path| system_exists && path == Path::new(SYSTEM_SOCKET),
            Path::new("/w"),
        );
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn flag_beats_variable_beats_system_beats_user() {
        let all = [("MACHINEID_SOCKET", "/v.sock"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(found(Some("/f.sock"), &all, true), "/f.sock");
        assert_eq!(found(Some("f.sock"), &all, true), "/w/f.sock");
        assert_eq!(found(None, &all, true), "/v.sock");
        assert_eq!(found(None, &all[1..], true), SYSTEM_SOCKET);
        assert_eq!(found(None, &all[1..], false), "/run/user/7/machineid/sidecar.sock");
        assert_eq!(found(None, &[("MACHINEID_SOCKET", ""), ("XDG_RUNTIME_DIR", "relative")], false), SYSTEM_SOCKET);
        assert_eq!(found(None, &[], false), SYSTEM_SOCKET);
    }
}
