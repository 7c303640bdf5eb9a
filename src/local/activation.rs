//! Socket activation: sockets that a service manager created and keeps. They outlive a restart of the daemon, so that
//! wrappers wait in the backlog instead of being refused, and no other program takes a port meanwhile. The mode and owner of
//! the unix socket are the service manager's.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::config::{ConfigError, Environment, Origin};

/// The sockets that were passed to this process.
#[derive(Debug, Default)]
pub(crate) struct HandedSockets {
    /// The socket that agents ask.
    pub(crate) socket: Option<UnixListener>,
    /// Ports, each for the setting that names its address.
    ports: Vec<(SocketAddr, TcpListener)>,
}

impl HandedSockets {
    /// Takes them. To be called once.
    ///
    /// Fails when the service manager passed anything but one listening unix socket and listening TCP ports.
    pub(crate) fn take(environment: &Environment) -> Result<Self, ConfigError> {
        // Without a pid, or with another one, the variables are left over from the start of another process.
        if environment.text("LISTEN_PID").and_then(|pid| pid.trim().parse().ok()) != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let mut handed = ListenFd::from_env();
        let wrong = |problem: String| ConfigError::at(&Origin::Environment("LISTEN_FDS"), "local.socket", problem);
        let listens = |socket: &dyn AsFd| {
            let problem = "no client can connect to it: set Accept=no in the socket unit";
            let deaf = || wrong(format!("the service manager hands over a socket that does not listen; {problem}"));
            let listens = rustix::net::sockopt::socket_acceptconn(socket.as_fd()).unwrap_or(false);
            if listens { Ok(()) } else { Err(deaf()) }
        };
        let mut taken = Self::default();
        for number in 0..handed.len() {
            if let Ok(Some(port)) = handed.take_tcp_listener(number) {
                listens(&port)?;
                let address = port.local_addr().map_err(|error| wrong(error.to_string()))?;
                taken.ports.push((address, port));
                continue;
            }
            let socket = handed.take_unix_listener(number).map_err(|error| wrong(error.to_string()))?;
            socket.iter().try_for_each(|socket| listens(socket))?;
            if taken.socket.is_some() {
                let problem = "one is expected: name one path in ListenStream= of the socket unit";
                return Err(wrong(format!("the service manager hands over several unix sockets; {problem}")));
            }
            taken.socket = socket;
        }
        Ok(taken)
    }

    /// The port at this address, if it was handed over.
    pub(crate) fn port(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.ports.iter().position(|(handed, _)| *handed == address)?;
        Some(self.ports.swap_remove(at).1)
    }

    /// The addresses of the ports that nothing has asked for. They are closed here; the service manager keeps its own end.
    pub(crate) fn into_unclaimed(self) -> Vec<SocketAddr> {
        self.ports.into_iter().map(|(address, _)| address).collect()
    }
}
