//! One agent through one fault: it begins, the lease ends, it ends, service resumes.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

use crate::harness::let_time_pass;
use crate::harness::load::Stalls;
use crate::harness::process::{Wrapped, number_after};
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until;
use crate::harness::wrapper::{Running, stderr};

/// For one request and its answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
/// The last step of the backoff.
const LAST_STEP: Duration = Duration::from_secs(5);
/// Between two looks at an agent whose lease runs down: many of these scenes play at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The settings of these daemons, but for the authority.
pub(super) const ENFORCEMENT: &str = "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"1s\"";

/// Says on the boot clock, to the millisecond, when it was asked to end.
const AGENT: &str = "import os, signal, sys, time\n\
    def end(number, frame):\n\
    \x20   os.write(1, b'term %d\\n' % (time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000))\n\
    \x20   os._exit(0)\n\
    signal.signal(signal.SIGTERM, end)\n\
    print('agent', os.getpid(), flush=True)\n\
    while True: signal.pause()\n";

/// Interpreters that all start at once on a busy machine can take longer than their leases, which is not what these tests are
/// about.
static STARTING: Mutex<()> = Mutex::new(());

/// An agent in Python.
pub(super) fn agent(sidecar: &Sidecar) -> Wrapped {
    // A start on a bad link is refused like any other question, which is not what these tests are about.
    let mut agent = Wrapped::start(sidecar.wrap(&["--wait"], &["python3", "-S", "-c", AGENT]));
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    agent
}

/// When the lease of the one agent ends, between two points in milliseconds of the boot clock; `None` without an agent.
fn lease_end(sidecar: &Sidecar) -> Option<Range<u64>> {
    let before = BootTime::now().as_millis();
    let status = sidecar.status();
    let after = BootTime::now().as_millis();
    let agent = status["agents"].get(0).filter(|agent| agent["state"] == "running")?;
    let left = agent["lease_left_ms"].as_u64()?;
    Some(before + left..after + left + 1)
}

fn standing(sidecar: &Sidecar) -> String {
    sidecar.status()["devices"][0]["standing"].as_str().unwrap_or("").to_owned()
}

/// The whole life of one fault. `begin` lets it begin, `end` ends it, `says` is in what the operator is told.
pub(super) fn outage(name: &str, says: &str, sidecar: &Sidecar, begin: impl FnOnce(), end: impl FnOnce()) {
    let stalls = Stalls::from_now();
    let one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = BootTime::now();
    let mut agent = agent(sidecar);
    // The wrapper counts its lease from when it asked, so as to err early only: it may be ahead by the time that took.
    let asking = BootTime::now().saturating_since(before).as_millis();
    drop(one_at_a_time);
    begin();
    until(&format!("{name}: the daemon notices"), || (standing(sidecar) == "unavailable").then_some(()));
    // While the lease runs down: no check says yes.
    let mut expected = None;
    let mut checks = 0;
    while let Some(end) = lease_end(sidecar) {
        expected = Some(end);
        let answer = sidecar.check();
        assert!((503, false) == (answer.status, answer.json()["allowed"] == true), "{name}: {answer:?}");
        assert!(["AUTHORITY_UNREACHABLE", "CHECK_TIMEOUT"].contains(&&*answer.code()), "{name}: {answer:?}");
        checks += 1;
        let_time_pass(PAUSE);
    }
    let expected = expected.unwrap_or_else(|| panic!("{name}: the agent was stopped before anything was known"));
    assert_eq!(agent.exit_code(), 75, "{name}: {}", agent.stderr());
    let stopped = agent.stderr();
    assert!(stopped.contains("LEASE_EXPIRED: no new permission came before the lease ended"), "{name}: {stopped}");
    let at = u64::try_from(term_time(&agent.stdout())).unwrap();
    let early = expected.start.saturating_sub(at);
    assert!(u128::from(early) <= asking + 2, "{name}: stopped {early} ms before the end of its lease");
    let latest = expected.end + u64::try_from(stalls.allowance().as_millis()).unwrap();
    assert!(at <= latest, "{name}: stopped {} ms after the end of its lease", at - expected.end);

    // Nothing starts.
    let refused = Running::start(sidecar.wrap(&[], &["true"]).stderr(std::process::Stdio::piped())).finish();
    let refusal = stderr(&refused);
    assert_eq!(refused.status.code(), Some(75), "{name}: {refusal}");
    assert!(refusal.contains("AUTHORITY_UNREACHABLE") && refusal.contains(says), "{name}: {refusal}");

    end();
    let (ended, stalls) = (BootTime::now(), Stalls::from_now());
    until(&format!("{name}: allowed again"), || (standing(sidecar) == "allowed").then_some(()));
    let took = BootTime::now().saturating_since(ended);
    let bound = TIMEOUT + LAST_STEP + stalls.allowance();
    assert!(took <= bound, "{name}: allowed again after {took:?}, which is more than {bound:?}");
    until(&format!("{name}: a check says yes"), || (sidecar.check().status == 200).then_some(()));
    let mut again = Wrapped::start(sidecar.wrap(&["--wait"], &["true"]));
    assert_eq!(again.exit_code(), 0, "{name}: {}", again.stderr());
    let late = at.cast_signed() - expected.start.cast_signed();
    eprintln!("{name}: SIGTERM {late:+} ms from the end of the lease, {checks} checks said no, again after {took:.1?}");
    eprintln!("    {}\n    {}", stopped.trim_end(), refusal.trim_end());
}

fn term_time(stdout: &str) -> i64 {
    let line = stdout.lines().find_map(|line| line.strip_prefix("term "));
    line.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("the agent was not asked to end: {stdout}"))
}
