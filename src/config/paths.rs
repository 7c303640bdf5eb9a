//! Where things are when nobody says otherwise.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::hex;

/// What the default places depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) root: bool,
    pub(crate) home: Option<PathBuf>,
    pub(crate) xdg_runtime_dir: Option<PathBuf>,
    pub(crate) xdg_state_home: Option<PathBuf>,
    /// What systemd gives a unit with `StateDirectory=`.
    pub(crate) state_directory: Option<PathBuf>,
}

impl Surroundings {
    /// Configuration files to look for, first match wins.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.home.as_ref().filter(|_| !self.root);
        let own = own.map(|home| home.join(".config/machineid/machineid-sidecar.toml"));
        own.into_iter().chain([PathBuf::from("/etc/machineid/machineid-sidecar.toml")]).collect()
    }

    /// The socket; `None` for an ordinary user without a runtime directory.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/run/machineid/sidecar.sock"));
        }
        self.xdg_runtime_dir.as_ref().map(|dir| dir.join("machineid/sidecar.sock"))
    }

    /// Markers and run records of the daemon behind `socket`. Never the socket's own directory: that one is mounted
    /// into containers.
    pub(crate) fn runtime_dir(&self, socket: &Path) -> Option<PathBuf> {
        let base = if self.root { Some(PathBuf::from("/run")) } else { self.xdg_runtime_dir.clone() };
        base.map(|base| base.join("machineid-sidecar").join(short_hash(socket)))
    }

    /// What outlives a boot; `None` for an ordinary user without a home.
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

fn short_hash(socket: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    hex::of(&Sha256::digest(socket.as_os_str().as_bytes())[..8])
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
    fn root_does_not_read_a_home_directory() {
        let root = Surroundings { root: true, home: Some("/root".into()), ..Surroundings::default() };
        assert_eq!(root.config_files(), [PathBuf::from("/etc/machineid/machineid-sidecar.toml")]);
    }
}
