//! `machineid status`: what the daemon holds, knows and promises.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::socket;
use crate::cli::Env;
use crate::cli::args::StatusArgs;
use crate::cli::printer::{Colour, Line, Printer};
use crate::cli::problem::Problem;
use crate::cli::table::{self, Cell, Column};
use crate::cli::words::{ago, count, millis};
use crate::clock;
use crate::protocol::Exit;
use crate::protocol::status::{AgentReport, AgentState, DeviceReport, StandingKind, Status};
use crate::span;

const TIMEOUT: Duration = Duration::from_secs(10);

pub(in crate::cli) async fn run(args: &StatusArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let answer = socket::get(&args.socket, env, "/v1/status", &[], TIMEOUT).await.map_err(Problem::failure)?;
    let status = serde_json::from_slice::<Status>(&answer.body).ok().filter(|_| answer.status == 200);
    let Some(status) = status else {
        return Err(Problem::failure(format!(
            "what listens on {} did not answer like machineid-sidecar (HTTP {}); is it another program's socket, or a \
             daemon of another version?",
            answer.socket.display(),
            answer.status
        )));
    };
    if args.json {
        // As it came: a newer daemon may say more than this program knows.
        let whole: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        printer.json(&whole);
    } else {
        page(&status, clock::wall_now(), printer);
    }
    Ok(Exit::Success)
}

fn page(status: &Status, now: Timestamp, printer: &mut Printer) {
    printer.line(format!(
        "machineid-sidecar {}, pid {}, started {}, on {}",
        status.version,
        status.pid,
        ago(&status.started_at, now),
        status.socket
    ));
    printer.line(authority(status, now));
    if let Some(error) = &status.authority.last_error {
        printer.line(field("", error));
    }
    // Exact: a promise that is rounded down is another promise.
    let bound = status.stop_bound;
    printer.line(field(
        "stop bound",
        &format!(
            "{} while the authority answers, {} while it does not",
            span::format(Duration::from_millis(bound.connected_ms)),
            span::format(Duration::from_millis(bound.cut_off_ms))
        ),
    ));
    let configuration = &status.configuration;
    printer.line(field("configuration", configuration.file.as_deref().unwrap_or("no file: environment and defaults")));
    printer.line(field("org key", &format!("from {}; {}", configuration.key_source, configuration.key_protection)));
    printer.line("");

    for line in table::layout(
        &DEVICE_COLUMNS,
        &status.devices.iter().map(|d| device_row(d, now)).collect::<Vec<_>>(),
        printer.width(),
    ) {
        printer.line(line);
    }
    for device in &status.devices {
        if let Some(error) = &device.last_error {
            printer.line(format!("{}: {error}", device.device_id));
        }
    }
    printer.line("");

    if status.agents.is_empty() {
        printer.line("no agents run under enforcement (start one with: machineid-run -- COMMAND)");
        return;
    }
    for line in table::layout(&AGENT_COLUMNS, &status.agents.iter().map(agent_row).collect::<Vec<_>>(), printer.width())
    {
        printer.line(line);
    }
    printer.line(count(status.agents.len(), "agent", "agents"));
}

fn field(name: &str, text: &str) -> String {
    format!("{name:<14}{text}")
}

fn authority(status: &Status, now: Timestamp) -> Line {
    let authority = &status.authority;
    let mut line = Line::default();
    line.push(&field("authority", &format!("{}, ", authority.url)), None);
    match authority.reachable {
        Some(true) => line.push("answers", Some(Colour::Good)),
        Some(false) => line.push("does not answer", Some(Colour::Bad)),
        None => line.push("not asked yet", Some(Colour::Unclear)),
    }
    if let Some(at) = &authority.last_answer_at {
        line.push(&format!(", last answer {}", ago(at, now)), None);
    }
    line
}

const DEVICE_COLUMNS: [Column; 7] = [
    Column::keep("DEVICE"),
    Column::keep("STANDING"),
    Column::drop_at("SINCE", 1),
    Column::drop_at("LAST DECISION", 2),
    Column::drop_at("LEASE LEFT", 3),
    Column::drop_at("NEXT", 5),
    Column::drop_at("AGENTS", 4),
];

fn device_row(device: &DeviceReport, now: Timestamp) -> Vec<Cell> {
    let (word, colour) = match device.standing {
        StandingKind::Unknown => ("unknown", Colour::Unclear),
        StandingKind::Allowed => ("allowed", Colour::Good),
        StandingKind::Denied => ("denied", Colour::Bad),
        StandingKind::Unavailable => ("unavailable", Colour::Unclear),
    };
    let decision = device.last_decision.as_ref().map_or_else(
        || "-".to_owned(),
        |last| {
            let id = last.request_id.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
            format!("{} {}{id}", last.code, ago(&last.at, now))
        },
    );
    vec![
        Cell::new(if device.host { format!("{} (host)", device.device_id) } else { device.device_id.to_string() }),
        Cell::coloured(word, colour),
        Cell::new(ago(&device.since, now)),
        Cell::new(decision),
        Cell::new(device.lease_left_ms.map_or_else(|| "-".to_owned(), millis)),
        Cell::new(device.next_validation_ms.map_or_else(|| "now".to_owned(), |left| format!("in {}", millis(left)))),
        Cell::new(device.agents.to_string()),
    ]
}

const AGENT_COLUMNS: [Column; 8] = [
    Column::keep("AGENT"),
    Column::keep("PID"),
    Column::drop_at("DEVICE", 3),
    Column::drop_at("UPTIME", 2),
    Column::drop_at("LEASE LEFT", 4),
    Column::drop_at("CONTAINMENT", 5),
    Column::drop_at("HOLDS AGAINST", 6),
    Column::drop_at("STATE", 1),
];

fn agent_row(agent: &AgentReport) -> Vec<Cell> {
    let name = agent.name.clone().unwrap_or_else(|| agent.command.join(" ").chars().take(32).collect());
    let state = match (agent.state, &agent.stop_code) {
        (AgentState::Running, _) => Cell::coloured("running", Colour::Good),
        (AgentState::Stopping, Some(code)) => Cell::coloured(format!("stopping: {code}"), Colour::Bad),
        (AgentState::Stopping, None) => Cell::coloured("stopping", Colour::Bad),
    };
    vec![
        Cell::new(if name.is_empty() { agent.run_id.to_string() } else { name }),
        Cell::new(agent.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
        Cell::new(agent.device_id.as_str()),
        Cell::new(millis(agent.uptime_ms)),
        Cell::new(millis(agent.lease_left_ms)),
        Cell::new(&agent.containment),
        Cell::new(&agent.holds_against),
        state,
    ]
}
