//! Process trees, control groups and namespaces on the real kernel.
//!
//! A harness of its own: these tests fork, and change what holds for a whole process (child subreaper, signal mask, control
//! group), which needs a process with one thread for each. The harness is a subreaper above them, so that whatever a test
//! leaves behind comes to it: it is ended, and the test has failed.
//!
//! Takes the usual arguments: parts of names, `--exact`, `--skip NAME`, `--list`.

#![expect(clippy::print_stdout, reason = "a test harness reports on its standard output")]

mod cgroups;
mod comets;
mod processes;
mod stops;

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_sys::{self as sys, Fork};
use machineid_tree::{Pid, Process, ProcessTable};
use rustix::process::{Signal, WaitOptions};

/// No test takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// The exit code of a test that could not run here. It has printed why.
const SKIPPED: u8 = 42;

/// What became of a test that did not fail.
pub(crate) enum Outcome {
    Passed,
    /// It needs what this machine or user does not have.
    Skipped(String),
}

/// Ends the test when it cannot run here.
macro_rules! need {
    ($result:expr, $what:literal) => {
        match $result {
            Ok(value) => value,
            Err(reason) => return $crate::Outcome::Skipped(format!("{}: {reason}", $what)),
        }
    };
}
pub(crate) use need;

type Test = (&'static str, fn() -> Outcome);

/// Lists the tests of a module by their functions.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[(&str, fn() -> $crate::Outcome)] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}
pub(crate) use tests;

fn main() -> std::process::ExitCode {
    let wanted = Wanted::from_arguments(std::env::args().skip(1));
    let all = [cgroups::TESTS, comets::TESTS, stops::TESTS].concat();
    let chosen: Vec<Test> = all.into_iter().filter(|(name, _)| wanted.includes(name)).collect();
    if wanted.list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return std::process::ExitCode::SUCCESS;
    }
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let result = run(*test);
        println!(
            "test {name} ... {}",
            result.as_ref().map_or_else(|why| format!("FAILED: {why}"), |word| (*word).to_owned())
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    println!("\n{} run, {} failed {failed:?}\n", chosen.len(), failed.len());
    if failed.is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

#[derive(Default)]
struct Wanted {
    parts: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
}

impl Wanted {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut wanted = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--skip" => wanted.skip.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                part if !part.starts_with('-') => wanted.parts.push(part.to_owned()),
                _ => {}
            }
        }
        wanted
    }

    fn includes(&self, name: &str) -> bool {
        let matches = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        (self.parts.is_empty() || self.parts.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

/// Runs one test in a process of its own.
fn run(test: fn() -> Outcome) -> Result<&'static str, String> {
    let pid = match sys::fork().expect("fork") {
        Fork::Child => {
            let code = match std::panic::catch_unwind(test) {
                Ok(Outcome::Passed) => 0,
                Ok(Outcome::Skipped(reason)) => {
                    println!("SKIPPED: {reason}");
                    SKIPPED
                }
                Err(_) => 1,
            };
            sys::exit_now(code)
        }
        Fork::Parent(pid) => pid,
    };
    let mut result = match wait_for(pid) {
        Some(0) => Ok("ok"),
        Some(code) if code == i32::from(SKIPPED) => Ok("skipped"),
        Some(code) => Err(format!("exit code {code}")),
        None => Err("it did not end, or by a signal".to_owned()),
    };
    let left = end_what_is_left();
    if !left.is_empty() && result.is_ok() {
        result = Err(format!("left processes behind: {left:?}"));
    }
    result
}

/// The exit code of a child; ends it when it takes too long.
pub(crate) fn wait_for(pid: rustix::process::Pid) -> Option<i32> {
    let process = Process::pin_any(Pid::from(pid)).ok()??;
    let limit = rustix::event::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    while rustix::event::poll(&mut fds, Some(&limit)) == Err(rustix::io::Errno::INTR) {}
    let _ = (fds[0].revents().is_empty()).then(|| process.signal(Signal::KILL));
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return status.exit_status(),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn end_what_is_left() -> Vec<Pid> {
    let began = BootTime::now();
    let mut left = Vec::new();
    while BootTime::now().saturating_since(began) < PATIENCE {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => break,
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => {}
        }
        for entry in ProcessTable::scan().expect("/proc").descendants(Pid::own()) {
            if let Ok(Some(process)) = Process::pin(entry.identity.pid, entry.identity.start) {
                left.push(entry.identity.pid);
                let _ = process.signal(Signal::KILL);
            }
        }
    }
    left.sort_unstable();
    left.dedup();
    left
}

/// Waits until `found` gives something; fails when it never does.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = BootTime::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(BootTime::now().saturating_since(began) < PATIENCE / 2, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
