//! `machineid events`: shows the daemon's events on this host.

use std::time::Duration;

use machineid_protocol::event::{AgentName, AgentStop, Event, Happening, ReloadResult, Source};
use machineid_protocol::outside::still_running;
use machineid_protocol::status::StandingKind;
use machineid_protocol::{Exit, oom_in_words};
use serde_json::Value;

use super::interrupt::Interrupt;
use super::socket::{self, DaemonError, Streaming};
use super::stop_words::{mechanism, processes, survivors};
use crate::Env;
use crate::args::EventsArgs;
use crate::printer::{Colour, Line, Printer};
use crate::problem::Problem;
use crate::words::precise;

/// How long the start of the answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between attempts to reconnect to the daemon.
const PAUSE: Duration = Duration::from_secs(1);
/// The maximum size of an event, in bytes.
const LONGEST: usize = 1024 * 1024;

pub(crate) async fn run(args: &EventsArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let interrupt = Interrupt::watch();
    let mut interrupt = interrupt.map_err(|error| Problem::failure(format!("cannot watch for Ctrl-C: {error}")))?;
    let mut last: Option<String> = None;
    let mut stream = open(args, env, None).await.map_err(Problem::undecided)?;
    loop {
        let ended = tokio::select! {
            ended = show(&mut stream, args.json, &mut last, printer) => ended,
            _ = interrupt.arrived() => return Ok(Exit::Success),
        };
        match ended {
            Ended::OutputClosed => return Ok(Exit::Success),
            Ended::Here(Err(why)) if !args.follow => return Err(Problem::failure(why)),
            Ended::Here(_) if !args.follow => return Ok(Exit::Success),
            Ended::Here(_) => printer.note(
                "the connection to the daemon is lost; waiting for the daemon to return \
                                            (Ctrl-C to end)",
            ),
        }
        stream = loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {},
                _ = interrupt.arrived() => return Ok(Exit::Success),
            }
            if let Ok(stream) = open(args, env, last.as_deref()).await {
                break stream;
            }
        };
    }
}

async fn open(args: &EventsArgs, env: Env<'_>, last: Option<&str>) -> Result<Streaming, DaemonError> {
    let query = [("from", "oldest"), ("follow", if args.follow { "true" } else { "false" })];
    socket::stream(&args.socket, env, "/v1/events", &query, last, TIMEOUT).await
}

/// Why a stream of events broke.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Socket(#[from] DaemonError),
    #[error("an event is longer than any of the daemon's")]
    TooLong,
}

/// Why a stream is no longer read.
enum Ended {
    OutputClosed,
    /// The stream was ended by the daemon, or with it.
    Here(Result<(), StreamError>),
}

async fn show(stream: &mut Streaming, json: bool, last: &mut Option<String>, printer: &mut Printer) -> Ended {
    let mut reader = Reader::default();
    loop {
        let chunk = match stream.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ended::Here(Ok(())),
            Err(why) => return Ended::Here(Err(why.into())),
        };
        for (id, data) in reader.take(&chunk) {
            print(&data, id.as_deref(), json, printer);
        }
        if reader.last.is_some() {
            last.clone_from(&reader.last);
        }
        if !printer.flush() {
            return Ended::OutputClosed;
        }
        if reader.buffer.len() > LONGEST {
            return Ended::Here(Err(StreamError::TooLong));
        }
    }
}

/// Parses server-sent events.
#[derive(Debug, Default)]
struct Reader {
    buffer: Vec<u8>,
    last: Option<String>,
    data: String,
}

impl Reader {
    /// The id and data of every event that is complete.
    fn take(&mut self, chunk: &[u8]) -> Vec<(Option<String>, String)> {
        self.buffer.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() && !self.data.is_empty() {
                events.push((self.last.clone(), std::mem::take(&mut self.data)));
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.last = Some(id.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.data.push_str(data);
            }
        }
        events
    }
}

fn print(data: &str, id: Option<&str>, json: bool, printer: &mut Printer) {
    let Ok(whole) = serde_json::from_str::<Value>(data) else {
        printer.note(&format!("unreadable event: {data}"));
        return;
    };
    if json {
        // Printed as received, with its id: a newer daemon may send more than this program knows.
        let mut whole = whole;
        whole["id"] = id.into();
        printer.json_line(&whole);
        return;
    }
    if let Ok(event) = serde_json::from_value::<Event>(whole.clone()) {
        printer.line(line(&event));
    } else {
        let text = |name: &str| whole[name].as_str().unwrap_or_default().to_owned();
        printer.line(format!("{:<20}  {:<15}  {}", text("time"), text("event"), text("reason")));
    }
}

