//! Checks the kernel, `/proc`, and escape routes from a tree.

use std::collections::BTreeMap;

use machineid_agents::by_name;

use machineid_sys::ForkError;
use rustix::io::Errno;

use super::super::facts::{HostFacts, Kernel, ProcView, RouteKind};
use super::Check;

/// The oldest kernel with all required features: `cgroup.kill` is the newest of them.
const OLDEST: (u32, u32) = (5, 14);

pub(super) fn checks(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![kernel(&facts.kernel), proc(&facts.proc, facts.user.uid)];
    checks.extend(routes(facts));
    checks
}

fn kernel(kernel: &Kernel) -> Check {
    let what = "kernel";
    let release = &kernel.release;
    if version(release).is_some_and(|version| version < OLDEST) {
        return Check::fail(what, format!("Linux {release} is too old"), "5.14 or newer is needed");
    }
    if let Err(errno) = kernel.pidfd {
        let found = format!("Linux {release}: pidfd_open fails: {errno}");
        return Check::fail(what, found, "let the sandbox pass pidfd_open and pidfd_send_signal");
    }
    if no_process_left(kernel) {
        let found = format!("Linux {release} has no process left to give to this user");
        let remedy = "stop what makes so many, or raise the limit that is reached (ulimit -u, pids.max, \
                      kernel.pid_max); a stop works all the same";
        return Check::fail(what, found, remedy);
    }
    if let Err(why) = &kernel.clone3 {
        let found = format!("Linux {release}: clone3 fails: {why}");
        return Check::warn(what, found, "let the sandbox pass clone3: control groups and PID namespaces need it");
    }
    let peer =
        if kernel.peer_pidfd { "SO_PEERPIDFD" } else { "no SO_PEERPIDFD, which 6.5 has; peers are known by number" };
    Check::ok(what, format!("Linux {release} with pidfd, clone3, {peer}"))
}

/// Whether the probes failed because no process could be created, and so say nothing about what they test.
pub(super) fn no_process_left(kernel: &Kernel) -> bool {
    kernel.clone3 == Err(ForkError::Kernel(Errno::AGAIN))
}

/// The version of a release: `6.18.44-generic` is 6.18.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn proc(proc: &ProcView, uid: u32) -> Check {
    let what = "/proc";
    match (&proc.usable, &proc.hides) {
        (Err(why), _) => Check { remedy: None, ..Check::fail(what, why, "") },
        (Ok(()), Some(option)) if uid != 0 => Check::warn(
            what,
            format!("{option} hides other users' processes: an agent's child that changes its user is not seen"),
            "mount /proc without it, or let a daemon that runs as root supervise",
        ),
        (Ok(()), Some(_) | None) => Check::ok(what, "shows the processes of this PID namespace"),
    }
}

/// One line for each kind of service that would start something outside the tree.
fn routes(facts: &HostFacts) -> Vec<Check> {
    let what = "escape route";
    let mut kinds: BTreeMap<RouteKind, Vec<&str>> = BTreeMap::new();
    for route in &facts.routes {
        kinds.entry(route.kind).or_default().push(&route.place);
    }
    let mut checks: Vec<Check> = kinds
        .into_iter()
        .map(|(kind, places)| {
            let places = places.join(", ");
            let opens = |name: &str, remedy: &str| {
                Check::warn(what, format!("{name} ({places}): what it starts for an agent is in no tree"), remedy)
            };
            match kind {
                RouteKind::Containers => {
                    opens("a container engine can be asked", "take the agents' user out of the engine's group")
                }
                RouteKind::SystemManager => opens("systemd can be asked", "run agents as an ordinary user"),
                RouteKind::SystemBus if facts.user.uid == 0 => {
                    opens("the system bus can be asked", "run agents as an ordinary user")
                }
                RouteKind::SystemBus => {
                    Check::ok(what, format!("the system bus ({places}): polkit decides what it does"))
                }
                RouteKind::UserManager => opens(
                    "this user's systemd can be asked",
                    "run agents as a user without one (no login, no linger), or hide its sockets from them",
                ),
                RouteKind::Cron => {
                    opens("cron", "name the agents' user in /etc/cron.deny, or leave it out of cron.allow")
                }
                RouteKind::At => opens("at", "name the agents' user in /etc/at.deny, or leave it out of at.allow"),
                RouteKind::Tmux => opens("a tmux server of this user runs", "run agents as another user than your own"),
                RouteKind::Screen => {
                    opens("a screen server of this user runs", "run agents as another user than your own")
                }
                RouteKind::Multiplexer => {
                    opens("a terminal multiplexer of this user runs", "run agents as another user than your own")
                }
                RouteKind::Ssh => opens(
                    "an ssh server takes this user's keys",
                    "keep private keys that open this host, and an ssh agent that holds them, away from agents",
                ),
                RouteKind::AgentDaemon(name) => {
                    let daemon = by_name(name).and_then(|agent| agent.daemon.as_ref());
                    let (title, stop) = daemon.map_or((name, ""), |daemon| (daemon.title, daemon.stop));
                    let remedy = format!(
                        "end it ({stop}), or start {name} with machineid-run --isolate, or put the daemon under supervision"
                    );
                    opens(&format!("{title} runs outside every tree"), &remedy)
                }
            }
        })
        .collect();
    if checks.is_empty() {
        checks.push(Check::ok(
            what,
            "no agent's daemon, container engine, systemd, cron, at, tmux, screen or ssh that this user could ask",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        for (release, expected) in
            [("6.18.44-fc-v445", Some((6, 18))), ("5.14.0", Some((5, 14))), ("6.1+", Some((6, 1))), ("odd", None)]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
