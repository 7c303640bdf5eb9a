//! One scenario, played without the wrapper and with it in every containment that can be had here.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode};
use tempfile::TempDir;

use super::terminal::Terminal;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{Running, wrapper};

/// How a command is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Without the wrapper: what everything else is measured against.
    Bare,
    /// With nothing said about containment.
    Plain,
    /// With this word behind `--containment`.
    Contained(&'static str),
}

impl Way {
    /// The wrapper's flags.
    pub(super) fn flags(self) -> Vec<&'static str> {
        match self {
            Self::Bare | Self::Plain => Vec::new(),
            Self::Contained(mode) => vec!["--containment", mode],
        }
    }

    /// Every way to be wrapped that works here. What does not is said once, on stderr.
    pub(super) fn wrapped() -> &'static [Self] {
        static HERE: OnceLock<Vec<Way>> = OnceLock::new();
        HERE.get_or_init(|| {
            let daemon = ScriptedDaemon::allowing();
            let works = |way: &Self| {
                let output = Running::start(wrapper(&daemon.socket()).args(way.flags()).args(["--", "true"])).finish();
                let line = String::from_utf8_lossy(&output.stderr).into_owned();
                match output.status.code() {
                    Some(0) => true,
                    Some(125) => {
                        eprintln!("SKIPPED, not available here: {way:?}: {line}");
                        false
                    }
                    code => panic!("{way:?}: {code:?}: {line}"),
                }
            };
            let named = ["subreaper", "cgroup", "pidns"].map(Self::Contained);
            [Self::Plain].into_iter().chain(named).filter(works).collect()
        })
    }
}

/// One playing of a scenario, in a directory of its own.
pub(super) struct Case {
    pub(super) way: Way,
    socket: PathBuf,
    directory: TempDir,
    _daemon: Option<ScriptedDaemon>,
}

impl Case {
    /// With a daemon that allows everything.
    pub(super) fn allowed(way: Way) -> Self {
        let daemon = ScriptedDaemon::allowing();
        Self { way, socket: daemon.socket(), directory: tempfile::tempdir().unwrap(), _daemon: Some(daemon) }
    }

    /// With a daemon the test brings.
    pub(super) fn asking(way: Way, socket: PathBuf) -> Self {
        Self { way, socket, directory: tempfile::tempdir().unwrap(), _daemon: None }
    }

    pub(super) fn is_wrapped(&self) -> bool {
        self.way != Way::Bare
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the scenario's shells and agents are started.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What stands in front of a command: the wrapper's words, or nothing.
    pub(super) fn words(&self) -> Vec<String> {
        self.words_with(&[])
    }

    pub(super) fn words_with(&self, flags: &[&str]) -> Vec<String> {
        if !self.is_wrapped() {
            return Vec::new();
        }
        let socket = self.socket.to_str().unwrap();
        let words = [env!("CARGO_BIN_EXE_machineid-run"), "--socket", socket].into_iter();
        words.chain(self.way.flags()).chain(flags.iter().copied()).chain(["--"]).map(str::to_owned).collect()
    }

    /// The same as the beginning of a shell's line.
    pub(super) fn run(&self) -> String {
        self.words().join(" ")
    }

    /// A command that is wrapped when this case is, in the case's directory.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let all: Vec<String> = self.words().into_iter().chain(words.iter().map(|word| (*word).to_owned())).collect();
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).current_dir(self.directory()).env("LC_ALL", "C");
        command
    }

    /// Writes a file into the case's directory and gives its path as a word of the shell.
    pub(super) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A pipe called `go` for agents that wait with `read x <go`: not by looking again and again, since a shell that is
    /// stopped in the middle of starting `sleep` may not be able to end.
    pub(super) fn gate(&self) -> Gate {
        let path = self.path("go");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        Gate(File::options().read(true).write(true).open(path).unwrap())
    }

    /// A Python program as the words of a shell that run it.
    pub(super) fn python(&self, program: &str) -> String {
        format!("{} -ES {}", python(), self.file("agent.py", program))
    }

    /// An interactive shell on a terminal of its own.
    pub(super) fn terminal(&self) -> Terminal {
        Terminal::open(self)
    }
}

/// What an agent waits at.
pub(super) struct Gate(File);

impl Gate {
    /// Lets one agent through.
    pub(super) fn open(&self) {
        (&self.0).write_all(b"\n").unwrap();
    }
}

/// The interpreter itself: what `PATH` finds may be a script that looks for it, for longer than the test takes.
pub(super) fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    })
}

/// Plays a scenario in every wrapped way.
pub(super) fn in_every_way(play: impl Fn(&Case)) {
    for &way in Way::wrapped() {
        eprintln!("--- {way:?}");
        play(&Case::allowed(way));
    }
}

/// Plays a scenario without the wrapper and in every wrapped way, and demands that what it observes is the same. Gives
/// what was observed.
#[track_caller]
pub(super) fn same_as_without(play: impl Fn(&Case) -> String) -> String {
    eprintln!("--- {:?}", Way::Bare);
    let without = play(&Case::allowed(Way::Bare));
    for &way in Way::wrapped() {
        eprintln!("--- {way:?}");
        assert_eq!(play(&Case::allowed(way)), without, "{way:?}, and on the right without the wrapper");
    }
    without
}
