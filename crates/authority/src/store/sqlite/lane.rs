//! Threads with a connection each, and their queues.
//!
//! `SQLite` is a library of blocking calls. A thread that takes all waiting work and does it in one transaction costs
//! one wake-up, one lock and (for writes) one flush to the disk for all of it; a pool that lends a connection to each
//! question pays these costs every time. The transaction begins *after* the questions were taken from the queue, so
//! each sees every change that was answered before it was asked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::super::StoreError;
use super::file::Held;
use crate::changes::{Change, Changes};
use crate::repeated::rarely;

/// The length of a queue; when it is full, callers wait for a place in it.
const QUEUE: usize = 1024;

/// How many questions share a snapshot, or changes a transaction.
const TOGETHER: usize = 256;

/// The pause between attempts to reopen a connection.
const AGAIN: Duration = Duration::from_millis(100);

/// An error in starting the threads.
#[derive(Debug)]
pub(super) enum LaneError {
    Open(rusqlite::Error),
    Thread(std::io::Error),
}

/// A question that reads.
type Question = Box<dyn FnOnce(&Connection) + Send>;

/// A change: run inside the transaction, then told whether the transaction was committed.
trait Work: Send {
    fn run(&mut self, connection: &Connection);
    fn settle(self: Box<Self>, committed: Result<(), StoreError>, changes: &Changes);
}

/// A queue with its threads.
struct Lane<T> {
    /// The sender; `None` after the end: the threads then finish the waiting work and end.
    queue: Mutex<Option<mpsc::Sender<T>>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Threads that read.
#[derive(Debug)]
pub(super) struct Readers(Lane<Question>);

/// The thread that writes. It has two queues: what stops agents is done before everything that waits, in a transaction of its
/// own, so that it waits for one other transaction at most.
#[derive(Debug)]
pub(super) struct Writer {
    usual: Lane<Box<dyn Work>>,
    first: Lane<Box<dyn Work>>,
}

/// Which changes are done before others that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// Those that stop agents.
    First,
    Usual,
}

/// Work that does nothing: it wakes the thread for the other queue.
struct Bell;

impl Work for Bell {
    fn run(&mut self, _: &Connection) {}
    fn settle(self: Box<Self>, _: Result<(), StoreError>, _: &Changes) {}
}

impl<T> Lane<T> {
    async fn push(&self, item: T) -> Result<(), StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queue.ok_or(StoreError::Closed)?.send(item).await.map_err(|_| StoreError::Closed)
    }

    /// Finishes the waiting work, then ends the threads and closes their connections.
    async fn end(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Fails when a thread panicked. The panic closed its queue, so every later call has failed.
        let _ = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

impl<T> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

impl Readers {
    /// Starts this many threads with a connection each. `open` opens the connections, and replaces one in an unknown
    /// state. `held` is released after the last connection is closed.
    pub(super) fn start(
        name: &str,
        count: usize,
        open: impl Fn() -> rusqlite::Result<Connection> + Clone + Send + 'static,
        held: &Arc<Held>,
    ) -> Result<Self, LaneError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for _ in 0..count {
            let (waiting, open, held) = (Arc::clone(&waiting), open.clone(), Arc::clone(held));
            let connection = open().map_err(LaneError::Open)?;
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                read(connection, &open, &waiting);
                drop(held);
            });
            threads.push(thread.map_err(LaneError::Thread)?);
        }
        Ok(Self(Lane { queue: Mutex::new(Some(queue)), threads: Mutex::new(threads) }))
    }

    /// Asks `question`, in a snapshot that begins after this call.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let asked: Question = Box::new(move |connection| {
            // The receiver is gone when the request was abandoned.
            let _ = reply.send(question(connection));
        });
        self.0.push(asked).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn end(&self) {
        self.0.end().await;
    }
}

impl Writer {
    /// Starts the thread. `open` replaces a connection in an unknown state. `held` is released when the thread has
    /// ended and the connection is closed.
    pub(super) fn start(
        connection: Connection,
        open: impl Fn() -> rusqlite::Result<Connection> + Send + 'static,
        changes: Changes,
        held: &Arc<Held>,
    ) -> Result<Self, LaneError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (first_queue, first) = mpsc::channel(QUEUE);
        let held = Arc::clone(held);
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            write(connection, &open, waiting, first, &changes);
            drop(held);
        });
        let thread = thread.map_err(LaneError::Thread)?;
        Ok(Self {
            usual: Lane { queue: Mutex::new(Some(queue)), threads: Mutex::new(vec![thread]) },
            first: Lane { queue: Mutex::new(Some(first_queue)), threads: Mutex::default() },
        })
    }

    /// Does `work` in a transaction, alone or with other changes, and answers after the commit. A failure of `work`
    /// undoes only its own changes. The changes that it names are told before the answer.
    pub(super) async fn change<T: Send + 'static, C: IntoIterator<Item = Change> + Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Connection) -> Result<(T, C), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let pending: Box<dyn Work> = Box::new(Pending { work: Some(work), came_to: None, reply });
        match turn {
            Turn::Usual => self.usual.push(pending).await?,
            Turn::First => {
                self.first.push(pending).await?;
                self.ring();
            }
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Wakes the thread. If the queue is full, the thread is busy, and looks at the other one before it goes on.
    fn ring(&self) {
        let queue = self.usual.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            let _ = queue.try_send(Box::new(Bell));
        }
    }

    /// Whether the thread is still running.
    pub(super) fn alive(&self) -> bool {
        let queue = self.usual.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| !queue.is_closed())
    }

    pub(super) async fn end(&self) {
        self.first.end().await;
        self.usual.end().await;
    }
}

