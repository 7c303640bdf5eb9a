//! Copies of the database, for backups.
//!
//! The copy uses a connection that was opened at the start with the others. A connection opened later could lead to
//! another file that was put at the path meanwhile; that copy would miss every change since, including revokes.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, InterruptHandle};

use super::super::StoreError;
use super::file::Held;

/// The connection for copies, separate from the others: a copy of a large database takes minutes and cannot be made
/// inside a transaction.
#[derive(Clone)]
pub(super) struct Copier {
    /// The connection; `None` after the end. The file locks are released after it.
    open: Arc<Mutex<Option<Open>>>,
    running: Arc<InterruptHandle>,
}

/// A connection, and the file locks to release after it.
type Open = (Connection, Arc<Held>);

impl Copier {
    pub(super) fn new(connection: Connection, held: &Arc<Held>) -> rusqlite::Result<Self> {
        // The file and its log are opened by the first read: done now, not at the first copy.
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let running = Arc::new(connection.get_interrupt_handle());
        Ok(Self { open: Arc::new(Mutex::new(Some((connection, Arc::clone(held))))), running })
    }

    /// Writes a copy of the database, from one snapshot, to the file `copy`, which must not exist.
    pub(super) async fn copy(&self, copy: &Path) -> Result<(), StoreError> {
        let (open, copy) = (Arc::clone(&self.open), copy.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            let open = open.lock().unwrap_or_else(PoisonError::into_inner);
            let (connection, _) = open.as_ref().ok_or(StoreError::Closed)?;
            // Creates an empty file that only we may read. VACUUM INTO accepts an empty file.
            File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&copy)
                .map_err(StoreError::unwritable(&copy))?;
            let written = write(connection, &copy);
            if written.is_err() {
                let _ = fs::remove_file(&copy);
            }
            written
        });
        copied.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Aborts a running copy and closes the connection.
    pub(super) async fn end(&self) {
        self.running.interrupt();
        let open = Arc::clone(&self.open);
        let close = move || drop(open.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Copier")
    }
}

fn write(connection: &Connection, copy: &Path) -> Result<(), StoreError> {
    connection.execute("VACUUM INTO ?1", [copy.as_os_str().to_string_lossy()])?;
    File::open(copy).and_then(|file| file.sync_all()).map_err(StoreError::unwritable(copy))
}

#[cfg(test)]
mod tests {
    use super::super::{Sqlite, Turn};
    use super::*;
    use crate::changes::{Change, Changes};

    async fn set(store: &Sqlite, sql: &'static str) {
        store.writer.change(Turn::Usual, move |db| Ok((db.execute_batch(sql)?, None::<Change>))).await.unwrap();
    }

    #[test]
    fn a_copy_is_one_of_the_file_that_is_served_and_one_that_fails_leaves_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let place = |name: &str| directory.path().join(name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Sqlite::open(&place("served.db"), &Changes::new(), 0).unwrap();
            set(&store, "CREATE TABLE t (x); INSERT INTO t VALUES (1)").await;
            for end in ["", "-wal", "-shm"] {
                fs::rename(place(&format!("served.db{end}")), place(&format!("away.db{end}"))).unwrap();
            }
            let other = Connection::open(place("served.db")).unwrap();
            other.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1000)").unwrap();
            set(&store, "INSERT INTO t VALUES (2)").await;

            store.back_up(&place("copy.db")).await.unwrap();
            let copy = Connection::open(place("copy.db")).unwrap();
            let sum: i64 = copy.query_row("SELECT SUM(x) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(sum, 3);

            assert!(write(&other, &place("copy.db")).is_err(), "a file with something in it is not overwritten");
            assert!(store.back_up(&place("copy.db")).await.is_err());
            assert!(place("copy.db").exists(), "what was there before stays");
            store.close().await;
            assert!(store.back_up(&place("late.db")).await.is_err());
            assert!(!place("late.db").exists());
        });
    }
}