fn line(event: &Event) -> Line {
    let (colour, about) = describe(&event.what);
    let time = event.time.parse::<jiff::Timestamp>();
    let time = time.map_or_else(|_| event.time.clone(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let mut line = Line::default();
    line.push(&format!("{time}  "), None);
    line.push(&format!("{:<15}", event.what.name()), colour);
    line.push(&format!("  {about}"), None);
    line
}

fn describe(what: &Happening) -> (Option<Colour>, String) {
    let because = |reason: &Option<String>| reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let named =
        |id: Option<&machineid_protocol::RequestId>| id.map(|id| format!(" (request {id})")).unwrap_or_default();
    match what {
        Happening::Decision(change) => {
            let (colour, word) = match change.standing {
                StandingKind::Allowed => (Colour::Good, "allowed"),
                StandingKind::Denied => (Colour::Bad, "denied"),
                StandingKind::Unavailable => (Colour::Unclear, "unavailable"),
                StandingKind::Unknown => (Colour::Unclear, "unknown"),
            };
            let by = match change.source {
                Source::Authority => "",
                Source::Local => " by this host",
            };
            let id = named(change.request_id.as_ref());
            let reason = because(&change.reason);
            (Some(colour), format!("{} {word}{by}, {}{id}{reason}", change.device_id, change.code))
        }
        Happening::AgentStarted(start) => {
            let held = format!("{}, against {}", start.containment, start.holds_against);
            let adopted = if start.adopted { "adopted, " } else { "" };
            (Some(Colour::Good), format!("{}, {adopted}{held}", agent(&start.agent)))
        }
        Happening::AgentStopping(stop) => {
            let (id, reason) = (named(stop.request_id.as_ref()), because(&stop.reason));
            (Some(Colour::Unclear), format!("{}, {}{id}{reason}", agent(&stop.agent), stop.code))
        }
        Happening::AgentSurvived(stop) => (Some(Colour::Bad), stopped(stop)),
        Happening::AgentStopped(stop) => (Some(Colour::Good), stopped(stop)),
        Happening::AgentEnded(ended) if ended.oom_kills > 0 => {
            (Some(Colour::Bad), format!("{}: {}", agent(&ended.agent), oom_in_words(ended.oom_kills)))
        }
        Happening::AgentEnded(ended) => (None, format!("{}, by itself", agent(&ended.agent))),
        Happening::OutsideHelper(found) => {
            let helper = &found.helper;
            let text = format!(
                "{} uses {}, {}, by {}",
                agent(&found.agent),
                helper.in_words(),
                helper.kind.as_str(),
                helper.via
            );
            (Some(Colour::Unclear), text)
        }
        Happening::AuthorityUp(up) => (Some(Colour::Good), up.url.clone()),
        Happening::AuthorityDown(down) => (Some(Colour::Unclear), format!("{}: {}", down.url, down.reason)),
        Happening::ConfigReloaded(reload) => {
            let changed = reload.changed.join(", ");
            let (colour, text) = match reload.result {
                ReloadResult::Applied => (None, format!("applied: {changed}")),
                ReloadResult::Unchanged => (None, "nothing changed".to_owned()),
                ReloadResult::Partial => (Some(Colour::Unclear), format!("applied in part: {changed}")),
                ReloadResult::Refused => (Some(Colour::Bad), "refused; the previous settings stay in force".to_owned()),
            };
            (colour, text + &because(&reload.reason))
        }
        Happening::DeviceHeld(hold) => (Some(Colour::Bad), format!("{} by uid {}", hold.device_id, hold.by_uid)),
        Happening::DeviceReleased(hold) => (None, format!("{} by uid {}", hold.device_id, hold.by_uid)),
        Happening::FilesRestored(restored) => (Some(Colour::Unclear), restored.files.join(", ")),
    }
}

fn agent(agent: &AgentName) -> String {
    let name = agent.name.clone().unwrap_or_else(|| agent.run_id.to_string());
    let pid = agent.pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
    format!("{name} ({pid}uid {}) as {}", agent.uid, agent.device_id)
}

fn stopped(stop: &AgentStop) -> String {
    let report = &stop.report;
    let name = report.name.clone().unwrap_or_else(|| report.run_id.to_string());
    let result = if report.confirmed {
        let took = precise(report.took_ms);
        match still_running(&report.outside) {
            None => format!("nothing of it is left after {took}"),
            Some(outside) => format!("nothing of its tree is left after {took}; {outside}"),
        }
    } else {
        let pids: Vec<String> =
            report.survivors.iter().map(|left| format!("pid {}: {}", left.pid, left.reason)).collect();
        format!("{} after {} ({})", survivors(report), precise(report.took_ms), pids.join("; "))
    };
    format!("{name}, {}: {result}; {}, {}", report.code, mechanism(report), processes(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_apart_wherever_the_bytes_are_cut() {
        let text = "retry: 1000\nid: a-0\n\nid: a-1\nevent: x\ndata: {\"n\":1}\n\n: nothing new\n\nid: a-2\ndata: {\"n\":2}\n\nid: a";
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let events: Vec<_> = text.as_bytes().chunks(size).flat_map(|chunk| reader.take(chunk)).collect();
            let expected = [("a-1", "{\"n\":1}"), ("a-2", "{\"n\":2}")];
            assert_eq!(events, expected.map(|(id, data)| (Some(id.to_owned()), data.to_owned())), "{size}");
            assert_eq!(reader.last.as_deref(), Some("a-2"));
        }
    }
}
