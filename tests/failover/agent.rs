//! The agent: writes down that it lives, twice a second.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use machineid_clock::BootTime;

use crate::harness::let_time_pass;
use crate::harness::process::{Wrapped, is_alive};
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until_for;

/// The flag by which this program is the agent.
pub(crate) const FLAG: &str = "--be-an-agent";
const BEAT: Duration = Duration::from_millis(500);
/// Within this time an agent that lives has written.
const STARTED: Duration = Duration::from_secs(20);

/// What the agent does: its number first, then the time since boot in milliseconds, again and again.
pub(crate) fn be(file: &Path) -> ExitCode {
    let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file) else { return ExitCode::FAILURE };
    let mut line = format!("pid {}\n", std::process::id());
    while file.write_all(line.as_bytes()).is_ok() {
        let_time_pass(BEAT);
        line = format!("{}\n", BootTime::now().as_millis());
    }
    ExitCode::FAILURE
}

/// A running agent with its wrapper.
pub(crate) struct Agent {
    wrapped: Wrapped,
    beats: PathBuf,
    pid: i32,
}

impl Agent {
    /// Starts one under this sidecar and waits for its first sign of life. A stubborn one ignores SIGTERM.
    pub(crate) fn start(sidecar: &Sidecar, program: &Path, number: usize, is_stubborn: bool) -> Result<Self, String> {
        let beats = sidecar.directory().join(format!("beats-{number}"));
        File::create(&beats).map_err(|error| error.to_string())?;
        let (program, file) = (program.to_string_lossy(), beats.to_string_lossy());
        let plain = [&*program, FLAG, &*file];
        let stubborn = ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh", plain[0], plain[1], plain[2]];
        let mut wrapped = Wrapped::start(sidecar.wrap(&[], if is_stubborn { &stubborn } else { &plain }));
        let pid = until_for(STARTED, || match first_line(&beats) {
            Some(line) => Some(line.strip_prefix("pid ").and_then(|pid| pid.parse().ok())),
            None => wrapped.has_ended().then_some(None),
        });
        let Some(Some(pid)) = pid else { return Err(format!("no agent: {}", wrapped.stderr().trim())) };
        wrapped.watch(&[pid]);
        Ok(Self { wrapped, beats, pid })
    }

    pub(crate) fn is_alive(&self) -> bool {
        is_alive(self.pid)
    }

    /// Whether it is gone with its wrapper.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.wrapped.has_ended() && !self.is_alive()
    }

    /// How it ended, in words.
    pub(crate) fn end(&mut self) -> String {
        let code = if self.wrapped.has_ended() { self.wrapped.exit_code().to_string() } else { "none yet".to_owned() };
        format!("exit code {code}, {}", self.wrapped.stderr().trim().replace('\n', " / "))
    }

    /// How long ago it wrote last.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(&self.beats).ok()?;
        let last = text.lines().last()?.parse().ok()?;
        Some(BootTime::now().saturating_since(BootTime::from_millis(last)))
    }

    /// Sends its wrapper a signal, while there is one.
    pub(crate) fn signal_wrapper(&mut self, signal: rustix::process::Signal) {
        if !self.wrapped.has_ended() {
            self.wrapped.signal(signal);
        }
    }
}

fn first_line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.split_once('\n').map(|(line, _)| line.to_owned())
}
