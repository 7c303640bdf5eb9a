//! A process's or command's program, where an interpreter runs it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What the kernel adds to the name of an executable that was removed or replaced since.
const DELETED: &[u8] = b" (deleted)";

/// Interpreters, and which of their options take a value.
const INTERPRETERS: [(&str, &[&str]); 4] = [
    ("node", &["-r", "--require", "--import", "--loader", "-C", "--conditions"]),
    ("bun", &["-r", "--preload"]),
    ("deno", &[]),
    ("python", &["-W", "-X"]),
];

/// Splits the text of `/proc/<pid>/cmdline` into arguments.
#[must_use]
pub fn split_command_line(text: &[u8]) -> Vec<OsString> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|&byte| byte == 0).map(|argument| OsString::from_vec(argument.to_vec())).collect()
}

/// The last part of a path, without what the kernel adds to it.
pub(crate) fn file_name(path: &OsStr) -> &OsStr {
    let bytes = path.as_bytes();
    let bytes = bytes.strip_suffix(DELETED).unwrap_or(bytes);
    OsStr::from_bytes(bytes.rsplit(|&byte| byte == b'/').next().unwrap_or(bytes))
}

/// The name of a program by its file: a script's without its suffix.
pub(crate) fn program_name(path: &OsStr) -> &OsStr {
    let name = file_name(path).as_bytes();
    let suffixes: [&[u8]; 6] = [b".js", b".mjs", b".cjs", b".py", b".exe", b".sh"];
    let bare = suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix)).filter(|bare| !bare.is_empty());
    OsStr::from_bytes(bare.unwrap_or(name))
}

/// Whether this program runs a script: `node`, `python3.12` and the like. Returns its options that take a value.
pub(crate) fn interpreter(path: &OsStr) -> Option<&'static [&'static str]> {
    let name = file_name(path).to_str()?;
    let plain = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    INTERPRETERS.iter().find(|(known, _)| *known == name || *known == plain).map(|(_, options)| *options)
}

/// The script or module that an interpreter's arguments name, and the arguments behind it.
pub(crate) fn script<'a>(arguments: &'a [OsString], valued: &[&str]) -> Option<(&'a OsStr, &'a [OsString])> {
    let mut rest = arguments;
    loop {
        let (argument, behind) = rest.split_first()?;
        if argument == "-m" {
            let (module, behind) = behind.split_first()?;
            return Some((module, behind));
        }
        if argument == "-e" || argument == "-c" || argument == "-" {
            return None;
        }
        if !super::agent::is_option(argument) {
            return Some((argument, behind));
        }
        let skipped = usize::from(valued.iter().any(|option| argument == option));
        rest = behind.get(skipped..)?;
    }
}
