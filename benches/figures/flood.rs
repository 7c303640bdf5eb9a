//! What a flood costs the switch: the same stops on an idle server and on one that strangers and readers keep busy, in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::Daemon;
use crate::common::place::Place;
use crate::common::report::{self, Table, milliseconds, ratio};
use crate::common::samples::Samples;
use crate::common::{Outcome, now, until};
use crate::push::{RARELY, round};

/// Devices that one request revokes.
const FLEET: u32 = 1_000;

/// Connections without a key.
const STRANGERS: usize = 2_000;

/// Clients that read the fleet in a loop.
const READERS: usize = 16;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::of(FLEET)?;
    let key = authority.role_key("read")?;
    let daemon = Daemon::start_at(&authority, Place::own(), RARELY)?;
    until("the daemon watches", || daemon.get("/v1/status").ok()?.contains("\"push\":true").then_some(()))?;
    let (mut all, mut one) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut read, mut opened) = (0, 0);
    for _ in 0..length.pick(6, 1) {
        for flooded in [false, true] {
            let flood = flooded.then(|| Flood::start(authority.address, &key)).transpose()?;
            for _ in 0..5 {
                let began = now();
                authority.tell_all("revoke_batch", "all_active")?;
                all[usize::from(flooded)].push(began.elapsed());
                authority.tell_all("unrevoke_batch", "all_revoked")?;
            }
            for _ in 0..length.pick(15, 3) {
                one[usize::from(flooded)].push(round(&authority, &daemon, false)?);
            }
            if let Some(flood) = flood {
                let (pages, connections) = flood.end();
                (read, opened) = (read + pages, opened + connections);
            }
        }
    }
    let [all, one] = [all, one].map(|both| both.map(Samples::new));
    let title = format!("A flood of {STRANGERS} connections without a key and {READERS} readers");
    let mut table = Table::new(&title, &["what", "idle", "flooded", "ratio", "figure to beat"]);
    let mut row = |name: &str, [idle, flooded]: &[Samples; 2], percent: usize, goal: &str| {
        let (idle, flooded) = (idle.percentile(percent), flooded.percentile(percent));
        let cells = [milliseconds(idle), milliseconds(flooded), ratio(flooded, idle)].to_vec();
        table.row([vec![name.to_owned()], cells, vec![goal.to_owned()]].concat());
    };
    row("one request revokes 1,000, median", &all, 50, "3 times at most");
    row("one request revokes 1,000, worst", &all, 100, "");
    row("revoke to SIGTERM, median", &one, 50, "");
    row("revoke to SIGTERM, 99 %", &one, 99, "50 ms at most");
    table.print();
    report::say(&format!(
        "  In turn in one run. The readers were answered {read} times, and {opened} connections were opened meanwhile. Client \
         and server share this machine's processors."
    ));
    Ok(())
}

/// The strangers and the readers, until [`Flood::end`].
struct Flood {
    over: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr, key: &str) -> Outcome<Self> {
        let mut flood =
            Self { over: Arc::default(), read: Arc::default(), opened: Arc::default(), threads: Vec::new() };
        let mut strangers = Vec::with_capacity(STRANGERS);
        for _ in 0..STRANGERS {
            strangers.push(TcpStream::connect(to)?);
        }
        let (over, opened) = (Arc::clone(&flood.over), Arc::clone(&flood.opened));
        flood.threads.push(thread::spawn(move || {
            // The server closes them; each is opened anew in its turn.
            for place in (0..STRANGERS).cycle() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = TcpStream::connect(to) {
                    strangers[place] = stream;
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(2));
            }
        }));
        let request = format!("GET /api/v1/org/fleet HTTP/1.1\r\nhost: authority\r\nx-org-key: {key}\r\n\r\n");
        for _ in 0..READERS {
            let (over, read, request) = (Arc::clone(&flood.over), Arc::clone(&flood.read), request.clone());
            let mut stream = BufReader::new(TcpStream::connect(to)?);
            flood.threads.push(thread::spawn(move || {
                while !over.load(Ordering::Relaxed) && ask(&mut stream, &request).is_ok() {
                    read.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Ok(flood)
    }

    /// How often the readers were answered, and how many connections were opened.
    fn end(mut self) -> (usize, usize) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        (self.read.load(Ordering::Relaxed), self.opened.load(Ordering::Relaxed))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// One request, and its whole answer.
fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> Outcome<()> {
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err("the server closed the connection".into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    Ok(stream.read_exact(&mut body)?)
}
