//! Checks that come all at once: few validations, and none that is older than its question.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use machineid_clock::BootTime;

use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::fault::{Fault, Injector};
use crate::harness::sidecar::{Setup, Sidecar, exchange};
use crate::harness::wait::until;

fn behind(injector: &Injector, setup: Setup) -> Setup {
    let mut setup = setup;
    setup.authority = format!("url = \"{}\"\ntimeout = \"2s\"", injector.url());
    // Nothing is asked here but by who asks.
    "interval = \"1h\"\nlease = \"2h\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    setup
}

/// So many checks at the same moment, each on a connection of its own; their statuses, and the longest time one took.
fn together(sidecar: &Sidecar, count: usize, path: &str) -> (Vec<u16>, Duration) {
    let start = &std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(move || {
                    start.wait();
                    let began = BootTime::now();
                    let answer = sidecar.get(path).unwrap();
                    (answer.status, BootTime::now().saturating_since(began))
                })
            })
            .collect();
        let all: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
        let longest = all.iter().map(|(_, took)| *took).max().unwrap_or_default();
        (all.into_iter().map(|(status, _)| status).collect(), longest)
    })
}

#[test]
fn two_hundred_and_fifty_six_checks_at_once_cost_two_validations_in_flight_and_few_in_all() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = behind(&injector, Setup::of(&org, &injector.url(), "host:test")).start();
    // Longer than it takes to begin a second one, so that two are in flight when they can be.
    injector.set(Fault::Delay(Duration::from_millis(300)));
    eventually("nothing is in flight", || injector.validations().in_flight == 0);
    injector.count_anew();
    let (statuses, longest) = together(&sidecar, 256, "/v1/check");
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let counted = injector.validations();
    eprintln!("256 checks: {counted:?}, the longest took {longest:.1?} with an authority that takes 300 ms");
    assert!(counted.most_in_flight <= 2, "{counted:?}");
    // One for who came first, and one for each 300 ms in which others came: nowhere near one for each check.
    let most = 2 + 2 * usize::try_from(longest.as_millis() / 300).unwrap();
    assert!((2..=most).contains(&counted.begun), "{counted:?}");
}

#[test]
fn a_validation_that_hangs_holds_up_no_check_no_hint_and_no_start() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = behind(&injector, Setup::of(&org, &injector.url(), "host:test"));
    setup.authority = format!("url = \"{}\"\ntimeout = \"1m\"", injector.url());
    let sidecar = setup.start();
    injector.set(Fault::HoldNext);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| sidecar.check());
        injector.wait_for_held();
        // Each of these begins a validation of its own 50 ms later, in the second place.
        let began = BootTime::now();
        assert_eq!(sidecar.check().status, 200);
        let check = BootTime::now().saturating_since(began);
        let before = injector.validations().begun;
        let began = BootTime::now();
        sidecar.signal(rustix::process::Signal::USR1);
        until("the hint is followed", || (injector.validations().begun > before).then_some(()));
        let hint = BootTime::now().saturating_since(began);
        let began = BootTime::now();
        let mut start = crate::harness::process::Wrapped::start(sidecar.wrap(&[], &["true"]));
        assert_eq!(start.exit_code(), 0, "{}", start.stderr());
        let start = BootTime::now().saturating_since(began);
        eprintln!("beside a validation that hangs: a check took {check:.1?}, a hint {hint:.1?}, a start {start:.1?}");
        // Generous: on a busy machine the point is that no check waits for the hanging one, which takes a minute.
        assert!(check.max(hint).max(start) < Duration::from_secs(5));
        assert_eq!(hanging.join().unwrap().status, 200, "who asked first took the later answer");
        injector.release();
    });
}

#[test]
fn with_both_places_hanging_a_check_ends_at_its_deadline_with_the_cause() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = behind(&injector, Setup::of(&org, &injector.url(), "host:test"));
    setup.authority = format!("url = \"{}\"\ntimeout = \"30s\"", injector.url());
    setup.local = "check_timeout = \"1500ms\"".to_owned();
    let sidecar = setup.start();
    injector.set(Fault::Silent);
    let ask = |path: &str, least: u64| {
        let began = BootTime::now();
        let answer = sidecar.get(path).unwrap();
        let took = BootTime::now().saturating_since(began);
        assert_eq!((answer.status, answer.code().as_str()), (503, "CHECK_TIMEOUT"), "{path}: {answer:?}");
        assert_eq!(answer.json()["allowed"], false);
        assert!(answer.json()["reason"].as_str().unwrap().contains("deadline"), "{answer:?}");
        eprintln!("{path}: 503 after {took:.1?}");
        assert!(took >= Duration::from_millis(least) && took < Duration::from_secs(10), "{path} took {took:?}");
    };
    for (path, least) in [
        ("/v1/check", 1500),
        ("/v1/check?timeout=300ms", 300),
        ("/v1/check?timeout=0s", 0),
        // A client can make it stricter, never weaker.
        ("/v1/check?timeout=1h", 1500),
        ("/v1/check?max_age=1h&timeout=200ms", 200),
        ("/v1/authz/host:test", 1500),
    ] {
        ask(path, least);
    }
    assert!(injector.validations().most_in_flight <= 2, "{:?}", injector.validations());
}

#[test]
fn a_revoke_that_was_answered_before_a_check_began_is_seen_by_it() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = behind(&injector, Setup::of(&org, &injector.url(), "host:test"));
    // Cached checks go by between the strict ones, and must not leak into them.
    setup.local = "max_age_cap = \"1m\"".to_owned();
    let sidecar = setup.start();
    injector.set(Fault::Delay(Duration::from_millis(5)));
    // Odd while revoked, and between the two while a change is under way: written before the change is asked for, and after
    // it was answered.
    let (asked_for, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let (checks, certain) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..32 {
            let (sidecar, over, asked_for, answered) = (&sidecar, &over, &asked_for, &answered);
            let (checks, certain) = (&checks, &certain);
            scope.spawn(move || {
                let socket = sidecar.socket();
                while !over.load(Ordering::SeqCst) {
                    let before = answered.load(Ordering::SeqCst);
                    let answer = exchange(&socket, "GET /v1/check HTTP/1.0\r\n\r\n").expect("an answer");
                    let after = asked_for.load(Ordering::SeqCst);
                    checks.fetch_add(1, Ordering::SeqCst);
                    if number % 4 == 0 {
                        let _ = exchange(&socket, "GET /v1/check?max_age=30s HTTP/1.0\r\n\r\n");
                    }
                    // Nothing changed from before the check began to after it was answered: there is one right answer.
                    if before == after {
                        certain.fetch_add(1, Ordering::SeqCst);
                        let expected = if before % 2 == 0 { 200 } else { 403 };
                        assert_eq!(answer.status, expected, "state {before}: {answer:?}");
                    }
                }
            });
        }
        for change in 1..=40 {
            asked_for.store(change, Ordering::SeqCst);
            let verb = if change % 2 == 1 { "revoke" } else { "unrevoke" };
            assert_eq!(org.device(verb, "host:test").status, 200);
            answered.store(change, Ordering::SeqCst);
            // Some checks that are certain in each state.
            let seen = certain.load(Ordering::SeqCst);
            eventually("checks go by", || certain.load(Ordering::SeqCst) > seen + 8);
        }
        over.store(true, Ordering::SeqCst);
    });
    let (checks, certain) = (checks.into_inner(), certain.into_inner());
    eprintln!("{checks} checks by 32 threads, {certain} of which had one right answer; {:?}", injector.validations());
    assert!(injector.validations().most_in_flight <= 2, "{:?}", injector.validations());
}
