use machineid_protocol::HoldsAgainst;
use machineid_sys::ForkError;
use machineid_tree::NoCgroup;
use rustix::io::Errno;
use serde_json::json;

use super::super::facts::*;
use super::*;
use crate::host::socket::DaemonError;

/// An ordinary user with a daemon that runs as root, on a host with all features.
fn healthy() -> HostFacts {
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"), "pid": 7, "started_at": "2026-11-23T12:00:00Z", "socket": "/s",
        "authority": {"url": "https://machineid.io", "reachable": true, "last_answer_at": "2026-11-23T14:59:59Z",
            "last_error": null},
        "stop_bound": {"connected_ms": 19500, "cut_off_ms": 41000},
        "configuration": {"file": null, "key_source": "/etc/machineid/org-key", "key_protection": "nobody can reach it"},
        "devices": [{"device_id": "host:a", "host": true, "standing": "allowed", "since": "2026-11-23T12:00:00Z",
            "last_decision": {"at": "2026-11-23T14:59:59Z", "allowed": true, "code": "ALLOW", "request_id": null,
                "reason": null},
            "last_error": null, "next_validation_ms": 100, "lease_left_ms": 9000, "agents": 0}],
        "agents": [], "recent_stops": []
    });
    let owner = |id: u32, name: &str| Owner { id, name: Some(name.to_owned()) };
    let powers = Powers { kill: true, write: true };
    HostFacts {
        now: "2026-11-23T15:00:00Z".parse().unwrap(),
        user: CurrentUser { uid: 1000, name: Some("ann".to_owned()) },
        wrapper: WrapperFacts::Found {
            path: "/bin/machineid-run".into(),
            version: Ok(env!("CARGO_PKG_VERSION").to_owned()),
        },
        socket: SocketFacts {
            path: "/run/machineid/sidecar.sock".into(),
            state: SocketState::There {
                owner: owner(0, "root"),
                group: owner(70, "agents"),
                mode: 0o660,
                may_open: true,
                replaceable: false,
            },
        },
        sessions: None,
        daemon: Ok(Daemon {
            status: Box::new(serde_json::from_value(status).unwrap()),
            not_ready: None,
            authority_socket: None,
            listener: Some(Listener { pid: Some(7), uid: 0, trusted: true, powers }),
        }),
        kernel: Kernel { release: "6.18.1".to_owned(), pidfd: Ok(()), peer_pidfd: true, clone3: Ok(()) },
        proc: ProcView { usable: Ok(()), hides: None },
        cgroup: Cgroup {
            mount: CgroupMount::Unified("/sys/fs/cgroup".into()),
            leaf: Err(NoCgroup::NotPermitted("/sys/fs/cgroup/a".into())),
            own_above: None,
            owner: Some(0),
        },
        pidns: Ok(()),
        routes: Vec::new(),
        hooks: Vec::new(),
    }
}

/// A leaf that the user can make.
fn leaf(holds_against: HoldsAgainst) -> LeafTrial {
    LeafTrial {
        below: "/sys/fs/cgroup/a".into(),
        holds_against,
        entered: Ok(()),
        killed: Ok(()),
        can_freeze: true,
        removed: Ok(()),
    }
}

fn no_pidns(step: PidnsStep) -> NoPidns {
    NoPidns {
        step,
        why: PidnsFault::Kernel(Errno::PERM),
        most_user_namespaces: Some(100),
        unprivileged_clone: None,
        apparmor_restricts: None,
    }
}

fn daemon(facts: &mut HostFacts) -> &mut Daemon {
    facts.daemon.as_mut().unwrap()
}

fn deny(facts: &mut HostFacts, code: &str) {
    let device = &mut daemon(facts).status.devices[0];
    device.standing = machineid_protocol::status::StandingKind::Denied;
    device.last_decision.as_mut().unwrap().code = code.into();
}

fn socket(facts: &mut HostFacts, change: impl FnOnce(&mut u32, &mut bool, &mut bool)) {
    if let SocketState::There { mode, may_open, replaceable, .. } = &mut facts.socket.state {
        change(mode, may_open, replaceable);
    }
}

fn route(kind: RouteKind, place: &str) -> Vec<EscapeRoute> {
    vec![EscapeRoute { kind, place: place.to_owned() }]
}

