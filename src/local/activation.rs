//! Socket activation: a socket that a service manager created and keeps. It outlives a restart of the daemon, so that
//! wrappers wait in its backlog instead of being refused. Its mode and owner are the service manager's.

use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::config::{ConfigError, Environment, Origin};

/// Takes the socket that was passed to this process; `None` when none was. To be called once.
///
/// Fails when the service manager passed anything but one listening unix socket.
pub(crate) fn take(environment: &Environment) -> Result<Option<UnixListener>, ConfigError> {
    // Without a pid, or with another one, the variables are left over from the start of another process.
    if environment.text("LISTEN_PID").and_then(|pid| pid.trim().parse().ok()) != Some(std::process::id()) {
        return Ok(None);
    }
    let mut handed = ListenFd::from_env();
    let wrong = |problem: String| ConfigError::at(&Origin::Environment("LISTEN_FDS"), "local.socket", problem);
    match handed.len() {
        0 => return Ok(None),
        1 => {}
        count => {
            let problem = "one is expected: name one ListenStream= in the socket unit";
            return Err(wrong(format!("the service manager hands over {count} sockets; {problem}")));
        }
    }
    let listener = handed.take_unix_listener(0).map_err(|error| wrong(error.to_string()))?;
    if listener.as_ref().is_some_and(|socket| !rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)) {
        let problem = "no client can connect to it: set Accept=no in the socket unit";
        return Err(wrong(format!("the service manager hands over a socket that does not listen; {problem}")));
    }
    Ok(listener)
}
