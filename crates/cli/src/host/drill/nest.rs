//! The drill's own directory, and the canaries that have reported there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use machineid_clock::BootTime;
use machineid_protocol::RunId;
use machineid_sys as sys;
use machineid_tree::{Delivery, Pid, Process, ProcessTable};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::Env;
use crate::role::Role;

/// How long a canary may take to write its line after it has connected.
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory with a link to this program, the socket and the wrapper's output. Removed when dropped.
#[derive(Debug)]
pub(super) struct Nest {
    directory: PathBuf,
    listener: UnixListener,
}

/// A canary that has reported. It waits while its connection is open, and then ends by itself.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) role: Role,
    /// The pid as seen from here, regardless of its own PID namespace.
    pub(super) pid: Pid,
    /// The run id in its environment.
    pub(super) run: Option<RunId>,
    process: Process,
    _connection: UnixStream,
}

impl Nest {
    pub(super) fn make(env: Env<'_>) -> io::Result<Self> {
        let above = env("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or("/tmp".into());
        let unique = RunId::random().map_err(io::Error::from)?.to_string();
        let directory = above.join(format!("machineid-drill-{}", &unique[..12]));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let fill = || {
            symlink(std::env::current_exe()?, directory.join("machineid"))?;
            UnixListener::bind(directory.join("nest"))
        };
        match fill() {
            Ok(listener) => Ok(Self { directory, listener }),
            Err(error) => {
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("nest")
    }

    /// The path of this program under its own name.
    pub(super) fn program(&self) -> PathBuf {
        self.directory.join("machineid")
    }

    /// Creates a file for the wrapper's output. A pipe would be kept open by survivors.
    pub(super) fn words(&self) -> io::Result<File> {
        File::create_new(self.directory.join("words"))
    }

    /// The wrapper's output.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.directory.join("words")).unwrap_or_default().trim().to_owned()
    }

    /// The next canary that reports. Cancel-safe between two canaries.
    pub(super) async fn next(&self) -> io::Result<Canary> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if let Some(canary) = tokio::time::timeout(PATIENCE, hear(stream)).await.ok().flatten() {
                return Ok(canary);
            }
        }
    }

    /// Every living process with this directory in its command line, except this one: canaries that never reported, and
    /// the wrapper with its guardian.
    pub(super) fn still_here(&self) -> Vec<Process> {
        use std::os::unix::ffi::OsStrExt;
        let mark = self.directory.as_os_str().as_bytes();
        let Ok(table) = ProcessTable::scan() else { return Vec::new() };
        let own = Pid::own();
        let named = |pid: Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(mark.len()).any(|window| window == mark)
        };
        let ours = table.entries().iter().filter(|entry| entry.is_alive() && entry.identity.pid != own);
        ours.map(|entry| entry.identity)
            .filter(|identity| named(identity.pid))
            .filter_map(|identity| Process::pin(identity.pid, identity.start).ok().flatten())
            .collect()
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The canary that connected: its pid from the kernel, and its role from its own line.
async fn hear(stream: UnixStream) -> Option<Canary> {
    let pid = Pid::new(sys::peer_credentials(&stream).ok()?.pid)?;
    let process = match sys::peer_pidfd(&stream).ok()? {
        Some(pidfd) => Process::from_pidfd(pid, pidfd).ok()??,
        None => Process::pin_any(pid).ok()??,
    };
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    let (role, run) = line.trim_end_matches('\n').split_once(' ')?;
    let role = Role::from_str(role, false).ok()?;
    Some(Canary { role, pid, run: run.parse().ok(), process, _connection: reader.into_inner() })
}

impl Canary {
    /// Waits for the end of the process, and returns the time of it.
    pub(super) fn watch(&self) -> io::Result<impl Future<Output = (Pid, BootTime)> + Send + 'static> {
        let pid = self.pid;
        let watched = sys::watch(self.process.as_fd().try_clone_to_owned()?)?;
        Ok(async move {
            // Fails only when the runtime is shutting down.
            let _ = watched.readable().await;
            (pid, BootTime::now())
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.process.has_exited().unwrap_or(false)
    }

    /// Releases the canary, and kills it if it is still alive.
    pub(super) fn end(self) {
        let _ = self.process.signal(Signal::KILL);
    }
}

/// Kills a process. Fails with its pid if that is not permitted.
pub(super) fn kill(process: &Process) -> Result<(), Pid> {
    match process.signal(Signal::KILL) {
        Ok(Delivery::NotPermitted) | Err(_) => Err(process.identity().pid),
        Ok(Delivery::Sent | Delivery::Gone) => Ok(()),
    }
}
