use super::*;
use proptest::prelude::*;
use rustix::process::Signal;

const GRACE: Duration = Duration::from_secs(10);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(1_000_000 + millis)
}

fn terms(killer: Killer) -> GuardianTerms {
    GuardianTerms { signal: Signal::TERM, grace: GRACE, killer, in_leaf: false }
}

/// Released at 0 with a lease up to 30 s.
fn watching(killer: Killer) -> GuardianCore {
    let mut core = GuardianCore::new();
    assert_eq!(core.handle(at(0), GuardianEvent::Told(GuardianOrder::Terms(terms(killer), at(30_000)))), []);
    core
}

fn begun(actions: &[GuardianAction]) -> Option<(FirstSignal, BootTime)> {
    actions.iter().find_map(|action| {
        if let GuardianAction::Begin { first_signal, kill_at } = action {
            Some((*first_signal, *kill_at))
        } else {
            None
        }
    })
}

fn asks(actions: &[GuardianAction]) -> bool {
    actions.contains(&GuardianAction::Ask)
}

/// The time for the daemon's answer is over, and it is dead or stopped.
fn silent(core: &mut GuardianCore, now: BootTime) -> Vec<GuardianAction> {
    assert_eq!(core.handle(now, GuardianEvent::Tick), [GuardianAction::LookAtListener]);
    core.handle(now, GuardianEvent::Listener { can_act: false })
}

#[test]
fn a_daemon_that_is_there_and_slow_is_given_longer_at_no_cost_to_the_end() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(0), GuardianEvent::WrapperGone);
    assert_eq!(core.handle(at(200), GuardianEvent::Tick), [GuardianAction::LookAtListener]);
    assert_eq!(core.handle(at(200), GuardianEvent::Listener { can_act: true }), []);
    assert_eq!(core.wake_at(), Some(at(1_000)));
    assert_eq!(core.handle(at(999), GuardianEvent::Tick), []);
    assert_eq!(begun(&core.handle(at(1_000), GuardianEvent::Tick)), Some((FirstSignal::Ours, at(10_000))));
    // The daemon answers meanwhile.
    let mut core = watching(Killer::Daemon);
    core.handle(at(0), GuardianEvent::WrapperGone);
    core.handle(at(200), GuardianEvent::Tick);
    core.handle(at(200), GuardianEvent::Listener { can_act: true });
    let stopping = LeaseAnswer::Stopping { grace: Duration::from_secs(9) };
    assert_eq!(begun(&core.handle(at(700), GuardianEvent::Answer(stopping))), Some((FirstSignal::Theirs, at(9_700))));
    // Half of a short grace is left to the agent.
    let mut core = GuardianCore::new();
    let short = GuardianTerms { grace: Duration::from_secs(1), ..terms(Killer::Daemon) };
    core.handle(at(0), GuardianEvent::Told(GuardianOrder::Terms(short, at(30_000))));
    core.handle(at(0), GuardianEvent::WrapperGone);
    core.handle(at(200), GuardianEvent::Tick);
    assert_eq!(core.handle(at(200), GuardianEvent::Listener { can_act: true }), []);
    assert_eq!(core.wake_at(), Some(at(500)));
}

#[test]
fn a_wrapper_that_dies_before_the_release_leaves_no_process_to_be_asked() {
    let mut core = GuardianCore::new();
    assert_eq!(core.wake_at(), None);
    assert_eq!(begun(&core.handle(at(5), GuardianEvent::WrapperGone)), Some((FirstSignal::Theirs, at(5))));
    assert!(core.may_reap_leader());
}

