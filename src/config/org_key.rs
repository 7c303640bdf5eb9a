//! The source of the org key, and reading it.

use std::fmt;
use std::path::{Path, PathBuf};

use machineid_org_key::OrgKey;
use machineid_org_key::file::{self as key_file, Pipe};

use super::error::{ConfigError, Origin};

/// The official clients' environment variable for the org key.
pub(crate) const KEY_VARIABLE: &str = "MACHINEID_ORG_KEY";
/// The name of the systemd credential.
const CREDENTIAL: &str = "org-key";
/// The content of that credential while there is no key (`SetCredential=` in the unit): a unit whose credential cannot be
/// loaded would not start, and could not report what is missing.
const MISSING: &[u8] = b"missing";

/// The source of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// The daemon's environment, which was overwritten after reading.
    Environment,
    /// A file that is read again when the authority refuses the key.
    File { path: PathBuf, origin: Origin, mode_is_the_platforms: bool },
}

impl KeySource {
    /// Whether the source is the systemd credential, and its content says that the key is still to come.
    pub(crate) fn is_awaited(&self) -> bool {
        match self {
            Self::Environment => false,
            Self::File { path, mode_is_the_platforms, .. } => {
                *mode_is_the_platforms
                    && path.ends_with(CREDENTIAL)
                    && std::fs::read(path).is_ok_and(|text| text == MISSING)
            }
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment variable MACHINEID_ORG_KEY"),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// Chooses the source: the environment, the configured file, the systemd credential.
///
/// Fails when there is no source, with how to provide one.
pub(crate) fn choose(
    from_environment: bool,
    configured: Option<&(PathBuf, Origin)>,
    credentials_directory: Option<&Path>,
) -> Result<KeySource, ConfigError> {
    if from_environment {
        return Ok(KeySource::Environment);
    }
    if let Some((path, origin)) = configured {
        let mode_is_the_platforms = path.starts_with("/run/secrets")
            || credentials_directory.is_some_and(|directory| path.starts_with(directory));
        return Ok(KeySource::File { path: path.clone(), origin: origin.clone(), mode_is_the_platforms });
    }
    if let Some(path) = credentials_directory.map(|directory| directory.join(CREDENTIAL)).filter(|path| path.exists()) {
        return Ok(KeySource::File { path, origin: Origin::Default, mode_is_the_platforms: true });
    }
    Err(ConfigError::at(
        &Origin::Default,
        "authority.org_key_file",
        "no org key: put it into a file only the daemon can read and name that file with authority.org_key_file, or give \
         the systemd credential org-key, or set MACHINEID_ORG_KEY",
    ))
}

/// Reads the key from its file.
///
/// Fails when the file cannot be read, is not a regular file, is readable by all users, or contains no key.
pub(crate) fn read_file(path: &Path, origin: &Origin, mode_is_the_platforms: bool) -> Result<OrgKey, ConfigError> {
    key_file::read(path, Pipe::Refused, mode_is_the_platforms)
        .map_err(|problem| ConfigError::at(origin, "authority.org_key_file", format!("{}: {problem}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key_file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_key_everybody_can_read_is_refused_unless_the_platform_owns_the_mode() {
        let (_directory, path) = key_file("org_secret\n", 0o644);
        let error = read_file(&path, &Origin::Default, false).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("0644"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert!(read_file(&path, &Origin::Default, true).is_ok());
    }

    #[test]
    fn what_is_in_the_file_is_never_repeated_in_an_error() {
        for text in ["sk_live_topsecret", "", "org_top secret", &"org_".repeat(2000)] {
            let (_directory, path) = key_file(text, 0o600);
            let error = read_file(&path, &Origin::Default, false).unwrap_err().to_string();
            assert!(!error.contains("top"), "{error}");
        }
    }

    #[test]
    fn a_credential_that_says_missing_is_awaited_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let credential = directory.path().join("org-key");
        let awaited = |configured: Option<&(PathBuf, Origin)>| {
            choose(false, configured, Some(directory.path())).unwrap().is_awaited()
        };
        std::fs::write(&credential, "missing").unwrap();
        assert!(awaited(None));
        let (_elsewhere, path) = key_file("missing", 0o600);
        assert!(!awaited(Some(&(path, Origin::Default))), "a file that exists is wrong, not awaited");
        for text in ["", "org_x", "missing it"] {
            std::fs::write(&credential, text).unwrap();
            assert!(!awaited(None), "{text}");
        }
    }

    #[test]
    fn a_fifo_or_a_directory_in_its_place_does_not_hang() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [directory.path(), &fifo] {
            let error = read_file(path, &Origin::Default, false).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
    }

    #[test]
    fn the_environment_beats_the_file_beats_the_credential() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("org-key"), "org_x").unwrap();
        let file = (PathBuf::from("/etc/key"), Origin::Default);
        assert_eq!(choose(true, Some(&file), Some(directory.path())), Ok(KeySource::Environment));
        assert!(matches!(choose(false, Some(&file), None), Ok(KeySource::File { path, .. }) if path == file.0));
        assert!(matches!(
            choose(false, None, Some(directory.path())),
            Ok(KeySource::File { mode_is_the_platforms: true, .. })
        ));
        assert!(choose(false, None, None).unwrap_err().to_string().contains("no org key"));
    }
}
