//! The signals that the daemon acts on, or passes to its command.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt;
use machineid_sys as sys;
use rustix::process::Signal;

/// The signals that the daemon itself acts on.
const OWN: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1];
/// The further signals that are passed to a command.
const PASSED_ON: [Signal; 2] = [Signal::QUIT, Signal::USR2];

pub(super) struct Signals {
    watched: Vec<Signal>,
    arrived: signal_hook_tokio::Signals,
}

impl Signals {
    /// Watches for the daemon's own signals and, with a command, for those to be passed on. Must be called inside the
    /// runtime. Fails when a signal cannot be watched.
    ///
    /// With a command, a signal that the daemon inherited as ignored (`nohup`, a script's background job) stays ignored:
    /// otherwise it would be passed on to a command that was protected from it.
    pub(super) fn watch(passed_on: bool) -> io::Result<Self> {
        let ignores = |signal: Signal| sys::Inherited::get().ignores(signal.as_raw());
        let more: &[Signal] = if passed_on { &PASSED_ON } else { &[] };
        let all = OWN.iter().chain(more).copied();
        let watched: Vec<Signal> = all.filter(|signal| !(passed_on && ignores(*signal))).collect();
        if !ignores(Signal::XFSZ) {
            // With a handler, a file that reaches its limit (`ulimit -f`) causes a write error. By default the signal ends
            // the process.
            signal_hook::flag::register(Signal::XFSZ.as_raw(), Arc::new(AtomicBool::new(false)))?;
        }
        let arrived = signal_hook_tokio::Signals::new(watched.iter().map(|signal| signal.as_raw()))?;
        Ok(Self { watched, arrived })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            match self.arrived.next().await {
                Some(number) => {
                    if let Some(signal) = self.watched.iter().find(|signal| signal.as_raw() == number) {
                        return *signal;
                    }
                }
                // The stream ends only when it is closed, which never happens.
                None => std::future::pending().await,
            }
        }
    }
}
