//! `machineid status`: shows the daemon's state.

use std::time::Duration;

use jiff::Timestamp;
use machineid_clock as clock;
use machineid_protocol::local::Killer;
use machineid_protocol::outside::{counted, listed, still_running};
use machineid_protocol::status::{
    AgentReport, AgentState, AgentsShown, AuditStatus, DeviceReport, StandingKind, Status, StopReport,
};
use machineid_protocol::{Exit, HoldsAgainst, KeyRole, oom_in_words, span};
use serde_json::Value;

use super::socket::{self, DaemonAnswer, DaemonError};
use super::stop_words;
use crate::Env;
use crate::args::{SocketArgs, StatusArgs};
use crate::printer::{Colour, Line, Printer};
use crate::problem::Problem;
use crate::table::{self, Cell, Column};
use crate::words::{ago, count, millis, precise};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &StatusArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let (status, whole) = ask(&args.socket, env, TIMEOUT).await.map_err(Problem::undecided)?;
    if args.json {
        // Printed as received: a newer daemon may send more than this program knows.
        printer.json(&whole);
    } else {
        page(&status, clock::wall_now(), printer);
    }
    Ok(Exit::Success)
}

/// The daemon's status, parsed and as received.
pub(super) async fn ask(args: &SocketArgs, env: Env<'_>, timeout: Duration) -> Result<(Status, Value), DaemonError> {
    let DaemonAnswer { status: code, body, socket } = socket::get(args, env, "/v1/status", &[], timeout).await?;
    let status = serde_json::from_slice::<Status>(&body).ok().filter(|_| code == 200);
    match status {
        Some(status) => Ok((status, serde_json::from_slice(&body).unwrap_or_default())),
        None => Err(DaemonError::Foreign { socket, status: code }),
    }
}

pub(super) fn page(status: &Status, now: Timestamp, printer: &mut Printer) {
    let daemon = format!(
        "{}, pid {}, started {}, on {}",
        status.version,
        status.pid,
        ago(&status.started_at, now),
        status.socket
    );
    for line in table::hanging("machineid-sidecar ", &daemon, printer.width()) {
        printer.line(line);
    }
    for problem in &status.configuration.problems {
        for line in table::hanging("NOT IN FORCE: ", problem, printer.width()) {
            printer.line(line);
        }
    }
    if let Some(problem) = &status.files.problem {
        for line in table::hanging("FILES: ", problem, printer.width()) {
            printer.line(line);
        }
    }
    if let Some(at) = &status.files.restored_at {
        field("made again", &format!("{} ({})", status.files.restored.join(", "), ago(at, now)), printer);
    }
    if let Some(kill) = status.configuration.kill_file.as_ref().filter(|kill| kill.in_force.is_some()) {
        let why = kill.in_force.as_deref().unwrap_or_default();
        let text = format!("{why}: everything on this host is denied until it is removed");
        for line in table::hanging("KILL FILE IN FORCE: ", &text, printer.width()) {
            printer.line(line);
        }
    }
    printer.line(authority(status, now));
    if let Some(error) = &status.authority.last_error {
        field("", error, printer);
    }
    if let Some(ends) = &status.authority.key_ends {
        let mut line = Line::default();
        line.push(&format!("{:<14}", "org key"), None);
        line.push(&format!("expires at {ends}: put the new key in its place"), Some(Colour::Unclear));
        printer.line(line);
    }
    if let Some(role) = status.authority.key_role.filter(|role| *role != KeyRole::Host) {
        let mut line = Line::default();
        line.push(&format!("{:<14}", "org key"), None);
        line.push(&format!("has the role {role}: give this host a key of the role host"), Some(Colour::Unclear));
        printer.line(line);
    }
    // Exact values: a rounded promise would be a different promise.
    let bound = status.stop_bound;
    let (connected, cut_off) = (Duration::from_millis(bound.connected_ms), Duration::from_millis(bound.cut_off_ms));
    let bounds =
        format!("{} while the authority answers, {} while it does not", span::format(connected), span::format(cut_off));
    field("stop bound", &bounds, printer);
    let configuration = &status.configuration;
    field("configuration", configuration.file.as_deref().unwrap_or("no file: environment and defaults"), printer);
    field("org key", &format!("from {}; {}", configuration.key_source, configuration.key_protection), printer);
    if let Some(audit) = &status.audit {
        audit_field(audit, printer);
    }
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
    for held in &status.holds {
        let mut line = Line::default();
        line.push(&format!("{} ", held.device_id), None);
        line.push("HELD", Some(Colour::Bad));
        let since = ago(&held.since, now);
        line.push(&format!(" by uid {}, {since}; release it with: machineid release", held.by_uid), None);
        printer.line(line);
    }
    printer.line("");

    agents(status, printer);
    out_of_memory(status, now, printer);
    stops(&status.recent_stops, now, printer);
}

