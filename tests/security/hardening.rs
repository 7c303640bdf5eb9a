//! What a daemon is worth that another program controls: it holds no capability for files, and its helper does two things. And what
//! browsers, other users and the way between server and database can do.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use machineid_leaf::{HelperError, LeafHelper};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::daemon::agents::{Agent, OBEDIENT, agents, as_user, cgroup_of, cgroup_root, has_cgroups, run_id};
use crate::harness::authority::Authority;
use crate::harness::http;
use crate::harness::place::{ANOTHER, ORDINARY, Place, own_cgroup, skipped};
use crate::harness::sidecar::{BINARY, Setup, chmod};
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
    write!(setup.enforcement, "\nleaf_helper = \"{}\"", helper.socket().display()).unwrap();
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

/// The answer to a GET under this name.
fn get(address: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn a_foreign_site_whose_name_leads_to_this_machine_reads_neither_console_nor_metrics() {
    let flags =
        ["--public-url", "https://authority.example", "--allowed-host", "inner.lan", "--metrics-listen", "127.0.0.1:0"];
    let authority = Authority::start_with(&flags);
    let address = authority.address();
    for (host, expected) in [
        ("evil.example", "421"),
        ("evil.example:8424", "421"),
        ("127.0.0.1.evil.example", "421"),
        (&address.to_string(), "200"),
        ("authority.example", "200"),
        ("inner.lan:8424", "200"),
    ] {
        let answer = get(address, "/console/sign-in", host);
        assert_eq!(status(&answer), expected, "{host}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("strict-transport-security: max-age="), "{answer}");
    }
    assert_eq!(status(&get(address, "/healthz", "evil.example")), "200", "the API is for holders of keys");
    let metrics = authority.metrics();
    assert_eq!(status(&get(metrics, "/metrics", "evil.example")), "421");
    assert_eq!(status(&get(metrics, "/metrics", &metrics.to_string())), "200");
}

#[test]
fn a_foreign_site_reads_no_metrics_of_a_daemon() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write!(setup.local, "\n[metrics]\nlisten = \"{address}\"").unwrap();
    let _sidecar = setup.start();
    assert_eq!(status(&get(address, "/metrics", "evil.example")), "421");
    assert_eq!(status(&get(address, "/metrics", &address.to_string())), "200");
}

#[test]
fn idle_connections_to_the_metrics_take_no_more_than_their_places() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let metrics = authority.metrics();
    // Those that wait in the kernel's queue belong to no process yet, and have no inode.
    let accepted = || {
        let port = format!(":{:04X}", metrics.port());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[1].ends_with(&port) && row[3] == "01" && row[9] != "0").count()
    };
    let held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    until("the places are taken", || (accepted() >= 16).then_some(()));
    // By its answer the server would have accepted the others as well.
    assert_eq!(status(&get(authority.address(), "/healthz", "localhost")), "200");
    assert_eq!(accepted(), 16, "of 64");
    drop(held);
}

