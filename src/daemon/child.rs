//! `-- COMMAND`: runs the command under a wrapper that the daemon starts.
//!
//! The wrapper is a separate process, not a part of the daemon: it ends the tree at the end of the lease even when the daemon
//! hangs or dies. It is this program under the wrapper's name, so that no other file has to be installed.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use machineid_protocol::Exit;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
}

impl Child {
    /// Starts `machineid-run --socket SOCKET -- COMMAND…` with this limit of descriptors, since the daemon has raised its
    /// own. Must be called inside the runtime.
    pub(super) fn start(command: &[OsString], socket: &Path, descriptors: Rlimit) -> io::Result<Self> {
        let ours = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, descriptors)?;
        let process = tokio::process::Command::new("/proc/self/exe")
            .arg0("machineid-run")
            .arg("--socket")
            .arg(socket)
            .arg("--")
            .args(command)
            .spawn();
        setrlimit(Resource::Nofile, ours)?;
        Ok(Self { process: process? })
    }

    /// Passes a signal to the wrapper, which passes it to the agent.
    pub(super) fn forward(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // The child is not reaped yet, so its number is still its own. It may just have ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// The wrapper's pid, until it is reaped.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Waits for the wrapper's end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> io::Result<Exit> {
        self.process.wait().await.map(exit_of)
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code().map(u8::try_from), status.signal().map(u8::try_from)) {
        (Some(Ok(code)), _) => Exit::Command(code),
        (_, Some(Ok(signal))) => Exit::Signal(signal),
        _ => Exit::Wrapper,
    }
}
