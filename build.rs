//! Tells the programs which commit they are built from, and the linker which functions of the daemon belong together and
//! what the wrapper does without.
//!
//! | there is | `--version` says |
//! |---|---|
//! | a development build | `0.1.0 (development build)`: what it is built from changes by the minute |
//! | `MACHINEID_COMMIT`, from a packager | that |
//! | the archive of a commit (`git archive`) | its commit and date |
//! | a git checkout | its commit and date, and `modified` when what is built is not what was committed |
//! | none of them | `0.1.0` alone |
//!
//! Nothing of the time, the place or the machine of the build goes in: two builds of a commit have the same bytes.

use std::path::Path;
use std::process::Command;

/// What goes into the programs; a change to anything else is none to them.
const SOURCES: [&str; 7] = ["src", "migrations", "templates", "Cargo.toml", "Cargo.lock", "build.rs", ORDER];
/// `git archive` fills this file in (`.gitattributes`).
const ARCHIVED: &str = "packaging/commit";
/// The functions that the daemon enters, as `packaging/order/record.py` found them. Next to each other they take half
/// the memory that they take where the compiler puts them.
const ORDER: &str = "packaging/order/first.ld";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MACHINEID_COMMIT");
    let version = variable("CARGO_PKG_VERSION").unwrap_or_default();
    let text = match origin() {
        Some(origin) => format!("{version} ({origin})"),
        None => version,
    };
    println!("cargo:rustc-env=MACHINEID_VERSION={text}");
    println!("cargo:rerun-if-changed={ORDER}");
    if !is_usual_release() {
        return;
    }
    if let Some(script) = order() {
        println!("cargo:rustc-link-arg-bin=machineid-sidecar=-T");
        println!("cargo:rustc-link-arg-bin=machineid-sidecar={script}");
    }
    if let Some(libraries) = unwinder() {
        println!("cargo:rustc-link-arg-bin=machineid-run=-L{libraries}");
    }
}

/// Whether this is a release build by a linker that understands scripts: Rust's own and GNU's do; others that somebody chose
/// may not, and do without.
fn is_usual_release() -> bool {
    let is_release = variable("PROFILE").as_deref() == Some("release");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let linker = variable("RUSTC_LINKER").unwrap_or_else(|| "cc".to_owned());
    let is_usual = linker.ends_with("cc") && !flags.contains("-fuse-ld") && !flags.contains("linker=");
    is_release && is_usual && variable("CARGO_CFG_TARGET_OS").as_deref() == Some("linux")
}

/// The linker script of the order.
fn order() -> Option<String> {
    variable("CARGO_FEATURE_SERVICES")?;
    Path::new(ORDER).canonicalize().ok()?.to_str().map(str::to_owned)
}

/// A directory in which the linker finds the static library in the place of `libgcc_s.so`, which unwinds a panic. Loading
/// the shared one takes the wrapper 0.2 ms before each agent, most of it in a constructor that asks the processor what it
/// can: in a virtual machine each such question goes to the hypervisor.
fn unwinder() -> Option<String> {
    let is_dynamic = !variable("CARGO_CFG_TARGET_FEATURE").unwrap_or_default().contains("crt-static");
    if !is_dynamic || variable("CARGO_CFG_TARGET_ENV").as_deref() != Some("gnu") {
        return None;
    }
    // Not every compiler comes with it.
    let linker = variable("RUSTC_LINKER").unwrap_or_else(|| "cc".to_owned());
    let place = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output().ok()?;
    if !Path::new(String::from_utf8(place.stdout).ok()?.trim()).is_absolute() {
        return None;
    }
    let directory = Path::new(&variable("OUT_DIR")?).join("unwinder");
    std::fs::create_dir_all(&directory).ok()?;
    std::fs::write(directory.join("libgcc_s.so"), "GROUP(-lgcc_eh -lgcc)\n").ok()?;
    directory.to_str().map(str::to_owned)
}

fn origin() -> Option<String> {
    if let Some(given) = variable("MACHINEID_COMMIT") {
        return Some(given);
    }
    if variable("PROFILE").as_deref() != Some("release") {
        // Each commit would build everything once more.
        return Some("development build".to_owned());
    }
    archived().or_else(checked_out)
}

fn archived() -> Option<String> {
    println!("cargo:rerun-if-changed={ARCHIVED}");
    let text = std::fs::read_to_string(ARCHIVED).ok()?;
    let (commit, date) = text.trim().split_once(' ')?;
    // Not filled in, it still begins with a dollar sign.
    commit.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("{commit:.12} {date}"))
}

fn checked_out() -> Option<String> {
    // A checkout of something else, into which these sources were unpacked, is none of ours.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::current_dir().ok()?;
    if Path::new(&top).canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    let moving = ["HEAD".to_owned(), "packed-refs".to_owned()].into_iter().chain(branch);
    for place in moving.filter_map(|name| git(&["rev-parse", "--git-path", &name])).chain(SOURCES.map(str::to_owned)) {
        // A file that is not there would be one that has always changed.
        if Path::new(&place).exists() {
            println!("cargo:rerun-if-changed={place}");
        }
    }
    let commit = git(&["log", "-1", "--abbrev=12", "--format=%h %cs"])?;
    let changes = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}, modified") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