#[test]
fn on_a_healthy_host_everything_is_ok_and_each_check_is_named_once() {
    let checks = all(&healthy());
    for check in &checks {
        assert_eq!((check.level, &check.remedy), (Level::Ok, &None), "{check:?}");
    }
    let names: Vec<_> = checks.iter().map(|check| check.what).collect();
    let expected = "versions, socket, daemon, standing, authority, clock, org key, stop bound, past stops, containment, cgroup, \
                    pidns, kernel, /proc, escape route";
    assert_eq!(names.join(", "), expected);
    let containment = checks.iter().find(|check| check.what == "containment").unwrap();
    assert!(containment.found.contains("a leaf that the daemon makes; it holds against hostile"), "{containment:?}");
    let cgroup = checks.iter().find(|check| check.what == "cgroup").unwrap();
    assert!(cgroup.found.contains("so the daemon makes it"), "{cgroup:?}");
}

/// A fault, the check that must show it, its level, and words that the text must contain.
type Case = (&'static str, fn(&mut HostFacts), &'static str, Level, &'static [&'static str]);

const DAEMON: &[Case] = &[
    ("no wrapper", |f| f.wrapper = WrapperFacts::Missing, "versions", Level::Warn, &["machineid-run", "install"]),
    (
        "a wrapper of another version",
        |f| f.wrapper = WrapperFacts::Found { path: "/w".into(), version: Ok("9.9.9".to_owned()) },
        "versions",
        Level::Warn,
        &["9.9.9", "restart the daemon"],
    ),
    (
        "a wrapper that does not run",
        |f| f.wrapper = WrapperFacts::Found { path: "/w".into(), version: Err(NoVersion::Hangs) },
        "versions",
        Level::Fail,
        &["/w", "it hangs"],
    ),
    (
        "a daemon of another version",
        |f| "9.9.9".clone_into(&mut daemon(f).status.version),
        "versions",
        Level::Warn,
        &["9.9.9"],
    ),
    (
        "no answer of a daemon",
        |f| f.daemon = Err(DaemonError::Silent { socket: "/s".into(), timeout: std::time::Duration::from_secs(5) }),
        "daemon",
        Level::Fail,
        &["/s gave no answer within 5s", "See its log"],
    ),
    (
        "a file for a socket",
        |f| f.socket.state = SocketState::OtherFile,
        "socket",
        Level::Fail,
        &["not a socket", "remove"],
    ),
    (
        "a socket that may not be opened",
        |f| socket(f, |_, may_open, _| *may_open = false),
        "socket",
        Level::Fail,
        &["ann may not open it", "add ann to the group agents"],
    ),
    (
        "a socket for every user",
        |f| socket(f, |mode, _, _| *mode = 0o666),
        "socket",
        Level::Warn,
        &["every user", "0660"],
    ),
    (
        "a socket that any user can replace",
        |f| socket(f, |_, _, r| *r = true),
        "socket",
        Level::Warn,
        &["in its place"],
    ),
    (
        "an impostor",
        |f| daemon(f).listener.as_mut().unwrap().trusted = false,
        "daemon",
        Level::Fail,
        &["wrappers refuse it"],
    ),
    (
        "a daemon that may not signal this user",
        |f| {
            let powers = Powers { kill: false, write: true };
            daemon(f).listener = Some(Listener { pid: Some(7), uid: 70, trusted: true, powers });
        },
        "reach",
        Level::Warn,
        &["only the wrapper", "CAP_KILL"],
    ),
    (
        "a daemon in another PID namespace",
        |f| daemon(f).listener.as_mut().unwrap().pid = None,
        "reach",
        Level::Warn,
        &["PID namespace", "shareProcessNamespace"],
    ),
    (
        "a daemon that is not ready",
        |f| daemon(f).not_ready = Some("no decision yet".to_owned()),
        "standing",
        Level::Fail,
        &["no decision yet"],
    ),
    ("a revoked device", |f| deny(f, "DEVICE_REVOKED"), "standing", Level::Warn, &["machineid unrevoke host:a"]),
    ("a removed device", |f| deny(f, "DEVICE_NOT_FOUND"), "standing", Level::Fail, &["machineid register host:a"]),
    ("a wrong key", |f| deny(f, "INVALID_ORG_KEY"), "standing", Level::Fail, &["key file"]),
    ("a full plan", |f| deny(f, "DEVICE_LIMIT_REACHED"), "standing", Level::Fail, &["larger plan"]),
    ("a kill file", |f| deny(f, "LOCAL_KILL"), "standing", Level::Warn, &["kill file"]),
    ("a code of tomorrow", |f| deny(f, "NEW"), "standing", Level::Warn, &["NEW"]),
    (
        "an authority that does not answer",
        |f| {
            let authority = &mut daemon(f).status.authority;
            authority.reachable = Some(false);
            authority.last_error = Some("connection refused".to_owned());
        },
        "authority",
        Level::Fail,
        &["connection refused", "authority.url"],
    ),
    (
        "a user's daemon without lingering",
        |f| f.sessions = Some(LoginSessions { user: Owner { id: 1000, name: Some("ann".to_owned()) }, lingers: false }),
        "lingering",
        Level::Warn,
        &["/run/user/1000", "loginctl enable-linger ann"],
    ),
    (
        "a user's daemon with lingering",
        |f| f.sessions = Some(LoginSessions { user: Owner { id: 1000, name: None }, lingers: true }),
        "lingering",
        Level::Ok,
        &["1000"],
    ),
    (
        "a socket in another daemon's hands",
        |f| daemon(f).status.files.problem = Some("another daemon now serves that path".to_owned()),
        "files",
        Level::Fail,
        &["now serves that path"],
    ),
    (
        "plain http to elsewhere",
        |f| "http://10.0.0.1:8424".clone_into(&mut daemon(f).status.authority.url),
        "authority",
        Level::Warn,
        &["unencrypted", "https"],
    ),
    (
        "a clock set back",
        |f| f.now = "2026-11-23T13:00:00Z".parse().unwrap(),
        "clock",
        Level::Warn,
        &["1h59m59s behind", "leases do not run on it"],
    ),
    ("a clock never set", |f| f.now = "1970-01-02T00:00:00Z".parse().unwrap(), "clock", Level::Fail, &["timedatectl"]),
    (
        "agents of the daemon's user",
        |f| daemon(f).listener.as_mut().unwrap().uid = 1000,
        "org key",
        Level::Warn,
        &["agents of this user could", "ordinary user"],
    ),
    (
        "a stop with a survivor",
        |f| {
            let stop = json!({"run_id": "000102030405060708090a0b0c0d0e0f", "name": "scraper", "device_id": "host:a",
                "code": "DEVICE_REVOKED", "request_id": null, "began_at": "2026-11-23T14:00:00Z",
                "mechanism": "subreaper", "holds_against": "bugs", "signalled": 2, "killed": 2, "took_ms": 12000,
                "confirmed": false, "survivors": [{"pid": 99, "reason": "runs as another user"}]});
            daemon(f).status.recent_stops = vec![serde_json::from_value(stop).unwrap()];
        },
        "past stops",
        Level::Fail,
        &["scraper", "pid 99 (runs as another user)"],
    ),
];

