//! The answer in time: the work is done by a thread, and the deadline does not depend on what the thread is blocked in.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use machineid_hook::Verdict;
use machineid_protocol::span;

/// Does the work within this time. A panic and the end of the time are a no. Work that is not done is left behind: the process
/// ends with its answer.
pub(super) fn within(deadline: Duration, work: impl FnOnce(Duration) -> Verdict + Send + 'static) -> Verdict {
    let (send, receive) = sync_channel(1);
    let started = thread::Builder::new().spawn(move || {
        // The receiver has gone only when the process ends.
        let _ = send.send(work(deadline));
    });
    if let Err(error) = started {
        return Verdict::undecided(&format!("the hook cannot start a thread: {error}"));
    }
    match receive.recv_timeout(deadline) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            let within = span::format(deadline);
            Verdict::undecided(&format!(
                "no answer within {within}; is the daemon stopped or overloaded, or the agent's event without an end?"
            ))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Verdict::undecided("the hook failed by a mistake of its own; please report it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(deadline: Duration, work: impl FnOnce() -> Verdict + Send + 'static) -> Verdict {
        within(deadline, move |_| work())
    }

    #[test]
    fn a_panic_and_the_end_of_the_time_are_a_no() {
        let long = Duration::from_mins(1);
        assert_eq!(verdict(long, || Verdict::Allowed), Verdict::Allowed);
        let said = |verdict: Verdict| match verdict {
            Verdict::Undecided(reason) => reason.to_string(),
            Verdict::Allowed | Verdict::Denied(_) => panic!("{verdict:?}"),
        };
        assert!(said(verdict(long, || panic!("a mistake"))).contains("a mistake of its own"));
        let (_held, endless) = sync_channel::<()>(1);
        let late = verdict(Duration::from_millis(20), move || {
            let _ = endless.recv();
            Verdict::Allowed
        });
        assert!(said(late).contains("no answer within 20ms"));
    }
}
