//! Checks the containment of this user's trees, and how to improve it.

use machineid_protocol::{Containment, HoldsAgainst};
use machineid_tree::NoCgroup;
use serde::Serialize;

use super::super::facts::{Cgroup, CgroupMount, Daemon, HostFacts, LeafTrial, NoPidns, PidnsStep};
use super::{Check, host};

pub(super) fn checks(facts: &HostFacts) -> Vec<Check> {
    vec![verdict(facts), cgroup(facts), pidns(facts)]
}

/// The program that makes the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Maker {
    WrapperFacts,
    Daemon,
}

/// The result of `--containment auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in super::super) struct Expected {
    containment: Containment,
    holds_against: HoldsAgainst,
    maker: Option<Maker>,
}

/// The wrapper tries first, then the daemon; without a leaf the tree is followed by descent.
pub(in super::super) fn expected(facts: &HostFacts) -> Expected {
    let cgroup = &facts.cgroup;
    if let Ok(leaf) = &cgroup.leaf {
        let holds_against = leaf.holds_against;
        return Expected { containment: Containment::Cgroup, holds_against, maker: Some(Maker::WrapperFacts) };
    }
    let daemon = facts.daemon.as_ref().ok();
    if daemon.is_some_and(|daemon| daemon_makes(daemon, cgroup)) {
        let holds_against = match (&cgroup.own_above, facts.user.uid) {
            (None, 1..) => HoldsAgainst::Hostile,
            (_, 0) | (Some(_), _) => HoldsAgainst::Bugs,
        };
        return Expected { containment: Containment::Cgroup, holds_against, maker: Some(Maker::Daemon) };
    }
    Expected { containment: Containment::Subreaper, holds_against: HoldsAgainst::Bugs, maker: None }
}

/// Whether the daemon, or its leaf helper, may write where this user may not. The daemon must also see the process that is moved.
fn daemon_makes(daemon: &Daemon, cgroup: &Cgroup) -> bool {
    let Some(listener) = &daemon.listener else { return false };
    let permitted = listener.powers.write || daemon.status.leaf_helper.is_some() || cgroup.owner == Some(listener.uid);
    let permission_is_what_lacks = matches!(cgroup.leaf, Err(NoCgroup::NotPermitted(_)));
    listener.pid.is_some() && permitted && permission_is_what_lacks
}

fn verdict(facts: &HostFacts) -> Check {
    let what = "containment";
    let Expected { containment, holds_against, maker } = expected(facts);
    let maker = match maker {
        Some(Maker::WrapperFacts) => ", a leaf that the wrapper makes",
        Some(Maker::Daemon) => ", a leaf that the daemon makes",
        None => "",
    };
    let agents = match facts.user.uid {
        0 => "root's agents",
        _ => "this user's agents",
    };
    let found = match holds_against {
        HoldsAgainst::Hostile => format!("{agents} get {containment}{maker}; it holds against hostile agents"),
        HoldsAgainst::Bugs => {
            format!("{agents} get {containment}{maker}; it holds against bugs; a hostile agent could escape")
        }
    };
    match (holds_against, facts.user.uid, containment) {
        (HoldsAgainst::Hostile, _, _) => Check::ok(what, found),
        (HoldsAgainst::Bugs, 0, _) => {
            let remedy = format!("run agents as an ordinary user, with the daemon as root{}", or_pidns(facts));
            Check::warn(what, found, remedy)
        }
        (HoldsAgainst::Bugs, _, Containment::Cgroup | Containment::Pidns) => {
            let better = "start them in a control group of root's (a system service with CurrentUser=) beside a daemon that runs as \
                          root";
            Check::warn(what, found, format!("{better}{}", or_pidns(facts)))
        }
        (HoldsAgainst::Bugs, _, Containment::Subreaper) => {
            let better = match &facts.cgroup.leaf {
                Err(NoCgroup::NotPermitted(_)) => {
                    "start the leaf helper (systemctl enable --now machineid-sidecar-leaf.socket) or run the daemon as root \
                     (both hold against hostile agents), or start them in a delegated group (systemd: Delegate=yes)"
                }
                Ok(_) | Err(_) => "make a control group possible, see the next line",
            };
            Check::warn(what, found, format!("{better}{}", or_pidns(facts)))
        }
    }
}

