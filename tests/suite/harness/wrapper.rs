//! Starting `machineid-run` and looking at what it did.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::eventually;
use super::wait::until;

/// The wrapper with this socket, nothing on its input and everything it says kept.
pub(crate) fn wrapper(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid-run"));
    command.arg("--socket").arg(socket);
    for name in
        ["MACHINEID_SOCKET", "MACHINEID_RUN_ID", "MACHINEID_DEVICE_ID", "MACHINEID_ORG_KEY", "MACHINEID_BASE_URL"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that is killed when the test ends before it does.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Waits for its end and takes what it said. Its output must be small.
    pub(crate) fn finish(mut self) -> Output {
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let mut output = Output { status: status.unwrap(), stdout: Vec::new(), stderr: Vec::new() };
        if let Some(pipe) = self.0.stdout.take() {
            output.stdout = what_is_there(pipe);
        }
        if let Some(pipe) = self.0.stderr.take() {
            output.stderr = what_is_there(pipe);
        }
        output
    }
}

/// What a pipe holds now. Not up to its end: a process that wrongly survived may hold the other side open.
fn what_is_there(mut pipe: impl Read + std::os::fd::AsFd) -> Vec<u8> {
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut bytes = Vec::new();
    // Reading up to the end fails when it is not there yet; what came before is kept.
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a shell script under the wrapper to its end.
pub(crate) fn run_script(socket: &Path, flags: &[&str], script: &str) -> Output {
    Running::start(wrapper(socket).args(flags).args(["--", "sh", "-c", script])).finish()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether any living process has this text in its command line.
pub(crate) fn somebody_runs(mark: &str) -> bool {
    !with_mark(mark).is_empty()
}

/// The living processes with this text in their command line.
pub(crate) fn with_mark(mark: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A zombie's command line is empty.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// The number of the guardian, or of a PID namespace's first process, of the wrapper with this number.
pub(crate) fn guardian_of(wrapper: i32) -> i32 {
    until("the wrapper has a guardian", || {
        let comm = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        children_of(wrapper).into_iter().find(|&pid| matches!(comm(pid).trim(), "machineid-guard" | "machineid-init"))
    })
}

/// The children of this process, zombies too.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let field = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(1));
        if field == Some(parent.to_string().as_str()) {
            found.push(pid);
        }
    }
    found
}

/// Sends a signal to a process that the test knows to be its own.
pub(crate) fn send(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A number of seconds for `sleep` that no other process uses, so that the process can be found by it. A process that still has it in
/// its command line when the test ends is killed.
pub(crate) struct Mark(String);

pub(crate) fn unique_sleep() -> Mark {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    Mark(format!("8{:07}{number:03}", std::process::id()))
}

impl std::ops::Deref for Mark {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for pid in with_mark(&self.0).into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Waits until a file exists and has a whole line.
pub(crate) fn wait_for_line(path: &Path) -> String {
    let mut text = String::new();
    eventually(&format!("{} is written", path.display()), || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text
}

/// Sets a flag file; scripts and scripted daemons wait for it with [`wait_for_line`].
pub(crate) fn set_flag(path: &Path) {
    std::fs::write(path, "\n").unwrap();
}

/// Runs a Python program with these arguments to its end.
pub(crate) fn python(program: &str, arguments: &[&OsStr]) -> Output {
    let mut command = Command::new("python3");
    command.arg("-c").arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(&mut command).finish()
}
