//! Who is left of a tree that was stopped: under our four containments, as root and as an ordinary user, and under the
//! wrappers people use instead.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon, wrapper};
use crate::common::place::{Place, is_root};
use crate::common::report::{self, Table};
use crate::common::shapes::{Pace, SHAPES};
use crate::common::stages::{Scene, Staged};
use crate::common::{Outcome, until};
use crate::start::installed;

const ENFORCEMENT: &str = "interval = \"500ms\"\nlease = \"1m\"\nstop_grace = \"500ms\"";

/// Quick enough to be a comet, and not so quick that the others under the same stop are measured by it.
const PACE: Pace = Pace { nap: Duration::from_millis(5), hops: 4_000 };

/// From the end of the grace to the count.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Ours: revoked. The others: SIGTERM, and SIGKILL a second after it, as a service manager does.
    Stop,
    /// SIGKILL to the wrapper.
    WrapperKilled,
}

/// A column.
enum Under {
    Ours { mode: &'static str, ordinary: bool },
    Tool { words: Vec<OsString> },
}

struct Column {
    heading: String,
    under: Under,
}

pub(crate) fn run(_: Length) -> Outcome<()> {
    let columns = columns();
    for (event, title) in [
        (Event::Stop, "Survivors of a stop (ours: revoked; others: SIGTERM, then SIGKILL to the wrapper)"),
        (Event::WrapperKilled, "Survivors when the wrapper gets SIGKILL"),
    ] {
        let mut headings = vec!["tree".to_owned()];
        let mut rows: Vec<Vec<String>> = SHAPES.iter().map(|shape| vec![shape.name.to_owned()]).collect();
        for column in &columns {
            match survivors(&column.under, event) {
                Ok(cells) => {
                    headings.push(column.heading.clone());
                    rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
                }
                Err(error) => report::say(&format!("  {} is left out: {error}", column.heading)),
            }
        }
        if headings.len() == 1 {
            return Err("nothing could be measured".into());
        }
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut table = Table::new(title, &headings);
        for row in rows {
            table.row(row);
        }
        table.print();
    }
    report::say(
        "  root and user: who runs daemon, wrapper and agent. Killing both supervisors at once, or leaving the control",
    );
    report::say("  group, is beyond what subreaper and a cgroup of the agent's own user promise to hold.");
    Ok(())
}

fn columns() -> Vec<Column> {
    let mut columns = Vec::new();
    for (ordinary, who) in [(false, "root"), (true, "user")] {
        if !is_root() && !ordinary {
            continue;
        }
        for mode in ["auto", "cgroup", "pidns", "subreaper"] {
            columns.push(Column { heading: format!("{mode}/{who}"), under: Under::Ours { mode, ordinary } });
        }
    }
    for (program, flags) in
        [("timeout", &["-k", "1", "600"][..]), ("tini", &["-s", "-g", "--"]), ("dumb-init", &["--"])]
    {
        match installed(program) {
            Some(path) => {
                let flags = flags.iter().map(OsString::from);
                let words = std::iter::once(path.into_os_string()).chain(flags).collect();
                columns.push(Column { heading: program.to_owned(), under: Under::Tool { words } });
            }
            None => report::say(&format!("  {program} is not installed, so it is not compared with")),
        }
    }
    columns
}

/// A cell for each shape.
fn survivors(under: &Under, event: Event) -> Outcome<Vec<String>> {
    let authority = Authority::start()?;
    let place = match under {
        Under::Ours { mode, ordinary: true } if is_root() => match *mode {
            "auto" | "cgroup" => Place::ordinary_delegated().ok_or("no control group available")?,
            _ => Place::ordinary(),
        },
        Under::Ours { .. } | Under::Tool { .. } => Place::own(),
    };
    let daemon = Daemon::start_at(&authority, place, ENFORCEMENT)?;
    if let Under::Ours { mode, .. } = under {
        let mut probe = daemon.wrap_with(&wrapper(), &["--containment", mode], &["true"]);
        let output = probe.stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
        }
    }
    let scene = Scene::of(&daemon, PACE)?;
    let mut staged = Vec::new();
    for shape in SHAPES {
        staged.push(Staged::start(&scene, shape, |command| match under {
            Under::Ours { mode, .. } => {
                let mut wrapped = daemon.wrap_with(&wrapper(), &["--containment", mode], command);
                wrapped.stderr(Stdio::null());
                wrapped
            }
            Under::Tool { words } => {
                let mut tool = Command::new(&words[0]);
                tool.args(&words[1..]).args(command);
                tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                tool
            }
        })?);
    }
    staged.iter().try_for_each(Staged::wait_until_ready)?;
    staged.iter().try_for_each(Staged::go)?;
    stop(under, event, &authority, &mut staged)?;
    // What dies of itself has died by then, and what a stop has missed is left.
    std::thread::sleep(PATIENCE);
    Ok(staged.iter().map(Staged::survivors).collect())
}

fn stop(under: &Under, event: Event, authority: &Authority, staged: &mut [Staged]) -> Outcome<()> {
    let send = |staged: &mut [Staged], signal: Signal| {
        for one in staged.iter_mut() {
            if !one.supervisor.has_ended() {
                let _ = kill_process(Pid::from_child(one.supervisor.child()), signal);
            }
        }
    };
    match (event, under) {
        (Event::WrapperKilled, _) => send(staged, Signal::KILL),
        (Event::Stop, Under::Ours { .. }) => authority.tell("revoke", DEVICE)?,
        (Event::Stop, Under::Tool { .. }) => {
            send(staged, Signal::TERM);
            std::thread::sleep(Duration::from_millis(1_500));
            send(staged, Signal::KILL);
        }
    }
    // One that does not end has survivors to show.
    let all_ended = || staged.iter_mut().all(|one| one.supervisor.has_ended()).then_some(());
    let _ = until("the wrappers end", all_ended);
    Ok(())
}
