//! The configuration: file, environment and host facts, resolved into typed and consistent [`Settings`].
//!
//! [`mod@file`] defines the syntax, [`settings`] the meaning; only this module reads files and the environment. [`Live`]
//! holds the settings in force, [`changes`] determines what a reload may change, and [`watch`] reports when files may have
//! changed.

mod accounts;
pub(crate) mod changes;
mod client_pattern;
mod device_template;
mod error;
mod file;
mod live;
pub(crate) mod org_key;
mod paths;
#[cfg(test)]
mod reference;
mod rules;
pub(crate) mod settings;
pub(crate) mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use accounts::group_id;
pub(crate) use device_template::{HostFacts, expand as expand_device_id};
pub(crate) use error::{ConfigError, Origin};
pub(crate) use live::{Following, Live};
pub(crate) use paths::Surroundings;
pub(crate) use rules::{Rules, StopTerms, SystemUnavailable};
pub(crate) use settings::Settings;

/// The largest configuration file, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// The process's environment.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    get: fn(&str) -> Option<OsString>,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub(crate) fn of_process() -> Self {
        Self { get: |name| std::env::var_os(name) }
    }

    /// Refuses variables that set an identity (key, device, authority) and are not valid text: treating them as absent would
    /// silently give this host another identity.
    fn check(&self) -> Result<(), ConfigError> {
        let named = [org_key::KEY_VARIABLE, settings::URL_VARIABLE, settings::ID_VARIABLE];
        let torn = named.into_iter().find(|name| self.named(name).is_some_and(|value| value.to_str().is_none()));
        torn.map_or(Ok(()), |name| {
            Err(ConfigError::at(&Origin::Environment(name), name, "is not valid UTF-8; correct it or unset it"))
        })
    }

    /// The text of a variable; `None` if it is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).and_then(|value| value.into_string().ok())
    }

    /// The value of a variable, unless it is empty.
    pub(crate) fn named(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// The value of a variable, if it is an absolute path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        (self.get)(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The absolute paths in a variable, separated by colons.
    fn paths(&self, name: &str) -> Vec<PathBuf> {
        let text = (self.get)(name).unwrap_or_default();
        std::env::split_paths(&text).filter(|path| path.is_absolute()).collect()
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            root: rustix::process::geteuid().is_root(),
            home: self.path("HOME"),
            xdg_runtime_dir: self.path("XDG_RUNTIME_DIR"),
            xdg_state_home: self.path("XDG_STATE_HOME"),
            state_directory: self.path("STATE_DIRECTORY"),
            // An unreadable file counts as empty.
            groups: std::fs::read_to_string("/etc/group").unwrap_or_default(),
            users: std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
            runtime_directories: self.paths("RUNTIME_DIRECTORY"),
        }
    }
}

/// Finds, reads and resolves the configuration: the named file, otherwise `MACHINEID_CONFIG`, otherwise the first default
/// file that exists.
///
/// Fails with a [`ConfigError`], also when a named file does not exist. A default file need not exist.
pub(crate) fn load(named: Option<&Path>, environment: &Environment) -> Result<Settings, ConfigError> {
    load_by(named, environment, read)
}

fn load_by(
    named: Option<&Path>,
    environment: &Environment,
    read: impl Fn(&Path) -> Result<String, ConfigError>,
) -> Result<Settings, ConfigError> {
    environment.check()?;
    let around = environment.surroundings();
    let text_of = |path: PathBuf| read(&path).map(|text| (path, text));
    let named = named.map(Path::to_owned).or_else(|| from_environment(environment));
    let file = match named {
        Some(path) => Some(text_of(path)?),
        None => around.config_files().into_iter().find(|path| is_there(path)).map(text_of).transpose()?,
    };
    let file = file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
    settings::resolve(file, &|name| environment.text(name), &around)
}

/// Relative to the working directory, as `--config` is: a named file must not be replaced by another one.
fn from_environment(environment: &Environment) -> Option<PathBuf> {
    environment.named("MACHINEID_CONFIG").map(PathBuf::from)
}

/// The file that was read, otherwise those that [`load`] would look for.
pub(crate) fn files(running: &Settings, environment: &Environment) -> Vec<PathBuf> {
    match running.file.clone().or_else(|| from_environment(environment)) {
        Some(file) => vec![std::path::absolute(&file).unwrap_or(file)],
        None => environment.surroundings().config_files(),
    }
}

/// Reads and resolves the configuration again: the file that was read before, otherwise the one that [`load`] finds.
///
/// Fails as [`load`] does, and when the file is empty or gone. That would mean the built-in defaults, but it is also what a
/// write in two steps or a full disk leaves behind.
pub(crate) fn load_again(running: &Settings, environment: &Environment) -> Result<Settings, ConfigError> {
    let Some(path) = &running.file else { return load_by(None, environment, read_again) };
    environment.check()?;
    let text = read_again(path)?;
    if text.trim().is_empty() {
        let problem = "the configuration is empty, as after a write that failed; if the built-in defaults are meant, \
                       put a comment into it";
        return Err(ConfigError::in_file(path, 0, problem));
    }
    settings::resolve(Some((path, &text)), &|name| environment.text(name), &environment.surroundings())
}

/// Only "no such file" counts as absent: a file without permission, or a dangling link, causes an error on opening, not the
/// built-in defaults.
fn is_there(path: &Path) -> bool {
    let absent = [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory];
    std::fs::symlink_metadata(path).map_or_else(|error| !absent.contains(&error.kind()), |_| true)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let wrong = |problem: String| ConfigError::in_file(path, 0, problem);
    let file = std::fs::File::open(path).map_err(|error| wrong(format!("cannot open the configuration: {error}")))?;
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("cannot read the configuration: {error}")))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(wrong(format!("the configuration is larger than {LARGEST} bytes")));
    }
    Ok(text)
}

/// Reads the file while the daemon runs: a pipe was read to its end at the start, and must not be waited for now.
fn read_again(path: &Path) -> Result<String, ConfigError> {
    let wrong = |error: ReadError| ConfigError::in_file(path, 0, format!("cannot read the configuration: {error}"));
    String::from_utf8(read_whole(path, LARGEST).map_err(wrong)?).map_err(|_| wrong(ReadError::NotUtf8))
}

/// Why a file cannot be read. The caller names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {largest} bytes")]
    TooLarge { largest: u64 },
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// Reads a regular file of at most `largest` bytes. A pipe in its place is not waited for.
pub(crate) fn read_whole(path: &Path, largest: u64) -> Result<Vec<u8>, ReadError> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // The open file is checked, so that the checked file is the one that is read.
    if !file.metadata()?.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    (&mut file).take(largest + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > largest) {
        return Err(ReadError::TooLarge { largest });
    }
    Ok(bytes)
}

/// The facts of this host that `device.id` may name.
pub(crate) fn host_facts() -> HostFacts {
    HostFacts {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        machine_id: std::fs::read_to_string("/etc/machine-id").ok(),
    }
}

pub(crate) fn read_text(path: &std::path::Path, text: &str) -> Result<Settings, ConfigError> {
    let around = Surroundings { root: true, ..Surroundings::default() };
    settings::resolve(Some((path, text)), &|_| None, &around)
}

pub(crate) fn glob_matches(pattern: &str, id: &machineid_protocol::DeviceId) -> bool {
    pattern.parse().is_ok_and(|pattern: machineid_protocol::DevicePattern| pattern.matches(id))
}
