//! How an audit file is made and read: lines, each with the hash of the line before. Pure.
//!
//! A line is a JSON object and ends with `prev`, the SHA-256 of the record before it without its newline, as 64 hex
//! digits; the first record of all has zeros. A file that begins with another hash continues an earlier file.
//!
//! A daemon that is killed while it writes leaves part of a line, and a full disk may. Whoever writes next ends that part
//! with a newline and says so: its record names in `torn` the hash of each such part before it, and `prev` is that of the
//! last whole record. So nothing needs to be taken out of a file, and a torn line is told from one that was tampered with.

use std::fmt::{self, Write as _};

use machineid_protocol::event::{Caller, Happening};
use machineid_protocol::strict_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// No line is longer, in bytes: names, command lines and reasons are cut before.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The hash of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands for a record before the first one.
    pub const NOTHING: Self = Self([0; 32]);

    /// The hash of a line without its end.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }

    /// Reads 64 hex digits of either case; `None` when it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// An event, with the user that asked for it, if any.
    Happened(&'a Happening, Option<&'a Caller>),
    /// A daemon begins, or begins a file of its own.
    Opened,
    /// Records were lost before this one.
    Gap {
        /// How many.
        lost: u64,
        /// Why, as far as is known.
        reason: &'a str,
    },
}

/// The name of [`Entry::Opened`].
pub const OPENED: &str = "audit-opened";
/// The name of [`Entry::Gap`].
pub const GAP: &str = "audit-gap";

/// Makes the line of a record, without its newline.
pub fn line(time: &str, entry: Entry<'_>, torn: &[Hash], prev: Hash) -> String {
    let mut about = match entry {
        Entry::Happened(what, caller) => {
            let mut about = object(what);
            about.insert("caller".to_owned(), value(&caller));
            about
        }
        Entry::Opened => object(
            &serde_json::json!({"event": OPENED, "version": machineid_version::VERSION, "pid": std::process::id()}),
        ),
        Entry::Gap { lost, reason } => object(&serde_json::json!({"event": GAP, "lost": lost, "reason": reason})),
    };
    let mut line = String::from("{");
    let mut put = |name: &str, value: &Value| {
        let comma = if line.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(line, "{comma}{}:{value}", Value::from(name));
    };
    put("time", &time.into());
    // First what every record has, so that people find it at one place.
    for name in ["event", "device_id", "code", "request_id", "caller"] {
        put(name, &about.remove(name).unwrap_or_default());
    }
    for (name, value) in &about {
        put(name, value);
    }
    if !torn.is_empty() {
        put("torn", &torn.iter().map(Hash::to_string).collect());
    }
    put("prev", &prev.to_string().into());
    line.push('}');
    line
}

fn value<T: Serialize>(what: &T) -> Value {
    // Nothing in it is without a JSON form.
    serde_json::to_value(what).unwrap_or_default()
}

fn object<T: Serialize>(what: &T) -> Map<String, Value> {
    match value(what) {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// What of a line matters to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub event: String,
    /// The hash of the record before it.
    pub prev: Hash,
    /// Parts of lines before it that it declares torn.
    pub torn: Vec<Hash>,
    /// How many records it says were lost.
    pub lost: u64,
}

#[derive(Deserialize)]
struct Written {
    #[expect(dead_code, reason = "a line without it is no record")]
    time: String,
    event: String,
    prev: String,
    #[serde(default)]
    torn: Vec<String>,
    #[serde(default)]
    lost: u64,
}

impl Record {
    /// Reads a line; `None` when it is no record of ours.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_value(strict_json::from_slice(line).ok()?).ok()?;
        let torn = written.torn.iter().map(|hash| Hash::parse(hash)).collect::<Option<_>>()?;
        let declares = matches!(written.event.as_str(), OPENED | GAP);
        let Written { event, prev, lost, .. } = written;
        Some(Self {
            event,
            prev: Hash::parse(&prev)?,
            torn: if declares { torn } else { Vec::new() },
            lost: if declares { lost } else { 0 },
        })
    }
}

/// How a file ends, for the next writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last whole record; `None` in an empty file.
    pub last: Option<Hash>,
    /// Parts of lines behind it.
    pub torn: Vec<Hash>,
    /// What comes next must begin with a newline.
    pub open: bool,
}

/// The file holds something, and no record at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAuditFile;

impl Tail {
    /// Of the last bytes of a file: all of them, or so many that the last record is among them.
    pub fn of(bytes: &[u8]) -> Result<Self, NoAuditFile> {
        let mut tail = Self { open: !bytes.is_empty() && !bytes.ends_with(b"\n"), ..Self::default() };
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(tail);
        }
        for line in text.rsplit(|byte| *byte == b'\n') {
            if Record::read(line).is_some() {
                tail.last = Some(Hash::of(line));
                tail.torn.reverse();
                return Ok(tail);
            }
            tail.torn.push(Hash::of(line));
        }
        Err(NoAuditFile)
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
