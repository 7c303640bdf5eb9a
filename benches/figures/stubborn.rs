//! A crowd of agents that do not listen, all denied at once: how long until nothing is left of them, and what a stop costs.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon, wrapper};
use crate::common::place::Place;
use crate::common::process::Guarded;
use crate::common::report::{self, Table, milliseconds};
use crate::common::{Outcome, until};
use crate::storm::{denied_at, time_of_day};

const GRACE: Duration = Duration::from_secs(3);

/// What each agent is: a shell and two sleeps, all of which ignore SIGTERM, and hold a named pipe open for as long as they
/// live. Its arguments are the pipe and how long they sleep.
pub(crate) const AGENT: &str = r#"trap "" TERM; exec 9>"$0"; sleep 900 & sleep 900 & wait; wait; exec sleep 900"#;
/// How many processes an agent is.
const PROCESSES: usize = 3;
/// How many are started before the next wait for all of them.
const BATCH: usize = 50;

pub(crate) fn run(length: Length) -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        report::say("\nstubborn is left out: what a stop costs is told by a control group, which takes root");
        return Ok(());
    }
    let counts: &[usize] = if length == Length::Quick { &[20, 100] } else { &[20, 100, 300, 1_000] };
    let headings =
        ["containment", "agents", "deny to the last gone", "beyond the grace", "CPU a stop", "survivors told of"];
    let mut table = Table::new(
        &format!("Agents of {PROCESSES} processes that ignore SIGTERM, denied at once, grace {} s", GRACE.as_secs()),
        &headings,
    );
    for &count in counts {
        let floor = bare(count)?;
        let cells = ["one cgroup.kill, nobody supervises".to_owned(), count.to_string(), String::new(), String::new()];
        table.row(cells.into_iter().chain([milliseconds(floor), String::new()]).collect());
        for mode in ["cgroup", "subreaper", "pidns"] {
            match crowd(mode, count) {
                Ok(cells) => table.row(cells),
                Err(error) => report::say(&format!("  {mode}, {count}: {error}")),
            }
        }
    }
    table.print();
    report::say(
        "  CPU a stop is that of daemon, wrappers, guardians and the agents' own end, by the kernel's account of their \
         control group, over the number of agents. Figures to beat: grace + 0.5 s for 300, grace + 1 s for 1,000, 0.15 of \
         the CPU of 1ff8e63, no survivor.",
    );
    Ok(())
}

/// What the end of as many trees costs when nobody supervises them.
fn bare(count: usize) -> Outcome<Duration> {
    let group = Group::make()?;
    let directory = tempfile::tempdir()?;
    let (pipe, mut witness) = witness(directory.path())?;
    let mut trees = Vec::new();
    for _ in 0..count {
        let mut command = Command::new("sh");
        command.args(["-c", AGENT]).arg(&pipe).stdin(Stdio::null()).stdout(Stdio::null());
        trees.push(Guarded::start(&mut group.holding(&command))?);
    }
    until("all trees are there", || (group.processes() == PROCESSES * count).then_some(()))?;
    let before = group.cpu()?;
    group.kill();
    wait_for_end(&mut witness)?;
    for tree in &mut trees {
        until("the tree ends", || tree.has_ended().then_some(()))?;
    }
    Ok(group.cpu()?.saturating_sub(before) / u32::try_from(count)?)
}

