//! Log lines on their way to stderr, without waiting for it.
//!
//! A terminal held with Ctrl-S, a pipe whose reader is suspended or a full disk must not delay enforcement: the gates
//! and the enforcer log in the middle of a stop. So they only queue a line, and a thread writes it. When the thread
//! cannot keep up, lines are lost and counted; the count is logged as soon as a line can be written again.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::panics;

/// The most lines that wait for stderr: a burst, not a backlog.
const WAITING: usize = 1024;
/// How long a process that ends waits for its last lines to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The queue of this process's log, once logging has started.
static QUEUE: OnceLock<SyncSender<QueuedLine>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
enum QueuedLine {
    Line(Vec<u8>),
    /// A request to report that everything before it has been written.
    Flushed(SyncSender<()>),
}

/// The queue as a writer for log lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Lines {
    /// Starts the thread that writes, if none runs yet.
    pub fn to_stderr() -> Self {
        QUEUE.get_or_init(|| {
            let (queue, entries) = sync_channel(WAITING);
            // Without the thread every line counts as lost, and no caller waits.
            let _ = thread::Builder::new()
                .name("log".to_owned())
                .spawn(move || panics::keep_up("log", || write_all(&entries)));
            queue
        });
        Self
    }
}

/// Waits a moment for queued lines to be written. For the end of the process.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (written, wait) = sync_channel(1);
    if queue.try_send(QueuedLine::Flushed(written)).is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS);
    }
}

fn write_all(entries: &Receiver<QueuedLine>) {
    machineid_sys::use_batch_scheduling();
    let mut stderr = io::stderr();
    for entry in entries {
        match entry {
            QueuedLine::Line(line) => {
                // The disk is full or the pipe closed: no place is left to report that.
                let _ = stderr.write_all(&line);
                let lost = LOST.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(stderr, "{lost} log lines were lost: stderr was not read in time");
                }
            }
            QueuedLine::Flushed(written) => {
                let _ = written.send(());
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(Vec::new())
    }
}

/// One line; queued when it is dropped.
#[derive(Debug)]
pub struct LogLine(Vec<u8>);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        let queued = QUEUE.get().is_some_and(|queue| queue.try_send(QueuedLine::Line(line)).is_ok());
        if !queued {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}
