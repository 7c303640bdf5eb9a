//! `machineid-run` as the packages ship it: linked statically, built apart from everything else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Outcome;

/// The wrapper of its own crate, statically linked. Built at the first call, which takes some seconds; an
/// error says why it cannot be had here.
pub(crate) fn wrapper() -> Outcome<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    Ok(BUILT.get_or_init(|| build().map_err(|error| error.to_string())).clone()?)
}

fn build() -> Outcome<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A folder of its own: with other flags in the common one, each build would throw the other's dependencies away.
    let into = package.join("target/static");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(package)
        .args([
            "build",
            "--quiet",
            "--profile",
            "alone",
            "--locked",
            "--package",
            "machineid-run",
            "--features",
            "program",
        ])
        // Named even though it is this machine's own: only then the flags leave build scripts and macros alone.
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&into)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null());
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {}: {}", output.status, said.lines().last().unwrap_or("no message")).into());
    }
    Ok(into.join(target).join("alone/machineid-run"))
}
