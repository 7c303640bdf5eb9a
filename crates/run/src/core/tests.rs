use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Containment, RunId, Wish};
use proptest::prelude::*;

use super::*;
use crate::event::{ConnectionLost, DaemonRefusal, DaemonState, Leftovers};

const SENT: u64 = 1_000_000;
/// The daemon's boot clock stands 5 s behind ours, as in another time namespace.
const DAEMON: u64 = SENT - 5_000;

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(SENT + millis)
}

fn run_id() -> RunId {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

fn settings() -> RunSettings {
    RunSettings {
        run_id: run_id(),
        device: None,
        timeout: Duration::from_secs(5),
        wait: Wait::No,
        stop_grace: Some(Duration::from_secs(10)),
        stop_signal: Some(Signal::TERM),
        containment: Wish::Auto,
        made: Containment::Subreaper,
        no_leaf: None,
        leftovers: Leftovers::Stop,
        socket: "/s".to_owned(),
    }
}

/// Written by the daemon at `wrote` and running out at `until`, both in milliseconds after the request was sent.
fn allow(wrote: u64, until: u64) -> WrapperEvent {
    WrapperEvent::Line(SuperviseEvent::Allow {
        run_id: run_id(),
        device_id: "dev".parse().unwrap(),
        base_url: None,
        code: Code::Allow,
        request_id: None,
        boot_ms: DAEMON + wrote,
        until_boot_ms: DAEMON + until,
        lease_ms: 30_000,
        resume_grace_ms: 3_000,
        stop_grace_ms: 8_000,
        stop_signal: None,
        containment: Containment::Subreaper,
        killer: Killer::Daemon,
        token: None,
    })
}

fn lease(wrote: u64, until: u64) -> WrapperEvent {
    WrapperEvent::Line(SuperviseEvent::Lease { boot_ms: DAEMON + wrote, until_boot_ms: DAEMON + until })
}

fn stop(code: Code, signalled: bool) -> WrapperEvent {
    WrapperEvent::Line(SuperviseEvent::Stop { code, request_id: None, reason: None, signalled, grace_ms: 3_000 })
}

fn refused(status: u16, code: Code) -> WrapperEvent {
    WrapperEvent::Refused(DaemonRefusal { status, code, request_id: None, reason: None })
}

/// The leader, with others of the tree still there.
fn ended(exit: Exit) -> WrapperEvent {
    WrapperEvent::LeaderEnded { exit, alone: false }
}

fn lost() -> WrapperEvent {
    WrapperEvent::Lost(ConnectionLost { why: "gone".to_owned(), daemon: DaemonState::There })
}

fn begun(settings: RunSettings) -> WrapperCore {
    let (core, actions) = WrapperCore::begin(at(0), settings);
    assert_eq!(actions, [WrapperAction::Ask]);
    core
}

/// Allowed at 0 with a lease up to 30 s.
fn running(settings: RunSettings) -> WrapperCore {
    let mut core = begun(settings);
    let actions = core.handle(at(0), allow(0, 30_000));
    assert!(matches!(actions[..], [WrapperAction::Release(_)]), "{actions:?}");
    core
}

fn finished(actions: &[WrapperAction]) -> Option<&RunOutcome> {
    actions.iter().find_map(|action| if let WrapperAction::Finish(outcome) = action { Some(outcome) } else { None })
}

fn begins_stop(actions: &[WrapperAction]) -> Option<(FirstSignal, Duration)> {
    actions.iter().find_map(|action| {
        if let WrapperAction::BeginStop { first_signal, grace } = action { Some((*first_signal, *grace)) } else { None }
    })
}

#[test]
fn every_refusal_has_its_exit_code_and_starts_nothing() {
    for (status, code, exit) in [
        (403, Code::DeviceRevoked, 77),
        (403, Code::LocalKill, 77),
        (403, Code::DeviceNotPermitted, 77),
        (403, Code::from("A_NEW_ONE"), 77),
        (503, Code::from("A_NEW_ONE"), 75),
        (503, Code::SystemUnavailable, 75),
        (503, Code::AuthorityUnreachable, 75),
        (503, Code::Overloaded, 75),
        (403, Code::RemoteRefused, 125),
        (403, Code::PidNotPermitted, 125),
        (400, Code::BadRequest, 125),
        (403, Code::Allow, 75),
    ] {
        let mut core = begun(settings());
        let actions = core.handle(at(10), refused(status, code.clone()));
        let outcome = finished(&actions).unwrap();
        assert_eq!(outcome.exit.code(), exit, "{status} {code}");
        assert!(!outcome.started);
    }
}

#[test]
fn no_daemon_or_no_answer_is_could_not_find_out() {
    let mut core = begun(settings());
    assert_eq!(finished(&core.handle(at(0), lost())).unwrap().exit, Exit::Undecided);
    let mut core = begun(settings());
    assert_eq!(core.wake_at(), Some(at(5_000)));
    assert_eq!(core.handle(at(4_999), WrapperEvent::Tick), []);
    assert_eq!(finished(&core.handle(at(5_000), WrapperEvent::Tick)).unwrap().exit, Exit::Undecided);
}

#[test]
fn an_answer_to_another_question_allows_nothing() {
    let other_run = WrapperEvent::Line(SuperviseEvent::Allow {
        run_id: "ffffffffffffffffffffffffffffffff".parse().unwrap(),
        device_id: "dev".parse().unwrap(),
        base_url: None,
        code: Code::Allow,
        request_id: None,
        boot_ms: DAEMON,
        until_boot_ms: DAEMON + 30_000,
        lease_ms: 30_000,
        resume_grace_ms: 3_000,
        stop_grace_ms: 1,
        stop_signal: None,
        containment: Containment::Subreaper,
        killer: Killer::Daemon,
        token: None,
    });
    let mut core = begun(settings());
    assert_eq!(finished(&core.handle(at(0), other_run)).unwrap().exit, Exit::Undecided);
    let mut core = begun(RunSettings { device: Some("mine".parse().unwrap()), ..settings() });
    assert_eq!(finished(&core.handle(at(0), allow(0, 30_000))).unwrap().exit, Exit::Undecided);
    // And an answer whose lease is over.
    let mut core = begun(settings());
    assert_eq!(finished(&core.handle(at(4_000), allow(0, 3_000))).unwrap().exit, Exit::Undecided);
    // A lease line before any allow.
    let mut core = begun(settings());
    assert_eq!(core.handle(at(0), lease(0, 30_000)), []);
}

#[test]
fn waiting_goes_on_through_denies_and_outages_until_allowed() {
    let mut core = begun(RunSettings { wait: Wait::Forever, ..settings() });
    assert!(finished(&core.handle(at(0), lost())).is_none());
    assert_eq!(core.wake_at(), Some(at(100)));
    assert_eq!(core.handle(at(100), WrapperEvent::Tick), [WrapperAction::Ask]);
    assert!(finished(&core.handle(at(150), refused(403, Code::DeviceRevoked))).is_none());
    assert_eq!(core.handle(at(350), WrapperEvent::Tick), [WrapperAction::Ask]);
    assert!(matches!(core.handle(at(400), allow(400, 30_000))[..], [WrapperAction::Release(_)]));

    let mut core = begun(RunSettings { wait: Wait::For(Duration::from_mins(1)), ..settings() });
    core.handle(at(0), refused(403, Code::DeviceRevoked));
    core.handle(at(200), WrapperEvent::Tick);
    core.handle(at(300), lost());
    let actions = core.handle(at(60_000), WrapperEvent::Tick);
    assert_eq!(finished(&actions).unwrap().exit, Exit::Denied, "the deny says more than the outage after it");
}

#[test]
fn a_signal_while_asking_ends_it_unless_it_is_ignored() {
    let mut core = begun(settings());
    assert_eq!(
        core.handle(at(1), WrapperEvent::Signal { signal: libc::SIGHUP, ignored: true, from_terminal: false }),
        []
    );
    let actions =
        core.handle(at(1), WrapperEvent::Signal { signal: libc::SIGTERM, ignored: false, from_terminal: false });
    assert_eq!(finished(&actions).unwrap().exit.code(), 143);
}

#[test]
fn the_deadline_is_on_our_clock_and_a_lease_line_moves_it() {
    // The answer took 400 ms: the deadline is early by that much and never late.
    let mut core = begun(settings());
    core.handle(at(400), allow(400, 30_000));
    assert_eq!(core.wake_at(), Some(at(29_600)));
    core.handle(at(5_000), lease(5_000, 35_000));
    assert_eq!(core.wake_at(), Some(at(34_600)));
    // An older line changes nothing; a newer one may shorten.
    core.handle(at(5_001), lease(4_000, 20_000));
    assert_eq!(core.wake_at(), Some(at(34_600)));
    core.handle(at(6_000), lease(6_000, 10_000));
    assert_eq!(core.wake_at(), Some(at(9_600)));
    // No line reaches further than a whole lease.
    core.handle(at(7_000), lease(7_000, 900_000));
    assert_eq!(core.wake_at(), Some(at(37_000)));
}

#[test]
fn at_the_deadline_the_stop_begins_by_itself_and_is_latched() {
    let mut core = running(settings());
    assert_eq!(core.handle(at(29_999), WrapperEvent::Tick), []);
    let actions = core.handle(at(30_000), WrapperEvent::Tick);
    assert_eq!(begins_stop(&actions), Some((FirstSignal::Ours, Duration::from_secs(8))));
    assert_eq!(core.handle(at(30_001), lease(30_001, 60_000)), []);
    core.handle(at(30_002), ended(Exit::Command(0)));
    let actions = core.handle(at(30_003), WrapperEvent::TreeEmpty);
    let outcome = finished(&actions).unwrap();
    assert_eq!((outcome.exit, outcome.cause), (Exit::Undecided, EndCause::LeaseExpired));
}

#[test]
fn the_end_of_a_lease_says_why_no_new_permission_came() {
    let undecided =
        |reason: Option<&str>| WrapperEvent::Line(SuperviseEvent::Undecided { reason: reason.map(str::to_owned) });
    let lost = || WrapperEvent::Lost(ConnectionLost { why: "gone".to_owned(), daemon: DaemonState::Absent });
    for (told, needle) in [
        (vec![undecided(Some("could not connect to the authority"))], "ended: could not connect to the authority"),
        (vec![undecided(Some("could not connect")), undecided(None)], "is running but does not respond"),
        (vec![undecided(Some("could not connect")), lost()], "does not answer"),
        (vec![], "is running but does not respond"),
    ] {
        let mut core = running(settings());
        for event in told {
            assert_eq!(core.handle(at(20_000), event), [], "{needle}");
        }
        core.handle(at(30_000), WrapperEvent::Tick);
        let reason = finished(&core.handle(at(30_003), WrapperEvent::TreeEmpty)).unwrap().reason.clone().unwrap();
        assert!(reason.starts_with("no new permission came") && reason.contains(needle), "{reason}");
    }
}

#[test]
fn a_wrapper_that_wakes_late_waits_a_second_for_news_once() {
    for woken_by_cont in [false, true] {
        let late = if woken_by_cont { 30_100 } else { 33_000 };
        let woken = || {
            let mut core = running(settings());
            if woken_by_cont {
                core.handle(
                    at(late),
                    WrapperEvent::Signal { signal: libc::SIGCONT, ignored: false, from_terminal: false },
                );
            }
            core
        };
        let mut core = woken();
        assert_eq!(core.handle(at(late), WrapperEvent::Tick), []);
        assert_eq!(core.wake_at(), Some(at(late + 1_000)));
        // Being woken again does not buy another second.
        core.handle(
            at(late + 900),
            WrapperEvent::Signal { signal: libc::SIGCONT, ignored: false, from_terminal: false },
        );
        assert!(begins_stop(&core.handle(at(late + 1_000), WrapperEvent::Tick)).is_some());

        let mut core = woken();
        core.handle(at(late), WrapperEvent::Tick);
        core.handle(at(late + 500), lease(late + 500, late + 30_000));
        assert_eq!(core.handle(at(late + 1_000), WrapperEvent::Tick), []);
        assert_eq!(core.wake_at(), Some(at(late + 30_000)));
    }
}

#[test]
fn after_a_suspend_news_are_waited_for_as_long_as_the_daemon_asks() {
    let woken = || {
        let mut core = running(settings());
        assert_eq!(core.handle(at(90_000), WrapperEvent::Resumed), []);
        assert_eq!(core.handle(at(90_000), WrapperEvent::Tick), []);
        core
    };
    let mut core = woken();
    // The guardian is told the same: it must not end what the daemon asks about.
    assert_eq!((core.wake_at(), core.deadline()), (Some(at(93_000)), Some(at(93_000))));
    assert_eq!(core.handle(at(92_999), WrapperEvent::Tick), []);
    assert!(begins_stop(&core.handle(at(93_000), WrapperEvent::Tick)).is_some());
    // An ALLOW.
    let mut core = woken();
    core.handle(at(91_000), lease(90_500, 120_500));
    assert_eq!(core.handle(at(93_000), WrapperEvent::Tick), []);
    assert_eq!(core.deadline(), Some(at(120_500)));
    // A deny, and the daemon's own end of the grace.
    for code in [Code::DeviceRevoked, Code::LeaseExpired] {
        assert!(begins_stop(&woken().handle(at(91_000), stop(code, false))).is_some());
    }
    // The machine sleeps again before that.
    let mut core = woken();
    core.handle(at(200_000), WrapperEvent::Resumed);
    assert_eq!(core.handle(at(200_000), WrapperEvent::Tick), []);
    assert!(begins_stop(&core.handle(at(203_000), WrapperEvent::Tick)).is_some());
}

#[test]
fn a_suspend_within_the_lease_changes_nothing() {
    let mut core = running(settings());
    core.handle(at(20_000), WrapperEvent::Resumed);
    core.handle(at(20_000), WrapperEvent::Tick);
    assert_eq!(core.wake_at(), Some(at(30_000)));
    assert!(begins_stop(&core.handle(at(30_000), WrapperEvent::Tick)).is_some());
}

#[test]
fn a_lost_daemon_is_asked_again_and_only_a_deny_or_the_deadline_stops() {
    let mut core = running(settings());
    assert_eq!(core.handle(at(1_000), lost()), []);
    assert_eq!(core.wake_at(), Some(at(1_100)));
    assert_eq!(core.handle(at(1_100), WrapperEvent::Tick), [WrapperAction::Ask]);
    for code in [Code::Starting, Code::PidNotPermitted, Code::BadRequest, Code::SystemUnavailable] {
        assert_eq!(core.handle(at(1_200), refused(503, code)), [WrapperAction::HangUp]);
    }
    let retry = core.wake_at().unwrap();
    assert_eq!(core.handle(retry, WrapperEvent::Tick), [WrapperAction::Ask]);
    // The answer took a second; the lease is the same, and the deadline is not moved forward by the journey.
    core.handle(retry + Duration::from_secs(1), allow(3_800, 30_000));
    assert_eq!(core.wake_at(), Some(at(30_000)));
    core.handle(at(9_000), lost());
    core.handle(at(9_100), WrapperEvent::Tick);
    let actions = core.handle(at(9_200), refused(403, Code::DeviceRevoked));
    assert_eq!(begins_stop(&actions), Some((FirstSignal::Ours, Duration::from_secs(8))));
}

#[test]
fn a_stop_by_the_daemon_is_not_signalled_twice() {
    for (signalled, first) in [(true, FirstSignal::Theirs), (false, FirstSignal::Ours)] {
        let mut core = running(settings());
        let actions = core.handle(at(1), stop(Code::DeviceRevoked, signalled));
        assert_eq!(begins_stop(&actions), Some((first, Duration::from_secs(3))));
        assert_eq!(core.handle(at(2), ended(Exit::Signal(15))), [WrapperAction::TakeTerminal]);
        assert_eq!(finished(&core.handle(at(3), WrapperEvent::TreeEmpty)).unwrap().exit, Exit::Denied);
    }
}

#[test]
fn a_leader_ended_by_the_daemons_signal_is_explained_by_the_line_behind_it() {
    let mut core = running(settings());
    core.handle(at(1), ended(Exit::Signal(15)));
    assert_eq!(core.handle(at(1), WrapperEvent::TreeEmpty), []);
    let actions = core.handle(at(5), stop(Code::DeviceRevoked, true));
    assert_eq!(finished(&actions).unwrap().exit, Exit::Denied);
    // An agent that obeys at once ends as it likes; it was stopped all the same.
    let mut core = running(settings());
    let actions = core.handle(at(1), ended(Exit::Command(0)));
    assert_eq!(actions, [WrapperAction::TakeTerminal, WrapperAction::Inquire]);
    core.handle(at(1), WrapperEvent::TreeEmpty);
    assert_eq!(finished(&core.handle(at(2), stop(Code::OrgDisabled, true))).unwrap().exit, Exit::Denied);
    // Also while the stream is down: a daemon that was started again may have ended it before this wrapper came back.
    let mut core = running(settings());
    core.handle(at(1), lost());
    assert_eq!(core.handle(at(2), ended(Exit::Command(0))), [WrapperAction::TakeTerminal, WrapperAction::Inquire]);
    core.handle(at(2), WrapperEvent::TreeEmpty);
    assert_eq!(core.handle(at(3), lost()), []);
    assert_eq!(finished(&core.handle(at(4), stop(Code::OrgDisabled, true))).unwrap().exit, Exit::Denied);
    // Without such a line it was not the daemon's doing, whether the daemon says so or says nothing.
    for (when, event) in [(2, WrapperEvent::NotStopped), (2_001, WrapperEvent::Tick)] {
        let mut core = running(settings());
        core.handle(at(1), ended(Exit::Signal(15)));
        core.handle(at(1), WrapperEvent::TreeEmpty);
        assert_eq!(finished(&core.handle(at(when), event)).unwrap().exit.code(), 143);
    }
}

#[test]
fn a_namespace_ended_by_its_first_process_is_explained_by_the_line_behind_it() {
    let pidns = || running(RunSettings { made: Containment::Pidns, ..settings() });
    let mut core = pidns();
    assert_eq!(core.handle(at(1), WrapperEvent::GuardianKilled), [WrapperAction::TakeTerminal, WrapperAction::Inquire]);
    assert_eq!(finished(&core.handle(at(5), stop(Code::DeviceRevoked, true))).unwrap().exit, Exit::Denied);
    // Another process has killed it.
    for (when, event) in [(2, WrapperEvent::NotStopped), (2_001, WrapperEvent::Tick)] {
        let mut core = pidns();
        core.handle(at(1), WrapperEvent::GuardianKilled);
        assert_eq!(finished(&core.handle(at(when), event)).unwrap().exit, Exit::Wrapper);
    }
    // Elsewhere a daemon has no reason to kill it, and the rest of the tree has to be ended at once.
    assert!(begins_stop(&running(settings()).handle(at(1), WrapperEvent::GuardianKilled)).is_some());
}

#[test]
fn leftovers_are_stopped_or_waited_for_and_the_code_stays_the_leaders() {
    let mut core = running(settings());
    core.handle(at(1), ended(Exit::Command(7)));
    let actions = core.handle(at(1), WrapperEvent::NotStopped);
    assert_eq!(begins_stop(&actions), Some((FirstSignal::Ours, Duration::from_secs(8))));
    assert_eq!(finished(&core.handle(at(9), WrapperEvent::TreeEmpty)).unwrap().exit, Exit::Command(7));

    let waiting = || {
        let mut core = running(RunSettings { leftovers: Leftovers::Wait, ..settings() });
        core.handle(at(1), ended(Exit::Command(7)));
        assert_eq!(core.handle(at(1), WrapperEvent::NotStopped), []);
        core
    };
    assert_eq!(finished(&waiting().handle(at(9), WrapperEvent::TreeEmpty)).unwrap().exit, Exit::Command(7));
    let mut core = waiting();
    let interrupt = WrapperEvent::Signal { signal: libc::SIGINT, ignored: false, from_terminal: false };
    assert_eq!(core.handle(at(2), interrupt.clone()), [WrapperAction::Forward(libc::SIGINT)]);
    assert!(begins_stop(&core.handle(at(3), interrupt)).is_some());
    let mut core = waiting();
    assert!(begins_stop(&core.handle(at(30_000), WrapperEvent::Tick)).is_some(), "still under its lease");
    assert_eq!(finished(&core.handle(at(30_001), WrapperEvent::TreeEmpty)).unwrap().exit, Exit::Command(7));
}

#[test]
fn signals_are_forwarded_but_for_those_that_are_the_wrappers_own() {
    let mut core = running(settings());
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGWINCH, libc::SIGTSTP, 40] {
        assert_eq!(
            core.handle(at(1), WrapperEvent::Signal { signal, ignored: false, from_terminal: false }),
            [WrapperAction::Forward(signal)]
        );
    }
    for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGTTIN, libc::SIGTTOU] {
        assert_eq!(core.handle(at(1), WrapperEvent::Signal { signal, ignored: false, from_terminal: false }), []);
    }
    assert_eq!(
        core.handle(at(1), WrapperEvent::Signal { signal: libc::SIGCONT, ignored: false, from_terminal: false }),
        [WrapperAction::Resume]
    );
}

