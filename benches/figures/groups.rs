//! The stop of one agent, alone and beside one that has made 100,000 control groups, in turn.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon, wrapper};
use crate::common::place::Place;
use crate::common::process::Guarded;
use crate::common::report::{self, Table, milliseconds, ratio};
use crate::common::samples::Samples;
use crate::common::{Outcome, until, within};
use crate::storm::{denied_at, time_of_day};
use crate::stubborn::{unified_mount, wait_for_end, witness};

const GRACE: Duration = Duration::from_secs(1);

/// The agent whose stop is measured: three processes that ignore SIGTERM and hold a named pipe open for as long as they live.
const AGENT: &str = r#"trap "" TERM; exec 9>"$0"; echo up >&9; sleep 900 & sleep 900 & wait; wait; exec sleep 900"#;

/// How long 100,000 groups may take to be made, and to be removed.
const MAKING: Duration = Duration::from_mins(2);

/// Makes groups below its own, whatever limit there is, and then ignores SIGTERM. Its arguments: where control groups are
/// mounted, their number, and the file that it writes when they are made.
const GREEDY: &str = r#"trap "" TERM
leaf="$0$(sed -n 's/^0:://p' /proc/self/cgroup)"
echo max > "$leaf/cgroup.max.descendants"
cd "$leaf" && seq -f 'g%.0f' "$1" | xargs mkdir && echo "$leaf" > "$2.new" && mv "$2.new" "$2"
cd / && exec sleep 900"#;

pub(crate) fn run(length: Length) -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        report::say("\ngroups is left out: an agent's control group is its own only as root");
        return Ok(());
    }
    let groups: u32 = length.pick(100_000, 2_000);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..length.pick(5, 1) {
        alone.push(stop(None)?);
        beside.push(stop(Some(groups))?);
    }
    let (alone, beside) = (Samples::new(alone), Samples::new(beside));
    let title = format!("Stop of an agent that ignores SIGTERM, grace {} s", GRACE.as_secs());
    let headings = ["deny to its last process gone", "alone", "beside", "ratio", "figure to beat"];
    let mut table = Table::new(&title, &headings);
    for (name, percent, goal) in [("median", 50, "1.2 times at most"), ("worst", 100, "")] {
        let (alone, beside) = (alone.percentile(percent), beside.percentile(percent));
        let cells = [milliseconds(alone), milliseconds(beside), ratio(beside, alone)].to_vec();
        table.row([vec![name.to_owned()], cells, vec![goal.to_owned()]].concat());
    }
    table.print();
    report::say(&format!(
        "  Beside: another agent, denied at the same time, has {groups} control groups below its own."
    ));
    Ok(())
}

/// How long an agent's stop takes, beside one with so many groups.
fn stop(groups: Option<u32>) -> Outcome<Duration> {
    let mount = unified_mount()?;
    let authority = Authority::start()?;
    let daemon = Daemon::start_at(&authority, Place::own(), &format!("stop_grace = \"{}s\"", GRACE.as_secs()))?;
    let (pipe, mut witness) = witness(daemon.home())?;
    let mut agents = Vec::new();
    let mut leaf = None;
    if let Some(groups) = groups {
        let (made, number) = (daemon.home().join("made"), groups.to_string());
        let words =
            ["sh".as_ref(), "-c".as_ref(), GREEDY.as_ref(), mount.as_os_str(), number.as_ref(), made.as_os_str()];
        agents.push(Guarded::start(&mut daemon.wrap_with(&wrapper(), &["--containment", "cgroup"], &words))?);
        let said = within(MAKING, "the groups are made", || fs::read_to_string(&made).ok())?;
        leaf = Some(said.trim_end().to_owned());
    }
    let words = ["sh".as_ref(), "-c".as_ref(), AGENT.as_ref(), pipe.as_os_str()];
    agents.push(Guarded::start(&mut daemon.wrap_with(&wrapper(), &["--containment", "cgroup"], &words))?);
    until("every agent is supervised", || (daemon.agents().ok()? == agents.len()).then_some(()))?;
    // Before that, the pipe is at its end.
    until("the agent holds the pipe", || {
        rustix::io::ioctl_fionread(&witness).ok().filter(|bytes| *bytes > 0).map(drop)
    })?;
    authority.tell("revoke", DEVICE)?;
    daemon.get("/v1/check")?;
    wait_for_end(&mut witness)?;
    let ended = time_of_day();
    for agent in &mut agents {
        within(MAKING, "the wrapper ends", || agent.has_ended().then_some(()))?;
    }
    if let Some(leaf) = leaf {
        within(MAKING, "the groups are removed", || (!Path::new(&leaf).exists()).then_some(()))?;
    }
    let denied = denied_at(&daemon.log()).ok_or("the daemon has not logged the deny")?;
    Ok(ended.saturating_sub(denied))
}