const CONTAINMENT: &[Case] = &[
    (
        "a group of the user's own",
        |f| f.cgroup.leaf = Ok(leaf(HoldsAgainst::Bugs)),
        "containment",
        Level::Warn,
        &["a leaf that the wrapper makes", "User=", "--containment pidns"],
    ),
    (
        "a daemon that can make no leaf",
        |f| {
            let listener = daemon(f).listener.as_mut().unwrap();
            (listener.uid, listener.powers) = (1000, Powers::default());
        },
        "containment",
        Level::Warn,
        &["subreaper", "machineid-sidecar-leaf.socket", "Delegate=yes", "--containment pidns"],
    ),
    (
        "a daemon whose leaf helper makes it",
        |f| {
            let daemon = daemon(f);
            let listener = daemon.listener.as_mut().unwrap();
            (listener.uid, listener.powers.write) = (990, false);
            daemon.status.leaf_helper = Some("/run/machineid-sidecar-leaf.sock".to_owned());
        },
        "containment",
        Level::Ok,
        &["cgroup, a leaf that the daemon makes; it holds against hostile agents"],
    ),
    (
        "a group above the leaf that the user may write to",
        |f| f.cgroup.own_above = Some("/sys/fs/cgroup/cgroup.procs".into()),
        "containment",
        Level::Warn,
        &["a leaf that the daemon makes; it holds against bugs"],
    ),
    (
        "agents that run as root",
        |f| {
            f.user.uid = 0;
            f.cgroup.leaf = Ok(leaf(HoldsAgainst::Bugs));
        },
        "containment",
        Level::Warn,
        &["root's agents", "an ordinary user"],
    ),
    ("no cgroup2", |f| f.cgroup.mount = CgroupMount::None, "cgroup", Level::Warn, &["mount -t cgroup2"]),
    (
        "a leaf that stays",
        |f| f.cgroup.leaf = Ok(LeafTrial { removed: Err(Errno::BUSY), ..leaf(HoldsAgainst::Hostile) }),
        "cgroup",
        Level::Warn,
        &["rmdir /sys/fs/cgroup/a/machineid-*"],
    ),
    (
        "a leaf that does not kill",
        |f| {
            f.cgroup.leaf =
                Ok(LeafTrial { killed: Err(LeafFault::Kernel(Errno::ACCESS)), ..leaf(HoldsAgainst::Hostile) });
        },
        "cgroup",
        Level::Fail,
        &["cgroup.kill", "Permission denied"],
    ),
    (
        "a leaf that cannot be entered",
        |f| {
            f.cgroup.leaf =
                Ok(LeafTrial { entered: Err(LeafFault::Kernel(Errno::NOSYS)), ..leaf(HoldsAgainst::Hostile) });
        },
        "cgroup",
        Level::Warn,
        &["Function not implemented", "clone3"],
    ),
    (
        "user namespaces switched off",
        |f| f.pidns = Err(NoPidns { most_user_namespaces: Some(0), ..no_pidns(PidnsStep::Make) }),
        "pidns",
        Level::Warn,
        &["cannot be made", "sysctl user.max_user_namespaces"],
    ),
    (
        "Debian's switch",
        |f| f.pidns = Err(NoPidns { unprivileged_clone: Some(0), ..no_pidns(PidnsStep::Make) }),
        "pidns",
        Level::Warn,
        &["sysctl kernel.unprivileged_userns_clone=1"],
    ),
    (
        "Ubuntu's profile",
        |f| f.pidns = Err(NoPidns { apparmor_restricts: Some(1), ..no_pidns(PidnsStep::MapIds) }),
        "pidns",
        Level::Warn,
        &["AppArmor"],
    ),
    (
        "a masked /proc",
        |f| f.pidns = Err(no_pidns(PidnsStep::MountProc)),
        "pidns",
        Level::Warn,
        &["no /proc of its own", "systempaths=unconfined"],
    ),
];

