//! The service's own Python client.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const REMEDY: &str = "python3 -m venv target/official-client && target/official-client/bin/pip install machineid-io";

/// A Python that has the client. Without one the test is skipped, but never in CI.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
pub(crate) fn python() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/official-client/bin/python");
    let python = env::var_os("MACHINEID_TEST_PYTHON").map_or(usual, PathBuf::from);
    let has_client = Command::new(&python).args(["-c", "import machineid"]).output().is_ok_and(|o| o.status.success());
    if has_client {
        return Some(python);
    }
    let missing = format!("{} has no official client; install it with\n    {REMEDY}", python.display());
    assert!(env::var_os("CI").is_none(), "{missing}");
    // Not `eprintln!`: the test harness would swallow that.
    let _ = writeln!(io::stderr(), "SKIPPED a test with the official client: {missing}");
    None
}

/// Runs a Python script that gets the key on its standard input, and gives what it printed.
pub(crate) fn run(python: &Path, script: &[&str], key: &str) -> String {
    let mut child = Command::new(python)
        .args(script)
        .env_remove("MACHINEID_ORG_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{key}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
