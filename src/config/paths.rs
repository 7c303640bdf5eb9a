//! The default paths of files.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What the default paths depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) root: bool,
    pub(crate) home: Option<PathBuf>,
    pub(crate) xdg_runtime_dir: Option<PathBuf>,
    pub(crate) xdg_state_home: Option<PathBuf>,
    /// `STATE_DIRECTORY`, which systemd sets for a unit with `StateDirectory=`.
    pub(crate) state_directory: Option<PathBuf>,
    /// The text of `/etc/group`.
    pub(crate) groups: String,
    /// The text of `/etc/passwd`.
    pub(crate) users: String,
    /// `RUNTIME_DIRECTORY`, which systemd sets for a unit with `RuntimeDirectory=`.
    pub(crate) runtime_directories: Vec<PathBuf>,
}

/// The socket's directory, below `/run` or its equivalent.
const SOCKET_DIRECTORY: &str = "machineid";
/// The directory of markers and records.
const RUNTIME_DIRECTORY: &str = "machineid-sidecar";

impl Surroundings {
    /// The configuration files to look for; the first that exists is used.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.home.as_ref().filter(|_| !self.root);
        let own = own.map(|home| home.join(".config/machineid/machineid-sidecar.toml"));
        own.into_iter().chain([PathBuf::from("/etc/machineid/machineid-sidecar.toml")]).collect()
    }

    /// The socket; `None` for an ordinary user without a runtime directory.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        Some(self.below_run(SOCKET_DIRECTORY)?.join("sidecar.sock"))
    }

    /// The directory of markers and run records of the daemon behind `socket`. Never the socket's own directory, since that
    /// one is mounted into containers.
    pub(crate) fn runtime_dir(&self, socket: &Path) -> Option<PathBuf> {
        Some(self.below_run(RUNTIME_DIRECTORY)?.join(short_hash(socket)))
    }

    /// The directory that systemd made under this name, otherwise the usual one for this user. A system service has a user of
    /// its own, which is not root and has no `XDG_RUNTIME_DIR`.
    fn below_run(&self, name: &str) -> Option<PathBuf> {
        let made = self.runtime_directories.iter().find(|path| path.ends_with(name));
        let base = || if self.root { Some(PathBuf::from("/run")) } else { self.xdg_runtime_dir.clone() };
        made.cloned().or_else(|| base().map(|base| base.join(name)))
    }

    /// The directory of files that outlive a reboot; `None` for an ordinary user without a home.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        if self.state_directory.is_some() {
            return self.state_directory.clone();
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/machineid-sidecar"));
        }
        let base = self.xdg_state_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/state")));
        base.map(|base| base.join("machineid-sidecar"))
    }
}

pub(super) fn short_hash(socket: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    hex::encode(&Sha256::digest(socket.as_os_str().as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_of_one_user_keep_apart() {
        let user = Surroundings { xdg_runtime_dir: Some("/run/user/1000".into()), ..Surroundings::default() };
        let one = user.runtime_dir(Path::new("/a/sidecar.sock")).unwrap();
        let other = user.runtime_dir(Path::new("/b/sidecar.sock")).unwrap();
        assert_ne!(one, other);
        assert!(one.starts_with("/run/user/1000/machineid-sidecar"));
    }

    #[test]
    fn a_service_with_a_user_of_its_own_has_what_systemd_made_for_it() {
        let made = ["/run/machineid", "/run/machineid-sidecar"].map(PathBuf::from);
        let service = Surroundings { runtime_directories: made.to_vec(), ..Surroundings::default() };
        let socket = service.socket().unwrap();
        assert_eq!(socket, Path::new("/run/machineid/sidecar.sock"));
        assert!(service.runtime_dir(&socket).unwrap().starts_with("/run/machineid-sidecar"));
        let another = Surroundings { runtime_directories: vec!["/run/other".into()], ..Surroundings::default() };
        assert_eq!(another.socket(), None);
    }

    #[test]
    fn root_does_not_read_a_home_directory() {
        let root = Surroundings { root: true, home: Some("/root".into()), ..Surroundings::default() };
        assert_eq!(root.config_files(), [PathBuf::from("/etc/machineid/machineid-sidecar.toml")]);
    }
}
