//! The journal: gates, registry and enforcer record each event here once; three consumers read it: the event streams, the
//! audit file and the metrics. Recording an event waits for no disk and no reader.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use machineid_audit::key::Chain;
use machineid_clock::{self as clock, BootTime};
use machineid_protocol::event::{Caller, Event, Happening};
use tokio::sync::watch;

use super::audit::{self, Audit};
use super::metrics::Metrics;
use super::ring::{AgentOwner, EventNumber, Ring, TimedEvent};

/// Events that are kept for readers that reconnect: two stops of a thousand agents.
const KEPT: usize = 4096;

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Distinguishes the events of this daemon from those of the previous one.
    life: Life,
    ring: Mutex<Ring>,
    newest: watch::Sender<EventNumber>,
    pub(crate) metrics: Metrics,
    audit: Option<Audit>,
}

/// One run of the daemon, as part of event ids.
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
    /// Creates a journal, with the audit file's thread if one is configured. Fails when no thread can be started.
    pub(crate) fn start(audit: Option<(PathBuf, Chain)>) -> io::Result<Arc<Self>> {
        let metrics = Metrics::new();
        let audit = audit.map(|(path, chain)| Audit::start(path, chain, metrics.audit_dropped())).transpose()?;
        let (newest, _) = watch::channel(0);
        Ok(Arc::new(Self { life: Life(fastrand::u32(..)), ring: Mutex::new(Ring::new(KEPT)), newest, metrics, audit }))
    }

    /// Records an event that concerns no single agent; returns at once.
    pub(crate) fn tell(&self, what: Happening) {
        self.tell_by(what, None);
    }

    /// The same, with the client that caused it.
    pub(crate) fn tell_by(&self, what: Happening, caller: Option<Caller>) {
        self.record(what, caller, None);
    }

    /// Records an event of an agent, with the client that caused it.
    pub(crate) fn tell_of(&self, owner: &AgentOwner, what: Happening, caller: Option<Caller>) {
        self.record(what, caller, Some(owner.clone()));
    }

    fn record(&self, what: Happening, caller: Option<Caller>, owner: Option<AgentOwner>) {
        self.metrics.count(&what);
        let event = Event { time: clock::wall_now().to_string(), what };
        let mut ring = self.ring();
        // Under the lock, so that stream and file have the same order; neither is waited for.
        if let Some(audit) = &self.audit {
            audit.tell(audit::QueuedRecord { time: event.time.clone(), what: event.what.clone(), caller });
        }
        let newest = ring.push(TimedEvent { at: BootTime::now(), event, owner });
        drop(ring);
        self.newest.send_replace(newest);
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifies of each new event.
    pub(crate) fn watch(&self) -> watch::Receiver<EventNumber> {
        self.newest.subscribe()
    }

    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    /// Makes the audit's thread open its file again: after a rotation.
    pub(crate) fn reopen_audit(&self) {
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Waits a moment for queued audit records. For the end of the process.
    pub(crate) fn flush(&self) {
        if let Some(audit) = &self.audit {
            audit.flush();
        }
    }
}
