//! Those who keep the wrapper busy.

use std::time::Duration;

use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{Running, stderr, wrapper};

#[test]
fn a_daemon_that_never_stops_talking_does_not_keep_the_wrapper_from_its_deadline() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(Duration::from_secs(1));
        let noise = vec![b'\n'; 64 * 1024];
        // Ends when the wrapper has gone: by then the write fails at once.
        while conversation.try_raw(&noise) {}
    });
    let output = Running::start(wrapper(&daemon.socket()).args(["--", "sleep", "1000"])).finish();
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert!(stderr(&output).contains("LEASE_EXPIRED"), "{}", stderr(&output));
}

#[test]
fn an_agent_that_floods_the_wrapper_with_signals_does_not_keep_it_from_its_deadline() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(Duration::from_secs(1));
        conversation.hold();
    });
    let program = "import os, signal\n\
                   for number in range(34, 64): signal.signal(number, signal.SIG_IGN)\n\
                   wrapper = os.getppid()\n\
                   for _ in range(3):\n\
                   \x20   if os.fork() == 0: break\n\
                   while True:\n\
                   \x20   try:\n\
                   \x20       while True: os.kill(wrapper, 40)\n\
                   \x20   except BlockingIOError: pass\n\
                   \x20   except ProcessLookupError: break\n";
    let output = Running::start(wrapper(&daemon.socket()).args(["--stop-grace", "0s", "--", "python3", "-c", program]));
    let output = output.finish();
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
}
