//! All agents of one daemon denied at once: how long until the last of them has its stop signal.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use machineid_sys::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::ClockId;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon};
use crate::common::process::{Guarded, Memory};
use crate::common::report::{self, Table, mebibytes, milliseconds};
use crate::common::samples::Samples;
use crate::common::signal_trace::SignalTrace;
use crate::common::{Outcome, time_on, until};

/// The first argument of the process that writes down when it is asked to stop; its file follows.
pub(crate) const NOTES_ITS_STOP: &str = "--note-the-stop";

/// How many are started before the next wait for all of them.
const BATCH: usize = 50;

/// The body of an agent: waits for SIGTERM, and writes down the time of day at which it came.
pub(crate) fn note_the_stop(arguments: &[String]) -> Outcome<()> {
    let [file] = arguments else { return Err("a file is wanted".into()) };
    let signals = SignalFd::open()?;
    let mut file = File::options().append(true).create(true).open(file)?;
    file.write_all(format!("up {}\n", std::process::id()).as_bytes())?;
    loop {
        let mut polled = [PollFd::new(&signals, PollFlags::IN)];
        let _ = poll(&mut polled, None);
        if let Some(arrived) = signals.next()?
            && arrived.signal == rustix::process::Signal::TERM.as_raw()
        {
            file.write_all(format!("{}\n", time_of_day().as_micros()).as_bytes())?;
            return Ok(());
        }
    }
}

/// The clock of the daemon's log.
pub(crate) fn time_of_day() -> Duration {
    time_on(ClockId::Realtime)
}

pub(crate) fn run(length: Length) -> Outcome<()> {
    let count = length.pick(1_000, 50);
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    let idle = Memory::of(daemon.pid())?;
    let notes = daemon.home().join("notes");
    let program = std::env::current_exe()?;
    let mut agents = Vec::with_capacity(count);
    while agents.len() < count {
        for _ in 0..BATCH.min(count - agents.len()) {
            let words = [program.as_os_str(), NOTES_ITS_STOP.as_ref(), notes.as_os_str()];
            let mut wrapped = daemon.wrap_with(&crate::common::daemon::wrapper(), &[], &words);
            agents.push(Guarded::start(wrapped.stderr(Stdio::null()))?);
        }
        until("all agents are up", || (lines(&notes, "up") == agents.len()).then_some(()))?;
    }
    until("every agent is supervised", || (daemon.agents().ok()? == count).then_some(()))?;
    let loaded = Memory::of(daemon.pid())?;

    let trace = SignalTrace::start();
    authority.tell("revoke", DEVICE)?;
    until("all have their stop signal", || (lines(&notes, "") == 2 * count).then_some(()))?;
    let denied = until("the daemon has logged the deny", || denied_at(&daemon.log()))?;
    let text = fs::read_to_string(&notes)?;
    let times = text.lines().filter_map(|line| line.parse().ok()).map(Duration::from_micros);
    let read = Samples::new(times.map(|at| at.saturating_sub(denied)).collect());
    let sent = trace.and_then(|trace| sent_after(denied, &trace, &text));
    for agent in &mut agents {
        until("the wrapper ends", || agent.has_ended().then_some(()))?;
    }
    let mut table =
        Table::new(&format!("{count} agents of one daemon denied at once"), &["what", "measured", "figure to beat"]);
    let mut row = |name: &str, cell: String, goal: &str| table.row(vec![name.to_owned(), cell, goal.to_owned()]);
    match sent {
        Ok(sent) => {
            row("deny to the first SIGTERM sent", milliseconds(sent.percentile(0)), "1 ms for one agent");
            row("deny to the median SIGTERM sent", milliseconds(sent.median()), "");
            row("deny to the last SIGTERM sent", milliseconds(sent.percentile(100)), "100 ms for 1,000");
        }
        Err(error) => report::say(&format!("  when the signals were sent is left out: {error}")),
    }
    row("deny to the first that has read it", milliseconds(read.percentile(0)), "");
    row("deny to the median that has read it", milliseconds(read.median()), "");
    row("deny to the last that has read it", milliseconds(read.percentile(100)), "");
    row("daemon, resident, idle", mebibytes(idle.resident), "16 MiB");
    row("daemon, resident, with them", mebibytes(loaded.resident), "64 MiB for 1,000");
    table.print();
    report::say(
        "  The deny is the daemon's own line in the log. The kernel tells when a signal was sent; each agent notes the \
         moment at which a processor was free for it to read that.",
    );
    Ok(())
}

