//! Processes for the tests: agents, and those that hold them.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_sys::{self as sys, Fork, ForkError, ForkOptions, SignalFd};
use machineid_tree::{
    Advance, FirstSignal, Identity, Next, Pid, Process, ProcessEntry, ProcessTable, Stop, StopSummary, Tree,
};
use nix::unistd::Pid as RawPid;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitOptions};

use crate::until;

pub(crate) const GRACE: Duration = Duration::from_millis(300);

/// A child in a process group of its own that does this and exits.
pub(crate) fn child(body: impl FnOnce()) -> Identity {
    child_with(ForkOptions::default(), body).expect("fork")
}

/// A child that begins elsewhere; see [`child`].
pub(crate) fn child_with(options: ForkOptions<'_>, body: impl FnOnce()) -> Result<Identity, ForkError> {
    match sys::fork_with(options)? {
        Fork::Child => {
            let _ = nix::unistd::setpgid(RawPid::from_raw(0), RawPid::from_raw(0));
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            sys::exit_now(u8::from(done.is_err()))
        }
        Fork::Parent(pid) => {
            let number = RawPid::from_raw(pid.as_raw_pid());
            let _ = nix::unistd::setpgid(number, number);
            Ok(identity(Pid::from(pid)))
        }
    }
}

pub(crate) fn identity(pid: Pid) -> Identity {
    ProcessEntry::read(pid).expect("/proc").expect("a living process").identity
}

pub(crate) fn own() -> Identity {
    identity(Pid::own())
}

pub(crate) fn is_alive(identity: Identity) -> bool {
    ProcessTable::scan().expect("/proc").is_alive(identity)
}

/// Waits for ever, until killed; SIGTERM has no effect.
pub(crate) fn linger() -> ! {
    linger_after(|| {})
}

/// The same, doing this as soon as SIGTERM has no effect.
pub(crate) fn linger_after(say: impl FnOnce()) -> ! {
    let _blocked = SignalFd::open().expect("signalfd");
    say();
    loop {
        std::thread::sleep(Duration::from_mins(1));
    }
}

/// Something that is said once, from one process to another.
pub(crate) struct Word {
    read: OwnedFd,
    write: OwnedFd,
}

impl Word {
    pub(crate) fn new() -> Self {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("pipe");
        Self { read, write }
    }

    pub(crate) fn say(&self) {
        std::fs::File::from(self.write.try_clone().expect("dup")).write_all(b"!").expect("a listener");
    }

    /// Waits until it has been said. Fails when it never will be.
    pub(crate) fn hear(self) {
        drop(self.write);
        std::fs::File::from(self.read).read_exact(&mut [0]).expect("the word");
    }
}

/// Becomes a subreaper, as a wrapper is.
pub(crate) fn become_subreaper() {
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
}

/// Reaps whatever has ended.
pub(crate) fn reap() {
    while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
}

/// Reaps until there is nothing left to reap, as a guardian does that its wrapper keeps waiting.
pub(crate) fn reap_all() {
    while !matches!(rustix::process::wait(WaitOptions::empty()), Err(rustix::io::Errno::CHILD)) {}
}

/// A subreaper that starts this child, and ends when nothing is left below it.
pub(crate) fn guardian(body: impl FnOnce()) -> Identity {
    guardian_with(ForkOptions::default(), body).expect("fork")
}

/// A guardian that begins elsewhere; see [`guardian`].
pub(crate) fn guardian_with(options: ForkOptions<'_>, body: impl FnOnce()) -> Result<Identity, ForkError> {
    child_with(options, || {
        let _blocked = SignalFd::open().expect("signalfd");
        become_subreaper();
        child(body);
        reap_all();
    })
}

/// The one child that this process has or will have.
pub(crate) fn child_of(parent: Identity) -> Identity {
    until("a child", || ProcessTable::scan().expect("/proc").children(parent.pid).next().map(|entry| entry.identity))
}

pub(crate) fn begin(tree: Tree, grace: Duration) -> Stop {
    Stop::begin(BootTime::now(), tree, Signal::TERM, FirstSignal::Ours, grace)
}

/// Advances until it is over, reaping as a wrapper does.
pub(crate) fn finish(stop: Stop) -> StopSummary {
    carry_on(stop, true)
}

/// The same for a caller that looks at process tables only.
pub(crate) fn finish_by_tables(stop: Stop) -> StopSummary {
    carry_on(stop, false)
}

fn carry_on(mut stop: Stop, advances: bool) -> StopSummary {
    let began = BootTime::now();
    loop {
        let now = BootTime::now();
        assert!(now.saturating_since(began) < Duration::from_secs(20), "still there: {:?}", stop.report(now));
        reap();
        let advance = if advances { stop.advance(now) } else { Advance::NeedsTable };
        let next = match advance {
            Advance::Empty => return stop.report(BootTime::now()),
            Advance::Next(next) => next,
            Advance::NeedsTable => {
                let deadline = advances.then(|| stop.table_deadline(now)).flatten();
                match ProcessTable::scan_until(deadline) {
                    Err(rustix::io::Errno::TIME) => continue,
                    table => stop.step(now, &table.expect("/proc")),
                }
            }
        };
        match next {
            Next::Over => return stop.report(BootTime::now()),
            Next::LookAt(when) => std::thread::sleep(when.saturating_since(BootTime::now())),
        }
    }
}

/// Ends a helper of the test's own, and waits until it has been reaped.
pub(crate) fn kill(identity: Identity) {
    if let Ok(Some(process)) = Process::pin(identity.pid, identity.start) {
        let _ = process.signal(Signal::KILL);
    }
    wait_for_end(identity);
}

/// Waits until it has ended and been reaped.
pub(crate) fn wait_for_end(identity: Identity) {
    until("the end of a process", || {
        reap();
        ProcessTable::scan().expect("/proc").find(identity).is_none().then_some(())
    });
}
