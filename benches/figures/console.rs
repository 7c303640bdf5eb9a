//! How long the console's fleet page takes with 100,000 devices, each with a report of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::Length;
use crate::common::Outcome;
use crate::common::authority::Authority;
use crate::common::report::{self, Table, microseconds, milliseconds, ratio};
use crate::common::samples::Samples;

const DEVICES: u32 = 100_000;

/// As sidecars report, in the form in which it is kept.
const BODY: &str = r#"{"version":"0.1.0","host":"host:1","bound":{"connectedMs":16500,"cutOffMs":41000},"push":true,
    "device":{"deviceId":"host:1","standing":"allowed","code":null,"revokedAt":null,"leaseLeftMs":29000,"agents":3,
    "stopping":0}}"#;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    seed(&authority)?;
    let (org, cookie) = sign_in(&authority)?;
    let middle = format!("?after=host%3A{:06}", DEVICES / 2);
    let pages = [
        ("the first page", ""),
        ("a page in the middle", middle.as_str()),
        ("a search that finds one", "?q=099999"),
        ("a search that finds nothing", "?q=nothing"),
        ("a search that finds all", "?q=host"),
        ("the revoked ones", "?state=revoked"),
    ];
    let title = format!("A page of the console with {DEVICES} devices");
    let mut table = Table::new(&title, &["what", "median", "99 %", "worst", "figure to beat"]);
    let rounds = length.pick(100, 10);
    for (name, query) in pages {
        let path = format!("/console/org/{org}{query}");
        let took = (0..rounds).map(|_| timed(&authority, &path, &cookie)).collect::<Outcome<Vec<_>>>()?;
        let took = Samples::new(took);
        let [median, high, worst] = [50, 99, 100].map(|percent| milliseconds(took.percentile(percent)));
        table.row(vec![name.to_owned(), median, high, worst, "200 ms".to_owned()]);
    }
    table.print();
    report::say("  From before the request is sent to the last byte of the page.");
    refused(&authority, length)
}

/// Whether the time that a refused sign-in takes tells how wrong the key was.
fn refused(authority: &Authority, length: Length) -> Outcome<()> {
    let all_but_one = &authority.key[..authority.key.len() - 1];
    let last = if authority.key.ends_with('0') { '1' } else { '0' };
    let keys = [
        ("the organisation's, but for its last character", format!("{all_but_one}{last}")),
        ("one that does not exist", format!("org_{}", "0".repeat(authority.key.len() - "org_".len()))),
        ("no key at all", "wrong".to_owned()),
    ];
    let mut took: [Vec<Duration>; 3] = Default::default();
    for round in 0..length.pick(2_000, 100) {
        for turn in 0..keys.len() {
            let at = (round + turn) % keys.len();
            #[expect(clippy::disallowed_methods, reason = "a benchmark measures spans")]
            let began = Instant::now();
            let answer = try_key(authority, &keys[at].1)?;
            took[at].push(began.elapsed());
            if answer.split(' ').nth(1) != Some("401") {
                return Err(answer.into());
            }
        }
    }
    let mut table =
        Table::new("Sign-ins that are refused, in turn", &["the key", "median", "90 %", "against the first"]);
    let took = took.map(Samples::new);
    for ((name, _), of_key) in keys.iter().zip(&took) {
        let against = ratio(of_key.median(), took[0].median());
        table.row(vec![
            (*name).to_owned(),
            microseconds(of_key.median()),
            microseconds(of_key.percentile(90)),
            against,
        ]);
    }
    table.print();
    Ok(())
}

/// Straight into the database: registering a hundred thousand devices is another figure.
fn seed(authority: &Authority) -> Outcome<()> {
    let mut database = Connection::open(authority.database())?;
    database.busy_timeout(Duration::from_secs(30))?;
    let all = database.transaction()?;
    let org: String = all.query_row("SELECT id FROM orgs", [], |row| row.get(0))?;
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";
    all.execute(
        &format!(
            "INSERT INTO devices (org_id, device_id, created_at, revoked_at) {numbers}
             SELECT ?1, printf('host:%06d', i), 1000000 + i, CASE WHEN i % 10 = 0 THEN 2000000 END FROM n"
        ),
        (&org, DEVICES),
    )?;
    all.execute(
        &format!(
            "INSERT INTO reports (org_id, device_id, sidecar_id, heard_at, sequence, agents, body) {numbers}
             SELECT ?1, printf('host:%06d', i), printf('%032x', i + 1), 3000000, 1, 3, ?3 FROM n"
        ),
        (&org, DEVICES, BODY.replace(['\n', ' '], "")),
    )?;
    all.execute("UPDATE orgs SET active = ?1, device_limit = ?2", (DEVICES - DEVICES / 10, DEVICES * 2))?;
    Ok(all.commit()?)
}

/// The organisation's id and the session's cookie.
fn sign_in(authority: &Authority) -> Outcome<(String, String)> {
    let answer = try_key(authority, &authority.key)?;
    let header = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let org = header("location:").and_then(|to| to.rsplit('/').next()).ok_or("the sign-in failed")?;
    let cookie = header("set-cookie:").and_then(|set| set.split(';').next()).ok_or("no cookie")?;
    Ok((org.to_owned(), cookie.to_owned()))
}

/// The answer to a sign-in with this key.
fn try_key(authority: &Authority, key: &str) -> Outcome<String> {
    let body = format!("key={key}");
    let head = format!("POST /console/sign-in HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
    exchange(authority, &(head + &body))
}

fn timed(authority: &Authority, path: &str, cookie: &str) -> Outcome<Duration> {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures spans")]
    let began = Instant::now();
    let answer = exchange(authority, &format!("GET {path} HTTP/1.0\r\ncookie: {cookie}\r\n\r\n"))?;
    let took = began.elapsed();
    if answer.split(' ').nth(1) == Some("200") { Ok(took) } else { Err(answer.into()) }
}

fn exchange(authority: &Authority, request: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(authority.address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
