use super::*;
use proptest::prelude::*;
use rustix::process::Signal;

const GRACE: Duration = Duration::from_secs(10);

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(1_000_000 + millis)
}

fn terms(killer: Killer) -> Terms {
    Terms { signal: Signal::TERM, grace: GRACE, killer, in_leaf: false }
}

/// Released at 0 with a lease up to 30 s.
fn watching(killer: Killer) -> Core {
    let mut core = Core::new();
    assert_eq!(core.handle(at(0), Event::Told(Order::Terms(terms(killer), at(30_000)))), []);
    core
}

fn begun(actions: &[Action]) -> Option<(FirstSignal, BootTime)> {
    actions.iter().find_map(|action| {
        if let Action::Begin { first_signal, kill_at } = action { Some((*first_signal, *kill_at)) } else { None }
    })
}

fn asks(actions: &[Action]) -> bool {
    actions.contains(&Action::Ask)
}

/// The time for the daemon's answer is over, and it is dead or stopped.
fn silent(core: &mut Core, now: BootTime) -> Vec<Action> {
    assert_eq!(core.handle(now, Event::Tick), [Action::LookAtListener]);
    core.handle(now, Event::Listener { can_act: false })
}

#[test]
fn a_daemon_that_is_there_and_slow_is_given_longer_at_no_cost_to_the_end() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(0), Event::WrapperGone);
    assert_eq!(core.handle(at(200), Event::Tick), [Action::LookAtListener]);
    assert_eq!(core.handle(at(200), Event::Listener { can_act: true }), []);
    assert_eq!(core.wake_at(), Some(at(1_000)));
    assert_eq!(core.handle(at(999), Event::Tick), []);
    assert_eq!(begun(&core.handle(at(1_000), Event::Tick)), Some((FirstSignal::Ours, at(10_000))));
    // It answers meanwhile.
    let mut core = watching(Killer::Daemon);
    core.handle(at(0), Event::WrapperGone);
    core.handle(at(200), Event::Tick);
    core.handle(at(200), Event::Listener { can_act: true });
    let stopping = Answer::Stopping { grace: Duration::from_secs(9) };
    assert_eq!(begun(&core.handle(at(700), Event::Answer(stopping))), Some((FirstSignal::Theirs, at(9_700))));
    // Half of a short grace is the agent's.
    let mut core = Core::new();
    let short = Terms { grace: Duration::from_secs(1), ..terms(Killer::Daemon) };
    core.handle(at(0), Event::Told(Order::Terms(short, at(30_000))));
    core.handle(at(0), Event::WrapperGone);
    core.handle(at(200), Event::Tick);
    assert_eq!(core.handle(at(200), Event::Listener { can_act: true }), []);
    assert_eq!(core.wake_at(), Some(at(500)));
}

#[test]
fn a_wrapper_that_dies_before_the_release_leaves_nobody_to_be_asked() {
    let mut core = Core::new();
    assert_eq!(core.wake_at(), None);
    assert_eq!(begun(&core.handle(at(5), Event::WrapperGone)), Some((FirstSignal::Theirs, at(5))));
    assert!(core.may_reap_leader());
}

#[test]
fn after_the_wrappers_death_the_signal_is_the_daemons_if_it_knows_the_run_and_reaches_it() {
    let stopping = Answer::Stopping { grace: Duration::from_secs(4) };
    let lease = Answer::Lease { deadline: at(60_000) };
    for (killer, answer, expected) in [
        (Killer::Daemon, Some(stopping), Some((FirstSignal::Theirs, at(4_100)))),
        (Killer::Daemon, Some(lease), Some((FirstSignal::Theirs, at(10_100)))),
        (Killer::Daemon, Some(Answer::Unknown), Some((FirstSignal::Ours, at(10_000)))),
        (Killer::Daemon, None, Some((FirstSignal::Ours, at(10_000)))),
        (Killer::Wrapper, None, None),
    ] {
        let mut core = watching(killer);
        let actions = core.handle(at(0), Event::WrapperGone);
        match expected {
            None => assert_eq!(begun(&actions), Some((FirstSignal::Ours, at(10_000)))),
            Some(expected) => {
                assert!(asks(&actions));
                assert_eq!(core.wake_at(), Some(at(200)));
                let actions = match answer {
                    Some(answer) => core.handle(at(100), Event::Answer(answer)),
                    None => silent(&mut core, at(200)),
                };
                assert_eq!(begun(&actions), Some(expected), "{killer:?} {answer:?}");
                assert!(!actions.iter().any(|action| matches!(action, Action::Tell(_))), "there is nobody to tell");
            }
        }
    }
}

#[test]
fn a_stop_the_wrapper_had_begun_goes_on_with_its_time() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(1), Event::Told(Order::Stopping { kill_at: at(7_000) }));
    assert_eq!(begun(&core.handle(at(2), Event::WrapperGone)), Some((FirstSignal::Theirs, at(7_000))));
    // One that lives and does not kill when it said it would is helped.
    let mut core = watching(Killer::Daemon);
    core.handle(at(1), Event::Told(Order::Stopping { kill_at: at(7_000) }));
    assert_eq!(core.wake_at(), Some(at(7_500)));
    assert_eq!(core.handle(at(7_499), Event::Tick), []);
    assert_eq!(begun(&core.handle(at(7_500), Event::Tick)), Some((FirstSignal::Theirs, at(7_000))));
}

