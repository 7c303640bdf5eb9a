//! How long from a revoke to SIGTERM when the authority is watched by a thousand sidecars, against polling.
//!
//! One daemon is real, with a real agent; the others are connections of this program that do what a daemon does: they
//! subscribe, validate whenever they are told to, and report afterwards and every ten seconds. Only one device is revoked at a
//! time, as in an emergency about one agent; the last row revokes all at once.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon, wrapper};
use crate::common::place::Place;
use crate::common::process::{Guarded, Memory};
use crate::common::report::{self, Table, mebibytes, milliseconds};
use crate::common::samples::Samples;
use crate::common::{Outcome, until};
use crate::storm::{NOTES_ITS_STOP, time_of_day};

/// Watchers beside the real daemons.
const WATCHERS: usize = 999;

/// Rarely enough that polling finds nothing within a round.
pub(crate) const RARELY: &str = "interval = \"1h\"\nlease = \"2h\"\nstop_grace = \"2s\"";

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let idle = Memory::of(authority.pid())?;
    let daemon = Daemon::start_at(&authority, Place::own(), RARELY)?;
    let told = Arc::new(AtomicUsize::new(0));
    let mut watchers = Vec::with_capacity(WATCHERS);
    for number in 0..WATCHERS {
        watchers.push(Watcher::start(&authority, number, &told)?);
    }
    until("the daemon watches", || daemon.get("/v1/status").ok()?.contains("\"push\":true").then_some(()))?;
    let watched = Memory::of(authority.pid())?;

    let rounds = length.pick(100, 20);
    let one = Samples::new((0..rounds).map(|_| round(&authority, &daemon, false)).collect::<Outcome<Vec<_>>>()?);
    told.store(0, Ordering::SeqCst);
    let all = Samples::new((0..length.pick(20, 5)).map(|_| round(&authority, &daemon, true)).collect::<Outcome<_>>()?);
    let after = Memory::of(authority.pid())?;
    let heard = told.load(Ordering::SeqCst);

    let title = format!("Revoke to SIGTERM with {} sidecars watching", WATCHERS + 1);
    let mut table = Table::new(&title, &["what", "median", "99 %", "worst", "figure to beat"]);
    for (name, samples, goal) in
        [("one device revoked", &one, "20 ms at 99 %"), ("all 1,000 at once, to the one with an agent", &all, "")]
    {
        let cells = [50, 99, 100].map(|percent| milliseconds(samples.percentile(percent)));
        let [median, high, worst] = cells;
        table.row(vec![name.to_owned(), median, high, worst, goal.to_owned()]);
    }
    table.print();
    report::say(&format!(
        "  From before the request to revoke is sent to the agent's reading its SIGTERM. {heard} hints came to the other \
         watchers.\n  Authority, resident: {} before, {} with the watchers, {} after everything (to beat: 200 MiB).",
        mebibytes(idle.resident),
        mebibytes(watched.resident),
        mebibytes(after.resident)
    ));
    Ok(())
}

/// One agent started, one revoke, one SIGTERM; and everything as before.
pub(crate) fn round(authority: &Authority, daemon: &Daemon, all: bool) -> Outcome<Duration> {
    let notes = daemon.home().join("notes");
    let _ = fs::remove_file(&notes);
    let program = std::env::current_exe()?;
    let words = [program.as_os_str(), NOTES_ITS_STOP.as_ref(), notes.as_os_str()];
    let mut wrapped = daemon.wrap_with(&wrapper(), &[], &words);
    let mut agent = Guarded::start(wrapped.stderr(Stdio::null()))?;
    until("the agent is up", || fs::read_to_string(&notes).ok()?.contains("up").then_some(()))?;
    // The budget of hints for one device: this figure is not about a flood of them.
    thread::sleep(Duration::from_millis(1_100));
    let asked = time_of_day();
    if all {
        authority.tell_all("revoke_batch", "all_active")?;
    } else {
        authority.tell("revoke", DEVICE)?;
    }
    let at = until("the agent has its signal", || {
        let text = fs::read_to_string(&notes).ok()?;
        text.lines().find_map(|line| line.parse().ok()).map(Duration::from_micros)
    })?;
    until("the wrapper ends", || agent.has_ended().then_some(()))?;
    if all {
        authority.tell_all("unrevoke_batch", "all_revoked")?;
    } else {
        authority.tell("unrevoke", DEVICE)?;
    }
    until("the device is allowed again", || daemon.get("/v1/check").ok()?.starts_with("HTTP/1.0 200").then_some(()))?;
    Ok(at.saturating_sub(asked))
}

/// A sidecar as the authority sees one: it watches a device of its own, and validates when told to.
struct Watcher {
    stream: TcpStream,
}

impl Watcher {
    fn start(authority: &Authority, number: usize, told: &Arc<AtomicUsize>) -> Outcome<Self> {
        let device = format!("bench:watcher:{number}");
        authority.tell("register", &device)?;
        let body = format!(r#"{{"deviceIds":["{device}"]}}"#);
        let mut stream = TcpStream::connect(authority.address)?;
        let request = format!(
            "POST /api/v1/devices/watch HTTP/1.0\r\nx-org-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            authority.key,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while !line.starts_with("event: ready") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err("the authority does not let this be watched".into());
            }
        }
        let requests = [authority.validate_request(&device), report_request(authority, number, &device)];
        let (address, told) = (authority.address, Arc::clone(told));
        // Small stacks: a thousand of these must not be what is measured.
        thread::Builder::new().stack_size(64 * 1024).spawn(move || listen(lines, address, &requests, &told))?;
        Ok(Self { stream })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// What a daemon with one agent says.
fn report_request(authority: &Authority, number: usize, device: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"sidecarId":"{number:032x}","sequence":1,"version":"0","hostDeviceId":"{device}","push":true,"agents":1,
            "stopBound":{{"connectedMs":19500,"cutOffMs":41000}},
            "devices":[{{"deviceId":"{device}","standing":"allowed","agents":1,"stopping":0}}]}}"#
    );
    let head = format!(
        "POST /api/v1/devices/report HTTP/1.1\r\nhost: authority\r\nx-org-key: {}\r\ncontent-length: {}\r\n\r\n",
        authority.key,
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Validates when it is told to; reports after that, and with each second heartbeat.
fn listen(mut lines: BufReader<TcpStream>, address: SocketAddr, requests: &[Vec<u8>; 2], told: &AtomicUsize) {
    let mut connection: Option<TcpStream> = None;
    let mut line = String::new();
    let mut heartbeats = 0_u32;
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let due: &[Vec<u8>] = if line.starts_with("event: validate") {
            told.fetch_add(1, Ordering::Relaxed);
            requests
        } else if line.starts_with(':') {
            heartbeats += 1;
            if heartbeats.is_multiple_of(2) { &requests[1..] } else { &[] }
        } else {
            &[]
        };
        for request in due {
            // As a daemon's: kept alive, and made anew when it is gone.
            if connection.as_mut().is_none_or(|stream| exchange(stream, request).is_err()) {
                connection =
                    TcpStream::connect(address).ok().filter(|mut stream| exchange(&mut stream, request).is_ok());
            }
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<()> {
    stream.write_all(request)?;
    // An answer about one device is far smaller.
    let mut answer = [0; 4096];
    if stream.read(&mut answer)? == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
