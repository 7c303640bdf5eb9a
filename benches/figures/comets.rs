//! How long eight comets at full speed live after SIGKILL is due, in each containment.

use std::process::Stdio;
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon, wrapper};
use crate::common::place::Place;
use crate::common::report::{self, Table, milliseconds};
use crate::common::samples::Samples;
use crate::common::shapes::{COMETS, Pace, SHAPES};
use crate::common::stages::{Scene, Staged};
use crate::common::{Outcome, PATIENCE, now, until};

const GRACE: Duration = Duration::from_millis(200);

/// As fast as it gets; bounded, since zombies without a parent fill the table of processes.
const PACE: Pace = Pace { nap: Duration::ZERO, hops: 60_000 };

pub(crate) fn run(length: Length) -> Outcome<()> {
    let mut table = Table::new(
        "Eight comets: from the time that SIGKILL is due until no process is left",
        &["containment", "median", "worst", "figure to beat"],
    );
    let shape = SHAPES.iter().find(|shape| shape.name == COMETS).ok_or("no comets among the shapes")?;
    for mode in ["cgroup", "pidns", "subreaper"] {
        let mut took = Vec::new();
        for _ in 0..length.pick(9, 3) {
            match one(mode, shape) {
                Ok(time) => took.push(time),
                Err(error) => report::say(&format!("  {mode}: {error}")),
            }
        }
        let worst = took.iter().max().copied().unwrap_or_default();
        let rounds = took.len();
        let median = Samples::new(took).median();
        let cells = [format!("{mode}, {rounds} rounds"), milliseconds(median), milliseconds(worst), "1 s".to_owned()];
        table.row(cells.to_vec());
    }
    table.print();
    Ok(())
}

fn one(mode: &str, shape: &'static crate::common::shapes::Shape) -> Outcome<Duration> {
    let authority = Authority::start()?;
    let enforcement = format!("interval = \"50ms\"\nlease = \"1m\"\nstop_grace = \"{}ms\"", GRACE.as_millis());
    let daemon = Daemon::start_at(&authority, Place::own(), &enforcement)?;
    let scene = Scene::of(&daemon, PACE)?;
    let staged = Staged::start(&scene, shape, |command| {
        let mut wrapped = daemon.wrap_with(&wrapper(), &["--containment", mode], command);
        wrapped.stderr(Stdio::null());
        wrapped
    })?;
    staged.wait_until_ready()?;
    authority.tell("revoke", DEVICE)?;
    // The daemon says when it begins; SIGKILL is due a grace later.
    until("the stop begins", || daemon.log().contains("stopping the agent").then_some(()))?;
    let due = now() + GRACE;
    if !staged.comets_end(PATIENCE) {
        return Err("comets are left".into());
    }
    Ok(now().saturating_duration_since(due))
}
