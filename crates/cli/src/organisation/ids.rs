//! Reads the device ids that a command is about.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use machineid_protocol::DeviceId;

use crate::args::IdArgs;
use crate::problem::Problem;

/// The maximum size of a list of ids, in bytes: enough for half a million long ones.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The ids from arguments, file and stdin, in this order, each once, as text: an authority may have ids that this
/// program would not accept, and a stop must reach them, too.
///
/// Fails when there is no id: a stop that silently stops nothing would be the worst result.
pub(super) fn texts(args: &IdArgs) -> Result<Vec<String>, Problem> {
    let mut found = CollectedIds::default();
    let mut stdin_read = false;
    let mut from_stdin = |found: &mut CollectedIds| {
        if std::mem::replace(&mut stdin_read, true) {
            return Ok(());
        }
        found.lines("stdin", std::io::stdin().lock())
    };
    for id in &args.ids {
        if id == "-" {
            from_stdin(&mut found)?;
        } else {
            found.add(id);
        }
    }
    if let Some(path) = &args.from {
        if path == Path::new("-") {
            from_stdin(&mut found)?;
        } else {
            let file = std::fs::File::open(path)
                .map_err(|error| Problem::usage(format!("--from: cannot read {}: {error}", path.display())))?;
            found.lines(&path.display().to_string(), file)?;
        }
    }
    if !found.ids.is_empty() {
        return Ok(found.ids);
    }
    Err(Problem::usage(if args.ids.is_empty() && args.from.is_none() {
        "no device given; give one or more ids, --from FILE, or - to read them from stdin"
    } else {
        "no device given: the input contains no id"
    }))
}

/// The ids as [`DeviceId`]s. Fails and names each text that is not valid.
pub(super) fn parsed(args: &IdArgs) -> Result<Vec<DeviceId>, Problem> {
    let mut ids = Vec::new();
    let mut wrong = Vec::new();
    for text in texts(args)? {
        match text.parse::<DeviceId>() {
            Ok(id) => ids.push(id),
            Err(error) => wrong.push(format!("{text:?}: {error}")),
        }
    }
    if wrong.is_empty() { Ok(ids) } else { Err(Problem::usage(wrong.join("\nmachineid: "))) }
}

#[derive(Debug, Default)]
struct CollectedIds {
    ids: Vec<String>,
    seen: HashSet<String>,
}

impl CollectedIds {
    fn add(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() && self.seen.insert(text.to_owned()) {
            self.ids.push(text.to_owned());
        }
    }

    fn lines(&mut self, name: &str, source: impl Read) -> Result<(), Problem> {
        let mut bytes = Vec::new();
        source
            .take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Problem::usage(format!("cannot read {name}: {error}")))?;
        if bytes.len() as u64 > LONGEST {
            return Err(Problem::usage(format!("{name} is too long for a list of device ids")));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Problem::usage(format!("{name} is not a list of device ids: it is not UTF-8 text")))?;
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            self.add(line);
        }
        Ok(())
    }
}
