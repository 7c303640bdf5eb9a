//! Every parser of untrusted bytes, as a function of bytes: each panics when a promise does not hold.
//!
//! `fuzz/` runs them under libFuzzer for as long as you choose; the test below runs the same functions over the same seeds
//! and a fixed number of mutations of them with every `cargo test`. Parsers that are private to a module are tried by a
//! function of that module; all of them are collected here.

use std::path::Path;
use std::time::Duration;

use machineid_client as client;
use machineid_org_key::OrgKey;
use machineid_protocol::code::CodeKind;
use machineid_protocol::decision::{self, Decision, Head, Unusable};
use machineid_protocol::{Code, DeviceId, span};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::config;

/// A function that tries a parser on these bytes.
pub type FuzzTarget = fn(&[u8]);

/// All targets, by the names of their seed directories in `fuzz/seeds`.
pub const TARGETS: [(&str, FuzzTarget); 21] = [
    ("decision", decision),
    ("check_query", crate::local::fuzz_query),
    ("supervise_request", crate::local::fuzz_supervise_request),
    ("event_stream", machineid_run::fuzz_event_stream),
    ("guardian_message", machineid_run::fuzz_guardian_message),
    ("proc_stat", machineid_tree::fuzz_stat),
    ("proc_status", machineid_tree::fuzz_status),
    ("socket_list", machineid_sockets::fuzz),
    ("cgroup", machineid_tree::fuzz_cgroup),
    ("leaf_message", machineid_leaf::fuzz_message),
    ("hook_event", machineid_hook::fuzz_event),
    ("environment", machineid_tree::fuzz_environment),
    ("run_record", crate::registry::fuzz_record),
    ("span", span),
    ("config", config),
    ("retry_after", client::fuzz_retry_after),
    ("names", names),
    ("authority_body", machineid_authority::fuzzing::body),
    ("authority_form", machineid_authority::fuzzing::form),
    ("authority_report", machineid_authority::fuzzing::report),
    ("authority_reserve", machineid_authority::fuzzing::reserve),
];

/// Tries these bytes with the target of this name.
///
/// # Panics
///
/// When there is no such target, or when the target panics.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    target.1(data);
}

/// The parts of an answer, selected by its first bytes.
const STATUSES: [u16; 12] = [200, 201, 204, 206, 301, 302, 400, 401, 403, 429, 500, 503];
const TYPES: [Option<&str>; 10] = [
    Some("application/json"),
    Some("application/json; charset=utf-8"),
    Some("Application/JSON;charset=\"UTF-8\""),
    Some("application/json; charset=latin1"),
    Some("application/json; charset=utf-8; charset=utf-16"),
    Some("application/jsonp"),
    Some("text/html"),
    Some(""),
    Some("?"),
    None,
];
const ENCODINGS: [Option<&str>; 5] = [None, None, Some("identity"), Some("gzip"), Some("")];
/// The mark of an answer that is no decision. Selected by the remainder of the byte that selects the age, so that a seed is
/// four bytes and a body.
const MARKS: [Option<&str>; 5] = [None, None, Some("1"), Some("0"), Some("?")];
const AGES: [Option<&str>; 6] = [None, None, Some("0"), Some("1"), Some("-0"), Some("")];

/// Checks that an ALLOW has exactly the form of the contract, judged by a second parser of the same bytes.
///
/// # Panics
///
/// When that does not hold.
pub fn decision(data: &[u8]) {
    let Some((choice, body)) = data.split_first_chunk::<4>() else { return };
    let head = Head {
        status: pick(&STATUSES, choice[0]),
        content_type: pick(&TYPES, choice[1]),
        content_encoding: pick(&ENCODINGS, choice[2]),
        age: pick(&AGES, choice[3]),
        undecided: MARKS[usize::from(choice[3]) / AGES.len() % MARKS.len()],
    };
    let asked: DeviceId = "agent-01".parse().expect("it is one");
    match decision::read(&head, body, &asked) {
        Err(Unusable::Undecided) => {
            assert_eq!(head.undecided, Some("1"));
            let members = Members::of(body);
            assert_eq!(members.only("allowed"), Some(&Value::Bool(false)));
            assert_eq!(members.only("code").and_then(Value::as_str), Some("SYSTEM_UNAVAILABLE"), "and no other deny");
        }
        Err(_) => {}
        Ok(Decision::Deny(denial)) => {
            assert_eq!(Members::of(body).only("allowed"), Some(&Value::Bool(false)), "a deny says so");
            assert_ne!(denial.code.kind(), CodeKind::Allow, "a deny does not print as an ALLOW");
            let marked = head.undecided == Some("1");
            assert!(!marked || denial.code != Code::SystemUnavailable, "what is marked as no decision is none");
        }
        Ok(Decision::Allow { code, .. }) => {
            assert_eq!(head.status, 200);
            let media = head.content_type.expect("a media type").to_ascii_lowercase();
            assert!(media.starts_with("application/json") && !media.contains("latin1") && !media.contains("utf-16"));
            assert!(matches!(head.content_encoding, None | Some("identity")), "{head:?}");
            assert!(matches!(head.age, None | Some("0")), "{head:?}");
            assert_eq!(head.undecided, None, "an ALLOW that is marked as no decision contradicts itself");
            let members = Members::of(body);
            assert_eq!(members.only("allowed"), Some(&Value::Bool(true)));
            let named = members.only("code").and_then(Value::as_str).expect("a code that is a string");
            assert!(matches!(Code::from(named).kind(), CodeKind::Allow | CodeKind::Unknown), "{named}");
            assert_eq!(code, Code::from(named));
            let device = members.only("deviceId");
            assert!(matches!(device, None | Some(Value::Null)) || device.and_then(Value::as_str) == Some("agent-01"));
        }
    }
}

