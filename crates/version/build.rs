//! Passes the commit of the build to the programs.
//!
//! | there is | `--version` says |
//! |---|---|
//! | a development build | `0.1.0 (development build)`: its sources change by the minute |
//! | `MACHINEID_COMMIT`, from a packager | that |
//! | the archive of a commit (`git archive`) | its commit and date |
//! | a git checkout | its commit and date, and `modified` when the sources differ from the commit |
//! | none of them | `0.1.0` alone |
//!
//! No time, path or host name of the build is included: two builds of a commit have the same bytes.

use std::path::Path;
use std::process::Command;

/// The workspace. cargo runs the build script in the member's directory; the other paths here are relative to the
/// workspace.
const WORKSPACE: &str = "../..";
/// The sources of the programs; changes of other files do not matter.
const SOURCES: [&str; 4] = ["src", "crates", "Cargo.toml", "Cargo.lock"];
/// `git archive` fills this file in (`.gitattributes`).
const ARCHIVED: &str = "packaging/commit";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MACHINEID_COMMIT");
    let version = variable("CARGO_PKG_VERSION").unwrap_or_default();
    let text = match origin() {
        Some(origin) => format!("{version} ({origin})"),
        None => version,
    };
    println!("cargo:rustc-env=MACHINEID_VERSION={text}");
}

fn origin() -> Option<String> {
    if let Some(given) = variable("MACHINEID_COMMIT") {
        return Some(given);
    }
    // Profiles that inherit from `release`, such as `dist`, have this value too.
    if variable("PROFILE").as_deref() != Some("release") {
        // With the commit in it, a development build would be made anew after each commit.
        return Some("development build".to_owned());
    }
    archived().or_else(checked_out)
}

fn archived() -> Option<String> {
    println!("cargo:rerun-if-changed={WORKSPACE}/{ARCHIVED}");
    let text = std::fs::read_to_string(Path::new(WORKSPACE).join(ARCHIVED)).ok()?;
    let (commit, date) = text.trim().split_once(' ')?;
    // If it was not filled in, it still begins with a dollar sign.
    commit.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{commit:.12} {date}"))
}

fn checked_out() -> Option<String> {
    // A checkout of something else, into which these sources were unpacked, must not count.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(WORKSPACE).canonicalize().ok()? {
        return None;
    }
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    let moving = ["HEAD".to_owned(), "packed-refs".to_owned()].into_iter().chain(branch);
    for place in moving.filter_map(|name| git(&["rev-parse", "--git-path", &name])).chain(SOURCES.map(str::to_owned)) {
        // cargo takes a file that does not exist for one that has always changed.
        let place = Path::new(WORKSPACE).join(place);
        if place.exists() {
            println!("cargo:rerun-if-changed={}", place.display());
        }
    }
    let commit = git(&["log", "-1", "--abbrev=12", "--format=%h %cs"])?;
    let changes = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}, modified") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(WORKSPACE)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