#[test]
fn a_deadline_that_passes_without_a_word_is_acted_on_three_seconds_later() {
    let mut core = watching(Killer::Daemon);
    assert_eq!(core.wake_at(), Some(at(30_000)));
    assert_eq!(core.handle(at(30_000), Event::Tick), []);
    assert_eq!(core.wake_at(), Some(at(33_000)));
    assert!(asks(&core.handle(at(33_000), Event::Tick)));
    let actions = silent(&mut core, at(33_200));
    assert_eq!(actions.first(), Some(&Action::Tell(Report::Stopping { kill_at: at(43_000) })));
    assert_eq!(begun(&actions), Some((FirstSignal::Ours, at(43_000))));
    // What the wrapper says after that changes nothing.
    assert_eq!(core.handle(at(33_300), Event::Told(Order::Deadline(at(90_000)))), []);
    assert_eq!(core.handle(at(33_300), Event::Told(Order::Stopping { kill_at: at(90_000) })), []);
}

#[test]
fn a_word_within_that_time_is_heard() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(30_000), Event::Tick);
    core.handle(at(32_000), Event::Told(Order::Deadline(at(60_000))));
    assert_eq!(core.wake_at(), Some(at(60_000)));
    core.handle(at(60_000), Event::Tick);
    assert!(asks(&core.handle(at(63_000), Event::Tick)));
    assert_eq!(core.handle(at(63_010), Event::Told(Order::Deadline(at(90_000)))), [Action::DropQuestion]);
    assert_eq!(core.wake_at(), Some(at(90_000)));
}

#[test]
fn the_daemon_may_have_moved_the_deadline_while_the_wrapper_was_stopped() {
    let mut core = watching(Killer::Daemon);
    core.handle(at(30_000), Event::Tick);
    core.handle(at(33_000), Event::Tick);
    let moved = Event::Answer(Answer::Lease { deadline: at(61_000) });
    assert_eq!(core.handle(at(33_001), moved), [Action::DropQuestion]);
    assert_eq!(core.wake_at(), Some(at(61_000)));
    // A lease that is over by its own word is no reason to go on.
    core.handle(at(61_000), Event::Tick);
    core.handle(at(64_000), Event::Tick);
    let over = Event::Answer(Answer::Lease { deadline: at(64_000) });
    assert_eq!(begun(&core.handle(at(64_001), over)), Some((FirstSignal::Ours, at(74_000))));
}

#[test]
fn a_suspend_gives_the_wrapper_its_time_again() {
    let mut core = watching(Killer::Daemon);
    // Slept through the deadline.
    assert_eq!(core.handle(at(900_000), Event::Tick), []);
    assert_eq!(core.wake_at(), Some(at(903_000)));
    // And again before those three seconds were over.
    assert_eq!(core.handle(at(2_000_000), Event::Tick), []);
    assert_eq!(core.wake_at(), Some(at(2_003_000)));
    assert!(asks(&core.handle(at(2_003_000), Event::Tick)));
}

#[test]
fn the_leader_is_reaped_only_when_the_wrapper_knows() {
    let mut core = watching(Killer::Daemon);
    let ended = Event::LeaderEnded { exit: Exit::Command(3), alone: false };
    let told = Report::LeaderEnded { exit: Exit::Command(3), alone: false };
    assert_eq!(core.handle(at(1), ended), [Action::Tell(told)]);
    assert!(!core.may_reap_leader());
    core.handle(at(2), Event::Told(Order::Acknowledge));
    assert!(core.may_reap_leader());
}

fn any_event() -> impl Strategy<Value = Event> {
    let time = || (0_u64..100_000).prop_map(at);
    prop_oneof![
        time().prop_map(|deadline| Event::Told(Order::Terms(terms(Killer::Daemon), deadline))),
        time().prop_map(|moved| Event::Told(Order::Deadline(moved))),
        time().prop_map(|kill_at| Event::Told(Order::Stopping { kill_at })),
        Just(Event::Told(Order::Acknowledge)),
        Just(Event::WrapperGone),
        time().prop_map(|deadline| Event::Answer(Answer::Lease { deadline })),
        Just(Event::Answer(Answer::Stopping { grace: GRACE })),
        Just(Event::Answer(Answer::Unknown)),
        any::<bool>().prop_map(|can_act| Event::Listener { can_act }),
        Just(Event::Tick),
        Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn it_begins_once_and_never_sleeps_for_ever_over_a_tree_without_a_wrapper(
        events in proptest::collection::vec((0_u64..2_000, any_event()), 1..50),
    ) {
        let mut core = Core::new();
        let (mut elapsed, mut begins, mut gone) = (0, 0, false);
        for (pause, event) in events {
            elapsed += pause;
            if gone && matches!(event, Event::Told(_) | Event::WrapperGone) { continue }
            gone |= matches!(event, Event::WrapperGone);
            begins += core.handle(at(elapsed), event).iter().filter(|a| matches!(a, Action::Begin { .. })).count();
            prop_assert!(begins <= 1);
            if gone && begins == 0 {
                prop_assert!(core.wake_at().is_some_and(|wake| wake <= at(elapsed) + LATE_ANSWER));
            }
        }
    }
}
