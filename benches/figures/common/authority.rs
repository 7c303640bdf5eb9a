//! A running `machineid-authority` on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::process::Guarded;
use super::{Outcome, PATIENCE, clean_environment, program, until};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_machineid-authority");

/// A server with one organisation, on a port of the kernel's choice.
pub(crate) struct Authority {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    /// The organisation's id.
    pub(crate) org: String,
    program: PathBuf,
    process: Guarded,
    // Last: it goes when nothing writes to it any more.
    directory: TempDir,
}

/// The name of its database's file.
const DATABASE: &str = "authority.db";

impl Authority {
    pub(crate) fn start() -> Outcome<Self> {
        Self::of(0)
    }

    /// With so many devices, `agent:0` and on, put into its database while it was down: to register a million takes
    /// minutes.
    pub(crate) fn of(devices: u32) -> Outcome<Self> {
        Self::of_program(&program(BINARY), devices)
    }

    /// The same of another build.
    pub(crate) fn of_program(program: &Path, devices: u32) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let (mut process, address) = serve(program, directory.path())?;
        let made = ["org", "create", "--plan", "max", "--limit", "10000000", "--json"];
        let made = command(program, directory.path(), &made).output()?;
        let (org, key) = organisation(&made.stdout)?;
        let program = program.to_owned();
        if devices == 0 {
            return Ok(Self { address, key, org, program, process, directory });
        }
        process.terminate();
        until("the authority ends", || process.has_ended().then_some(()))?;
        let database = rusqlite::Connection::open(directory.path().join(DATABASE))?;
        database.execute(
            "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2)
             INSERT INTO devices (org_id, device_id, created_at) SELECT ?1, 'agent:' || n, 0 FROM numbers",
            (&org, devices),
        )?;
        database.execute("UPDATE orgs SET active = ?2 WHERE id = ?1", (&org, devices))?;
        drop(database);
        let (process, address) = serve(&program, directory.path())?;
        Ok(Self { address, key, org, program, process, directory })
    }

    /// This program on a database that others may use, too.
    pub(crate) fn on(program: &Path, url: &str) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let socket = directory.path().join("admin.sock");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(program);
            clean_environment(&mut command, directory.path());
            command.args(arguments).arg("--admin-socket").arg(&socket).stdin(Stdio::null());
            command
        };
        let mut serve =
            command(&["serve", "--listen", "127.0.0.1:0", "--management-per-minute", "0", "--database", url]);
        let mut process = Guarded::start(serve.stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let address = listening(&mut process)?;
        let made = command(&["org", "create", "--plan", "max", "--limit", "10000000", "--json"]).output()?;
        let (org, key) = organisation(&made.stdout)?;
        Ok(Self { address, key, org, program: program.to_owned(), process, directory })
    }

    /// A new key of this role.
    pub(crate) fn role_key(&self, role: &str) -> Outcome<String> {
        let arguments = ["org", "key", "create", &self.org, "--role", role, "--json"];
        let made = command(&self.program, self.directory.path(), &arguments).output()?;
        let made: serde_json::Value = serde_json::from_slice(&made.stdout)?;
        Ok(made["orgApiKey"].as_str().ok_or("the authority made no key")?.to_owned())
    }

    /// Its database.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join(DATABASE)
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Revokes a device, or takes that back.
    pub(crate) fn tell(&self, verb: &str, device: &str) -> Outcome<()> {
        self.post(verb, &format!(r#"{{"deviceId":"{device}"}}"#))
    }

    /// The same for all devices that `scope` names.
    pub(crate) fn tell_all(&self, verb: &str, scope: &str) -> Outcome<()> {
        self.post(verb, &format!(r#"{{"scope":"{scope}"}}"#))
    }

    fn post(&self, verb: &str, body: &str) -> Outcome<()> {
        let request = format!(
            "POST /api/v1/devices/{verb} HTTP/1.0\r\nx-org-key: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(answer.into()) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A whole validate request, for connections that stay.
    pub(crate) fn validate_request(&self, device: &str) -> Vec<u8> {
        self.request("validate", &format!(r#"{{"deviceId":"{device}"}}"#))
    }

    /// Any request about devices.
    pub(crate) fn request(&self, verb: &str, body: &str) -> Vec<u8> {
        format!(
            "POST /api/v1/devices/{verb} HTTP/1.1\r\nhost: {}\r\nx-org-key: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            self.key,
            body.len()
        )
        .into_bytes()
    }
}

/// Its id and its key.
fn organisation(made: &[u8]) -> Outcome<(String, String)> {
    let made: serde_json::Value = serde_json::from_slice(made)?;
    let text = |name: &str| made[name].as_str().map(str::to_owned).ok_or("the authority made no organisation");
    Ok((text("orgId")?, text("orgApiKey")?))
}

fn command(program: &Path, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    clean_environment(&mut command, directory);
    let database = format!("sqlite:{}", directory.join(DATABASE).display());
    command.args(arguments).arg("--database").arg(database).stdin(Stdio::null());
    command
}

fn serve(program: &Path, directory: &Path) -> Outcome<(Guarded, SocketAddr)> {
    let mut serve = command(program, directory, &["serve", "--listen", "127.0.0.1:0", "--management-per-minute", "0"]);
    // One address asks all of it.
    serve.args(["--failed-keys-per-minute", "0"]);
    let mut process = Guarded::start(serve.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let address = listening(&mut process)?;
    Ok((process, address))
}

/// Waits for the line that says where it listens.
fn listening(process: &mut Guarded) -> Outcome<SocketAddr> {
    let stdout = process.child().stdout.take().ok_or("no pipe from the authority")?;
    let (send, first_line) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = send.send(line);
        // Kept open and empty: a server that wrote on would fill the pipe.
        let _ = stdout.read_to_end(&mut Vec::new());
    });
    let line = first_line.recv_timeout(PATIENCE)?;
    let address = line.trim_end().rsplit("http://").next().unwrap_or("");
    address.parse().map_err(|_| format!("the authority says {line:?} instead of where it listens").into())
}