const HOST: &[Case] = &[
    ("an old kernel", |f| "5.10.0-1".clone_into(&mut f.kernel.release), "kernel", Level::Fail, &["5.10.0-1", "5.14"]),
    ("a sandbox without pidfds", |f| f.kernel.pidfd = Err(Errno::NOSYS), "kernel", Level::Fail, &["pidfd_open"]),
    (
        "one without clone3",
        |f| f.kernel.clone3 = Err(ForkError::Kernel(Errno::NOSYS)),
        "kernel",
        Level::Warn,
        &["clone3 fails", "sandbox"],
    ),
    (
        "no processes left",
        |f| {
            f.kernel.clone3 = Err(ForkError::Kernel(Errno::AGAIN));
            f.pidns = Err(no_pidns(PidnsStep::Make));
        },
        "kernel",
        Level::Fail,
        &["no process left", "kernel.pid_max"],
    ),
    (
        "a foreign /proc",
        |f| f.proc.usable = Err("unshare --mount-proc".to_owned()),
        "/proc",
        Level::Fail,
        &["--mount-proc"],
    ),
    ("a /proc that hides", |f| f.proc.hides = Some("hidepid=2".to_owned()), "/proc", Level::Warn, &["hidepid=2"]),
    (
        "a container engine",
        |f| f.routes = route(RouteKind::Containers, "/run/docker.sock"),
        "escape route",
        Level::Warn,
        &["/run/docker.sock", "group"],
    ),
    (
        "a tmux server",
        |f| f.routes = route(RouteKind::Tmux, "/tmp/tmux-1000/default"),
        "escape route",
        Level::Warn,
        &["/tmp/tmux-1000/default", "another user"],
    ),
    (
        "a daemon of an agent",
        |f| f.routes = route(RouteKind::AgentDaemon("codex"), "pid 4711, user ann"),
        "escape route",
        Level::Warn,
        &["codex app-server", "pid 4711, user ann", "codex app-server daemon stop", "--isolate"],
    ),
    (
        "an ssh server",
        |f| f.routes = route(RouteKind::Ssh, "pid 12, user root"),
        "escape route",
        Level::Warn,
        &["ssh", "pid 12", "keys"],
    ),
    (
        "another multiplexer",
        |f| f.routes = route(RouteKind::Multiplexer, "zellij: pid 13, user ann"),
        "escape route",
        Level::Warn,
        &["zellij: pid 13", "another user"],
    ),
    (
        "a user's systemd",
        |f| f.routes = route(RouteKind::UserManager, "/run/user/1000/bus"),
        "escape route",
        Level::Warn,
        &["/run/user/1000/bus", "linger"],
    ),
];

