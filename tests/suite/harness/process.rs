//! Processes of a test: started, watched, and certainly ended.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use tempfile::TempDir;

use super::wait::until;

/// A wrapper with its agent. Killed when dropped, with what the test told it to look after.
pub(crate) struct Wrapped {
    child: Child,
    output: TempDir,
    ended: Option<ExitStatus>,
    members: Vec<i32>,
}

impl Wrapped {
    /// Starts a wrapper, its output going to files.
    pub(crate) fn start(mut command: Command) -> Self {
        let output = TempDir::new().unwrap();
        let file = |name: &str| File::create(output.path().join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Self { child, output, ended: None, members: Vec::new() }
    }

    /// Its input, when that was made a pipe.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.output.path().join("stdout")).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.output.path().join("stderr")).unwrap()
    }

    /// Waits for a line on stdout that holds `text`, and gives it.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        until(&format!("the agent prints {text:?}"), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.ended = Some(status);
                let found = self.stdout().lines().find(|line| line.contains(text)).map(str::to_owned);
                let (out, err) = (self.stdout(), self.stderr());
                return Some(found.unwrap_or_else(|| panic!("{status} before {text:?}\n{out}\n{err}")));
            }
            self.stdout().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Remembers processes of the tree by their pids, so that the test can see them go, and end them if they do not.
    pub(crate) fn watch(&mut self, pids: &[i32]) {
        self.members.extend(pids);
    }

    /// Waits for the wrapper's end and gives its exit code, 128 + n for a signal.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let status = match self.ended {
            Some(status) => status,
            None => until("the wrapper ends", || self.child.try_wait().unwrap()),
        };
        self.ended = Some(status);
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_some()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in self.members.iter().copied().filter(|pid| is_alive(*pid)) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the wrapper's stderr\n{}--- the agent's stdout\n{}", self.stderr(), self.stdout());
        }
    }
}

/// Whether a process can still run code; a zombie cannot.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))) else { return false };
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// The number behind `label` in a text, as in `pid 123`.
pub(crate) fn number_after(text: &str, label: &str) -> i32 {
    let at = text.find(label).unwrap_or_else(|| panic!("{label:?} is not in {text:?}"));
    let rest = text[at + label.len()..].trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {label:?} in {text:?}"))
}
