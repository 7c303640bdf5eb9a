//! Collects the facts. Decides nothing.
//!
//! | file | concept |
//! |---|---|
//! | `daemon` | the socket, the process behind it, the daemon's answers |
//! | `programs` | the wrapper |
//! | `kernel` | features and `/proc`, each tested |
//! | `containment` | a leaf and a PID namespace, made and removed |
//! | `helpers` | the processes behind those services, and daemons of agents |
//! | `hooks` | agents' hooks, found in their settings and run |
//! | `routes` | services that would start something outside the tree |
//! | `users` | names of users and groups |

mod containment;
mod daemon;
mod helpers;
mod hooks;
mod kernel;
mod programs;
mod routes;
mod users;

use machineid_clock as clock;

use super::facts::HostFacts;
use crate::Env;
use crate::args::SocketArgs;

/// Collects all facts. Must be called before any thread is started, since the probes fork.
pub(super) async fn all(socket: &SocketArgs, env: Env<'_>) -> HostFacts {
    let user = users::own();
    // The forks come first: the rest may start threads.
    let (kernel, cgroup, pidns) = (kernel::features(), containment::cgroup(), containment::pidns(user.uid));
    let proc = kernel::proc();
    let routes = routes::all(&user, env);
    let wrapper = programs::wrapper(env).await;
    let (socket, daemon) = daemon::ask(socket, env).await;
    let sessions = users::sessions(&socket.path);
    let hooks = hooks::all(env).await;
    HostFacts {
        now: clock::wall_now(),
        user,
        wrapper,
        socket,
        sessions,
        daemon,
        kernel,
        proc,
        cgroup,
        pidns,
        routes,
        hooks,
    }
}
