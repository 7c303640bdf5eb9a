//! The signals the daemon acts on, or passes on to its command.

use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::sys;

/// What the daemon itself acts on.
const OWN: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1];
/// What a command in front of which it stands gets beside those.
const PASSED_ON: [Signal; 2] = [Signal::QUIT, Signal::USR2];

#[derive(Debug)]
pub(super) struct Signals {
    watched: Vec<(Signal, unix::Signal)>,
    /// Caught so that a file that reaches its limit (`ulimit -f`) is an error of writing it, and not our end.
    _too_large: Option<unix::Signal>,
}

impl Signals {
    /// Watches for the daemon's own signals, and for those to be passed on in front of a command. Must be called inside
    /// the runtime. Fails when a signal cannot be watched for.
    ///
    /// In front of a command a signal we were started with ignored (`nohup`, a script's background job) stays ignored:
    /// caught, it would be passed on to a command that was to be spared.
    pub(super) fn watch(passed_on: bool) -> io::Result<Self> {
        let more: &[Signal] = if passed_on { &PASSED_ON } else { &[] };
        let mut watched = Vec::new();
        for &signal in OWN.iter().chain(more) {
            if !(passed_on && sys::Inherited::get().ignores(signal.as_raw())) {
                watched.push((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
            }
        }
        let too_large = (!sys::Inherited::get().ignores(Signal::XFSZ.as_raw()))
            .then(|| SignalKind::from_raw(Signal::XFSZ.as_raw()));
        Ok(Self { watched, _too_large: too_large.map(unix::signal).transpose()? })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.watched {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}
