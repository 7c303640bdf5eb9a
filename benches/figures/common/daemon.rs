//! A running `machineid-sidecar` with the default settings, on a socket of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::authority::Authority;
use super::place::Place;
use super::process::Guarded;
use super::{Outcome, PATIENCE, clean_environment, program, until};

const BINARY: &str = env!("CARGO_BIN_EXE_machineid-sidecar");

/// The wrapper that is measured.
pub(crate) fn wrapper() -> PathBuf {
    program(env!("CARGO_BIN_EXE_machineid-run"))
}

/// The host's device at the authority.
pub(crate) const DEVICE: &str = "bench:host";

/// How old an answer the checks may be content with, in seconds: longer than the interval, so that none ever waits.
pub(crate) const MAX_AGE: u32 = 20;

pub(crate) struct Daemon {
    process: Guarded,
    place: Place,
    // Last: it goes when nothing writes to it any more.
    directory: TempDir,
}

impl Daemon {
    /// Starts it with the default settings and waits for its first decision.
    pub(crate) fn start(authority: &Authority) -> Outcome<Self> {
        Self::start_at(authority, Place::own(), "")
    }

    /// The same with another way to the authority.
    pub(crate) fn start_by_way_of(authority: &Authority, url: &str) -> Outcome<Self> {
        Self::begin(authority, url, Place::own(), "")
    }

    /// The same, run by the user that `place` names, with further lines of the section `enforcement`.
    pub(crate) fn start_at(authority: &Authority, place: Place, enforcement: &str) -> Outcome<Self> {
        Self::begin(authority, &authority.url(), place, enforcement)
    }

    fn begin(authority: &Authority, url: &str, place: Place, enforcement: &str) -> Outcome<Self> {
        let directory = in_memory()?;
        let here = directory.path();
        fs::create_dir(here.join("s"))?;
        place.open(here);
        place.open(&here.join("s"));
        place.give_to_daemon(here);
        place.give_to_daemon(&here.join("s"));
        let mut key = File::options().create_new(true).write(true).mode(0o600).open(here.join("org-key"))?;
        writeln!(key, "{}", authority.key)?;
        place.give_to_daemon(&here.join("org-key"));
        let configuration = here.join("machineid-sidecar.toml");
        fs::write(&configuration, settings(here, url, enforcement))?;
        let mut command = Command::new(place.reachable(program(BINARY)));
        clean_environment(&mut command, here);
        let log = File::create(here.join("log"))?;
        command.arg("--config").arg(configuration).stdin(Stdio::null());
        let mut command = place.as_daemon(command);
        command.stdout(Stdio::null()).stderr(log);
        let mut daemon = Self { process: Guarded::start(&mut command)?, place, directory };
        let ready = until("the daemon is ready", || {
            let ready = daemon.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"));
            (ready || daemon.process.has_ended()).then_some(ready)
        });
        if !matches!(ready, Ok(true)) {
            let log = fs::read_to_string(daemon.directory.path().join("log")).unwrap_or_default();
            return Err(format!("the daemon does not get ready; its log:\n{log}").into());
        }
        Ok(daemon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s/sidecar.sock")
    }

    /// `GET` on a connection of its own; the whole answer.
    pub(crate) fn get(&self, path: &str) -> Outcome<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// How many agents the daemon supervises.
    pub(crate) fn agents(&self) -> Outcome<usize> {
        let answer = self.get("/v1/status")?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no status")?;
        let status: serde_json::Value = serde_json::from_str(body)?;
        Ok(status["agents"].as_array().ok_or("no agents in the status")?.len())
    }

    /// The wrapper in front of a command.
    pub(crate) fn wrap(&self, command: &[&str]) -> Command {
        self.wrap_with(&wrapper(), &[], command)
    }

    /// This wrapper, with further flags.
    pub(crate) fn wrap_with(&self, wrapper: &Path, flags: &[&str], command: &[impl AsRef<OsStr>]) -> Command {
        let mut wrapper = Command::new(self.place.reachable(wrapper));
        clean_environment(&mut wrapper, self.directory.path());
        wrapper.args(flags).arg("--socket").arg(self.socket()).arg("--").args(command).stdin(Stdio::null());
        let mut wrapper = self.place.as_agent(wrapper);
        wrapper.stdout(Stdio::null());
        wrapper
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Where its commands are at home.
    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }
}

/// A directory in memory where there is one: so is `/run`, where a daemon keeps its runs.
fn in_memory() -> Outcome<TempDir> {
    Ok(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new())?)
}

/// The defaults, but for what must not be shared with another daemon, and cached checks.
fn settings(here: &Path, url: &str, enforcement: &str) -> String {
    let here = here.display();
    format!(
        "[authority]\nurl = \"{url}\"\norg_key_file = \"{here}/org-key\"\n[device]\nid = \"{DEVICE}\"\nallow = [\"bench:*\"]\n\
         [local]\nsocket = \"{here}/s/sidecar.sock\"\nruntime_dir = \"{here}/runtime\"\nmax_age_cap = \"{MAX_AGE}s\"\n\
         [enforcement]\n{enforcement}\n"
    )
}