#[test]
fn a_nul_is_a_bad_request_and_no_failure_of_the_database() {
    let authority = Authority::start();
    let org = authority.org("pro");
    for path in ["/org/audit?deviceId=a%00b", "/org/timeline?deviceId=%00", "/org/fleet?deviceId=a%00"] {
        assert_eq!(org.get(path).status, 400, "{path}");
    }
    for (path, body) in [
        ("/devices/revoke", r#"{"deviceId":"a","reason":"x\u0000y"}"#),
        ("/devices/register", r#"{"deviceId":"a\u0000"}"#),
        ("/org/keys/create", r#"{"role":"read","name":"a\u0000b"}"#),
    ] {
        let headers = ["content-type: application/json".to_owned(), format!("x-org-key: {}", org.key)];
        let message = http::message(authority.address(), "POST", &format!("/api/v1{path}"), &headers, body.as_bytes());
        let mut stream = TcpStream::connect(authority.address()).unwrap();
        stream.write_all(&message).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 400", "{path} {body}");
    }
}

fn authority_with(flags: &[&str]) -> Output {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_machineid-authority"));
    serve.env_clear().args(["serve", "--listen", "127.0.0.1:0"]).args(flags).stdin(Stdio::null());
    // A server that serves after all is killed.
    Running::start(serve.stdout(Stdio::piped()).stderr(Stdio::piped())).finish()
}

#[test]
fn no_database_is_served_that_others_can_write_or_that_cannot_be_told_from_another() {
    let place = TempDir::new().unwrap();
    let database = place.path().join("a.db");
    File::create(&database).unwrap();
    chmod(&database, 0o666);
    let named = format!("sqlite:{}", database.display());
    let refused = authority_with(&["--database", &named]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("chmod 600"), "{said}");

    for (address, mode) in [("192.0.2.1", ""), ("192.0.2.1", "?sslmode=require"), ("db.invalid", "?sslmode=prefer")] {
        let named = format!("postgres://u:s3cret@{address}/fleet{mode}");
        let socket = place.path().join("admin.sock");
        let refused = authority_with(&["--database", &named, "--admin-socket", socket.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("sslmode=verify-full") && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_runtime_directory_of_another_users_is_not_used() {
    if !crate::harness::place::is_root() {
        return skipped("another user's runtime directory", "must be root to make one");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), DEVICE);
    let runtime = setup.directory.path().join("runtime");
    fs::create_dir(&runtime).unwrap();
    chown(&runtime, Some(ANOTHER), None).unwrap();
    let output = Running::start(setup.command().stdout(Stdio::piped()).stderr(Stdio::piped())).finish();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("local.runtime_dir") && said.contains(&ANOTHER.to_string()), "{said}");
}

#[test]
fn a_daemon_that_is_not_root_stops_others_by_the_capability_of_its_file() {
    if !crate::harness::place::is_root() {
        return skipped("a capability of a file", "must be root to set one");
    }
    let place = TempDir::new().unwrap();
    chmod(place.path(), 0o755);
    let program = place.path().join("machineid-sidecar");
    fs::copy(BINARY, &program).unwrap();
    chmod(&program, 0o755);
    // Version 2: magic, permitted and inheritable of the lower 32 capabilities, then of the others. CAP_KILL is 5.
    let mut capability = [0_u8; 20];
    capability[3] = 2;
    capability[4] = 1 << 5;
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(errno) = rustix::fs::setxattr(&program, "security.capability", &capability, flags) {
        return skipped("a capability of a file", &errno.to_string());
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), DEVICE).at(Place::ordinary());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--"]).arg(&program);
    command.arg("--config").arg(setup.configuration()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let sidecar = setup.start_by(&mut command);
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000020"), "{status}");
}

#[test]
fn an_audit_that_was_forged_without_the_key_is_found() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    let (file, key) = (setup.directory.path().join("audit.jsonl"), setup.directory.path().join("audit-key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    chmod(&key, 0o600);
    write!(setup.local, "\n[audit]\nfile = \"{}\"\nkey_file = \"{}\"", file.display(), key.display()).unwrap();
    let mut sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    org.device("revoke", DEVICE);
    agent.wrapped.exit_code();
    assert!(sidecar.status()["audit"]["keyed"].as_bool().unwrap());
    sidecar.terminate();
    let verify = |flags: &[&str]| {
        let mut verify = Command::new(env!("CARGO_BIN_EXE_machineid"));
        verify.args(["audit", "verify"]).arg(&file).args(flags).stdin(Stdio::null());
        let output = verify.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let with_key = ["--key-file", key.to_str().unwrap()];
    assert_eq!(verify(&with_key).0, Some(0), "{}", verify(&with_key).1);
    assert!(verify(&[]).1.contains("--key-file"));
    // The attacker rewrites the file as a daemon without a key would.
    let honest = fs::read_to_string(&file).unwrap();
    let mut prev = "0".repeat(64);
    let mut forged = String::new();
    for line in honest.lines().filter(|line| !line.contains("agent-stopped")) {
        let (before, _) = line.rsplit_once("\"prev\"").unwrap();
        let line = format!("{before}\"prev\":\"{prev}\"}}");
        prev = machineid_audit::key::Chain::default().hash(line.as_bytes()).to_string();
        forged.push_str(&line);
        forged.push('\n');
    }
    fs::write(&file, forged).unwrap();
    assert_eq!(verify(&with_key).0, Some(1), "{}", verify(&with_key).1);
}