#[test]
fn after_the_wrappers_death_the_signal_is_the_daemons_if_it_knows_the_run_and_reaches_it() {
    let stopping = LeaseAnswer::Stopping { grace: Duration::from_secs(4) };
    let lease = LeaseAnswer::Lease { deadline: at(60_000) };
    for (killer, answer, expected) in [
        (Killer::Daemon, Some(stopping), Some((FirstSignal::Theirs, at(4_100)))),
        (Killer::Daemon, Some(lease), Some((FirstSignal::Theirs, at(10_100)))),
        (Killer::Daemon, Some(LeaseAnswer::Unknown), Some((FirstSignal::Ours, at(10_000)))),
        (Killer::Daemon, None, Some((FirstSignal::Ours, at(10_000)))),
        (Killer::Wrapper, None, None),
    ] {
        let mut core = watching(killer);
        let actions = core.handle(at(0), GuardianEvent::WrapperGone);
        match expected {
            None => assert_eq!(begun(&actions), Some((FirstSignal::Ours, at(10_000)))),
            Some(expected) => {
                assert!(asks(&actions));
                assert_eq!(core.wake_at(), Some(at(200)));
                let actions = match answer {
                    Some(answer) => core.handle(at(100), GuardianEvent::Answer(answer)),
                    None => silent(&mut core, at(200)),
                };
                assert_eq!(begun(&actions), Some(expected), "{killer:?} {answer:?}");
                assert!(
                    !actions.iter().any(|action| matches!(action, GuardianAction::Tell(_))),
                    "there is no wrapper to tell"
                );
            }
        }
    }
}

#[test]
fn a_stop_the_wrapper_had_begun_goes_on_with_its_time() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(1), GuardianEvent::Told(GuardianOrder::Stopping { kill_at: at(7_000) }));
    assert_eq!(begun(&core.handle(at(2), GuardianEvent::WrapperGone)), Some((FirstSignal::Theirs, at(7_000))));
    // A wrapper that lives and does not kill at its announced time is helped.
    let mut core = watching(Killer::Daemon);
    core.handle(at(1), GuardianEvent::Told(GuardianOrder::Stopping { kill_at: at(7_000) }));
    assert_eq!(core.wake_at(), Some(at(7_500)));
    assert_eq!(core.handle(at(7_499), GuardianEvent::Tick), []);
    assert_eq!(begun(&core.handle(at(7_500), GuardianEvent::Tick)), Some((FirstSignal::Theirs, at(7_000))));
}

#[test]
fn a_deadline_that_passes_without_a_word_is_acted_on_three_seconds_later() {
    let mut core = watching(Killer::Daemon);
    assert_eq!(core.wake_at(), Some(at(30_000)));
    assert_eq!(core.handle(at(30_000), GuardianEvent::Tick), []);
    assert_eq!(core.wake_at(), Some(at(33_000)));
    assert!(asks(&core.handle(at(33_000), GuardianEvent::Tick)));
    let actions = silent(&mut core, at(33_200));
    assert_eq!(actions.first(), Some(&GuardianAction::Tell(GuardianReport::Stopping { kill_at: at(43_000) })));
    assert_eq!(begun(&actions), Some((FirstSignal::Ours, at(43_000))));
    // What the wrapper says after that changes nothing.
    assert_eq!(core.handle(at(33_300), GuardianEvent::Told(GuardianOrder::Deadline(at(90_000)))), []);
    assert_eq!(core.handle(at(33_300), GuardianEvent::Told(GuardianOrder::Stopping { kill_at: at(90_000) })), []);
}

#[test]
fn a_word_within_that_time_is_heard() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(30_000), GuardianEvent::Tick);
    core.handle(at(32_000), GuardianEvent::Told(GuardianOrder::Deadline(at(60_000))));
    assert_eq!(core.wake_at(), Some(at(60_000)));
    core.handle(at(60_000), GuardianEvent::Tick);
    assert!(asks(&core.handle(at(63_000), GuardianEvent::Tick)));
    assert_eq!(
        core.handle(at(63_010), GuardianEvent::Told(GuardianOrder::Deadline(at(90_000)))),
        [GuardianAction::DropQuestion]
    );
    assert_eq!(core.wake_at(), Some(at(90_000)));
}

