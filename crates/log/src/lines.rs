//! Log lines on their way to stderr, without anybody waiting for it.
//!
//! A terminal held with Ctrl-S, a pipe whose reader is suspended or a full disk must not hold up enforcement: the gates
//! and the enforcer log in the middle of a stop. So they only queue a line, and a thread writes. When it cannot keep up,
//! lines are lost and counted; that is told as soon as a line can be written again.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::panics;

/// Lines that wait for stderr at most: a burst, not a backlog.
const WAITING: usize = 1024;
/// How long an ending process waits for its last lines.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The queue of this process's log, once there is one.
static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Flushed(SyncSender<()>),
}

/// Where log lines go.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Lines {
    /// Starts the thread, if none runs yet.
    pub fn to_stderr() -> Self {
        QUEUE.get_or_init(|| {
            let (queue, entries) = sync_channel(WAITING);
            // Without it every line counts as lost, and no caller waits.
            let _ = thread::Builder::new()
                .name("log".to_owned())
                .spawn(move || panics::keep_up("log", || write_all(&entries)));
            queue
        });
        Self
    }
}

/// Waits a moment for the lines that are still queued. For the end of the process.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (written, wait) = sync_channel(1);
    if queue.try_send(Entry::Flushed(written)).is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS);
    }
}

fn write_all(entries: &Receiver<Entry>) {
    machineid_sys::use_batch_scheduling();
    let mut stderr = io::stderr();
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                // A full disk or a closed pipe: there is nowhere left to say so.
                let _ = stderr.write_all(&line);
                let lost = LOST.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(stderr, "{lost} log lines were lost: stderr was not read in time");
                }
            }
            Entry::Flushed(written) => {
                let _ = written.send(());
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// One line; queued when it is dropped.
#[derive(Debug)]
pub struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        let queued = QUEUE.get().is_some_and(|queue| queue.try_send(Entry::Line(line)).is_ok());
        if !queued {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}
