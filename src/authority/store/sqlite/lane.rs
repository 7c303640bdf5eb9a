//! Threads that hold a connection each, and the queues before them.
//!
//! `SQLite` is a library of blocking calls. A thread that takes everything waiting at once and does it in one transaction
//! costs one wake-up, one lock and (when it writes) one flush to the disk for all of it; a pool that hands a connection to
//! each question costs them anew each time. That one transaction begins *after* the questions it answers were taken
//! from the queue, so each sees every change that was answered before it was asked.

use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::super::StoreError;
use crate::authority::changes::{Change, Changes};

/// How many wait in a queue before their askers wait for a place in it.
const QUEUE: usize = 1024;

/// How many are answered from one snapshot, or written in one transaction.
const TOGETHER: usize = 256;

/// Something to read.
type Question = Box<dyn FnOnce(&Connection) + Send>;

/// What a writer does: run inside the transaction, and once more when the fate of that is known.
trait Work: Send {
    fn run(&mut self, connection: &Connection);
    fn settle(self: Box<Self>, committed: Result<(), StoreError>, changes: &Changes);
}

/// A queue with the threads behind it.
struct Lane<T> {
    /// `None` when it was ended: then the threads do what waits, and end.
    queue: Mutex<Option<mpsc::Sender<T>>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Threads that read.
#[derive(Debug)]
pub(super) struct Readers(Lane<Question>);

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer(Lane<Box<dyn Work>>);

impl<T> Lane<T> {
    async fn push(&self, item: T) -> Result<(), StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queue.ok_or(StoreError::Closed)?.send(item).await.map_err(|_| StoreError::Closed)
    }

    /// Does what waits, then ends the threads and closes their connections.
    async fn end(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Fails when a thread panicked, which closed its queue, which everybody has noticed.
        let _ = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

impl<T> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

impl Readers {
    /// One thread for each connection.
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> Result<Self, std::io::Error> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for connection in connections {
            let waiting = Arc::clone(&waiting);
            threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || read(&connection, &waiting))?);
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
            // Whoever asked may have gone.
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
    /// `held` is let go of when the thread has ended and the connection is closed.
    pub(super) fn start(connection: Connection, changes: Changes, held: File) -> Result<Self, std::io::Error> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            write(&connection, waiting, &changes);
            drop(connection);
            drop(held);
        })?;
        Ok(Self(Lane { queue: Mutex::new(Some(queue)), threads: Mutex::new(vec![thread]) }))
    }

    /// Does `work` in a transaction, alone or with others', and answers when it is committed. Its own failure undoes it
    /// and nobody else's. The changes it names, if it does, are told before the answer.
    pub(super) async fn change<T: Send + 'static, C: IntoIterator<Item = Change> + Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<(T, C), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let pending: Box<dyn Work> = Box::new(Pending { work: Some(work), came_to: None, reply });
        self.0.push(pending).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Whether it still writes.
    pub(super) fn alive(&self) -> bool {
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| !queue.is_closed())
    }

    pub(super) async fn end(&self) {
        self.0.end().await;
    }
}

fn read(connection: &Connection, waiting: &Mutex<mpsc::Receiver<Question>>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    loop {
        let taken = waiting.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv_many(&mut batch, TOGETHER);
        if taken == 0 {
            return;
        }
        // The snapshot begins with the first SELECT inside. Where BEGIN fails each question has a snapshot of its own,
        // or fails by itself.
        let together = taken > 1 && connection.execute_batch("BEGIN").is_ok();
        for question in batch.drain(..) {
            question(connection);
        }
        if together && connection.execute_batch("COMMIT").is_err() {
            // Without this a failed one would hold on to its snapshot, and every later answer with it.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if !connection.is_autocommit() {
            // Never an answer from an old snapshot: rather none, from this thread.
            return;
        }
    }
}

fn write(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Work>>, changes: &Changes) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while waiting.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        let committed = together(connection, &mut batch);
        for work in batch.drain(..) {
            work.settle(committed.clone(), changes);
        }
    }
}

/// One transaction for all of them.
fn together(connection: &Connection, works: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::from(error);
    // IMMEDIATE: nobody comes between what is read inside and what is written.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    for work in works {
        work.run(connection);
        if connection.is_autocommit() {
            // A full disk, or an error in reading: SQLite itself undid everything since BEGIN.
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
            // Its own failure says more than that of all.
            (Some(Err(error)), _) | (None | Some(Ok(_)), Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::Closed),
            (Some(Ok((done, what))), Ok(())) => {
                for change in what {
                    changes.tell(change);
                }
                Ok(done)
            }
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}