fn read(
    mut connection: Connection,
    open: &impl Fn() -> rusqlite::Result<Connection>,
    waiting: &Mutex<mpsc::Receiver<Question>>,
) {
    let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = Vec::with_capacity(TOGETHER);
    loop {
        let taken = lock().blocking_recv_many(&mut batch, TOGETHER);
        if taken == 0 {
            return;
        }
        // A panic, which is a bug of ours, fails its batch but not the thread: the callers get no answer.
        let answered = catch_unwind(AssertUnwindSafe(|| answer(&connection, &mut batch)));
        batch.clear();
        if answered.is_ok() && connection.is_autocommit() {
            continue;
        }
        // A new connection, so that no answer comes from an old snapshot.
        let fresh = reopened(open, || lock().try_recv());
        let Some(fresh) = fresh else { return };
        connection = fresh;
    }
}

/// Answers all questions from one snapshot.
fn answer(connection: &Connection, batch: &mut Vec<Question>) {
    // The snapshot begins with the first SELECT inside. If BEGIN fails, each question has a snapshot of its own, or
    // fails by itself.
    let together = batch.len() > 1 && connection.execute_batch("BEGIN").is_ok();
    for question in batch.drain(..) {
        question(connection);
    }
    if together && connection.execute_batch("COMMIT").is_err() {
        // Without a rollback the connection would keep its old snapshot for every later answer.
        let _ = connection.execute_batch("ROLLBACK");
    }
}

