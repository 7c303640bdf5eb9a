//! A running `machineid-sidecar`, and what asks it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::authority::Org;
use super::place::Place;
use super::programs::program as program_at;
use super::wait::{PATIENCE, until, until_for};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_machineid-sidecar");

/// Everything a daemon of its own needs, in a directory of its own. Quick settings, so that tests are quick.
pub(crate) struct Setup {
    pub(crate) directory: TempDir,
    pub(crate) device: String,
    /// Lines of the configuration, by section.
    pub(crate) authority: String,
    pub(crate) devices: String,
    pub(crate) enforcement: String,
    pub(crate) local: String,
    pub(crate) place: Place,
    /// What the daemon is started with, such as `prlimit`. It must become the daemon.
    pub(crate) starter: Vec<String>,
    /// More of the daemon's environment.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// What it has for its input, to be taken by the starter.
    pub(crate) input: Option<OwnedFd>,
}

impl Setup {
    /// For a device of this organisation at this authority.
    pub(crate) fn new(url: &str, key: &str, device: &str) -> Self {
        let directory = TempDir::new().unwrap();
        write_key(&directory.path().join("org-key"), key);
        Self {
            device: device.to_owned(),
            authority: format!("url = \"{url}\"\ntimeout = \"2s\""),
            devices: String::new(),
            enforcement: "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"2s\"".to_owned(),
            local: String::new(),
            place: Place::own(),
            starter: Vec::new(),
            variables: Vec::new(),
            input: None,
            directory,
        }
    }

    pub(crate) fn of(org: &Org<'_>, url: &str, device: &str) -> Self {
        Self::new(url, &org.key, device)
    }

    /// With daemon and agents run by the users that this names.
    pub(crate) fn at(mut self, place: Place) -> Self {
        place.open(self.directory.path());
        place.give_to_daemon(self.directory.path());
        place.give_to_daemon(&self.key_file());
        if place.is_mixed() {
            self.local.push_str("\nmode = \"0666\"");
        }
        self.place = place;
        self
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.directory.path().join("org-key")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s/sidecar.sock")
    }

    /// Writes the configuration file and gives its path.
    pub(crate) fn configuration(&self) -> PathBuf {
        let path = self.directory.path().join("machineid-sidecar.toml");
        let here = self.directory.path().display();
        let of_socket = self.directory.path().join("s");
        fs::create_dir_all(&of_socket).unwrap();
        self.place.open(&of_socket);
        self.place.give_to_daemon(&of_socket);
        let text = format!(
            "[authority]\norg_key_file = \"{here}/org-key\"\n{}\n[device]\nid = \"{}\"\n{}\n[enforcement]\n{}\n\
             [local]\nsocket = \"{here}/s/sidecar.sock\"\nruntime_dir = \"{here}/runtime\"\n{}\n[log]\nlevel = \"debug\"\n",
            self.authority, self.device, self.devices, self.enforcement, self.local
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// The command that starts the daemon, with nothing of this test's environment that could change it.
    pub(crate) fn command(&self) -> Command {
        let program = self.place.reachable(program_at(BINARY));
        let mut command = match self.starter.split_first() {
            None => Command::new(program),
            Some((starter, arguments)) => {
                let mut command = Command::new(starter);
                command.args(arguments).arg(program);
                command
            }
        };
        command.arg("--config").arg(self.configuration()).stdin(Stdio::null());
        clean_environment(&mut command, self.directory.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(input) = &self.input {
            command.stdin(input.try_clone().unwrap());
        }
        self.place.as_daemon(command)
    }

    /// Starts the daemon and waits until it has had its first decision.
    pub(crate) fn start(self) -> Sidecar {
        let sidecar = self.start_unready();
        until("the daemon is ready", || (sidecar.get("/readyz")?.status == 200).then_some(()));
        sidecar
    }

    /// Starts the daemon with its log going there, and waits until it has had its first decision.
    pub(crate) fn start_logging_to(self, log: Stdio) -> Sidecar {
        let child = self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let sidecar = Sidecar { child, setup: self };
        until("the daemon is ready", || (sidecar.get("/readyz")?.status == 200).then_some(()));
        sidecar
    }

    /// Starts the daemon by this command of its own, logging as always, and waits until it has had its first decision.
    pub(crate) fn start_by(self, command: &mut Command) -> Sidecar {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let sidecar = Sidecar { child, setup: self };
        until("the daemon is ready", || (sidecar.get("/readyz")?.status == 200).then_some(()));
        sidecar
    }

    /// Starts the daemon and waits until its socket answers.
    pub(crate) fn start_unready(self) -> Sidecar {
        let child = self.launch();
        let sidecar = Sidecar { child, setup: self };
        until("the daemon answers on its socket", || sidecar.get("/healthz"));
        sidecar
    }

    fn launch(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }
}

/// A key file as it should be.
pub(crate) fn write_key(path: &Path, key: &str) {
    let _ = fs::remove_file(path);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{key}").unwrap();
}

/// Only what every program needs; a home and a runtime directory of the test's own.
pub(crate) fn clean_environment(command: &mut Command, directory: &Path) {
    #[expect(clippy::disallowed_methods, reason = "passes the search path on")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", directory).env("STATE_DIRECTORY", directory.join("state"));
}

/// How long a daemon may take to end by itself what is left of its test's runs, before it is killed.
const PARTING: Duration = Duration::from_secs(10);

/// A running daemon. Ended when dropped, with what is left of runs whose wrappers are gone: control groups above all.
pub(crate) struct Sidecar {
    child: Child,
    setup: Setup,
}

/// An answer on the socket.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Sidecar {
    pub(crate) fn socket(&self) -> PathBuf {
        self.setup.socket()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.setup.directory.path()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.setup.place
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.setup.key_file()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// `GET`; `None` while nothing answers.
    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        exchange(&self.socket(), &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    pub(crate) fn check(&self) -> Answer {
        self.get("/v1/check").expect("the daemon answers")
    }

    pub(crate) fn status(&self) -> Value {
        self.get("/v1/status").expect("the daemon answers").json()
    }

    /// The operator's command line for this host.
    pub(crate) fn machineid(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program_at(env!("CARGO_BIN_EXE_machineid")));
        clean_environment(&mut command, self.directory());
        command.args(arguments).env("MACHINEID_SOCKET", self.socket()).stdin(Stdio::null()).output().unwrap()
    }

    /// The wrapper in front of a command, ready to be started.
    pub(crate) fn wrap(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut wrapper = Command::new(self.place().reachable(program_at(env!("CARGO_BIN_EXE_machineid-run"))));
        clean_environment(&mut wrapper, self.directory());
        wrapper.args(flags).arg("--socket").arg(self.socket()).arg("--").args(command).stdin(Stdio::null());
        self.place().as_agent(wrapper)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        until("the daemon ends after SIGTERM", || self.child.try_wait().unwrap())
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its settings, for the next start.
    pub(crate) fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// Starts it again with its settings as they are now, after its end.
    pub(crate) fn start_again(&mut self) {
        self.child = self.setup.launch();
        until("the daemon answers again", || self.get("/healthz"));
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(rustix::process::Signal::TERM);
            until_for(PARTING, || self.child.try_wait().ok().flatten());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
    }
}

/// One request on a unix socket, as written; `None` when nothing answers.
pub(crate) fn exchange(socket: &Path, request: &str) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// Makes a file readable as this mode says.
pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