#[test]
fn the_daemon_may_have_moved_the_deadline_while_the_wrapper_was_stopped() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(30_000), GuardianEvent::Tick);
    core.handle(at(33_000), GuardianEvent::Tick);
    let moved = GuardianEvent::Answer(LeaseAnswer::Lease { deadline: at(61_000) });
    assert_eq!(core.handle(at(33_001), moved), [GuardianAction::DropQuestion]);
    assert_eq!(core.wake_at(), Some(at(61_000)));
    // A lease that is over by its own word is no reason to go on.
    core.handle(at(61_000), GuardianEvent::Tick);
    core.handle(at(64_000), GuardianEvent::Tick);
    let over = GuardianEvent::Answer(LeaseAnswer::Lease { deadline: at(64_000) });
    assert_eq!(begun(&core.handle(at(64_001), over)), Some((FirstSignal::Ours, at(74_000))));
}

#[test]
fn a_suspend_gives_the_wrapper_its_time_again() {
    let mut core = watching(Killer::Daemon);
    // The machine slept through the deadline.
    assert_eq!(core.handle(at(900_000), GuardianEvent::Tick), []);
    assert_eq!(core.wake_at(), Some(at(903_000)));
    // It slept again before those three seconds were over.
    assert_eq!(core.handle(at(2_000_000), GuardianEvent::Tick), []);
    assert_eq!(core.wake_at(), Some(at(2_003_000)));
    assert!(asks(&core.handle(at(2_003_000), GuardianEvent::Tick)));
}

#[test]
fn the_leader_is_reaped_only_when_the_wrapper_knows() {
    let mut core = watching(Killer::Daemon);
    let ended = GuardianEvent::LeaderEnded { exit: Exit::Command(3), alone: false };
    let told = GuardianReport::LeaderEnded { exit: Exit::Command(3), alone: false };
    assert_eq!(core.handle(at(1), ended), [GuardianAction::Tell(told)]);
    assert!(!core.may_reap_leader());
    core.handle(at(2), GuardianEvent::Told(GuardianOrder::Acknowledge));
    assert!(core.may_reap_leader());
}

fn any_event() -> impl Strategy<Value = GuardianEvent> {
    let time = || (0_u64..100_000).prop_map(at);
    prop_oneof![
        time().prop_map(|deadline| GuardianEvent::Told(GuardianOrder::Terms(terms(Killer::Daemon), deadline))),
        time().prop_map(|moved| GuardianEvent::Told(GuardianOrder::Deadline(moved))),
        time().prop_map(|kill_at| GuardianEvent::Told(GuardianOrder::Stopping { kill_at })),
        Just(GuardianEvent::Told(GuardianOrder::Acknowledge)),
        Just(GuardianEvent::WrapperGone),
        time().prop_map(|deadline| GuardianEvent::Answer(LeaseAnswer::Lease { deadline })),
        Just(GuardianEvent::Answer(LeaseAnswer::Stopping { grace: GRACE })),
        Just(GuardianEvent::Answer(LeaseAnswer::Unknown)),
        any::<bool>().prop_map(|can_act| GuardianEvent::Listener { can_act }),
        Just(GuardianEvent::Tick),
        Just(GuardianEvent::Tick),
    ]
}

proptest! {
    #[test]
    fn it_begins_once_and_never_sleeps_for_ever_over_a_tree_without_a_wrapper(
        events in proptest::collection::vec((0_u64..2_000, any_event()), 1..50),
    ) {
        let mut core = GuardianCore::new();
        let (mut elapsed, mut begins, mut gone) = (0, 0, false);
        for (pause, event) in events {
            elapsed += pause;
            if gone && matches!(event, GuardianEvent::Told(_) | GuardianEvent::WrapperGone) { continue }
            gone |= matches!(event, GuardianEvent::WrapperGone);
            begins += core.handle(at(elapsed), event).iter().filter(|a| matches!(a, GuardianAction::Begin { .. })).count();
            prop_assert!(begins <= 1);
            if gone && begins == 0 {
                prop_assert!(core.wake_at().is_some_and(|wake| wake <= at(elapsed) + LATE_ANSWER));
            }
        }
    }
}
