//! The real command line against the real authority, and scripted servers where no real one would misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

/// A running authority with one organisation.
pub(crate) struct Authority {
    server: Child,
    directory: TempDir,
    pub(crate) url: String,
    pub(crate) key: String,
}

impl Authority {
    /// Starts one whose organisation has this plan.
    pub(crate) fn start(plan: &str) -> Self {
        Self::start_with(plan, &[])
    }

    /// The same with further flags of `serve`.
    pub(crate) fn start_with(plan: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_machineid-authority"))
            .args(["serve", "--listen", "127.0.0.1:0", "--database", &database(&directory)])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        let mut authority = Self { server, directory, url, key: String::new() };
        let org = authority.admin(&["create", "--plan", plan]);
        org["orgApiKey"].as_str().unwrap().clone_into(&mut authority.key);
        authority
    }

    /// Runs `machineid-authority org …` and returns what it prints as JSON.
    pub(crate) fn admin(&self, args: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_machineid-authority"))
            .args(["org", "--json", "--database", &database(&self.directory)])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The command line, set up to ask this authority.
    pub(crate) fn machineid(&self, args: &[&str]) -> Command {
        let mut command = machineid(args);
        command.env("MACHINEID_BASE_URL", &self.url).env("MACHINEID_ORG_KEY", &self.key);
        command
    }

    /// Runs the command line to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.machineid(args).ran()
    }

    /// The same, with this on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut child =
            self.machineid(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn register(&self, ids: &[&str]) {
        let ran = self.run(&[&["register"], ids].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// The ids that a list with these arguments shows.
    pub(crate) fn listed(&self, args: &[&str]) -> Vec<String> {
        let list = self.run(&[&["list", "--json"], args].concat()).json();
        list["devices"].as_array().unwrap().iter().map(|d| d["deviceId"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn database(directory: &TempDir) -> String {
    format!("sqlite:{}", directory.path().join("authority.db").display())
}

/// The command line in an empty environment.
pub(crate) fn machineid(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Pairs of device id and result.
    pub(crate) fn results(&self) -> Vec<(String, String)> {
        let json = self.json();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
        json["results"].as_array().unwrap().iter().map(|i| (text(i, "deviceId"), text(i, "result"))).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) trait RunToEnd {
    fn ran(&mut self) -> Ran;
}

impl RunToEnd for Command {
    fn ran(&mut self) -> Ran {
        self.output().unwrap().into()
    }
}

/// A server that gives one scripted response after another, the last one for ever, and notes what was asked.
pub(crate) struct Scripted {
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// On a free TCP port of this host.
    pub(crate) fn tcp(responses: &[String]) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (scripted, serve) = Self::new(responses);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream);
            }
        });
        (scripted, address)
    }

    /// On a unix socket at this path.
    pub(crate) fn unix(path: &Path, responses: &[String]) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (scripted, serve) = Self::new(responses);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream);
            }
        });
        scripted
    }

    fn new<S: Read + Write>(responses: &[String]) -> (Self, impl Fn(S) + Send + 'static) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let responses = responses.to_vec();
        let serve = move |stream: S| {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                head.push_str(&line);
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let mut log = log.lock().unwrap();
            let response = &responses[log.len().min(responses.len() - 1)];
            log.push(head + &String::from_utf8(body).unwrap());
            drop(log);
            let _ = stream.get_mut().write_all(response.as_bytes());
        };
        (Self { requests }, serve)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A response that ends its connection.
pub(crate) fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A directory with a file in it.
pub(crate) fn file(content: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}
