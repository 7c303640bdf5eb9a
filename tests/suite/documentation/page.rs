//! A page's blocks of commands.
//!
//! A block that is to be typed begins with ```` ```sh run ````, with what it needs around it as a further word: `daemon` for
//! a running authority and daemon, `fleet` for a running authority with devices. Blocks of other languages are shown, not
//! typed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a block needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    Nothing,
    Daemon,
    Fleet,
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Every page, by its name.
pub(super) fn pages() -> BTreeMap<String, String> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    pages.map(|name| (name.clone(), fs::read_to_string(folder().join(name)).unwrap())).collect()
}

/// The commands of a page, block by block, by what they need.
pub(super) fn commands(name: &str, text: &str) -> BTreeMap<Needs, Vec<String>> {
    let mut found: BTreeMap<Needs, Vec<String>> = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let needs = match kind {
            "sh run" => Needs::Nothing,
            "sh run daemon" => Needs::Daemon,
            "sh run fleet" => Needs::Fleet,
            "json" | "text" | "toml" | "dockerfile" | "yaml" | "ini" => continue,
            other => panic!("{name}: a block that begins with ```{other} is neither run nor known to be shown only"),
        };
        found.entry(needs).or_default().push(block.join("\n"));
    }
    found
}
