//! `machineid status --watch`: keeps the page up to date; without a terminal, prints a line for each change.

use std::time::Duration;

use machineid_clock as clock;
use machineid_protocol::Exit;
use machineid_protocol::status::{AgentState, StandingKind, Status};

use super::interrupt::Interrupt;
use super::status;
use crate::Env;
use crate::args::StatusArgs;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::count;

/// The pause between two queries.
const PAUSE: Duration = Duration::from_secs(1);
/// The limit for one answer of the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &StatusArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let interrupt = Interrupt::watch();
    let mut interrupt = interrupt.map_err(|error| Problem::failure(format!("cannot watch for Ctrl-C: {error}")))?;
    let mut shown = String::new();
    let mut first = true;
    loop {
        let answer = tokio::select! {
            answer = status::ask(&args.socket, env, TIMEOUT) => answer,
            _ = interrupt.arrived() => return Ok(Exit::Success),
        };
        match answer {
            // A failure of the first query is an error; later the daemon may be restarting.
            Err(why) if first => return Err(Problem::undecided(why)),
            Err(why) => tell(&format!("no answer: {why}"), &mut shown, printer),
            Ok((_, whole)) if args.json => printer.json_line(&whole),
            Ok((status, _)) if printer.can_draw() => {
                printer.begin_page();
                status::page(&status, clock::wall_now(), printer);
                printer.draw_page();
            }
            Ok((status, _)) => tell(&summary(&status), &mut shown, printer),
        }
        first = false;
        if !printer.flush() {
            return Ok(Exit::Success);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {},
            _ = interrupt.arrived() => return Ok(Exit::Success),
        }
    }
}

/// Prints a line, unless it is the same as the last one.
fn tell(text: &str, shown: &mut String, printer: &mut Printer) {
    if printer.can_draw() {
        printer.begin_page();
        printer.line(text);
        printer.draw_page();
    } else if text != shown {
        printer.line(format!("{}  {text}", clock::wall_now().strftime("%Y-%m-%dT%H:%M:%SZ")));
        text.clone_into(shown);
    }
}

/// The important facts, in a line that changes only when they do.
fn summary(status: &Status) -> String {
    let devices = status.devices.iter().map(|device| {
        let standing = match device.standing {
            StandingKind::Unknown => "unknown".to_owned(),
            StandingKind::Allowed => "allowed".to_owned(),
            StandingKind::Unavailable => "unavailable".to_owned(),
            StandingKind::Denied => match &device.last_decision {
                Some(last) => format!("denied ({})", last.code),
                None => "denied".to_owned(),
            },
        };
        format!("{} {standing}", device.device_id)
    });
    let mut parts: Vec<String> = devices.collect();
    parts.extend(status.holds.iter().map(|hold| format!("{} HELD", hold.device_id)));
    let running = |state| status.agents.iter().filter(|agent| agent.state == state).count();
    parts.push(count(running(AgentState::Running), "agent", "agents"));
    match running(AgentState::Stopping) {
        0 => {}
        stopping => parts.push(format!("{stopping} stopping")),
    }
    let survivors: usize = status.recent_stops.iter().map(|stop| stop.survivors.len()).sum();
    if survivors > 0 {
        parts.push(count(survivors, "SURVIVOR", "SURVIVORS"));
    }
    if status.authority.reachable == Some(false) {
        parts.push("the authority does not answer".to_owned());
    }
    parts.join(", ")
}
