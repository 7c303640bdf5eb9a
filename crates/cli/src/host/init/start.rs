//! Starting the daemon and an authority of one's own: by their units where systemd has them, else as processes of their own.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use machineid_org_key::OrgKey;
use machineid_protocol::shell_word;
use serde::Deserialize;

use super::files::{InitPlace, Made};
use crate::Env;
use crate::args::SocketArgs;
use crate::host::socket;
use crate::host::wrapper;
use crate::problem::Problem;

/// How often to look whether something has begun, and how long.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 600;

/// Where systemd looks for units.
const UNITS: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const USER_UNITS: [&str; 3] = ["/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"];

/// How a program is started here, now and after a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `systemctl enable --now UNIT…`, of the system.
    System,
    /// The same for a user's manager.
    User,
    /// As a process, by whatever starts programs here.
    Process,
}

impl Way {
    /// The way to start `unit` here.
    pub(super) fn of(unit: &str, place: &InitPlace, env: Env<'_>) -> Self {
        let has = |directories: &[&str]| directories.iter().any(|one| Path::new(one).join(unit).exists());
        if place.alone {
            return Self::Process;
        }
        if place.system {
            let booted = Path::new("/run/systemd/system").exists();
            return if booted && has(&UNITS) { Self::System } else { Self::Process };
        }
        let manager = env("XDG_RUNTIME_DIR").is_some_and(|place| Path::new(&place).join("systemd/private").exists());
        if manager && has(&USER_UNITS) { Self::User } else { Self::Process }
    }

    fn systemctl(&self) -> Option<&'static str> {
        match self {
            Self::System => Some("systemctl enable --now"),
            Self::User => Some("systemctl --user enable --now"),
            Self::Process => None,
        }
    }
}

