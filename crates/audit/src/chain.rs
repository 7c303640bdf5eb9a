//! The format of an audit file: lines, each with the hash of the line before. Pure.
//!
//! A line is a JSON object and ends with `prev`, the SHA-256 of the record before it without its newline (with a key: the
//! HMAC-SHA-256), as 64 hex digits; the first record of all has zeros. A file that begins with another hash continues an earlier file.
//!
//! A daemon that is killed while it writes leaves part of a line, and so may a full disk. The next writer ends that
//! part with a newline and declares it: its record names in `torn` the hash of each such part before it, and `prev` is
//! the hash of the last whole record. So nothing needs to be removed from a file, and a torn line is told from one that
//! was tampered with.

use std::fmt::{self, Write as _};

use machineid_protocol::event::{Caller, Happening};
use machineid_protocol::strict_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::key::Chain;

/// The longest line, in bytes; names, command lines and reasons are cut to fit.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The hash of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash that stands for the record before the first one.
    pub const NOTHING: Self = Self([0; 32]);

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
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

/// The content of a record.
#[derive(Clone, Copy, Debug)]
pub enum ChainedEntry<'a> {
    /// An event, with the process that asked for it, if any.
    Happened(&'a Happening, Option<&'a Caller>),
    /// The first record of a daemon, or of a new file.
    Opened {
        /// Whether the records from here on are hashed with a key.
        keyed: bool,
    },
    /// Records were lost before this one.
    Gap {
        /// The number of lost records.
        lost: u64,
        /// The reason, as far as it is known.
        reason: &'a str,
    },
}

/// The name of [`ChainedEntry::Opened`].
pub const OPENED: &str = "audit-opened";
/// The name of [`ChainedEntry::Gap`].
pub const GAP: &str = "audit-gap";

/// Makes the line of a record, without its newline.
pub fn line(time: &str, entry: ChainedEntry<'_>, torn: &[Hash], prev: Hash) -> String {
    let mut about = match entry {
        ChainedEntry::Happened(what, caller) => {
            let mut about = object(what);
            about.insert("caller".to_owned(), value(&caller));
            about
        }
        ChainedEntry::Opened { keyed } => {
            let mut about = object(
                &serde_json::json!({"event": OPENED, "version": machineid_version::VERSION, "pid": std::process::id()}),
            );
            if keyed {
                about.insert("keyed".to_owned(), true.into());
            }
            about
        }
        ChainedEntry::Gap { lost, reason } => {
            object(&serde_json::json!({"event": GAP, "lost": lost, "reason": reason}))
        }
    };
    let mut line = String::from("{");
    let mut put = |name: &str, value: &Value| {
        let comma = if line.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(line, "{comma}{}:{value}", Value::from(name));
    };
    put("time", &time.into());
    // The fields of every record come first, always in the same places.
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
    // Every value has a JSON form.
    serde_json::to_value(what).unwrap_or_default()
}

fn object<T: Serialize>(what: &T) -> Map<String, Value> {
    match value(what) {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// The fields of a line that matter to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// The name of the event.
    pub event: String,
    /// The hash of the record before it.
    pub prev: Hash,
    /// Hashes of the parts of lines before it that it declares torn.
    pub torn: Vec<Hash>,
    /// The number of records that it declares lost.
    pub lost: u64,
    /// Whether it says that the records from here on are hashed with a key; `None` when it says nothing about that.
    pub keyed: Option<bool>,
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
    #[serde(default)]
    keyed: bool,
}

impl AuditRecord {
    /// Parses a line; `None` when it is no audit record.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_value(strict_json::from_slice(line).ok()?).ok()?;
        let torn = written.torn.iter().map(|hash| Hash::parse(hash)).collect::<Option<_>>()?;
        let declares = matches!(written.event.as_str(), OPENED | GAP);
        let Written { event, prev, lost, keyed, .. } = written;
        Some(Self {
            keyed: (event == OPENED).then_some(keyed),
            event,
            prev: Hash::parse(&prev)?,
            torn: if declares { torn } else { Vec::new() },
            lost: if declares { lost } else { 0 },
        })
    }
}

/// The end of a file, for the next writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The hash of the last whole record; `None` in an empty file.
    pub last: Option<Hash>,
    /// The hashes of the parts of lines behind it.
    pub torn: Vec<Hash>,
    /// Whether the next writer must begin with a newline.
    pub open: bool,
}

/// The file is not empty and has no record at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAuditFile;

impl Tail {
    /// Reads the end of a file from its last bytes: all of them, or enough to contain the last record.
    pub fn of(bytes: &[u8], chain: &Chain) -> Result<Self, NoAuditFile> {
        let mut tail = Self { open: !bytes.is_empty() && !bytes.ends_with(b"\n"), ..Self::default() };
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(tail);
        }
        for line in text.rsplit(|byte| *byte == b'\n') {
            if AuditRecord::read(line).is_some() {
                tail.last = Some(chain.hash(line));
                tail.torn.reverse();
                return Ok(tail);
            }
            tail.torn.push(chain.hash(line));
        }
        Err(NoAuditFile)
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
