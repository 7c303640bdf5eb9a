//! Whether a revoke that one server has answered is in force at another one: rounds crosswise over two servers on one database.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_testing::postgres::Cluster;

use crate::Length;
use crate::common::authority::{Authority, BINARY};
use crate::common::report::{Table, microseconds};
use crate::common::samples::Samples;
use crate::common::{Outcome, program};

/// The device that is revoked and restored.
const CHANGED: &str = "changed:1";
/// Who asks meanwhile.
const ASKERS: usize = 4;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let Some(cluster) = Cluster::start() else { return Ok(()) };
    let url = cluster.new_database();
    let one = Authority::on(&program(BINARY), &url)?;
    let mut two = Authority::on(&program(BINARY), &url)?;
    two.key.clone_from(&one.key);
    one.tell("register", CHANGED)?;
    let rounds = length.pick(10_000, 200);
    let done = AtomicBool::new(false);
    let (stale, taken) = thread::scope(|scope| {
        for asker in 0..ASKERS {
            let server = if asker % 2 == 0 { &one } else { &two };
            let done = &done;
            scope.spawn(move || while !done.load(Ordering::Relaxed) && code(server).is_ok() {});
        }
        let result = go(&one, &two, rounds);
        done.store(true, Ordering::Relaxed);
        result
    })?;
    let mut table = Table::new(
        "A change at one server, asked about at once at the other and at itself, through PostgreSQL",
        &["rounds", "stale answers", "change and both answers, p50", "p99"],
    );
    let taken = Samples::new(taken);
    let (median, high) = (microseconds(taken.median()), microseconds(taken.percentile(99)));
    table.row(vec![rounds.to_string(), stale.to_string(), median, high]);
    table.print();
    Ok(())
}

/// How many answers were stale, and how long each change took with the answers after it.
fn go(one: &Authority, two: &Authority, rounds: u32) -> Outcome<(usize, Vec<Duration>)> {
    let (mut stale, mut taken) = (0, Vec::new());
    for round in 0..rounds {
        let (changes, asked) = if round % 2 == 0 { (one, two) } else { (two, one) };
        for (verb, expected) in [("revoke", "DEVICE_REVOKED"), ("unrevoke", "ALLOW")] {
            let began = BootTime::now();
            changes.tell(verb, CHANGED)?;
            for server in [asked, changes] {
                stale += usize::from(code(server)? != expected);
            }
            taken.push(BootTime::now().saturating_since(began));
        }
    }
    Ok((stale, taken))
}

/// The code of a validation.
fn code(server: &Authority) -> Outcome<String> {
    let mut stream = TcpStream::connect(server.address)?;
    let request = String::from_utf8(server.validate_request(CHANGED))?;
    stream.write_all(request.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: serde_json::Value = serde_json::from_str(body)?;
    Ok(body["code"].as_str().ok_or("an answer without a code")?.to_owned())
}
