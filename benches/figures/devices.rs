//! Many devices on one daemon: is each asked about in time, are they spread out, and over how many connections?

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::Daemon;
use crate::common::process::{Guarded, Memory};
use crate::common::report::{Table, mebibytes};
use crate::common::{Outcome, PATIENCE, clean_environment};

/// The default interval, and the latest a validation may begin after the one before.
const INTERVAL_MS: i64 = 5_000;
const LATEST_MS: i64 = 5_500;
/// Looks at the daemon, a second apart: two intervals.
const LOOKS: usize = 10;
/// Pieces that an interval is cut into.
const PIECES: usize = 10;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let count = length.pick(1_000, 100);
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    // One process that all runs are about: what is measured is the gates.
    let mut sleep = Command::new("sleep");
    clean_environment(&mut sleep, daemon.home());
    let process = Guarded::start(sleep.arg("600").stdin(Stdio::null()))?;
    let streams = (0..count).map(|number| supervise(&daemon, process.pid(), number)).collect::<Outcome<Vec<_>>>()?;
    thread::sleep(Duration::from_millis(u64::try_from(2 * INTERVAL_MS)?));
    let (mut oldest, mut most_connections) = (0, 0);
    let mut due = [0_usize; PIECES];
    for _ in 0..LOOKS {
        let devices = devices(&daemon)?;
        for device in &devices {
            if device["standing"] != "allowed" {
                return Err(format!("a device is not allowed: {device}").into());
            }
            oldest = oldest.max(age_ms(device)?);
            let next = device["next_validation_ms"].as_u64().unwrap_or(0);
            let piece = usize::try_from(next)? * PIECES / usize::try_from(INTERVAL_MS)?;
            due[piece.min(PIECES - 1)] += 1;
        }
        for _ in 0..20 {
            most_connections = most_connections.max(connections(daemon.pid(), authority.address.port())?);
            thread::sleep(Duration::from_millis(50));
        }
    }
    let mut table = Table::new("Many devices", &["devices", "what", "measured", "figure to beat"]);
    let mut row = |what: &str, measured: String, goal: &str| {
        table.row(vec![count.to_string(), what.to_owned(), measured, goal.to_owned()]);
    };
    row("oldest decision", format!("{oldest} ms"), &format!("{LATEST_MS} ms and one answer"));
    let (all, most) = (due.iter().sum::<usize>(), due.iter().max().copied().unwrap_or(0));
    let percent = most * 100 * PIECES / all.max(1);
    row("most in a tenth of the interval", format!("× {}.{:02} of the mean", percent / 100, percent % 100), "× 1.5");
    row("connections to the authority", most_connections.to_string(), "32");
    row("daemon, resident", mebibytes(Memory::of(daemon.pid())?.resident), "64 MiB");
    table.print();
    drop(streams);
    Ok(())
}

/// A run of this process for a device of its own; it lives as long as its stream.
fn supervise(daemon: &Daemon, pid: u32, number: usize) -> Outcome<BufReader<UnixStream>> {
    let run_id = format!("{number:032x}");
    let body = json!({"pid": pid, "run_id": run_id, "device": format!("bench:{number}"), "containment": "subreaper"});
    let body = body.to_string();
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("POST /v1/supervise HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with('{') {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err("the daemon closed the stream".into());
        }
    }
    if line.contains("\"event\":\"allow\"") { Ok(reader) } else { Err(line.into()) }
}

/// The devices beside the host's, as the daemon shows them.
fn devices(daemon: &Daemon) -> Outcome<Vec<Value>> {
    let answer = daemon.get("/v1/status")?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no status")?;
    let status: Value = serde_json::from_str(body)?;
    let devices = status["devices"].as_array().ok_or("no devices in the status")?;
    Ok(devices.iter().filter(|device| device["host"] == false).cloned().collect())
}

fn age_ms(device: &Value) -> Outcome<i64> {
    let at: jiff::Timestamp = device["last_decision"]["at"].as_str().ok_or("no decision")?.parse()?;
    let now = machineid_clock::wall_now();
    Ok(i64::try_from(now.duration_since(at).as_millis())?)
}

/// Established connections of this process to that port.
fn connections(pid: u32, port: u16) -> Outcome<usize> {
    let held: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let remote = format!(":{port:04X}");
    let ours = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_established = fields.get(2).is_some_and(|to| to.ends_with(&remote)) && fields.get(3) == Some(&"01");
        is_established && fields.get(9).is_some_and(|inode| held.contains(&format!("socket:[{inode}]")))
    };
    Ok(std::fs::read_to_string("/proc/net/tcp")?.lines().filter(ours).count())
}
