//! Processes of ours, and what the kernel tells about any.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Outcome, until};

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Guarded(Child);

impl Guarded {
    pub(crate) fn start(command: &mut Command) -> Outcome<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to end; [`Drop`] does not ask.
    pub(crate) fn terminate(&self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Unreaped until here, so the number is still its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// What only `smaps_rollup` knows.
    pub(crate) exact: Option<Exact>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact {
    pub(crate) proportional: u64,
    pub(crate) private_dirty: u64,
}

impl Memory {
    /// From `smaps_rollup`. A process that is not dumpable, as ours are, shows that to root alone; else from `status`,
    /// whose counters may be off by some dozens of pages.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            && let (Some(resident), Some(proportional), Some(private_dirty)) =
                (kib(&text, "Rss:"), kib(&text, "Pss:"), kib(&text, "Private_Dirty:"))
        {
            return Ok(Self { resident, exact: Some(Exact { proportional, private_dirty }) });
        }
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = kib(&text, "VmRSS:").ok_or("the kernel does not tell how much memory a process has")?;
        Ok(Self { resident, exact: None })
    }
}

fn kib(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

/// Processor time of a process so far, user and system, in steps of 10 ms.
pub(crate) fn processor_time(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    // Fields 14 and 15 of the line; the third is the first behind the name.
    let (user, system) = ticks(11).zip(ticks(12)).ok_or("/proc/<pid>/stat is not what it should be")?;
    Ok(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// The memory of a program that was started just now and then sleeps, once it no longer changes: before that it is still
/// what forked it, or being loaded.
pub(crate) fn settled_memory(pid: u32, name: &str) -> Outcome<Memory> {
    let mut before = 0;
    until(&format!("process {pid} becomes {name} and settles"), || {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let memory = Memory::of(pid).ok()?;
        if comm.trim_end() == name && memory.resident == before {
            return Some(memory);
        }
        before = memory.resident;
        thread::sleep(Duration::from_millis(50));
        None
    })
}
