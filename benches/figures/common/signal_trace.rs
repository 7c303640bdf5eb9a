//! When signals were sent, as the kernel tells: a process that is asked to stop says when it *reads* that, and a thousand of
//! them on two processors read it long after.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::Outcome;

/// A trace of every SIGTERM from now on, in a buffer of its own.
pub(crate) struct SignalTrace {
    mounted: TempDir,
    instance: String,
}

impl SignalTrace {
    /// Needs root and a kernel that traces.
    pub(crate) fn start() -> Outcome<Self> {
        let mounted = TempDir::new()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tracefs"), mounted.path(), Some("tracefs"), flags, None::<&str>)
            .map_err(|errno| format!("cannot mount tracefs: {errno}"))?;
        let trace = Self { mounted, instance: format!("machineid-{}", std::process::id()) };
        fs::create_dir(trace.file(""))?;
        // The clock that the benchmark reads as well.
        fs::write(trace.file("trace_clock"), "mono")?;
        fs::write(trace.file("events/signal/signal_generate/filter"), "sig == 15")?;
        fs::write(trace.file("events/signal/signal_generate/enable"), "1")?;
        Ok(trace)
    }

    /// By the process that it was sent to, when its first SIGTERM was, on the monotonic clock.
    pub(crate) fn sent(&self) -> Outcome<HashMap<u32, Duration>> {
        let mut sent = HashMap::new();
        for line in fs::read_to_string(self.file("trace"))?.lines() {
            if let Some((pid, at)) = parsed(line) {
                sent.entry(pid).or_insert(at);
            }
        }
        Ok(sent)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.mounted.path().join("instances").join(&self.instance).join(name)
    }
}

impl Drop for SignalTrace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.file(""));
        let _ = umount2(self.mounted.path(), MntFlags::MNT_DETACH);
    }
}

/// `enforcer-8614 [000] d..1. 26315.753740: signal_generate: sig=15 errno=0 code=0 comm=x pid=8623 grp=1 res=0`
fn parsed(line: &str) -> Option<(u32, Duration)> {
    let (head, event) = line.split_once(": signal_generate: ")?;
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let at = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    // A name of the process may hold anything, and comes before its number.
    let (_, rest) = event.rsplit_once(" pid=")?;
    Some((rest.split(' ').next()?.parse().ok()?, at))
}