fn audit_field(audit: &AuditStatus, printer: &mut Printer) {
    let end = audit.last_hash.as_ref().map(|hash| format!(", ends at {hash}")).unwrap_or_default();
    field("audit", &format!("{}{end}", audit.file), printer);
    if let Some(problem) = &audit.problem {
        field("", &format!("CANNOT BE WRITTEN: {problem}"), printer);
    }
    if audit.dropped > 0 {
        field("", &format!("{} lost since the daemon's start", count_records(audit.dropped)), printer);
    }
}

fn count_records(records: u64) -> String {
    count(usize::try_from(records).unwrap_or(usize::MAX), "record", "records")
}

/// Prints a row for each agent, and its containment in a line below.
fn agents(status: &Status, printer: &mut Printer) {
    let agents = &status.agents;
    if status.agents_shown == Some(AgentsShown::None) {
        let why = "not shown: the daemon cannot tell in which PID namespace this command runs, or it runs in another user \
                   namespace. Ask on the host";
        field("agents", why, printer);
        return;
    }
    if agents.is_empty() {
        printer.line("no agents run under enforcement (start one with: machineid-run -- COMMAND)");
        return;
    }
    let rows: Vec<_> = agents.iter().map(agent_row).collect();
    let mut lines = table::layout(&AGENT_COLUMNS, &rows, printer.width()).into_iter();
    if let Some(titles) = lines.next() {
        printer.line(titles);
    }
    for (line, agent) in lines.zip(agents) {
        printer.line(line);
        for line in table::hanging("    ", &hold(agent), printer.width()) {
            printer.line(line);
        }
        if let Some(text) = size(agent) {
            for line in table::hanging("    ", &text, printer.width()) {
                printer.line(line);
            }
        }
        if let Some(text) = outside(agent) {
            for line in table::hanging("    ", &text, printer.width()) {
                printer.line(line);
            }
        }
    }
    printer.line(count(agents.len(), "agent", "agents"));
}

/// The agent's containment and its strength, whether the agent is frozen, and why the containment is no stronger.
fn hold(agent: &AgentReport) -> String {
    let against = match agent.holds_against {
        HoldsAgainst::Bugs => "holds against bugs",
        HoldsAgainst::Hostile => "holds against hostile agents",
    };
    let killer = match agent.killer {
        Killer::Daemon if agent.adopted => ", adopted: the daemon alone ends it",
        Killer::Daemon => "",
        Killer::Wrapper => ", ended by its wrapper alone",
    };
    let frozen = if agent.frozen { ", FROZEN until its device is decided" } else { "" };
    let reason = agent.containment_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}, {against}{killer}{frozen}{reason}", agent.containment)
}

/// How large the tree is, and what the kernel ended of it.
fn size(agent: &AgentReport) -> Option<String> {
    let processes = count(agent.processes?, "process", "processes");
    let memory = agent.memory_bytes.map(|bytes| format!(", {} MiB", bytes.div_ceil(1 << 20))).unwrap_or_default();
    let oom = if agent.oom_kills > 0 { format!("; {}", oom_in_words(agent.oom_kills)) } else { String::new() };
    Some(format!("{processes}{memory}{oom}"))
}

/// The agents that ended for lack of memory.
fn out_of_memory(status: &Status, now: Timestamp, printer: &mut Printer) {
    for ended in &status.recent_oom {
        let name = ended.name.clone().unwrap_or_else(|| ended.run_id.to_string());
        let text = format!("ended {}: {}", ago(&ended.at, now), oom_in_words(ended.oom_kills));
        for line in table::hanging(&format!("{name}: "), &text, printer.width()) {
            printer.line(line);
        }
    }
}

/// What the agent uses outside its tree: helpers by name, ordinary services by their number.
fn outside(agent: &AgentReport) -> Option<String> {
    let services = agent.outside.iter().filter(|helper| !helper.kind.is_helper()).count();
    let services = (services > 0).then(|| count(services, "ordinary service", "ordinary services"));
    let named = listed(&agent.outside);
    let gap = agent.outside_gap.as_ref().map(|gap| format!(" ({gap})")).unwrap_or_default();
    match (named, services) {
        (Some(named), Some(services)) => Some(format!("uses outside its tree: {named}; and {services}{gap}")),
        (Some(named), None) => Some(format!("uses outside its tree: {named}{gap}")),
        // Every agent uses some.
        (None, _) => None,
    }
}

