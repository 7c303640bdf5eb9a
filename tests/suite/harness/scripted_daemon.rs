//! A daemon that says what the test tells it to: the other side of `machineid-run`, without a gate behind it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::local::{Killer, SuperviseEvent, SuperviseRequest};
use machineid_protocol::{Code, Containment, RunId};
use tempfile::TempDir;

use super::PATIENCE;

/// Listens on a socket in a directory of its own; each connection gets the script in a thread of its own.
pub(crate) struct ScriptedDaemon {
    directory: TempDir,
    connections: Arc<AtomicUsize>,
}

impl ScriptedDaemon {
    /// The script is told about each question; the connection closes when it returns.
    pub(crate) fn start(script: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("sidecar.sock")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let record = Record::default();
        let script = Arc::new(script);
        // The thread lives until the test process ends: a blocked accept cannot be interrupted safely, and costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (counter, script, record) = (Arc::clone(&counter), Arc::clone(&script), Arc::clone(&record));
                std::thread::spawn(move || {
                    if let Some(mut conversation) = Conversation::hear(stream, &counter, record) {
                        script(&mut conversation);
                    }
                });
            }
        });
        Self { directory, connections }
    }

    /// Allows everything for ever.
    pub(crate) fn allowing() -> Self {
        Self::start(|conversation| {
            conversation.allow(PATIENCE * 10);
            conversation.hold();
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sidecar.sock")
    }

    /// A directory for the test's own files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// As if it had ended: no client reaches it any more. Existing connections stay.
    pub(crate) fn vanish(&self) {
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// How many questions there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One question and the answer to it.
pub(crate) struct Conversation {
    stream: UnixStream,
    pub(crate) question: SuperviseRequest,
    /// 0 for the first connection.
    pub(crate) number: usize,
    record: Record,
}

/// The newest of each run: its lease, or the stop that has begun.
type Record = Arc<Mutex<HashMap<RunId, SuperviseEvent>>>;

impl Conversation {
    /// Hears a question. A wrapper that asks what became of its run is answered here, and is no conversation.
    fn hear(mut stream: UnixStream, counter: &AtomicUsize, record: Record) -> Option<Self> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut length = 0;
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(rest) = line.strip_prefix("GET /v1/supervise?run_id=") {
            let newest = record.lock().unwrap().get(&rest[..32].parse().unwrap()).cloned();
            let event = newest.unwrap_or(SuperviseEvent::Lease { boot_ms: 0, until_boot_ms: 0 });
            let line = serde_json::to_string(&event).unwrap();
            let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{line}\n").as_bytes());
            return None;
        }
        assert_eq!(line, "POST /v1/supervise HTTP/1.0\r\n");
        let number = counter.fetch_add(1, Ordering::SeqCst);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let question = serde_json::from_slice(&body).unwrap();
        Some(Self { stream, question, number, record })
    }

    /// Writes bytes as they are; a peer that has gone is no error.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Writes bytes as they are; says whether the peer is still there.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn head(&mut self, status: &str) {
        self.raw(format!("HTTP/1.0 {status}\r\ncontent-type: application/x-ndjson\r\n\r\n").as_bytes());
    }

    pub(crate) fn send(&mut self, event: &SuperviseEvent) {
        let line = serde_json::to_string(event).unwrap() + "\n";
        self.raw(line.as_bytes());
    }

    /// The `allow` line for a lease of this length from now.
    pub(crate) fn allow_event(&self, lease: Duration) -> SuperviseEvent {
        let now = BootTime::now();
        SuperviseEvent::Allow {
            run_id: self.question.run_id,
            device_id: self.question.device.clone().unwrap_or_else(|| "host:test".parse().unwrap()),
            base_url: None,
            code: Code::Allow,
            request_id: None,
            boot_ms: now.as_millis(),
            until_boot_ms: (now + lease).as_millis(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap(),
            resume_grace_ms: 3_000,
            stop_grace_ms: 10_000,
            stop_signal: None,
            containment: Containment::Subreaper,
            killer: Killer::Daemon,
            token: None,
        }
    }

    pub(crate) fn allow(&mut self, lease: Duration) {
        let event = self.allow_event(lease);
        self.allow_with(&event);
    }

    /// Allows by this line.
    pub(crate) fn allow_with(&mut self, event: &SuperviseEvent) {
        if let SuperviseEvent::Allow { boot_ms, until_boot_ms, .. } = *event {
            self.note_lease(boot_ms, until_boot_ms);
        }
        self.head("200 OK");
        self.send(event);
    }

    fn note_lease(&self, boot_ms: u64, until_boot_ms: u64) {
        let mut record = self.record.lock().unwrap();
        // A stop is latched.
        if !matches!(record.get(&self.question.run_id), Some(SuperviseEvent::Stop { .. })) {
            record.insert(self.question.run_id, SuperviseEvent::Lease { boot_ms, until_boot_ms });
        }
    }

    /// Allows with this much left of a longer lease.
    pub(crate) fn allow_with_left(&mut self, left: Duration, whole: Duration) {
        let mut event = self.allow_event(whole);
        if let SuperviseEvent::Allow { until_boot_ms, boot_ms, .. } = &mut event {
            *until_boot_ms = *boot_ms + u64::try_from(left.as_millis()).unwrap();
        }
        self.head("200 OK");
        self.send(&event);
    }

    /// Moves the deadline to this much from now.
    pub(crate) fn lease(&mut self, lease: Duration) {
        let now = BootTime::now();
        let (boot_ms, until_boot_ms) = (now.as_millis(), (now + lease).as_millis());
        self.note_lease(boot_ms, until_boot_ms);
        self.send(&SuperviseEvent::Lease { boot_ms, until_boot_ms });
    }

    /// Begins a stop, as a daemon does before it signals a process: on record, but not yet told.
    pub(crate) fn begin_stop(&mut self, code: Code, signalled: bool, grace: Duration) -> SuperviseEvent {
        let stop = SuperviseEvent::Stop {
            code,
            request_id: machineid_protocol::RequestId::from_foreign("req-1"),
            reason: Some("because".to_owned()),
            signalled,
            grace_ms: u64::try_from(grace.as_millis()).unwrap(),
        };
        self.record.lock().unwrap().insert(self.question.run_id, stop.clone());
        stop
    }

    pub(crate) fn stop(&mut self, code: Code, signalled: bool, grace: Duration) {
        let stop = self.begin_stop(code, signalled, grace);
        self.send(&stop);
    }

    pub(crate) fn refuse(&mut self, status: &str, code: Code) {
        let event = SuperviseEvent::Error {
            code,
            request_id: machineid_protocol::RequestId::from_foreign("req-1"),
            device_id: None,
            reason: Some("because".to_owned()),
        };
        self.head(status);
        self.send(&event);
    }

    /// Keeps the connection until the other side closes it.
    pub(crate) fn hold(&mut self) {
        let mut buffer = [0; 64];
        while matches!(self.stream.read(&mut buffer), Ok(count) if count > 0) {}
    }
}
