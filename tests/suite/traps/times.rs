//! Leases and time: traps 41, 44 and 45. A suspend and a wall clock that is set (42, 43) take a machine of their own:
//! `tests/machine`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machineid_clock::BootTime;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::authority::Authority;
use crate::harness::fake_authority::{FakeAuthority, json};
use crate::harness::let_time_pass;
use crate::harness::load::Stalls;
use crate::harness::place::skipped;
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "host:times";
/// Says its pid and each SIGTERM, and ends by one.
const AGENT: [&str; 3] =
    ["sh", "-c", "trap 'echo got TERM; exit 0' TERM; echo agent ready $$; while :; do sleep 0.1; done"];

fn start_agent(sidecar: &Sidecar, flags: &[&str]) -> (Wrapped, i32) {
    // On a busy host one answer may come too late.
    let flags = [flags, &["--wait=1m"]].concat();
    let mut wrapped = Wrapped::start(sidecar.wrap(&flags, &AGENT));
    let pid = number_after(&wrapped.line_with("agent ready"), "agent ready ");
    wrapped.watch(&[pid]);
    (wrapped, pid)
}

/// The end of the lease, as it is written down, on the boot clock.
fn recorded_deadline(sidecar: &Sidecar) -> Option<BootTime> {
    let runs = std::fs::read_dir(sidecar.directory().join("runtime/runs")).unwrap();
    let file = runs.flatten().map(|file| file.path()).find(|file| file.extension().is_some_and(|end| end == "json"))?;
    let record: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    record["leases"][0]["until_boot_ms"].as_u64().map(BootTime::from_millis)
}

#[test]
fn a_validation_in_flight_does_not_hold_up_the_end_of_the_lease() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    // A validation may take two seconds: one is under way when the lease ends.
    "interval = \"200ms\"\nlease = \"4s\"\nstop_grace = \"8s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let (asking, stalls) = (BootTime::now(), Stalls::from_now());
    let (mut agent, pid) = start_agent(&sidecar, &[]);
    // The wrapper counts its lease from when it asked, so as to err early only: it may be ahead by the time that took.
    let asking = BootTime::now().saturating_since(asking);
    // It accepts and never answers.
    authority.signal(Signal::STOP);
    agent.line_with("got TERM");
    let told = BootTime::now();
    let deadline = recorded_deadline(&sidecar);
    assert_eq!(agent.exit_code(), 75, "{}", agent.stderr());
    assert!(!is_alive(pid));
    authority.signal(Signal::CONT);
    if let Some(deadline) = deadline {
        let (early, late) = (deadline.saturating_since(told), told.saturating_since(deadline));
        assert!(early <= asking, "told {early:?} before the end of the lease");
        assert!(late <= stalls.allowance(), "told {late:?} after the end of the lease");
    }
}