fn pick<T: Copy>(from: &[T], choice: u8) -> T {
    from[usize::from(choice) % from.len()]
}

/// All members of the outermost object, in their order.
struct Members(Vec<(String, Value)>);

impl Members {
    fn of(body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).expect("a decision is UTF-8");
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = reader.deserialize_map(Self(Vec::new())).expect("a decision is a JSON object");
        reader.end().expect("and nothing but that");
        Self(members)
    }

    /// The one member of this name.
    fn only(&self, name: &str) -> Option<&Value> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        let first = found.next()?;
        assert!(found.next().is_none(), "{name} stands there twice");
        Some(&first.1)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Self::Value, A::Error> {
        while let Some(entry) = entries.next_entry()? {
            self.0.push(entry);
        }
        Ok(self.0)
    }
}

/// Checks that a parsed duration is formatted so that it is parsed as the same duration.
///
/// # Panics
///
/// When that does not hold.
pub fn span(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = span::parse(text) {
        assert_eq!(span::parse(&span::format(read)), Ok(read), "{text:?}");
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text:?}");
    }
}

/// Checks that any text is a configuration or an error that names the file, and that an accepted configuration keeps the
/// rules between settings.
///
/// # Panics
///
/// When that does not hold.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::read_text(Path::new("/etc/machineid/fuzzed.toml"), text) {
        Ok(settings) => {
            let (enforcement, authority) = (&settings.enforcement, &settings.authority);
            assert!(enforcement.lease >= enforcement.interval + authority.timeout, "{text}");
            assert!(enforcement.interval >= Duration::from_millis(10) && !authority.timeout.is_zero(), "{text}");
            assert!(authority.url.is_https() || authority.url.is_loopback() || text.contains("allow_http"), "{text}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Checks device ids, org keys, URLs and patterns: what is accepted is valid, and a key is never shown.
///
/// # Panics
///
/// When that does not hold.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<DeviceId>() {
        assert!((1..=DeviceId::LONGEST).contains(&id.as_str().len()));
        assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte)));
        assert_eq!(id.as_str().parse::<DeviceId>().as_ref(), Ok(&id));
        assert!(config::glob_matches("*", &id) && config::glob_matches(id.as_str(), &id));
    }
    match text.parse::<OrgKey>() {
        Ok(key) => {
            let secret = key.expose().strip_prefix("org_").expect("a key begins so");
            assert!(key.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            if secret.len() > 8 {
                assert!(!format!("{key:?}{}", key.fingerprint()).contains(secret));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(url) = client::BaseUrl::parse(text, false) {
        assert!(url.is_https() || url.is_loopback(), "{url}");
    }
    if let Some((pattern, id)) = text.split_once('\n')
        && let Ok(id) = id.parse()
    {
        // However many stars there are, this must not take long.
        let _ = config::glob_matches(pattern, &id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutations of each seed with every run of the tests; libFuzzer makes millions.
    const MUTATIONS: usize = 400;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// What a fuzzer does to a seed, always the same.
    fn mutated(seed: &[u8], other: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
        const WORDS: [&[u8]; 12] = [
            b"\"",
            b"{}",
            b"true",
            b"\"allowed\":true,",
            b"\0",
            b"\n",
            b"\xef\xbb\xbf",
            b"\\u0000",
            b"99999999999999999999",
            b"..",
            b"%2F",
            b")",
        ];
        let mut bytes = seed.to_vec();
        for _ in 0..rng.usize(1..=4) {
            let at = rng.usize(0..=bytes.len());
            match rng.u8(0..7) {
                0 if !bytes.is_empty() => {
                    let place = at % bytes.len();
                    bytes[place] = rng.u8(..);
                }
                1 if !bytes.is_empty() => drop(bytes.remove(at % bytes.len())),
                2 => bytes.insert(at, rng.u8(..)),
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..at, WORDS[rng.usize(0..WORDS.len())].iter().copied())),
                5 => bytes.extend_from_slice(&other[rng.usize(0..=other.len())..]),
                _ => {
                    let part: Vec<u8> = bytes.iter().copied().take(64).collect();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes
    }

    #[test]
    fn what_takes_foreign_bytes_apart_keeps_its_promises_over_seeds_and_their_mutations() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seed");
            let mut rng = fastrand::Rng::with_seed(7);
            for seed in &seeds {
                target(seed);
                for _ in 0..MUTATIONS {
                    let bytes = mutated(seed, &seeds[rng.usize(0..seeds.len())], &mut rng);
                    let held = std::panic::catch_unwind(|| target(&bytes)).is_ok();
                    assert!(held, "{name}, of {:?}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}
