//! Processes of another user that take the place of an authority on this host while it is stopped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::place::{ORDINARY, is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar, exchange};
use crate::harness::wait::until;

/// Answers ALLOW to everything, and prints each connection's first bytes. Says `late`: accepts only when told to.
const SQUATTER: &str = r#"
import socket, sys
where, late = sys.argv[1], sys.argv[2] == "late"
if where.startswith("/"):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(where)))
listener.listen(100)
print("listening", flush=True)
if late:
    sys.stdin.readline()
body = b'{"allowed":true,"code":"ALLOW","request_id":"r","status":"ok"}'
while True:
    stream, _ = listener.accept()
    stream.settimeout(2)
    try:
        got = stream.recv(65536)
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    except OSError:
        got = b""
    print("got", b"x-org-key" in got.lower(), len(got), flush=True)
    stream.close()
"#;

/// A squatter of an ordinary user. Ended when dropped.
struct Squatter {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Squatter {
    fn start(place: &str, when: &str) -> Self {
        let user = ORDINARY.to_string();
        let mut child = Command::new("setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "python3", "-c", SQUATTER, place, when])
            // The test's own search path may lead through a home directory.
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut squatter = Self { child, stdin, stdout };
        assert_eq!(squatter.line(), "listening");
        squatter
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets it accept, and tells what the first connections brought.
    fn got(&mut self, connections: usize) -> Vec<String> {
        self.stdin.write_all(b"\n").unwrap();
        (0..connections).map(|_| self.line()).collect()
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_error(sidecar: &Sidecar) -> String {
    sidecar.status()["authority"]["last_error"].as_str().unwrap_or_default().to_owned()
}

/// The operator's command line against this URL, with the organisation's key.
fn fleet(sidecar: &Sidecar, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let key = sidecar.key_file();
    let output = sidecar.machineid(&[arguments, &["--url", url, "--org-key-file", key.to_str().unwrap()]].concat());
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code(), said)
}

/// A revoked host, and a squatter in the place of its authority. `free` frees the place of an authority that was killed.
fn squat(mut authority: Authority, url: &str, place: &str, when: &str, free: impl FnOnce()) {
    let sidecar = {
        let org = authority.org("pro");
        let sidecar = Setup::of(&org, url, "host:squatted").start();
        org.device("revoke", "host:squatted");
        until("the revoke has arrived", || (sidecar.check().status == 403).then_some(()));
        sidecar
    };
    authority.kill();
    free();
    let mut squatter = Squatter::start(place, when);
    // A connection that ends as the port changes hands belongs to no process: no key for it either, and the next one tells.
    let owner = format!("belongs to uid {ORDINARY}, not to root, this user or authority.user");
    until("the daemon has found the squatter", || {
        let error = last_error(&sidecar);
        (error.contains("the key was not sent") && error.contains(&owner)).then_some(())
    });
    assert_ne!(sidecar.check().status, 200, "a revoked host is not told ALLOW");
    let (code, said) = fleet(&sidecar, url, &["validate", "host:squatted"]);
    assert!(code == Some(75) && said.contains("the key was not sent"), "{code:?} {said}");
    let (code, said) = fleet(&sidecar, url, &["revoke", "host:squatted", "--yes"]);
    assert!(code == Some(1) && said.contains("--authority-user"), "{code:?} {said}");
    for got in squatter.got(3) {
        assert_eq!(got, "got False 0");
    }
    let page = sidecar.get("/metrics").unwrap().body;
    assert!(page.contains("outcome=\"foreign_listener\""), "{page}");
    // Named, the same user may have it: so the squatter would have shown a key.
    let named = ORDINARY.to_string();
    fleet(&sidecar, url, &["validate", "host:squatted", "--authority-user", &named]);
    until("the squatter gets what it may have", || squatter.line().starts_with("got True").then_some(()));
}

#[test]
fn a_squatter_on_the_authoritys_port_gets_no_byte_of_the_key_and_no_host_believes_it() {
    if !is_root() {
        return skipped("squatters on a port", "it takes root to run as another user");
    }
    for when in ["at once", "late"] {
        let authority = Authority::start();
        let (url, port) = (authority.url(), authority.address().port().to_string());
        squat(authority, &url, &port, when, || {});
    }
}

#[test]
fn a_squatter_on_the_authoritys_unix_socket_gets_no_byte_of_the_key_either() {
    if !is_root() {
        return skipped("squatters on a unix socket", "it takes root to run as another user");
    }
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let path = directory.path().join("api.sock");
    let url = format!("unix:{}", path.display());
    let authority = Authority::start_with(&["--listen", &url]);
    squat(authority, &url, path.to_str().unwrap(), "late", || fs::remove_file(&path).unwrap());
}

#[test]
fn an_authority_on_a_unix_socket_serves_daemon_push_and_command_line_and_tells_users_apart() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run/api.sock");
    let url = format!("unix:{}", path.display());
    let mut authority = Authority::start_with(&["--listen", &url, "--failed-keys-per-minute", "3"]);
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &url, "host:local").start();
    until("the push connection is open", || (sidecar.status()["authority"]["push"] == true).then_some(()));
    let (code, said) = fleet(&sidecar, &url, &["revoke", "host:local", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    until("the revoke has arrived", || (sidecar.check().status == 403).then_some(()));
    let wrong = || raw(&path, "org_wrong");
    let answers: Vec<u16> = (0..5).map(|_| wrong()).collect();
    assert_eq!(answers, [401, 401, 401, 429, 429], "wrong keys of one user are limited");
    let by_port = authority.call("GET", "/usage", Some("org_wrong"), b"");
    assert_eq!(by_port.status, 401, "and take nothing from another client");
    let uid = rustix::process::geteuid().as_raw();
    until("the log names the user", || authority.log().contains(&format!("uid:{uid}")).then_some(()));
    authority.terminate();
    assert!(!path.exists(), "the socket is removed at the end");
}

/// The status of a listing with this key, on the unix socket.
fn raw(path: &Path, key: &str) -> u16 {
    let request = format!("GET /api/v1/usage HTTP/1.0\r\nHost: localhost\r\nx-org-key: {key}\r\n\r\n");
    exchange(path, &request).unwrap().status
}