#[test]
fn after_a_restart_with_the_authority_away_nothing_starts_on_what_was_held_before() {
    for revoked in [false, true] {
        let mut authority = Authority::start();
        let mut sidecar = {
            let org = authority.org("pro");
            let mut setup = Setup::of(&org, &authority.url(), DEVICE);
            setup.local.push_str("\nmax_age_cap = \"1h\"");
            let sidecar = setup.start();
            if revoked {
                assert_eq!(org.device("revoke", DEVICE).status, 200);
            }
            sidecar
        };
        let expected = if revoked { 403 } else { 200 };
        until("it is known", || (sidecar.check().status == expected).then_some(()));
        authority.kill();
        for kill in [true, false] {
            if kill {
                sidecar.kill();
            } else {
                sidecar.terminate();
            }
            sidecar.start_again();
            for question in ["/v1/check", "/v1/check?max_age=1h", "/v1/authz/host:times"] {
                let answer = sidecar.get(question).unwrap();
                assert_eq!((answer.status, answer.json()["allowed"].as_bool()), (503, Some(false)), "{question}");
            }
            let touched = sidecar.directory().join("touched");
            let mut unasked = Wrapped::start(sidecar.wrap(&[], &["touch", touched.to_str().unwrap()]));
            assert_eq!(unasked.exit_code(), 75, "{}", unasked.stderr());
            assert!(!touched.exists());
        }
        authority.start_again();
        until("it recovers by itself, and holds the same", || (sidecar.check().status == expected).then_some(()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is promised is a time, and a rhythm")]
fn a_crowd_whose_authority_fails_and_then_denies_asks_in_no_burst_and_ends_within_the_bound() {
    const CROWD: usize = 30;
    const ALLOWS: usize = 0;
    const FAILS: usize = 1;
    const DENIES: usize = 2;
    let mood = Arc::new(AtomicUsize::new(ALLOWS));
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let authority = FakeAuthority::start({
        let (mood, asked) = (Arc::clone(&mood), Arc::clone(&asked));
        move |path, stream| {
            let answer = match (path.ends_with("/register"), mood.load(Ordering::SeqCst)) {
                (true, _) => json("", r#"{"status":"exists"}"#),
                (false, ALLOWS) => json("", r#"{"allowed":true,"code":"ALLOW"}"#),
                (false, FAILS) => {
                    asked.lock().unwrap().push(Instant::now());
                    "HTTP/1.1 500 Oops\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                (false, _) => json("", r#"{"allowed":false,"code":"DEVICE_REVOKED"}"#),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let mut setup = Setup::new(&authority.url(), "org_0123456789abcdef0123456789abcdef", DEVICE);
    setup.devices = "allow = [\"agent-*\"]".to_owned();
    "interval = \"1s\"\nlease = \"40s\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let mut agents: Vec<_> =
        (0..CROWD).map(|number| start_agent(&sidecar, &["--device", &format!("agent-{number}")])).collect();
    mood.store(FAILS, Ordering::SeqCst);
    let failing = Instant::now();
    let_time_pass(Duration::from_secs(8));
    mood.store(DENIES, Ordering::SeqCst);
    let (denying, stalls) = (Instant::now(), Stalls::from_now());
    for (agent, pid) in &mut agents {
        assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
        assert!(!is_alive(*pid) && agent.stdout().matches("got TERM").count() == 1);
    }
    let took = denying.elapsed();
    // Backoff is at its longest by now: 5 s, and not the interval.
    let promised = Duration::from_secs(5) + Duration::from_secs(2) + Duration::from_secs(1) + Duration::from_secs(1);
    assert!(took <= promised + stalls.allowance(), "the last one ended {took:?} after the first deny");
    // Once the first failures, which come close upon each other, are over.
    let mut tenths = BTreeMap::<u128, usize>::new();
    for at in asked.lock().unwrap().iter().map(|at| at.duration_since(failing)).filter(|at| at.as_secs() >= 3) {
        *tenths.entry(at.as_millis() / 100).or_default() += 1;
    }
    let (most, all) = (tenths.values().copied().max().unwrap_or(0), tenths.values().sum::<usize>());
    println!(
        "  {all} requests of {CROWD} devices in 5 s, {most} at most in a tenth of one; ended {took:.1?} after the deny"
    );
    assert!(all > 0 && most <= CROWD / 2, "a burst: {tenths:?}");
}

/// Flags of `unshare` that put a command into a time namespace whose boot clock is a day ahead; `None` where this user may
/// not have one.
fn a_day_ahead() -> Option<[&'static str; 7]> {
    let flags = ["--time", "--boottime", "86400", "--monotonic", "3600", "--fork", "--"];
    let tried = Command::new("unshare").args(flags).arg("true").output();
    tried.is_ok_and(|output| output.status.success()).then_some(flags)
}

#[test]
fn a_wrapper_whose_boot_clock_is_another_keeps_the_same_lease() {
    let Some(flags) = a_day_ahead() else {
        skipped("a wrapper in a time namespace", "this user may not make one");
        return;
    };
    // Denied, and cut off: both as if there were one clock.
    for cut_off in [false, true] {
        let authority = Authority::start();
        let org = authority.org("pro");
        let mut setup = Setup::of(&org, &authority.url(), DEVICE);
        "interval = \"200ms\"\nlease = \"4s\"\nstop_grace = \"8s\"".clone_into(&mut setup.enforcement);
        let sidecar = setup.start();
        let inner = sidecar.wrap(&[], &AGENT);
        let mut outer = Command::new("unshare");
        outer.args(flags).arg(inner.get_program()).args(inner.get_args()).env_clear().stdin(Stdio::null());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut wrapped = Wrapped::start(outer);
        let pid = number_after(&wrapped.line_with("agent ready"), "agent ready ");
        wrapped.watch(&[pid]);
        // Longer than a lease: it is renewed.
        let_time_pass(Duration::from_secs(5));
        assert!(is_alive(pid) && !wrapped.stdout().contains("got TERM"));
        if cut_off {
            // The daemon as well: then only the wrapper knows the deadline.
            authority.signal(Signal::STOP);
            sidecar.signal(Signal::STOP);
        } else {
            assert_eq!(org.device("revoke", DEVICE).status, 200);
        }
        let (stopped, stalls) = (BootTime::now(), Stalls::from_now());
        wrapped.line_with("got TERM");
        let took = BootTime::now().saturating_since(stopped);
        assert_eq!(wrapped.exit_code(), if cut_off { 75 } else { 77 }, "{}", wrapped.stderr());
        if cut_off {
            let latest = Duration::from_secs(5) + stalls.allowance();
            assert!(took >= Duration::from_secs(2) && took <= latest, "{took:?}");
            authority.signal(Signal::CONT);
            sidecar.signal(Signal::CONT);
        }
    }
}