#[test]
fn each_fault_shows_in_its_own_check_with_what_to_do() {
    for (name, break_it, what, level, words) in [DAEMON, CONTAINMENT, HOST].concat() {
        let mut facts = healthy();
        break_it(&mut facts);
        let checks = all(&facts);
        let check = checks.iter().find(|check| check.what == what && check.level == level);
        let Some(check) = check else { panic!("{name}: no {level:?} of {what}: {checks:#?}") };
        let text = format!("{}; {}", check.found, check.remedy.as_deref().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{name}: {word:?} is not in {text:?}");
        }
        let worst = checks.iter().map(|check| check.level).max();
        assert_eq!(worst, Some(level), "{name} makes something else worse: {checks:#?}");
    }
}

#[test]
fn an_ordinary_user_is_told_that_polkit_guards_the_system_bus() {
    let mut facts = healthy();
    facts.routes = route(RouteKind::SystemBus, "/run/dbus/system_bus_socket");
    let level = |facts: &HostFacts| all(facts).into_iter().find(|check| check.what == "escape route").unwrap().level;
    assert_eq!(level(&facts), Level::Ok);
    facts.user.uid = 0;
    assert_eq!(level(&facts), Level::Warn);
}

#[test]
fn nothing_promises_to_hold_against_hostile_agents_of_root() {
    let mut facts = healthy();
    facts.user.uid = 0;
    let containment = all(&facts).into_iter().find(|check| check.what == "containment").unwrap();
    assert_eq!(containment.level, Level::Warn, "{containment:?}");
}

#[test]
fn an_authority_that_does_not_answer_has_a_remedy_for_each_cause() {
    let remedy = |error: &str, state: Option<SocketState>| {
        let mut facts = healthy();
        let daemon = daemon(&mut facts);
        daemon.status.authority.reachable = Some(false);
        daemon.status.authority.last_error = Some(error.to_owned());
        daemon.authority_socket = state.map(|state| SocketFacts { path: "/run/a/api.sock".into(), state });
        let checks = all(&facts);
        checks.into_iter().find(|check| check.what == "authority").unwrap().remedy.unwrap()
    };
    let foreign =
        "the port 127.0.0.1:8424 belongs to uid 1001, not to root, this user or authority.user: the key was not sent";
    assert!(remedy(foreign, None).contains("authority.user"));
    assert!(remedy("could not connect", Some(SocketState::Missing)).contains("There is no /run/a/api.sock: start"));
    assert!(
        remedy("could not connect", Some(SocketState::OtherFile)).contains("/run/a/api.sock is no socket: remove it")
    );
    assert!(remedy("could not connect", None).contains("Fix the authority, the network"));
}

#[test]
fn a_daemon_that_stopped_nothing_says_so() {
    let checks = all(&healthy());
    let stops = checks.iter().find(|check| check.what == "past stops").unwrap();
    assert_eq!(stops.found, "no agent that this user may see was stopped yet");
}