fn any_event() -> impl Strategy<Value = WrapperEvent> {
    let time = 0_u64..70_000;
    prop_oneof![
        (time.clone(), time.clone()).prop_map(|(wrote, until)| allow(wrote, until)),
        (time.clone(), time).prop_map(|(wrote, until)| lease(wrote, until)),
        any::<bool>().prop_map(|signalled| stop(Code::DeviceRevoked, signalled)),
        Just(stop(Code::LeaseExpired, false)),
        Just(refused(403, Code::DeviceRevoked)),
        Just(refused(503, Code::Starting)),
        Just(lost()),
        (1_i32..40).prop_map(|signal| WrapperEvent::Signal {
            signal,
            ignored: signal == 1,
            from_terminal: signal == 2
        }),
        Just(WrapperEvent::LeaderStopped(libc::SIGTSTP)),
        any::<bool>().prop_map(WrapperEvent::Frozen),
        Just(WrapperEvent::GuardianKilled),
        Just(WrapperEvent::GuardianStops { kill_at: at(40_000) }),
        Just(WrapperEvent::Stuck),
        (0_u8..20).prop_map(|code| ended(Exit::Command(code))),
        Just(ended(Exit::Signal(15))),
        Just(WrapperEvent::TreeEmpty),
        Just(WrapperEvent::Resumed),
        Just(WrapperEvent::Tick),
        Just(WrapperEvent::Tick),
    ]
}

