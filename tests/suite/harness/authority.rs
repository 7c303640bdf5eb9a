//! A running `machineid-authority`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Reply};
use super::programs::program;
use super::wait::{PATIENCE, until};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_machineid-authority");

/// A server of its own, with a database of its own, on a port of the kernel's choice. Killed when dropped.
pub(crate) struct Authority {
    child: Child,
    address: SocketAddr,
    /// What `--database` says.
    url: String,
    flags: Vec<String>,
    /// What the server is started with, such as `unshare`. It must become the server.
    starter: Vec<String>,
    directory: TempDir,
}

/// An organisation of that server.
pub(crate) struct Org<'a> {
    pub(crate) authority: &'a Authority,
    pub(crate) id: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further flags of `serve`.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let url = database_flag(directory.path());
        Self::start_in(directory, url, flags)
    }

    /// On this database, perhaps with others.
    pub(crate) fn start_on(url: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), url.to_owned(), &[])
    }

    /// The same with further flags of `serve`.
    pub(crate) fn start_on_with(url: &str, flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), url.to_owned(), flags)
    }

    /// What one says that cannot start on this database.
    pub(crate) fn refused(url: &str, flags: &[&str]) -> String {
        let directory = TempDir::new().unwrap();
        let output = Command::new(program(BINARY))
            .args(["serve", "--listen", "127.0.0.1:0", "--database", url, "--admin-socket"])
            .arg(directory.path().join("admin.sock"))
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn start_in(directory: TempDir, url: String, flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (child, address) = launch(directory.path(), &url, "127.0.0.1:0", &flags, &[]);
        Self { child, address, url, flags, starter: Vec::new(), directory }
    }

    /// Another one, on the database file `authority.db` in this directory.
    pub(crate) fn start_at(directory: TempDir) -> Self {
        let url = database_flag(directory.path());
        Self::start_in(directory, url, &[])
    }

    /// The organisation of another server's, when both are on one database.
    pub(crate) fn same_org(&self, org: &Org<'_>) -> Org<'_> {
        Org { authority: self, id: org.id.clone(), key: org.key.clone() }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory that holds everything it writes.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        database_in(self.directory.path())
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("authority.db.admin.sock")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Where its metrics are read, when it was told to serve them.
    pub(crate) fn metrics(&self) -> SocketAddr {
        until("the log names the listener of metrics", || {
            let log = self.log();
            log.split("metrics=").nth(1)?.split_whitespace().next()?.parse().ok()
        })
    }

    /// A new organisation on this plan, made through the command line.
    pub(crate) fn org(&self, plan: &str) -> Org<'_> {
        let made = self.admin_json(&["create", "--plan", plan]);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Org { authority: self, id: text("orgId"), key: text("orgApiKey") }
    }

    /// `machineid-authority org ARGUMENTS` against this server, whatever comes of it.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Output {
        Command::new(program(BINARY))
            .arg("org")
            .args(arguments)
            .arg("--admin-socket")
            .arg(self.admin_socket())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same with `--json`, which must succeed.
    pub(crate) fn admin_json(&self, arguments: &[&str]) -> Value {
        let output = self.admin(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A request to its API, below `/api/v1`.
    pub(crate) fn call(&self, method: &str, path: &str, key: Option<&str>, body: &[u8]) -> Reply {
        let mut headers = vec!["content-type: application/json".to_owned()];
        headers.extend(key.map(|key| format!("x-org-key: {key}")));
        http::request(self.address, method, &format!("/api/v1{path}"), &headers, body)
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        until("the authority ends after SIGTERM", || self.child.try_wait().unwrap())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// What its next start is made with.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn starter(&mut self) -> &mut Vec<String> {
        &mut self.starter
    }

    /// Starts it again, after its end, with the same database on the same port.
    pub(crate) fn start_again(&mut self) {
        let address = self.address.to_string();
        (self.child, self.address) = launch(self.directory.path(), &self.url, &address, &self.flags, &self.starter);
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Org<'_> {
    /// `POST` with this body and the organisation's key.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.authority.call("POST", path, Some(&self.key), body.to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.authority.call("GET", path, Some(&self.key), b"")
    }

    /// `POST` about one device.
    pub(crate) fn device(&self, verb: &str, id: &str) -> Reply {
        self.post(&format!("/devices/{verb}"), &json!({"deviceId": id}))
    }

    /// Registers devices, which must all be new.
    pub(crate) fn register(&self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.device("register", id).json()["status"], "ok", "{id}");
        }
    }

    /// The code of a validation; panics when `allowed` contradicts it.
    pub(crate) fn code(&self, id: &str) -> String {
        let answer = self.device("validate", id).json();
        let code = answer["code"].as_str().unwrap().to_owned();
        assert_eq!(answer["allowed"], code == "ALLOW", "{answer}");
        code
    }

    /// The same organisation, asked with a new key: `org key create ID FLAGS`.
    #[allow(dead_code, reason = "each of the two test programs uses its part")]
    pub(crate) fn with_role(&self, flags: &[&str]) -> Self {
        let made = self.authority.admin_json(&[&["key", "create", self.id.as_str()], flags].concat());
        let key = made["orgApiKey"].as_str().unwrap().to_owned();
        Self { authority: self.authority, id: self.id.clone(), key }
    }

    /// `machineid-authority org VERB ID ARGUMENTS`, which must succeed.
    pub(crate) fn admin(&self, verb: &str, arguments: &[&str]) -> Value {
        self.authority.admin_json(&[&[verb, self.id.as_str()], arguments].concat())
    }
}

fn database_in(directory: &Path) -> PathBuf {
    directory.join("authority.db")
}

/// What `--database` takes.
pub(crate) fn database_flag(directory: &Path) -> String {
    format!("sqlite:{}", database_in(directory).display())
}

/// Starts a server and waits for the line that says it accepts requests.
fn launch(directory: &Path, database: &str, listen: &str, flags: &[String], starter: &[String]) -> (Child, SocketAddr) {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = match starter.split_first() {
        None => Command::new(program(BINARY)),
        Some((starter, arguments)) => {
            let mut command = Command::new(starter);
            command.args(arguments).arg(program(BINARY));
            command
        }
    };
    let mut child = command
        .args(["serve", "--listen", listen, "--database", database, "--admin-socket"])
        .arg(directory.join("authority.db.admin.sock"))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, first_line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = send.send(line);
        // Kept open and empty: a server that wrote on would fill the pipe.
        let _ = stdout.read_to_end(&mut Vec::new());
    });
    let line = first_line.recv_timeout(PATIENCE).unwrap_or_default();
    let address = line.trim_end().strip_prefix("machineid-authority is listening on ");
    // The first of several addresses.
    let address = address.and_then(|urls| urls.split(' ').next());
    let address = address.and_then(|url| url.split_once("://")).map(|(_, address)| address);
    let Some(address) = address.and_then(|address| address.parse().ok()) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("said {line:?}; {}", fs::read_to_string(directory.join("log")).unwrap_or_default());
    };
    (child, address)
}
