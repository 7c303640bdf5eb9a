//! The identity of a process. A pid alone is a number that will be used again; with the start time it identifies one
//! process.

use std::fmt;
use std::num::NonZeroI32;

use machineid_clock::BootTime;

/// A process id in the caller's PID namespace. Always positive: 0 and -1 address groups of processes in `kill(2)`, so
/// they cannot be written here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// Takes a positive number; `None` for anything else.
    #[must_use]
    pub const fn new(raw: i32) -> Option<Self> {
        match NonZeroI32::new(raw) {
            Some(pid) if raw > 0 => Some(Self(pid)),
            Some(_) | None => None,
        }
    }

    /// The calling process.
    #[must_use]
    pub fn own() -> Self {
        Self::from(rustix::process::getpid())
    }

    /// The number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0.get()
    }

    /// Whether this is the first process of the PID namespace, which no tree may contain.
    #[must_use]
    pub const fn is_init(self) -> bool {
        self.0.get() == 1
    }
}

impl From<rustix::process::Pid> for Pid {
    fn from(pid: rustix::process::Pid) -> Self {
        Self(pid.as_raw_nonzero())
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// When a process started, in clock ticks (1/100 s) since boot. It tells a process from a later one with the same pid:
/// the kernel does not use a number twice within a tick.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StartTime(pub u64);

impl StartTime {
    /// Whether the process started after this point, by whole ticks: within the same tick, it did not.
    #[must_use]
    pub const fn is_after(self, point: BootTime) -> bool {
        // `/proc` counts in hundredths on every platform we build for, whatever the kernel's own clock does.
        self.0 > point.as_millis() / 10
    }
}

/// Identifies one process for as long as the machine is up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    /// The process id.
    pub pid: Pid,
    /// When the process started.
    pub start: StartTime,
}
