//! The wrapper, as `machineid drill` would start it.

use std::process::Stdio;
use std::time::Duration;

use super::super::facts::Wrapper;
use crate::Env;
use crate::host::wrapper;

/// How long the wrapper may take to print its version.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn wrapper(env: Env<'_>) -> Wrapper {
    let Some(found) = wrapper::find(env) else { return Wrapper::Missing };
    let mut command = tokio::process::Command::from(found.command());
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let version = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err("it hangs".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(output)) if !output.status.success() => Err(output.status.to_string()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout);
            // `machineid-run 0.1.0 (1a2b3c4d5e6f 2026-11-24)`
            said.split_whitespace().nth(1).map(str::to_owned).ok_or("it says nothing".to_owned())
        }
    };
    Wrapper::Found { path: found.path, version }
}
