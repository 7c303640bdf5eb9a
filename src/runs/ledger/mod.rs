//! The runs as they are written down, so that a daemon that is started again knows them.
//!
//! [`entry`] is one run and its form, [`store`] the directory; here is the thread that writes. It is told *that* a run has
//! changed and writes what the run is by then: a hundred changes while it writes are one. Nothing but the answer to a
//! start waits for it. When it cannot write, that is reported once, and enforcement goes on: what is lost is the adoption
//! of those runs by a later daemon, and their wrappers hold their leases without it.

mod entry;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{io, thread};

use tokio::sync::oneshot;
use tracing::{error, info};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use entry::fuzz as fuzz_record;
pub(crate) use entry::{Entry, Here, StopEntry};
pub(crate) use store::Store;

use super::run::Run;
use crate::protocol::RunId;

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    notes: Sender<Note>,
}

#[derive(Debug)]
enum Note {
    Changed(Arc<Run>, Option<oneshot::Sender<()>>),
    Over(RunId),
}

impl Ledger {
    /// Starts the thread. Fails when none is to be had.
    pub(crate) fn start(store: Store) -> io::Result<Self> {
        let (notes, inbox) = channel();
        thread::Builder::new().name("ledger".to_owned()).spawn(move || work(&inbox, &store))?;
        Ok(Self { notes })
    }

    /// Has the run written down, from now on; the future is ready when that is done, or has failed and been reported.
    pub(crate) fn write(&self, run: &Arc<Run>) -> impl Future<Output = ()> + use<> {
        let (done, written) = oneshot::channel();
        // The thread ends only with the last handle.
        let _ = self.notes.send(Note::Changed(Arc::clone(run), Some(done)));
        async { drop(written.await) }
    }

    /// The run has changed; returns at once.
    pub(crate) fn changed(&self, run: &Arc<Run>) {
        let _ = self.notes.send(Note::Changed(Arc::clone(run), None));
    }

    /// Nothing of the run is left; returns at once.
    pub(crate) fn over(&self, id: RunId) {
        let _ = self.notes.send(Note::Over(id));
    }
}

/// What is to be done about one run, and who waits for it.
#[derive(Debug, Default)]
struct Due {
    run: Option<Arc<Run>>,
    waiting: Vec<oneshot::Sender<()>>,
}

fn work(inbox: &Receiver<Note>, store: &Store) {
    let mut failing = false;
    while let Ok(first) = inbox.recv() {
        let mut due: BTreeMap<RunId, Due> = BTreeMap::new();
        for note in std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
            match note {
                // It was told to be over before: that must not be undone.
                Note::Changed(run, _) if run.is_over() => {}
                Note::Changed(run, waiting) => {
                    let due = due.entry(run.id()).or_default();
                    due.run = Some(run);
                    due.waiting.extend(waiting);
                }
                Note::Over(id) => due.entry(id).or_default().run = None,
            }
        }
        for (id, due) in due {
            // A run that is over by now is none to write, and the note that says so is on its way.
            let entry = due.run.as_ref().map(|run| run.entry());
            let result = match &entry {
                Some(Some(entry)) => store.write(entry),
                Some(None) => Ok(()),
                None => store.remove(id),
            };
            match result {
                // That something can be removed says nothing about a full disk.
                Ok(()) if matches!(entry, Some(Some(_))) && std::mem::take(&mut failing) => {
                    info!("runs are written down again");
                }
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    error!(
                        run_id = %id, %error,
                        "cannot write down a run in local.runtime_dir; enforcement goes on, but a daemon that is started \
                         again will not know it"
                    );
                }
                Ok(()) | Err(_) => {}
            }
            for waiting in due.waiting {
                // Whoever waited may have gone.
                let _ = waiting.send(());
            }
        }
    }
}