fn or_pidns(facts: &HostFacts) -> &'static str {
    match &facts.pidns {
        Ok(()) => ", or start them with machineid-run --containment pidns",
        Err(_) => "",
    }
}

fn cgroup(facts: &HostFacts) -> Check {
    let what = "cgroup";
    let mount = match &facts.cgroup.mount {
        CgroupMount::None => {
            let remedy = "mount it: mount -t cgroup2 none /sys/fs/cgroup";
            return Check::warn(what, "no cgroup2 file system is mounted", remedy);
        }
        CgroupMount::Unified(point) => format!("cgroup2 at {}", point.display()),
        CgroupMount::Hybrid(point) => format!("cgroup2 at {}, beside version 1", point.display()),
    };
    match &facts.cgroup.leaf {
        Ok(leaf) => tried(leaf, &mount),
        Err(failure) => match (expected(facts), failure) {
            (Expected { maker: Some(Maker::Daemon), .. }, NoCgroup::NotPermitted(own)) => {
                let own = own.display();
                Check::ok(what, format!("{mount}: this user may make no leaf in {own}, so the daemon makes it"))
            }
            // The failure already says what would help.
            _ => Check { remedy: None, ..Check::warn(what, format!("{mount}: {failure}"), "") },
        },
    }
}

fn tried(leaf: &LeafTrial, mount: &str) -> Check {
    let what = "cgroup";
    let below = leaf.below.display();
    if let Err(errno) = leaf.removed {
        let found = format!("{mount}: a leaf below {below} could not be removed: {errno}");
        return Check::warn(what, found, format!("remove it: rmdir {below}/machineid-*"));
    }
    if let Err(why) = &leaf.killed {
        let found = format!("{mount}: cgroup.kill of a leaf below {below}: {why}");
        return Check::fail(what, found, "a kernel from 5.14 on has it; see whether a sandbox hides the file");
    }
    if let Err(why) = &leaf.entered {
        let found = format!("{mount}: no process could be made in a leaf below {below}: {why}");
        let remedy = "agents are moved in instead, some milliseconds later; let the sandbox pass clone3";
        return Check::warn(what, found, remedy);
    }
    let freezer = if leaf.can_freeze { "" } else { "; it cannot be frozen" };
    Check::ok(what, format!("{mount}: a leaf below {below} was made, entered, killed and removed{freezer}"))
}

fn pidns(facts: &HostFacts) -> Check {
    let what = "pidns";
    match &facts.pidns {
        Ok(()) if facts.user.uid == 0 => Check::ok(what, "available with --containment pidns (tested)"),
        Ok(()) => Check::ok(
            what,
            "available with --containment pidns, through a user namespace (setuid programs do not work there; tested)",
        ),
        Err(failure) => {
            let step = match failure.step {
                PidnsStep::Make => "cannot be made",
                PidnsStep::MapIds => "cannot have a user in it",
                PidnsStep::MountProc => "has no /proc of its own",
            };
            let unknown = host::no_process_left(&facts.kernel);
            let remedy = if unknown { "see the kernel's line" } else { namespace_remedy(failure) };
            Check::warn(what, format!("a PID namespace {step}: {}", failure.why), remedy)
        }
    }
}

/// The remedy by the settings that forbid the namespace, the likeliest first.
fn namespace_remedy(failure: &NoPidns) -> &'static str {
    match failure {
        NoPidns { most_user_namespaces: Some(0), .. } => "allow them: sysctl user.max_user_namespaces=15000",
        NoPidns { unprivileged_clone: Some(0), .. } => "allow them: sysctl kernel.unprivileged_userns_clone=1",
        NoPidns { apparmor_restricts: Some(1..), .. } => {
            "give machineid-run an AppArmor profile with userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        }
        NoPidns { step: PidnsStep::MountProc, .. } => {
            "a container whose /proc is masked forbids it; unmask it (Docker: --security-opt systempaths=unconfined)"
        }
        NoPidns { step: PidnsStep::Make | PidnsStep::MapIds, .. } => {
            "a container or a seccomp filter forbids it; allow clone3 with namespaces there (Docker: a seccomp profile)"
        }
    }
}