/// A program that can be started.
#[derive(Debug)]
pub(super) struct Service {
    way: Way,
    /// For systemd.
    units: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    variable: Option<(&'static str, PathBuf)>,
    log: PathBuf,
}

/// A service that was started.
#[derive(Debug)]
pub(super) enum StartedDaemon {
    Unit,
    Process(Child),
}

impl StartedDaemon {
    /// Ends what was started, when a later step fails. A unit stays: its log tells more.
    pub(super) fn undo(self) {
        match self {
            Self::Unit => {}
            Self::Process(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Service {
    pub(super) fn daemon(place: &InitPlace, env: Env<'_>) -> Result<Self, Problem> {
        Ok(Self {
            way: Way::of("machineid-sidecar.service", place, env),
            units: "machineid-sidecar",
            program: program("machineid-sidecar", env)?,
            arguments: vec!["--config".into(), place.config.display().to_string()],
            variable: place.alone.then(|| ("STATE_DIRECTORY", place.directory.join("state"))),
            log: place.directory.join("machineid-sidecar.log"),
        })
    }

    pub(super) const fn way(&self) -> &Way {
        &self.way
    }

    /// What a user types, or puts where this host starts programs.
    pub(super) fn line(&self) -> String {
        if let Some(systemctl) = self.way.systemctl() {
            return format!("{systemctl} {}", self.units);
        }
        let mut words: Vec<String> = Vec::new();
        words.extend(
            self.variable.iter().map(|(name, value)| format!("{name}={}", shell_word(&value.to_string_lossy()))),
        );
        words.push(shell_word(&self.program.to_string_lossy()));
        words.extend(self.arguments.iter().map(|one| shell_word(one)));
        words.join(" ")
    }

    /// Has the daemon read its configuration, with the key, and start nothing.
    pub(super) fn check(&self, place: &InitPlace) -> Result<(), Problem> {
        let mut command = self.command();
        if self.way == Way::System {
            // systemd will hand the key over like this.
            command.env("CREDENTIALS_DIRECTORY", &place.directory);
        }
        let output = command.arg("--check-config").output();
        let output =
            output.map_err(|error| Problem::failure(format!("cannot run {}: {error}", self.program.display())))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Problem::failure(format!("{}; nothing was kept", said.trim())))
    }

    pub(super) fn start(&self) -> Result<StartedDaemon, Problem> {
        if let Some(systemctl) = self.way.systemctl() {
            let line = self.line();
            let mut words = systemctl.split(' ').chain(self.units.split(' '));
            let status = Command::new(words.next().unwrap_or_default()).args(words).stdin(Stdio::null()).status();
            return match status {
                Ok(status) if status.success() => Ok(StartedDaemon::Unit),
                Ok(status) => Err(Problem::failure(format!("{line} failed ({status}); systemctl status tells why"))),
                Err(error) => Err(Problem::failure(format!("cannot run {line}: {error}"))),
            };
        }
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log);
        let log = opened.map_err(|error| Problem::failure(format!("cannot write {}: {error}", self.log.display())))?;
        // In a group of its own: the terminal's keys and its end are not meant for it.
        let child = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn();
        let child =
            child.map_err(|error| Problem::failure(format!("cannot run {}: {error}", self.program.display())))?;
        Ok(StartedDaemon::Process(child))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some((name, value)) = &self.variable {
            command.env(name, value);
        }
        command
    }

    /// Fails when the process has ended, with the last line of its log.
    fn still_runs(&self, started: &mut StartedDaemon) -> Result<(), Problem> {
        let StartedDaemon::Process(child) = started else { return Ok(()) };
        if matches!(child.try_wait(), Ok(None)) {
            return Ok(());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing");
        let (program, log) = (self.program.display(), self.log.display());
        Err(Problem::failure(format!("{program} has ended: {last}; its log is {log}")))
    }

    /// Waits until the daemon has a decision.
    pub(super) async fn wait_for_decision(
        &self,
        started: &mut StartedDaemon,
        args: &SocketArgs,
        env: Env<'_>,
    ) -> Result<(), Problem> {
        for _ in 0..LOOKS {
            self.still_runs(started)?;
            let answer = socket::get(args, env, "/readyz", &[], Duration::from_secs(2)).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        // doctor, which comes next, says why.
        Ok(())
    }
}

/// An authority of the user's own: started, with an organisation, the operator's key and this host's.
#[derive(Debug)]
pub(super) struct OwnAuthority {
    pub(super) url: String,
    pub(super) service: Service,
    pub(super) started: StartedDaemon,
}

/// What `org create` prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    org_id: String,
    org_api_key: String,
}

/// Starts it, and makes the keys: the operator's, which may do everything, and this host's, of the role host.
pub(super) async fn own_authority(
    place: &InitPlace,
    devices: &str,
    made: &mut Made,
    env: Env<'_>,
) -> Result<OwnAuthority, Problem> {
    let way = Way::of("machineid-authority.service", place, env);
    let home = match way {
        Way::System => PathBuf::from("/var/lib/machineid-authority"),
        Way::User | Way::Process => place.directory.join("authority"),
    };
    let (database, api) = match way {
        Way::System => (home.join("authority.db"), PathBuf::from("/run/machineid-authority/api.sock")),
        Way::User | Way::Process => (home.join("authority.db"), home.join("api.sock")),
    };
    let database = format!("sqlite:{}", database.display());
    let url = format!("unix:{}", api.display());
    // Its packages have no unit for a user.
    let way = if way == Way::System { way } else { Way::Process };
    if way == Way::Process {
        Made::directory(&home, 0o700)?;
    }
    let service = Service {
        way,
        units: "machineid-authority.socket machineid-authority.service",
        program: program("machineid-authority", env)?,
        arguments: ["serve", "--listen", &url, "--database", &database].map(str::to_owned).into(),
        variable: None,
        log: home.join("authority.log"),
    };
    let mut started = service.start()?;
    match make_keys(&service, &mut started, place, &database, devices, made).await {
        Ok(()) => Ok(OwnAuthority { url, service, started }),
        Err(problem) => {
            started.undo();
            Err(problem)
        }
    }
}

async fn make_keys(
    service: &Service,
    started: &mut StartedDaemon,
    place: &InitPlace,
    database: &str,
    devices: &str,
    made: &mut Made,
) -> Result<(), Problem> {
    let org = |arguments: &[&str]| {
        let output = Command::new(&service.program).args(["org", "--database", database]).args(arguments).output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", service.program.display()))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    };
    let mut looks = 0;
    while let Err(why) = org(&["list"]) {
        service.still_runs(started)?;
        looks += 1;
        if looks > LOOKS {
            return Err(Problem::failure(why));
        }
        tokio::time::sleep(LOOK).await;
    }
    let created = org(&["create", "--name", "own", "--plan", "max", "--json"]).map_err(Problem::failure)?;
    let unusable = || Problem::failure(format!("{} org create printed no organisation", service.program.display()));
    let created: Created = serde_json::from_slice(&created).map_err(|_| unusable())?;
    let admin: OrgKey = created.org_api_key.parse().map_err(|_| unusable())?;
    made.key(&place.admin_key(), &admin)?;
    let key = place.key.display().to_string();
    let create = ["key", "create", &created.org_id, "--role", "host", "--devices", devices, "--name", "hosts"];
    org(&[&create[..], &["--key-file", &key]].concat()).map_err(Problem::failure)?;
    made.add(place.key.clone());
    Ok(())
}

fn program(name: &str, env: Env<'_>) -> Result<PathBuf, Problem> {
    wrapper::program(name, env).ok_or_else(|| {
        Problem::failure(format!("{name} is neither beside this program nor on the search path; install it"))
    })
}
