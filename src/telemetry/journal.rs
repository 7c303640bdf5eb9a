//! One journal of what happens, told in one place each by the gates, the runs and the enforcer, and read by three: who
//! listens to `/v1/events`, the audit file, the metrics. Recording an event waits for no disk and no reader.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use machineid_clock::{self as clock, BootTime};
use machineid_protocol::event::{Caller, Event, Happening};
use tokio::sync::watch;

use super::audit::{self, Audit};
use super::metrics::Metrics;
use super::ring::{EventNumber, Ring, TimedEvent};

/// Events that are kept for those who come back: a stop of a thousand agents, twice.
const KEPT: usize = 4096;

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Tells this daemon's events from those of the one before it.
    life: Life,
    ring: Mutex<Ring>,
    newest: watch::Sender<EventNumber>,
    pub(crate) metrics: Metrics,
    audit: Option<Audit>,
}

/// One life of a daemon, in the ids of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life(u32);

impl Life {
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Journal {
    /// Begins one, with the thread that writes the audit file if one is wanted. Fails when no thread can be started.
    pub(crate) fn start(audit_file: Option<PathBuf>) -> io::Result<Arc<Self>> {
        let metrics = Metrics::new();
        let audit = audit_file.map(|path| Audit::start(path, metrics.audit_dropped())).transpose()?;
        let (newest, _) = watch::channel(0);
        Ok(Arc::new(Self { life: Life(fastrand::u32(..)), ring: Mutex::new(Ring::new(KEPT)), newest, metrics, audit }))
    }

    /// Tells what happened; returns at once.
    pub(crate) fn tell(&self, what: Happening) {
        self.tell_by(what, None);
    }

    /// The same, with who asked for it.
    pub(crate) fn tell_by(&self, what: Happening, caller: Option<Caller>) {
        self.metrics.count(&what);
        let event = Event { time: clock::wall_now().to_string(), what };
        let mut ring = self.ring();
        // Under the lock, so that stream and file agree on the order; neither waits.
        if let Some(audit) = &self.audit {
            audit.tell(audit::QueuedRecord { time: event.time.clone(), what: event.what.clone(), caller });
        }
        let newest = ring.push(TimedEvent { at: BootTime::now(), event });
        drop(ring);
        self.newest.send_replace(newest);
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes with each further event.
    pub(crate) fn watch(&self) -> watch::Receiver<EventNumber> {
        self.newest.subscribe()
    }

    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// Has the audit file looked for again at its path: after a rotation.
    pub(crate) fn reopen_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Waits a moment for what is still to be written. For the end of the process.
    pub(crate) fn flush(&self) {
        if let Some(audit) = &self.audit {
            audit.flush();
        }
    }
}