/// How long after the deny each agent of these notes was sent its stop signal.
fn sent_after(denied: Duration, trace: &SignalTrace, notes: &str) -> Outcome<Samples> {
    // Both clocks are read in one breath; neither is set while this runs.
    let denied = time_on(ClockId::Monotonic).saturating_sub(time_of_day().saturating_sub(denied));
    let sent = trace.sent()?;
    let pids = notes.lines().filter_map(|line| line.strip_prefix("up ")?.parse().ok());
    let after = pids.map(|pid: u32| match sent.get(&pid) {
        Some(at) => Ok(at.saturating_sub(denied)),
        None => Err(format!("the kernel tells of no signal to {pid}")),
    });
    Ok(Samples::new(after.collect::<Result<_, _>>()?))
}

/// One agent denied, many times over.
pub(crate) fn run_alone(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    let program = std::env::current_exe()?;
    let mut after = Vec::new();
    for number in 0..length.pick(30, 5) {
        let notes = daemon.home().join(format!("notes-{number}"));
        let words = [program.as_os_str(), NOTES_ITS_STOP.as_ref(), notes.as_os_str()];
        let mut wrapped = daemon.wrap_with(&crate::common::daemon::wrapper(), &[], &words);
        let mut agent = Guarded::start(wrapped.stderr(Stdio::null()))?;
        until("the agent is up", || (lines(&notes, "up") == 1).then_some(()))?;
        until("the agent is supervised", || (daemon.agents().ok()? == 1).then_some(()))?;
        authority.tell("revoke", DEVICE)?;
        // A check is answered by a validation of its own: no check waits for the interval.
        daemon.get("/v1/check")?;
        until("it has its stop signal", || (lines(&notes, "") == 2).then_some(()))?;
        let text = fs::read_to_string(&notes)?;
        let arrived = text.lines().find_map(|line| line.parse().ok()).map(Duration::from_micros).ok_or("no time")?;
        let denied =
            until("the daemon has logged the deny", || denied_at(&daemon.log()).filter(|_| denies(&daemon) > number))?;
        after.push(arrived.saturating_sub(denied));
        until("the wrapper ends", || agent.has_ended().then_some(()))?;
        authority.tell("unrevoke", DEVICE)?;
        until("it is allowed again", || {
            daemon.get("/v1/check").is_ok_and(|answer| answer.contains(" 200 ")).then_some(())
        })?;
    }
    let after = Samples::new(after);
    let mut table = Table::new("One agent denied", &["what", "median", "p90", "figure to beat"]);
    let cells = [milliseconds(after.median()), milliseconds(after.percentile(90))];
    let [median, p90] = cells;
    table.row(vec!["deny received to SIGTERM".to_owned(), median, p90, "1 ms at the median".to_owned()]);
    table.print();
    Ok(())
}

fn denies(daemon: &Daemon) -> usize {
    daemon.log().lines().filter(|line| line.contains(" denied device_id=")).count()
}

/// Lines of a file that begin with this word.
fn lines(path: &Path, word: &str) -> usize {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(word)).count()
}

/// The time of day at the beginning of the log's last line about a deny.
pub(crate) fn denied_at(log: &str) -> Option<Duration> {
    let line = log.lines().rfind(|line| line.contains(" denied device_id="))?;
    let at: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok().map(Duration::from_micros)
}
