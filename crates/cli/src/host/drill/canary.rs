//! The canaries: processes that stay alive unless they are killed. Each is hard to kill in a different way that agents
//! also use.
//!
//! The canaries are this program under a hidden verb. Each connects to the drill's socket, where the kernel reports its
//! pid, also from inside a PID namespace, and then waits until the other end closes. So no canary outlives the drill,
//! however the drill ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use machineid_protocol::Exit;
use machineid_sys::SignalFd;

use crate::Env;
use crate::args::CanaryArgs;
use crate::role::{Role, VERB};

/// Under this name, a program with many names is the operator's command line.
const PROGRAM: &str = "machineid";

/// The canaries that stay.
pub(super) const STAYING: [Role; 4] = [Role::Leader, Role::Session, Role::Stubborn, Role::Orphan];

/// Runs a canary. It fails silently: the drill notices a missing report.
pub(crate) fn live(args: &CanaryArgs, env: Env<'_>) -> Exit {
    match attempt(args, env) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure,
    }
}

fn attempt(args: &CanaryArgs, env: Env<'_>) -> std::io::Result<()> {
    let socket = args.socket.as_path();
    // Kept open as long as this process lives: closing it would unblock the signals.
    let mut blocked = None;
    match args.role {
        Role::Leader => {
            spawn(Role::Session, socket)?;
            spawn(Role::Stubborn, socket)?;
            // The child is an orphan after this process has ended; only then does it report.
            spawn(Role::Fork, socket)?.wait()?;
        }
        Role::Stubborn => blocked = Some(SignalFd::open()?),
        Role::Fork => return spawn(Role::Orphan, socket).map(drop),
        Role::Session | Role::Orphan => {
            nix::unistd::setsid()?;
        }
    }
    let mut drill = UnixStream::connect(socket)?;
    // With nested runs the last one is this drill's.
    let run =
        env("MACHINEID_RUN_ID").unwrap_or_default().to_string_lossy().rsplit(',').next().unwrap_or_default().to_owned();
    drill.write_all(format!("{} {run}\n", args.role).as_bytes())?;
    let mut byte = [0];
    while let Err(error) = drill.read(&mut byte) {
        if error.kind() != std::io::ErrorKind::Interrupted {
            break;
        }
    }
    drop(blocked);
    Ok(())
}

fn spawn(role: Role, socket: &Path) -> std::io::Result<std::process::Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(PROGRAM).arg(VERB).arg(role.word()).arg(socket);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if role == Role::Orphan {
        command.env_clear();
    }
    command.spawn()
}

/// The command for the wrapper. `program` is this program by a path that ends in its name.
pub(super) fn command(program: &Path, socket: &Path) -> [std::ffi::OsString; 4] {
    [program.into(), VERB.into(), Role::Leader.word().into(), socket.into()]
}
