//! `examples/gateways`: proxies that ask before they let a request through.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::has;
use crate::harness::authority::Authority;
use crate::harness::place::is_root;
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

/// nginx with the example's configuration, its addresses replaced. Ended when dropped.
struct Nginx {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Nginx {
    fn start(socket: &Path, service: &str) -> Self {
        let directory = TempDir::new().unwrap();
        // Free a moment ago; nothing else of this test takes ports.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateways/nginx.conf");
        let mut text = fs::read_to_string(example).unwrap();
        for (written, here) in [
            ("/run/machineid/sidecar.sock", socket.to_str().unwrap()),
            ("127.0.0.1:9000", service),
            ("127.0.0.1:8080", &address),
        ] {
            assert_eq!(text.matches(written).count(), 1, "{written}");
            text = text.replace(written, here);
        }
        let here = directory.path().display();
        // Debian's builds keep these in places of root's.
        let mut places = format!("http {{\naccess_log {here}/access.log;\n");
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(places, "{kind}_temp_path {here}/{kind};").unwrap();
        }
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, text.replace("http {\n", &places)).unwrap();
        // For a test that runs as root, with a socket that only root can open.
        let user = if is_root() { "user root;" } else { "" };
        let globals = format!("daemon off; master_process off; pid {here}/pid; error_log {here}/error.log; {user}");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(directory.path())
            .arg("-e")
            .arg(directory.path().join("error.log"))
            .arg("-c")
            .arg(&configuration)
            .args(["-g", &globals])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, address, _directory: directory };
        until("nginx answers", || nginx.get());
        nginx
    }

    /// The status and the body of an answer to `GET /`.
    fn get(&self) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that answers everything, and its address. Until the test process ends.
fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nreport");
        }
    });
    address
}

#[test]
fn nginx_lets_requests_through_only_while_the_device_is_allowed() {
    if !has("nginx") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    "allow = [\"gateway:*\"]".clone_into(&mut setup.devices);
    let mut sidecar = setup.start();
    // As the example says: a check registers nothing.
    org.register(&["gateway:reports"]);
    let nginx = Nginx::start(&sidecar.socket(), &service());
    assert_eq!(nginx.get(), Some((200, "report".to_owned())));
    org.device("revoke", "gateway:reports");
    assert_eq!(nginx.get().unwrap().0, 403);
    org.device("unrevoke", "gateway:reports");
    assert_eq!(nginx.get().unwrap().0, 200);
    sidecar.kill();
    let (status, body) = nginx.get().unwrap();
    assert_eq!((status, body.trim_end()), (503, "could not find out whether this may run"));
}