proptest! {
    #[test]
    fn any_course_keeps_the_promises(
        events in proptest::collection::vec((0_u64..4_000, any_event()), 1..60),
        wait in prop_oneof![Just(Wait::No), Just(Wait::Forever), Just(Wait::For(Duration::from_secs(20)))],
        leave in any::<bool>(),
    ) {
        let leftovers = if leave { Leftovers::Wait } else { Leftovers::Stop };
        let mut core = begun(RunSettings { wait, leftovers, ..settings() });
        let (mut released, mut stops, mut done, mut leader_gone) = (0, 0, false, false);
        let (mut last_permission, mut resumed) = (None, None);
        let mut elapsed = 0;
        for (pause, event) in events {
            elapsed += pause;
            if matches!(event, WrapperEvent::Resumed) {
                resumed = Some(elapsed);
            }
            if matches!(event, WrapperEvent::LeaderEnded { .. }) {
                if leader_gone { continue }
                leader_gone = true;
            }
            if matches!(event, WrapperEvent::TreeEmpty) && !leader_gone { continue }
            let was_allow = matches!(event, WrapperEvent::Line(SuperviseEvent::Allow { .. }));
            if matches!(event, WrapperEvent::Line(SuperviseEvent::Allow { .. } | SuperviseEvent::Lease { .. })) {
                last_permission = Some(elapsed);
            }
            let actions = core.handle(at(elapsed), event);
            for action in &actions {
                prop_assert!(!done, "nothing is done after the end");
                match action {
                    WrapperAction::Release(_) => {
                        prop_assert!(was_allow && stops == 0);
                        released += 1;
                    }
                    WrapperAction::BeginStop { .. } => {
                        prop_assert_eq!(released, 1);
                        stops += 1;
                    }
                    WrapperAction::Finish(outcome) => {
                        done = true;
                        prop_assert_eq!(outcome.started, released > 0);
                        if released == 0 {
                            prop_assert_ne!(outcome.exit.code(), 0);
                        }
                    }
                    WrapperAction::Ask | WrapperAction::HangUp | WrapperAction::Inquire | WrapperAction::Forward(_) | WrapperAction::Suspend(_) | WrapperAction::Resume
                    | WrapperAction::TakeTerminal | WrapperAction::Hasten(_) | WrapperAction::Notice(_) | WrapperAction::Remark(_) | WrapperAction::HoldTerminal(_)
                    | WrapperAction::LookOutside
                    | WrapperAction::Thaw => {}
                }
            }
            prop_assert!(released <= 1 && stops <= 1);
            // P3: a whole lease and the second for news after the last permission, or the grace after waking, the stop has
            // begun.
            let tick = core.handle(at(elapsed), WrapperEvent::Tick);
            stops += usize::from(begins_stop(&tick).is_some());
            done |= finished(&tick).is_some();
            if released > 0 && !done && stops == 0 && !leader_gone {
                let bound = last_permission.map(|then| then + 30_000 + 1_000).max(resumed.map(|woke| woke + 3_000));
                prop_assert!(bound.is_some_and(|bound| elapsed <= bound + 4_000));
            }
            if !done && stops == 0 {
                prop_assert!(core.wake_at().is_some(), "it never sleeps without a time to wake");
            }
        }
    }
}
