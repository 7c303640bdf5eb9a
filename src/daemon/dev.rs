//! `--dev`: starts an authority with an organisation and a key of its own, all in a private directory that is removed at the
//! end.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_authority::{Embedded, PlanTier};
use machineid_protocol::{DeviceId, Exit, shell_word};
use machineid_sockets::{PortHolder, holder_of};

use super::Fatal;
use super::reload::SettingsSource;
use super::sidecar::{Devices, Sidecar, in_runtime, keep_secrets};
use crate::config::org_key::KeySource;
use crate::config::{self, Origin, Settings, Surroundings};
use crate::local::activation::HandedSockets;

/// The preferred port of the authority; if it is taken, any other.
const PORT: u16 = 8424;

/// Faster than the built-in defaults: a user who tries a revoke should not have to wait.
const SETTINGS: &str = r#"
[authority]
timeout = "2s"
[device]
allow = ["*"]
[enforcement]
interval = "1s"
lease = "10s"
stop_grace = "3s"
[local]
mode = "0600"
[log]
level = "warn"
"#;

/// How long the authority stays after a deny has ended the command: `revoke --wait` polls twice in that time and sees the
/// stop confirmed.
const AFTER_DENY: Duration = Duration::from_secs(1);

/// Runs the daemon with its own authority, and `command` if there is one.
pub(super) fn run(command: Vec<OsString>) -> Result<Exit, Fatal> {
    machineid_sys::check_proc().map_err(|problem| Fatal::Proc(problem.into()))?;
    keep_secrets()?;
    let directory = PrivateDirectory::make()?;
    in_runtime(async {
        let (authority, taken) = start_authority(&directory.path).await?;
        let result = serve(&authority, taken.as_ref(), &directory.path, command).await;
        if matches!(&result, Ok(exit) if exit.code() == Exit::Denied.code()) {
            tokio::time::sleep(AFTER_DENY).await;
        }
        authority.end().await;
        result
    })
}

/// The authority, and what has the preferred port if it is another one.
async fn start_authority(directory: &Path) -> Result<(Embedded, Option<PortHolder>), Fatal> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = async |port| Embedded::start(address(port), directory, "dev", PlanTier::Max).await;
    match start(PORT).await {
        Ok(authority) => Ok((authority, None)),
        // Most likely another `--dev` uses the port.
        Err(_) => Ok((start(0).await?, holder_of(address(PORT)))),
    }
}

async fn serve(
    authority: &Embedded,
    taken: Option<&PortHolder>,
    directory: &Path,
    command: Vec<OsString>,
) -> Result<Exit, Fatal> {
    let settings = settings(authority, directory)?;
    machineid_log::init(settings.log.format, settings.log.level);
    machineid_log::tell_panics();
    let device = device()?;
    let key_file = directory.join("host-key");
    for (path, key) in [(&directory.join("org-key"), &authority.org_key), (&key_file, &authority.host_key)] {
        let written = write_private(path, &format!("{}\n", key.expose()), 0o600);
        written.map_err(Fatal::io(format!("write {}", path.display())))?;
    }
    hand_out_commands(authority, directory, &settings.local.socket)
        .map_err(Fatal::io(format!("write the commands into {}", directory.display())))?;
    let key_source = KeySource::File { path: key_file, origin: Origin::Default, mode_is_the_platforms: false };
    let (key, source) = (authority.host_key.clone(), SettingsSource::BuiltIn);
    let devices = Devices { host: device.clone(), workload: None };
    let sidecar = Sidecar::start(source, settings, devices, key, key_source, HandedSockets::default())?;
    let banner = banner(authority, directory, &sidecar.settings(), &device, !command.is_empty(), taken);
    let _ = io::stderr().lock().write_all(banner.as_bytes());
    sidecar.serve(command).await
}

fn settings(authority: &Embedded, directory: &Path) -> Result<Settings, Fatal> {
    // Everything is in the private directory: no file of the user is read or written.
    let around = Surroundings {
        root: false,
        home: None,
        xdg_runtime_dir: Some(directory.to_owned()),
        xdg_state_home: Some(directory.to_owned()),
        state_directory: None,
        groups: String::new(),
        users: String::new(),
        runtime_directories: Vec::new(),
    };
    let url = authority.url.clone();
    let env = move |name: &str| (name == "MACHINEID_BASE_URL").then(|| url.clone());
    let mut settings = config::settings::resolve(Some((Path::new("--dev"), SETTINGS)), &env, &around)?;
    settings.local.socket = directory.join("sidecar.sock");
    settings.file = None;
    Ok(settings)
}

