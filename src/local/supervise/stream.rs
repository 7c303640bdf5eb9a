//! The events of one run, for the wrapper's connection.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use futures_util::Stream;
use machineid_clock::BootTime;
use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::outside::OutsideHelper;
use tokio::sync::watch;

use super::allow;
use crate::local::{Context, millis};
use crate::registry::run::Outbox;
use crate::registry::{Run, RunRegistry};

pub(super) fn line(event: &SuperviseEvent) -> Bytes {
    // Every field has a JSON form.
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// One connection of a run's wrapper; the end of the last one ends the run.
#[derive(Debug)]
pub(super) struct HeldRun {
    pub(super) run: Arc<Run>,
    runs: Arc<RunRegistry>,
}

impl HeldRun {
    /// The first connection, counted when the run was opened.
    pub(super) fn new(run: Arc<Run>, runs: Arc<RunRegistry>) -> Self {
        Self { run, runs }
    }

    /// A further connection.
    pub(super) fn come_back(run: Arc<Run>, runs: Arc<RunRegistry>) -> Self {
        run.note_stream();
        Self { run, runs }
    }
}

impl Drop for HeldRun {
    fn drop(&mut self) {
        self.runs.stream_ended(&self.run);
    }
}

#[derive(Debug)]
pub(super) struct RunEventStream {
    first: Option<Bytes>,
    until: Option<BootTime>,
    /// The number of changed terms as of the last time they were told.
    terms: u64,
    /// Why the device cannot be validated, as last told.
    undecided: Option<Arc<str>>,
    stopped: bool,
    /// The helpers outside the tree, as last told.
    helpers: Arc<[OutsideHelper]>,
    /// The number of looks that the wrapper has been asked for.
    looks: u64,
    events: watch::Receiver<Outbox>,
    /// Dropped with the connection, which signals the end of the run.
    held: HeldRun,
    context: Arc<Context>,
}

impl RunEventStream {
    /// `until` is the deadline in `first`.
    pub(super) fn new(
        context: &Arc<Context>,
        first: Option<&SuperviseEvent>,
        until: Option<BootTime>,
        events: watch::Receiver<Outbox>,
        held: HeldRun,
    ) -> Self {
        // Zero, so that a change while the first event is made is not missed.
        let (first, context) = (first.map(line), Arc::clone(context));
        Self {
            first,
            until,
            terms: 0,
            undecided: None,
            stopped: false,
            helpers: Arc::default(),
            looks: 0,
            events,
            held,
            context,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures_util::stream::unfold(self, |mut stream| async move {
            let line = stream.next_line().await;
            Some((Ok(line), stream))
        })
    }

    /// The next event. The stream never ends by itself: the wrapper closes the connection.
    async fn next_line(&mut self) -> Bytes {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            let outbox = self.events.borrow_and_update().clone();
            if let Some(notice) = outbox.stop.filter(|_| !self.stopped) {
                self.stopped = true;
                let grace = notice.kill_at.saturating_since(BootTime::now());
                return line(&SuperviseEvent::Stop {
                    code: notice.denial.code,
                    request_id: notice.denial.request_id,
                    reason: notice.denial.reason,
                    signalled: notice.signalled,
                    grace_ms: millis(grace),
                });
            }
            if outbox.helpers != self.helpers {
                self.helpers = Arc::clone(&outbox.helpers);
                return line(&SuperviseEvent::Outside { helpers: outbox.helpers.to_vec() });
            }
            if outbox.looks != self.looks {
                self.looks = outbox.looks;
                return line(&SuperviseEvent::Look {});
            }
            if outbox.terms != self.terms && !self.stopped {
                self.terms = outbox.terms;
                let run = &self.held.run;
                let until = run.deadline();
                // The allow is sent again with the present terms.
                if let Some(again) = until.and_then(|until| allow(&self.context, run, until, None)) {
                    self.until = until;
                    return line(&again);
                }
            }
            if outbox.undecided != self.undecided && !self.stopped {
                self.undecided.clone_from(&outbox.undecided);
                return line(&SuperviseEvent::Undecided { reason: outbox.undecided.as_deref().map(str::to_owned) });
            }
            if let Some(until) = outbox.until.filter(|until| Some(*until) != self.until && !self.stopped) {
                self.until = Some(until);
                let boot_ms = BootTime::now().as_millis();
                return line(&SuperviseEvent::Lease { boot_ms, until_boot_ms: until.as_millis() });
            }
            if self.events.changed().await.is_err() {
                // The sender lives in the run that this stream holds.
                return std::future::pending().await;
            }
        }
    }
}