fn crowd(mode: &str, count: usize) -> Outcome<Vec<String>> {
    let group = Group::make()?;
    let authority = Authority::start()?;
    let daemon = Daemon::start_at(&authority, Place::own(), &format!("stop_grace = \"{}s\"", GRACE.as_secs()))?;
    group.take(daemon.pid())?;
    let (pipe, mut witness) = witness(daemon.home())?;
    let said = daemon.home().join("said");
    let mut agents = Vec::with_capacity(count);
    while agents.len() < count {
        for _ in 0..BATCH.min(count - agents.len()) {
            let words = ["sh".as_ref(), "-c".as_ref(), AGENT.as_ref(), pipe.as_os_str()];
            let wrapped = daemon.wrap_with(&wrapper(), &["--containment", mode], &words);
            let mut wrapped = group.holding(&wrapped);
            wrapped.stderr(File::options().create(true).append(true).open(&said)?);
            agents.push(Guarded::start(&mut wrapped)?);
        }
        // Each has a wrapper and a guardian besides; and there is the daemon.
        let all = (PROCESSES + 2) * agents.len() + 1;
        until("all agents are there", || (group.processes() == all).then_some(()))?;
    }
    until("every agent is supervised", || (daemon.agents().ok()? == count).then_some(()))?;

    let before = group.cpu()?;
    authority.tell("revoke", DEVICE)?;
    daemon.get("/v1/check")?;
    wait_for_end(&mut witness)?;
    let ended = time_of_day();
    for agent in &mut agents {
        until("the wrapper ends", || agent.has_ended().then_some(()))?;
    }
    let cpu = group.cpu()?.saturating_sub(before);
    until("the daemon has confirmed all", || (daemon.agents().ok()? == 0).then_some(()))?;
    let denied = denied_at(&daemon.log()).ok_or("the daemon has not logged the deny")?;
    let took = ended.saturating_sub(denied);
    let by_daemon = daemon.log().lines().filter(|line| line.contains("outlived SIGKILL")).count();
    let by_wrappers = fs::read_to_string(&said)?.lines().filter(|line| line.contains("after SIGKILL")).count();
    Ok(vec![
        mode.to_owned(),
        count.to_string(),
        milliseconds(took),
        milliseconds(took.saturating_sub(GRACE)),
        milliseconds(cpu / u32::try_from(count)?),
        format!("{by_daemon} by the daemon, {by_wrappers} by wrappers"),
    ])
}

/// A named pipe, and the end of it that is read: what is at its end when nobody holds the other.
pub(crate) fn witness(directory: &Path) -> Outcome<(PathBuf, File)> {
    let pipe = directory.join("witness");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    let reader = rustix::fs::open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::ioctl_fionbio(&reader, false)?;
    Ok((pipe, File::from(reader)))
}

/// Blocks until nobody holds the other end: it costs nothing meanwhile.
pub(crate) fn wait_for_end(witness: &mut File) -> Outcome<()> {
    witness.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where control groups of version 2 are mounted.
pub(crate) fn unified_mount() -> Outcome<PathBuf> {
    let mut mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from).into_iter();
    Ok(mounts.find(|mount| mount.join("cgroup.procs").exists()).ok_or("no cgroup2 file system is mounted")?)
}

/// A control group whose processes' time the kernel counts. Everything in it is ended when dropped.
struct Group(PathBuf);

impl Group {
    fn make() -> Outcome<Self> {
        let path = unified_mount()?.join(format!("machineid-figures-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn take(&self, pid: u32) -> Outcome<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }

    /// The same command, begun in the group.
    fn holding(&self, command: &Command) -> Command {
        let mut held = Command::new("sh");
        held.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.0.join("cgroup.procs"));
        held.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                held.env(name, value);
            }
        }
        held.stdin(Stdio::null()).stdout(Stdio::null());
        held
    }

    fn processes(&self) -> usize {
        let mut open = vec![self.0.clone()];
        let mut count = 0;
        while let Some(path) = open.pop() {
            count += fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines().count();
            let below = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(below.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
        }
        count
    }

    fn cpu(&self) -> Outcome<Duration> {
        let text = fs::read_to_string(self.0.join("cpu.stat"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).ok_or("no usage in cpu.stat")?;
        Ok(Duration::from_micros(usage.trim().parse()?))
    }

    fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    fn remove(path: &Path) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            Self::remove(&entry.path());
        }
        let _ = fs::remove_dir(path);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = until("the group is empty", || (self.processes() == 0).then_some(()));
        Self::remove(&self.0);
    }
}