fn device() -> Result<DeviceId, Fatal> {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let hostname: String = config::host_facts().hostname.chars().take(64).map(fit).collect();
    Ok(format!("dev:{hostname}").parse()?)
}

/// Writes `machineid`, `machineid-run` and `machineid-authority` as small scripts that set the environment for this instance.
fn hand_out_commands(authority: &Embedded, directory: &Path, socket: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let programs = directory.join("bin");
    DirBuilder::new().mode(0o700).create(&programs)?;
    for name in ["machineid", "machineid-run", "machineid-authority"] {
        symlink(&program, programs.join(name))?;
        let mut script = String::from("#!/bin/sh\n");
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(script, "{name}={value}; export {name}");
        };
        set("MACHINEID_SOCKET", &shell_word(&socket.to_string_lossy()));
        if name == "machineid" {
            set("MACHINEID_BASE_URL", &shell_word(&authority.url));
            set("MACHINEID_ORG_KEY", &format!("$(cat {})", shell_word(&directory.join("org-key").to_string_lossy())));
        }
        if name == "machineid-authority" {
            // `serve` names a database of its own.
            let database = format!("sqlite:{}", authority.database.display());
            let database = shell_word(&database);
            let _ = writeln!(script, "case $1 in org|backup|console-link) set -- \"$@\" --database {database};; esac");
        }
        let _ = writeln!(script, "exec {} \"$@\"", shell_word(&programs.join(name).to_string_lossy()));
        write_private(&directory.join(name), &script, 0o700)?;
    }
    Ok(())
}

fn write_private(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

fn banner(
    authority: &Embedded,
    directory: &Path,
    settings: &Settings,
    device: &DeviceId,
    has_command: bool,
    taken: Option<&PortHolder>,
) -> String {
    let bound = settings.stop_bound().connected.as_secs() + 1;
    let taken = taken.map(|holder| format!(" ({holder} uses port {PORT})")).unwrap_or_default();
    // Nothing in a directory that is mounted with `noexec` can be executed, but a shell can read it.
    let shell = if is_noexec(directory) { "sh " } else { "" };
    let dir = format!("{shell}{}", directory.display());
    let mut text = format!(
        "machineid-sidecar --dev: an authority, an organisation and its keys for trying it out, removed when this ends (with \
         Ctrl-C, or with its terminal).\n\n  \
         authority  {}{taken}\n  device     {device}\n  socket     {}\n\nType in a second terminal, to\n",
        authority.url,
        settings.local.socket.display(),
    );
    let mut row = |purpose: &str, command: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {purpose}:\n    {command}");
    };
    if !has_command {
        row("run a command under enforcement, here one that waits", format!("{dir}/machineid-run -- sleep 600"));
    }
    row(
        &format!("stop the agent and everything it started, within {bound} seconds"),
        format!("{dir}/machineid revoke {device}"),
    );
    row("allow it again (which starts nothing by itself)", format!("{dir}/machineid unrevoke {device}"));
    row("see what runs, and on what lease", format!("{dir}/machineid status"));
    row("see it in a browser", format!("{dir}/machineid-authority console-link"));
    row("switch the whole organisation off", format!("{dir}/machineid-authority org disable {}", authority.org_id));
    text.push_str("\nAgents here run as your own user and could read the key: this is for trying it out only.\n\n");
    text
}

fn is_noexec(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|about| about.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// A directory that is removed with its contents when dropped.
struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    fn make() -> Result<Self, Fatal> {
        let base = std::env::temp_dir();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..16 {
            let path = base.join(format!("machineid-dev-{:04x}", fastrand::u16(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) => last = error,
            }
        }
        Err(Fatal::io(format!("make a private directory below {}", base.display()))(last))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // A directory left behind contains nothing that still works.
        let _ = fs::remove_dir_all(&self.path);
    }
}
