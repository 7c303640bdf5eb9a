//! What a daemon is worth that another program controls: it holds no capability for files, and its helper does two things.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use machineid_leaf::{HelperError, LeafHelper};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::daemon::agents::{Agent, OBEDIENT, agents, as_user, cgroup_of, cgroup_root, has_cgroups, run_id};
use crate::harness::authority::Authority;
use crate::harness::place::{ANOTHER, ORDINARY, Place, own_cgroup, skipped};
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;
use crate::harness::wrapper::Running;

const DEVICE: &str = "hardened-host:1";

/// The leaf helper of root's behind a socket of one user, as the socket unit makes it.
struct Helper {
    directory: TempDir,
    _process: Running,
}

impl Helper {
    fn for_user(uid: u32) -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("leaf.sock");
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&socket, 16).unwrap();
        chown(&path, Some(uid), Some(0)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut helper = Command::new(env!("CARGO_BIN_EXE_machineid-leaf"));
        helper.env_clear().stdin(Stdio::from(socket)).stderr(File::create(directory.path().join("log")).unwrap());
        Self { _process: Running::start(&mut helper), directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("leaf.sock")
    }
}

/// Whether a program with the daemon's user and capabilities succeeds.
fn can(place: &Place, program: &str) -> bool {
    let mut attempt = Command::new("python3");
    attempt.args(["-c", program]);
    place.as_daemon(attempt).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_daemon_that_may_open_no_file_of_roots_still_has_agents_held_against_hostile_ones() {
    if !has_cgroups("a leaf helper") {
        return;
    }
    let Some(place) = Place::as_packaged() else { return skipped("a leaf helper", "no control group can be made") };
    let helper = Helper::for_user(ORDINARY);
    let secrets = TempDir::new().unwrap();
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (shadow, docker) = (secrets.path().join("shadow"), secrets.path().join("docker.sock"));
    fs::write(&shadow, "root:secret").unwrap();
    let _listener = UnixListener::bind(&docker).unwrap();
    for (path, mode) in [(&shadow, 0o640), (&docker, 0o660)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    assert!(!can(&place, &format!("open('{}').read()", shadow.display())));
    let connects = format!("import socket; socket.socket(socket.AF_UNIX).connect('{}')", docker.display());
    assert!(!can(&place, &connects));
    assert!(can(&place, "pass"), "the attempts fail for another reason");

    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement.push_str(&format!("\nleaf_helper = \"{}\"", helper.socket().display()));
    let sidecar = setup.at(place).start();
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000020"), "CAP_KILL alone: {status}");
    assert_eq!(sidecar.status()["leaf_helper"], helper.socket().display().to_string());

    let above = cgroup_root().unwrap().display().to_string();
    let escape = format!(
        "echo $$ > {above}/cgroup.procs; own={above}/$(sed -n 's/^0:://p' /proc/self/cgroup); \
         echo $$ > $own/../cgroup.procs; mkdir $own/in; echo 0 > $own/cgroup.freeze; {OBEDIENT}"
    );
    let mut agent = Agent::start(&sidecar, &[], &escape);
    let report = agents(&sidecar)[0].clone();
    let words =
        ["containment", "holds_against", "containment_reason", "killer"].map(|key| report[key].as_str().unwrap());
    assert_eq!(words, ["cgroup", "hostile", "a control group that root made", "daemon"]);
    let leaf = cgroup_of(agent.pid);
    assert!(leaf.ends_with(format!("machineid-{}", report["run_id"].as_str().unwrap())), "{}", leaf.display());
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
    until("the helper removes the control group", || (!leaf.exists()).then_some(()));
}

/// A control group below this process's own.
struct Group(PathBuf);

impl Group {
    fn below(above: &Path, name: &str) -> Self {
        let path = above.join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn with(&self, process: &Running) {
        fs::write(self.0.join("cgroup.procs"), process.pid().to_string()).unwrap();
    }

    fn directory(&self) -> File {
        File::open(&self.0).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn sleeper() -> Running {
    Running::start(Command::new("sleep").arg("600").stdin(Stdio::null()))
}

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

/// What the helper refused with.
fn refused(asked: Result<(), HelperError>) -> Errno {
    match asked {
        Err(HelperError::Refused(refusal)) => refusal.errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_helper_takes_no_process_of_the_hosts_own_and_removes_no_other_group() {
    if !has_cgroups("a leaf helper's refusals") {
        return;
    }
    let helper = Helper::for_user(0);
    let leaf_helper = LeafHelper::at(&helper.socket());
    let run = || run_id().parse().unwrap();
    assert_eq!(refused(leaf_helper.contain(pidfd(1), run())), Errno::PERM);
    assert_eq!(refused(leaf_helper.contain(File::open("/dev/null").unwrap(), run())), Errno::INVAL);
    let dead = sleeper();
    let of_the_dead = pidfd(dead.pid());
    drop(dead);
    assert_eq!(refused(leaf_helper.contain(of_the_dead.as_fd(), run())), Errno::SRCH);
    let own = own_cgroup().unwrap();
    if Some(&own) == cgroup_root().as_ref() {
        assert_eq!(refused(leaf_helper.contain(pidfd(sleeper().pid()), run())), Errno::PERM, "the root group");
    }

    let id = run_id();
    let (group, other) = (Group::below(&own, &format!("test-{id}")), run_id());
    let process = sleeper();
    group.with(&process);
    leaf_helper.contain(pidfd(process.pid()), id.parse().unwrap()).unwrap();
    let leaf = group.0.join(format!("machineid-{id}"));
    assert_eq!(cgroup_of(process.pid()), leaf);
    leaf_helper.contain(pidfd(process.pid()), id.parse().unwrap()).expect("again, without effect");
    assert_eq!(cgroup_of(process.pid()), leaf);
    for file in ["cgroup.kill", "cgroup.freeze"] {
        assert_eq!(fs::metadata(leaf.join(file)).unwrap().permissions().mode() & 0o022, 0o020, "{file}");
    }
    assert_eq!(fs::metadata(leaf.join("cgroup.procs")).unwrap().permissions().mode() & 0o022, 0);

    let remove = |directory: File, id: &str| leaf_helper.remove(directory, id.parse().unwrap());
    assert_eq!(refused(remove(File::open(&leaf).unwrap(), &id)), Errno::BUSY, "a process is inside");
    assert_eq!(refused(remove(File::open(&leaf).unwrap(), &other)), Errno::INVAL, "another run's");
    assert_eq!(refused(remove(group.directory(), &id)), Errno::INVAL, "no leaf");
    assert_eq!(refused(remove(File::open(helper.directory.path()).unwrap(), &id)), Errno::INVAL, "no control group");
    let directory = File::open(&leaf).unwrap();
    drop(process);
    until("the leaf can be removed", || remove(directory.try_clone().unwrap(), &id).is_ok().then_some(()));
    assert!(!leaf.exists());
    remove(directory, &id).expect("gone already");
}

#[test]
fn the_helper_answers_the_owner_of_its_socket_alone() {
    if !has_cgroups("a leaf helper's peers") {
        return;
    }
    let helper = Helper::for_user(ORDINARY);
    let ask = format!(
        "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{}')\n\
         socket.send_fds(s, [b'contain {}'], [os.pidfd_open(os.getpid())]); print(s.recv(999).decode())",
        helper.socket().display(),
        run_id()
    );
    let asked_by = |uid: u32| {
        let mut python = Command::new("python3");
        python.args(["-c", &ask]);
        let output = as_user(uid, &python).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert!(asked_by(ANOTHER).contains("PermissionError"), "the socket's mode");
    // Should the mode be wrong as well.
    fs::set_permissions(helper.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let answer = asked_by(ANOTHER);
    assert!(answer.starts_with("no 1 ") && answer.contains("not the owner"), "{answer}");
}