/// Opens a connection to replace one in an unknown state. While that fails, waiting work is dropped, which fails its
/// callers. `None` after the end of the lane.
fn reopened<T>(
    open: impl Fn() -> rusqlite::Result<Connection>,
    mut next: impl FnMut() -> Result<T, TryRecvError>,
) -> Option<Connection> {
    error!("a connection to the database was left in an unknown state; reopening it");
    loop {
        match open() {
            Ok(connection) => {
                info!("the connection to the database was reopened");
                return Some(connection);
            }
            Err(error) => rarely!(error, %error, "cannot reopen a connection to the database"),
        }
        loop {
            match next() {
                Ok(asked) => drop(asked),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        thread::sleep(AGAIN);
    }
}

fn write(
    mut connection: Connection,
    open: &impl Fn() -> rusqlite::Result<Connection>,
    mut waiting: mpsc::Receiver<Box<dyn Work>>,
    mut first: mpsc::Receiver<Box<dyn Work>>,
    changes: &Changes,
) {
    let mut usual = Vec::with_capacity(TOGETHER);
    let mut batch = Vec::with_capacity(TOGETHER);
    loop {
        // What stops agents first. Then what else was taken, and only then the next look at the queue.
        while batch.len() < TOGETHER
            && let Ok(work) = first.try_recv()
        {
            batch.push(work);
        }
        if batch.is_empty() {
            batch.append(&mut usual);
        }
        if batch.is_empty() {
            if waiting.blocking_recv_many(&mut usual, TOGETHER) == 0 && first.is_empty() {
                return;
            }
            continue;
        }
        // As for readers: a panic undoes its transaction, and the thread continues.
        let committed = catch_unwind(AssertUnwindSafe(|| together(&connection, &mut batch)));
        let committed = committed.unwrap_or_else(|_| {
            let _ = connection.execute_batch("ROLLBACK");
            Err(StoreError::Closed)
        });
        for work in batch.drain(..) {
            work.settle(committed.clone(), changes);
        }
        if !connection.is_autocommit() {
            // Neither committed nor undone: the connection cannot begin a transaction any more. Closing it undoes the
            // open one.
            let next = || first.try_recv().or_else(|_| waiting.try_recv());
            let Some(fresh) = reopened(open, next) else { return };
            connection = fresh;
        }
    }
}

/// Runs all changes in one transaction.
fn together(connection: &Connection, works: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::from(error);
    // IMMEDIATE: no other writer can change what this transaction has read.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    for work in works {
        work.run(connection);
        if connection.is_autocommit() {
            // After a full disk or a read error, SQLite itself has undone everything since BEGIN.
            return Err(StoreError::Undone);
        }
    }
    connection.execute_batch("COMMIT").map_err(|error| {
        let _ = connection.execute_batch("ROLLBACK");
        failed(error)
    })
}

struct Pending<F, T, C> {
    work: Option<F>,
    came_to: Option<Result<(T, C), StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T, C> Work for Pending<F, T, C>
where
    F: FnOnce(&Connection) -> Result<(T, C), StoreError> + Send,
    T: Send,
    C: IntoIterator<Item = Change> + Send,
{
    fn run(&mut self, connection: &Connection) {
        let Some(work) = self.work.take() else { return };
        let inside = || {
            connection.execute_batch("SAVEPOINT one")?;
            let came_to = work(connection);
            if came_to.is_err() && !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK TO one")?;
            }
            if !connection.is_autocommit() {
                connection.execute_batch("RELEASE one")?;
            }
            came_to
        };
        self.came_to = Some(inside());
    }

    fn settle(self: Box<Self>, committed: Result<(), StoreError>, changes: &Changes) {
        let answer = match (self.came_to, committed) {
            // The change's own failure says more than that of the transaction.
            (Some(Err(error)), _) | (None | Some(Ok(_)), Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::Closed),
            (Some(Ok((done, what))), Ok(())) => {
                for change in what {
                    changes.tell(change);
                }
                Ok(done)
            }
        };
        // The receiver is gone when the request was abandoned.
        let _ = self.reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::DatabaseFile;
    use super::*;

    fn place() -> (tempfile::TempDir, std::path::PathBuf, Arc<Held>) {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("test.db");
        let (_, held) = DatabaseFile::take(&path).unwrap();
        (directory, path, held)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn value(connection: &Connection) -> Result<i64, StoreError> {
        Ok(connection.query_row("SELECT 7", [], |row| row.get(0))?)
    }

    #[test]
    fn a_thread_that_reads_outlives_a_panic_and_a_transaction_that_was_left_open() {
        let (_directory, path, held) = place();
        let readers = Readers::start("test", 1, move || Connection::open(&path), &held).unwrap();
        runtime().block_on(async {
            for _ in 0..3 {
                let panicked = readers.ask(|_| -> Result<(), StoreError> { panic!("on purpose") }).await;
                assert!(matches!(panicked, Err(StoreError::Closed)), "{panicked:?}");
                assert_eq!(readers.ask(value).await.unwrap(), 7);
                readers.ask(|db| Ok(db.execute_batch("BEGIN")?)).await.unwrap();
                let fresh = readers.ask(|db| Ok(db.is_autocommit())).await.unwrap();
                assert!(fresh, "an old snapshot is never answered from");
            }
            readers.end().await;
        });
    }

    #[test]
    fn the_thread_that_writes_outlives_a_panic_and_what_it_undid_is_not_there() {
        let (_directory, path, held) = place();
        let open = move || Connection::open(&path);
        let writer = Writer::start(open().unwrap(), open.clone(), Changes::new(), &held).unwrap();
        runtime().block_on(async {
            let write = async |sql: &'static str| {
                let nothing: Option<Change> = None;
                writer.change(Turn::Usual, move |db| Ok((db.execute_batch(sql)?, nothing))).await
            };
            write("CREATE TABLE t (x)").await.unwrap();
            let panicked = writer
                .change(Turn::First, |db| -> Result<((), Option<Change>), StoreError> {
                    db.execute_batch("INSERT INTO t VALUES (1)")?;
                    panic!("on purpose")
                })
                .await;
            assert!(panicked.is_err(), "{panicked:?}");
            write("INSERT INTO t VALUES (2)").await.unwrap();
            let rows = writer.change(Turn::First, |db| {
                let rows: i64 = db.query_row("SELECT SUM(x) FROM t", [], |row| row.get(0))?;
                Ok((rows, None))
            });
            assert_eq!(rows.await.unwrap(), 2);
            assert!(writer.alive());
            writer.end().await;
        });
    }

    #[test]
    fn what_stops_agents_is_done_before_everything_that_waits() {
        let (_directory, path, held) = place();
        let open = move || Connection::open(&path);
        let writer = Writer::start(open().unwrap(), open.clone(), Changes::new(), &held).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let noting = |name: &'static str| {
            let order = Arc::clone(&order);
            move |_: &Connection| {
                order.lock().unwrap().push(name);
                Ok(((), None::<Change>))
            }
        };
        runtime().block_on(async {
            let holding = writer.change(Turn::Usual, move |_| {
                begun.send(()).unwrap();
                goes_on.recv().unwrap();
                Ok(((), None::<Change>))
            });
            let (one, two) = (writer.change(Turn::Usual, noting("one")), writer.change(Turn::Usual, noting("two")));
            let stop = writer.change(Turn::First, noting("stop"));
            let others = async {
                has_begun.recv().unwrap();
                // Polled after the others, which wait by then.
                let releasing = async {
                    go_on.send(()).unwrap();
                    Ok::<_, StoreError>(())
                };
                tokio::try_join!(one, two, stop, releasing)
            };
            tokio::try_join!(holding, others).unwrap();
            writer.end().await;
        });
        assert_eq!(*order.lock().unwrap(), ["stop", "one", "two"]);
    }
}