/// The newest stops are shown last, next to the prompt.
fn stops(stops: &[StopReport], now: Timestamp, printer: &mut Printer) {
    if stops.is_empty() {
        return;
    }
    printer.line("");
    let old = stops.len().saturating_sub(SHOWN_STOPS);
    let shown: Vec<_> = stops
        .iter()
        .enumerate()
        .filter(|(at, stop)| *at >= old || !stop.confirmed || !stop.outside.is_empty())
        .collect();
    let rows: Vec<_> = shown.iter().map(|(_, stop)| stop_row(stop, now)).collect();
    for line in table::layout(&STOP_COLUMNS, &rows, printer.width()) {
        printer.line(line);
    }
    if shown.len() < stops.len() {
        printer.line(format!("and {} confirmed before (all: --json)", stops.len() - shown.len()));
    }
    for stop in stops {
        for left in &stop.survivors {
            let name = stop.name.clone().unwrap_or_else(|| stop.run_id.to_string());
            printer.line(format!("{name}: pid {} outlived SIGKILL: {}", left.pid, left.reason));
        }
    }
    for (_, stop) in &shown {
        if let Some(left) = still_running(&stop.outside) {
            let name = stop.name.clone().unwrap_or_else(|| stop.run_id.to_string());
            printer.line(format!("{name}: stopped; {left}"));
        }
    }
}

fn field(name: &str, text: &str, printer: &mut Printer) {
    for line in table::hanging(&format!("{name:<14}"), text, printer.width()) {
        printer.line(line);
    }
}

fn authority(status: &Status, now: Timestamp) -> Line {
    let authority = &status.authority;
    let mut line = Line::default();
    line.push(&format!("{:<14}{}, ", "authority", authority.url), None);
    match authority.reachable {
        Some(true) => line.push("answers", Some(Colour::Good)),
        Some(false) => line.push("does not answer", Some(Colour::Bad)),
        None => line.push("not asked yet", Some(Colour::Unclear)),
    }
    if let Some(at) = &authority.last_answer_at {
        line.push(&format!(", last answer {}", ago(at, now)), None);
    }
    if authority.push {
        line.push(", says when to ask", None);
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
        Cell::new(match (device.host, device.workload) {
            (true, _) => format!("{} (host)", device.device_id),
            (false, true) => format!("{} (workload)", device.device_id),
            (false, false) => device.device_id.to_string(),
        }),
        Cell::coloured(word, colour),
        Cell::new(ago(&device.since, now)),
        Cell::new(decision),
        Cell::new(device.lease_left_ms.map_or_else(|| "-".to_owned(), millis)),
        Cell::new(device.next_validation_ms.map_or_else(|| "now".to_owned(), |left| format!("in {}", millis(left)))),
        Cell::new(device.agents.to_string()),
    ]
}

const AGENT_COLUMNS: [Column; 6] = [
    Column::keep("AGENT"),
    Column::keep("PID"),
    Column::drop_at("DEVICE", 3),
    Column::drop_at("UPTIME", 2),
    Column::drop_at("LEASE LEFT", 4),
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
        state,
    ]
}

/// Confirmed stops beyond this number are left out of the page; unconfirmed ones are always shown.
const SHOWN_STOPS: usize = 8;

const STOP_COLUMNS: [Column; 7] = [
    Column::keep("STOPPED"),
    Column::keep("RESULT"),
    Column::drop_at("CODE", 1),
    Column::drop_at("BEGAN", 2),
    Column::drop_at("TOOK", 3),
    Column::drop_at("MECHANISM", 4),
    Column::drop_at("PROCESSES", 5),
];

/// A stop is confirmed only when no process of the tree is left.
fn stop_row(stop: &StopReport, now: Timestamp) -> Vec<Cell> {
    let result = match (stop.confirmed, counted(&stop.outside)) {
        (true, None) => Cell::coloured("confirmed", Colour::Good),
        (true, Some(helpers)) => Cell::coloured(format!("confirmed, {helpers}"), Colour::Unclear),
        (false, _) => Cell::coloured(stop_words::survivors(stop), Colour::Bad),
    };
    vec![
        Cell::new(stop.name.clone().unwrap_or_else(|| stop.run_id.to_string())),
        result,
        Cell::new(stop.code.as_str()),
        Cell::new(ago(&stop.began_at, now)),
        Cell::new(precise(stop.took_ms)),
        Cell::new(stop_words::mechanism(stop)),
        Cell::new(stop_words::processes(stop)),
    ]
}
