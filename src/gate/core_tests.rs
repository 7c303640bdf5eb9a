use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    interval: Duration::from_secs(5),
    lease: Duration::from_secs(30),
    resume_grace: Duration::from_secs(3),
    system_unavailable: SystemUnavailable::Deny,
};

/// The rules after a reload.
const SHORTER: Rules = Rules {
    interval: Duration::from_secs(1),
    lease: Duration::from_secs(4),
    resume_grace: Duration::from_secs(3),
    system_unavailable: SystemUnavailable::Deny,
};

fn allow() -> AttemptOutcome {
    AttemptOutcome::Decided(Decision::Allow { code: Code::Allow, request_id: None })
}

fn deny(code: Code) -> AttemptOutcome {
    AttemptOutcome::Decided(Decision::Deny(Denial { code, request_id: None, reason: None, revoked_at: None }))
}

fn no_answer() -> AttemptOutcome {
    AttemptOutcome::NoAnswer { code: Code::AuthorityUnreachable, cause: "refused".into(), retry_after: None }
}

const START: BootTime = BootTime::from_millis(1_000_000);

/// A gate under simulated time, with everything it did.
struct World {
    gate: Gate,
    now: BootTime,
    begun: HashMap<AttemptId, BootTime>,
    flying: Vec<AttemptId>,
    last_begun: AttemptId,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self::with_seed(rules, 7)
    }

    fn with_seed(rules: Rules, seed: u64) -> Self {
        Self::of(Gate::new(rules, true, First::AtOnce, seed, START))
    }

    fn unregistered(first: First) -> Self {
        Self::of(Gate::new(RULES, false, first, 7, START))
    }

    fn of(gate: Gate) -> Self {
        let now = START;
        Self { gate, now, begun: HashMap::new(), flying: Vec::new(), last_begun: AttemptId(0) }
    }

    fn tell(&mut self, event: GateEvent) -> Vec<Action> {
        let mut actions = Vec::new();
        self.gate.handle(self.now, event, &mut actions);
        for action in &actions {
            match action {
                Action::Begin { attempt, .. } => {
                    self.begun.insert(*attempt, self.now);
                    self.flying.push(*attempt);
                    self.last_begun = *attempt;
                }
                Action::Abandon { attempt } => self.flying.retain(|flying| flying != attempt),
                Action::Answer { .. }
                | Action::LeaseMoved { .. }
                | Action::BecameUnavailable { .. }
                | Action::BecameAllowed
                | Action::StopAgents { .. } => {}
            }
        }
        actions
    }

    fn finish(&mut self, attempt: AttemptId, outcome: AttemptOutcome) -> Vec<Action> {
        self.flying.retain(|flying| *flying != attempt);
        self.tell(GateEvent::Finished { attempt, registered: Registered::NotAsked, outcome })
    }

    /// Lets `span` pass, waking the gate whenever it wants to be.
    fn pass(&mut self, span: Duration) -> Vec<Action> {
        let end = self.now + span;
        let mut all = Vec::new();
        while let Some(wake) = self.gate.next_wake().filter(|wake| *wake <= end) {
            assert!(wake > self.now || all.is_empty(), "the gate wants to be woken without moving on");
            self.now = self.now.max(wake);
            all.extend(self.tell(GateEvent::Woke));
        }
        self.now = end;
        all
    }

    /// The machine sleeps for this long, and the gate wakes.
    fn sleep(&mut self, span: Duration) -> Vec<Action> {
        self.now = self.now + span;
        let mut actions = self.tell(GateEvent::Resumed);
        actions.extend(self.tell(GateEvent::Woke));
        actions
    }

    fn ask(&mut self, id: u64) -> Vec<Action> {
        self.tell(GateEvent::Asked {
            asker: AskerId(id),
            deadline: self.now + Duration::from_secs(4),
            purpose: AskPurpose::Start,
        })
    }
}

fn begins(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Begin { .. })).count()
}

fn answer_to(actions: &[Action], id: u64) -> Option<&GateVerdict> {
    actions.iter().find_map(|action| match action {
        Action::Answer { asker, verdict } => (*asker == AskerId(id)).then_some(verdict),
        Action::Begin { .. }
        | Action::Abandon { .. }
        | Action::LeaseMoved { .. }
        | Action::BecameUnavailable { .. }
        | Action::BecameAllowed
        | Action::StopAgents { .. } => None,
    })
}

fn stop_code(actions: &[Action]) -> Option<&Code> {
    actions.iter().find_map(|action| match action {
        Action::StopAgents { denial } => Some(&denial.code),
        Action::Begin { .. }
        | Action::Abandon { .. }
        | Action::LeaseMoved { .. }
        | Action::BecameUnavailable { .. }
        | Action::BecameAllowed
        | Action::Answer { .. } => None,
    })
}

#[test]
fn an_idle_gate_answers_with_one_validation() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let first = world.last_begun;
    world.finish(first, allow());
    let actions = world.ask(1);
    assert_eq!(begins(&actions), 1);
    let attempt = world.last_begun;
    let actions = world.finish(attempt, allow());
    assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Allowed { .. })));
}

#[test]
fn a_gate_made_for_a_question_answers_with_its_first_validation() {
    let mut world = World::new(RULES);
    world.gate = Gate::new(RULES, true, First::WhenAsked, 7, world.now);
    assert_eq!(begins(&world.tell(GateEvent::Woke)), 0);
    assert_eq!(begins(&world.ask(1)), 1);
    let attempt = world.last_begun;
    assert!(answer_to(&world.finish(attempt, allow()), 1).is_some());
    assert!(world.gate.next_validation().is_some_and(|due| due <= world.now + RULES.interval));
}

#[test]
fn who_asks_during_a_validation_shares_the_next_one() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let first = world.last_begun;
    for id in 0..256 {
        assert_eq!(begins(&world.ask(id)), 0);
    }
    let actions = world.finish(first, allow());
    assert_eq!(begins(&actions), 1);
    assert!((0..256).all(|id| answer_to(&actions, id).is_none()), "an answer from before the question");
    let second = world.last_begun;
    let actions = world.finish(second, deny(Code::DeviceRevoked));
    assert!((0..256).all(|id| matches!(answer_to(&actions, id), Some(GateVerdict::Denied(_)))));
}

#[test]
fn a_hung_validation_delays_a_check_by_50_ms_at_most() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    world.ask(1);
    assert_eq!(begins(&world.pass(Duration::from_millis(49))), 0);
    assert_eq!(begins(&world.pass(Duration::from_millis(1))), 1);
    assert_eq!(world.flying.len(), 2);
    world.ask(2);
    assert_eq!(begins(&world.pass(Duration::from_secs(3))), 0, "a third one in flight");
}

#[test]
fn a_hint_takes_the_second_place_at_once() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    assert_eq!(begins(&world.tell(GateEvent::Hinted)), 1);
    assert_eq!(begins(&world.tell(GateEvent::Hinted)), 0);
    let first = world.flying[0];
    assert_eq!(begins(&world.finish(first, allow())), 1, "the hint was forgotten");
}

#[test]
fn a_hung_validation_holds_up_neither_a_reload_nor_a_check_beside_it() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    assert_eq!(begins(&world.tell(GateEvent::Ruled(SHORTER))), 1, "a reload validates at once");
    world.ask(1);
    let of_the_reload = world.last_begun;
    // One of the two places is free again as soon as the newer one answers, whatever the older one does.
    let actions = world.finish(of_the_reload, allow());
    assert_eq!((begins(&actions), answer_to(&actions, 1)), (1, None));
    let actions = world.finish(world.last_begun, allow());
    assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Allowed { .. })));
    world.ask(2);
    assert_eq!(begins(&world.pass(Duration::from_millis(50))), 1, "50 ms after it was asked");
    assert_eq!(world.flying.len(), 2, "the first one still hangs");
}

#[test]
fn an_allow_that_began_earlier_undoes_nothing() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let early = world.last_begun;
    world.tell(GateEvent::Hinted);
    let late = world.last_begun;
    world.finish(late, deny(Code::DeviceRevoked));
    let actions = world.finish(early, allow());
    assert!(actions.is_empty(), "{actions:?}");
    assert!(matches!(world.gate.standing(), Standing::Denied { .. }));
}

#[test]
fn a_deny_counts_even_when_it_is_late() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let early = world.last_begun;
    world.tell(GateEvent::Hinted);
    let late = world.last_begun;
    world.finish(late, allow());
    let actions = world.finish(early, deny(Code::OrgDisabled));
    assert_eq!(stop_code(&actions), Some(&Code::OrgDisabled));
    assert_eq!(world.gate.lease_until(), None);
}

#[test]
fn a_late_failure_of_an_earlier_attempt_changes_nothing() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let early = world.last_begun;
    world.tell(GateEvent::Hinted);
    let late = world.last_begun;
    world.finish(late, allow());
    let due = world.gate.next_validation();
    world.finish(early, no_answer());
    assert!(matches!(world.gate.standing(), Standing::Allowed { .. }));
    assert_eq!(world.gate.next_validation(), due);
}

#[test]
fn agents_live_exactly_to_the_end_of_the_lease_while_a_validation_hangs() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let began = world.now;
    let first = world.last_begun;
    world.pass(Duration::from_secs(2));
    world.finish(first, allow());
    world.tell(GateEvent::Agents(1));
    assert_eq!(world.gate.lease_until(), Some(began + RULES.lease), "the lease counts from the request");
    assert_eq!(stop_code(&world.pass(Duration::from_millis(27_999))), None);
    assert_eq!(stop_code(&world.pass(Duration::from_millis(1))), Some(&Code::LeaseExpired));
    assert!(matches!(world.gate.standing(), Standing::Unavailable { .. }));
}

/// Allowed a moment ago, with an agent.
fn with_an_agent(rules: Rules) -> World {
    let mut world = World::new(rules);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    world.finish(attempt, allow());
    world.tell(GateEvent::Agents(1));
    world
}

#[test]
fn on_waking_it_validates_at_once_whatever_is_in_flight() {
    for hung in 0..3 {
        let mut world = with_an_agent(RULES);
        for _ in 0..hung {
            world.tell(GateEvent::Hinted);
        }
        world.ask(1);
        let before = world.flying.clone();
        let actions = world.sleep(Duration::from_secs(2));
        assert_eq!(begins(&actions), 1, "with {hung} in flight: {actions:?}");
        assert!(before.iter().all(|attempt| actions.contains(&Action::Abandon { attempt: *attempt })));
        let attempt = world.last_begun;
        let actions = world.finish(attempt, allow());
        assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Allowed { .. })), "who asked before is answered");
        assert_eq!(stop_code(&actions), None);
    }
}

#[test]
fn a_lease_that_ended_in_the_machines_sleep_is_asked_about_for_the_grace_and_no_longer() {
    let mut world = with_an_agent(RULES);
    let actions = world.sleep(Duration::from_hours(8));
    assert_eq!((stop_code(&actions), begins(&actions)), (None, 1), "{actions:?}");
    assert!(matches!(world.gate.standing(), Standing::Unavailable { .. }), "no caller is told of an earlier ALLOW");
    let mut begun = 0;
    while stop_code(&world.pass(Duration::ZERO)).is_none() && begun < 100 {
        let Some(attempt) = world.flying.first().copied() else {
            let wake = world.gate.next_wake().unwrap();
            let actions = world.pass(wake.saturating_since(world.now));
            if stop_code(&actions).is_some() {
                break;
            }
            continue;
        };
        begun += 1;
        world.finish(attempt, no_answer());
    }
    let woke = BootTime::from_millis(1_000_000) + Duration::from_hours(8);
    assert_eq!(world.now, woke + RULES.resume_grace, "the stop begins at the end of the grace");
    assert!(begun >= 3, "it was asked {begun} times");
}

#[test]
fn an_allow_within_the_grace_gives_a_whole_lease_again() {
    let mut world = with_an_agent(RULES);
    world.sleep(Duration::from_hours(8));
    assert_eq!(begins(&world.pass(Duration::from_millis(999))), 0);
    // The network swallows what is sent before it is up: a second question goes out beside the first.
    assert_eq!(begins(&world.pass(Duration::from_millis(1))), 1);
    let began = world.now;
    let attempt = world.last_begun;
    world.pass(Duration::from_millis(1_999));
    assert!(world.finish(attempt, allow()).contains(&Action::LeaseMoved { until: began + RULES.lease }));
    assert_eq!(stop_code(&world.pass(Duration::from_secs(28))), None);
}

#[test]
fn anything_but_an_allow_after_waking_stops() {
    let mut world = with_an_agent(RULES);
    world.sleep(Duration::from_hours(8));
    let attempt = world.last_begun;
    assert_eq!(stop_code(&world.finish(attempt, deny(Code::DeviceRevoked))), Some(&Code::DeviceRevoked));
    let mut hung = with_an_agent(RULES);
    hung.sleep(Duration::from_hours(8));
    assert_eq!(stop_code(&hung.pass(Duration::from_millis(2_999))), None);
    assert_eq!(stop_code(&hung.pass(Duration::from_millis(1))), Some(&Code::LeaseExpired));
}

#[test]
fn a_sleep_within_the_lease_takes_nothing_from_it_and_adds_nothing() {
    let mut world = with_an_agent(RULES);
    let until = world.gate.lease_until().unwrap();
    assert_eq!(stop_code(&world.sleep(Duration::from_secs(29))), None);
    assert_eq!(world.gate.lease_until(), Some(until));
    assert_eq!(stop_code(&world.pass(Duration::from_millis(999))), None);
    assert_eq!(stop_code(&world.pass(Duration::from_millis(1))), Some(&Code::LeaseExpired));
}

#[test]
fn a_hint_does_not_move_the_gates_own_rhythm() {
    let mut world = with_an_agent(RULES);
    let due = world.gate.next_validation();
    for _ in 0..5 {
        assert_eq!(begins(&world.tell(GateEvent::Hinted)), 1);
        let attempt = world.last_begun;
        world.finish(attempt, allow());
    }
    assert_eq!(world.gate.next_validation(), due);
}

#[test]
fn an_allow_that_arrives_after_its_own_lease_allows_nothing() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    world.gate.askers.push(Asker {
        id: AskerId(1),
        fresh_from: attempt,
        asked: world.now,
        deadline: world.now + RULES.lease * 2,
    });
    world.now = world.now + RULES.lease;
    let actions = world.finish(attempt, allow());
    assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Undecided { .. })), "{actions:?}");
    assert!(matches!(world.gate.standing(), Standing::Unavailable { .. }));
    assert_eq!(world.gate.lease_until(), None);
}

#[test]
fn system_unavailable_is_a_deny_unless_retry_is_set() {
    let mut strict = World::new(RULES);
    strict.tell(GateEvent::Woke);
    let attempt = strict.last_begun;
    assert_eq!(stop_code(&strict.finish(attempt, deny(Code::SystemUnavailable))), Some(&Code::SystemUnavailable));

    let mut patient = World::new(Rules { system_unavailable: SystemUnavailable::Retry, ..RULES });
    patient.tell(GateEvent::Woke);
    let attempt = patient.last_begun;
    patient.ask(1);
    assert_eq!(stop_code(&patient.finish(attempt, deny(Code::SystemUnavailable))), None);
    let attempt = patient.last_begun;
    let actions = patient.finish(attempt, deny(Code::SystemUnavailable));
    assert!(
        matches!(answer_to(&actions, 1), Some(GateVerdict::Undecided { code: Code::SystemUnavailable, .. })),
        "{actions:?}"
    );
}

#[test]
fn a_full_plan_is_a_deny_that_is_tried_again_after_a_minute() {
    let mut world = World::new(RULES);
    world.gate.registration.done = false;
    let actions = world.tell(GateEvent::Woke);
    assert!(matches!(actions[..], [Action::Begin { register: true, .. }]));
    let attempt = world.last_begun;
    assert_eq!(stop_code(&world.finish(attempt, AttemptOutcome::LimitReached)), Some(&Code::DeviceLimitReached));
    assert_eq!(begins(&world.pass(Duration::from_millis(59_999))), 0);
    let actions = world.pass(Duration::from_millis(1));
    assert!(matches!(actions[..], [Action::Begin { register: true, .. }]), "{actions:?}");
}

#[test]
fn a_refused_registration_does_not_hold_up_validation() {
    let mut world = World::new(RULES);
    world.gate.registration.done = false;
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    world.flying.clear();
    world.tell(GateEvent::Finished { attempt, registered: Registered::Refused, outcome: deny(Code::InvalidOrgKey) });
    let actions = world.tell(GateEvent::Hinted);
    assert!(matches!(actions[..], [Action::Begin { register: false, .. }]), "{actions:?}");
}

#[test]
fn a_check_before_the_first_decision_waits_then_says_starting() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    world.ask(1);
    let actions = world.pass(Duration::from_secs(4));
    assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Undecided { code: Code::Starting, .. })), "{actions:?}");
}

#[test]
fn a_failed_validation_refuses_the_check_and_is_retried_soon() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    world.finish(attempt, allow());
    world.ask(1);
    let attempt = world.last_begun;
    let actions = world.finish(attempt, no_answer());
    assert!(matches!(answer_to(&actions, 1), Some(GateVerdict::Undecided { code: Code::AuthorityUnreachable, .. })));
    assert!(matches!(world.gate.standing(), Standing::Unavailable { last_allowed: Some(_), .. }));
    assert!(begins(&world.pass(Duration::from_millis(250))) >= 1);
}

#[test]
fn retry_after_is_respected_but_not_by_checks() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    let asked = Duration::from_secs(20);
    world.finish(
        attempt,
        AttemptOutcome::NoAnswer { code: Code::AuthorityUnreachable, cause: "429".into(), retry_after: Some(asked) },
    );
    assert_eq!(begins(&world.pass(Duration::from_millis(19_999))), 0);
    assert_eq!(begins(&world.ask(1)), 1);
    let mut pressed = with_an_agent(RULES);
    pressed.tell(GateEvent::Hinted);
    let attempt = pressed.last_begun;
    pressed.finish(
        attempt,
        AttemptOutcome::NoAnswer {
            code: Code::AuthorityUnreachable,
            cause: "429".into(),
            retry_after: Some(Duration::from_mins(5)),
        },
    );
    assert!(begins(&pressed.pass(Duration::from_millis(7_500))) >= 1, "an agent's lease runs out");
}

#[test]
fn agents_hear_when_their_device_becomes_unavailable_and_when_it_is_allowed_again() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    assert!(world.finish(attempt, allow()).contains(&Action::BecameAllowed));
    let fail = |world: &mut World| {
        world.ask(1);
        let attempt = world.last_begun;
        let actions = world.finish(attempt, no_answer());
        actions.iter().any(|action| matches!(action, Action::BecameUnavailable { .. }))
    };
    assert!(fail(&mut world));
    assert!(!fail(&mut world), "another failure is nothing new");
    world.ask(2);
    let attempt = world.last_begun;
    assert!(world.finish(attempt, allow()).contains(&Action::BecameAllowed));
}

#[test]
fn a_lease_of_before_paces_retries_and_ends_but_never_outlives_a_deny() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    let attempt = world.last_begun;
    world.tell(GateEvent::Agents(1));
    world.tell(GateEvent::Inherited { until: world.now + Duration::from_secs(2) });
    world.finish(attempt, no_answer());
    assert!(begins(&world.pass(Duration::from_millis(501))) >= 1, "a quarter of what is left");
    assert_eq!(stop_code(&world.pass(Duration::from_secs(2))), Some(&Code::LeaseExpired));
    world.ask(1);
    let attempt = world.last_begun;
    world.finish(attempt, deny(Code::DeviceRevoked));
    world.tell(GateEvent::Inherited { until: world.now + Duration::from_secs(2) });
    assert_eq!(world.gate.lease_until(), None);
}

#[test]
fn a_check_never_registers_and_a_start_does() {
    let mut world = World::unregistered(First::WhenAsked);
    let ask = |world: &mut World, id, purpose| {
        let deadline = world.now + Duration::from_secs(4);
        world.tell(GateEvent::Asked { asker: AskerId(id), deadline, purpose })
    };
    let registers = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Begin { register, .. } => Some(*register),
            Action::Abandon { .. }
            | Action::Answer { .. }
            | Action::LeaseMoved { .. }
            | Action::BecameUnavailable { .. }
            | Action::BecameAllowed
            | Action::StopAgents { .. } => None,
        })
    };
    assert_eq!(registers(&ask(&mut world, 1, AskPurpose::Check)), Some(false));
    world.finish(world.last_begun, deny(Code::DeviceNotFound));
    assert_eq!(registers(&ask(&mut world, 2, AskPurpose::Check)), Some(false));
    world.finish(world.last_begun, deny(Code::DeviceNotFound));
    assert_eq!(registers(&ask(&mut world, 3, AskPurpose::Start)), Some(true));
    // The host's own gate registers before anything asks.
    let mut host = World::unregistered(First::AtOnce);
    assert_eq!(registers(&host.tell(GateEvent::Woke)), Some(true));
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Ask { wait_ms: u64, starts: bool },
    Finish { which: usize, outcome: u8 },
    Hint,
    Sleep(u64),
    Agents(usize),
    Rule(Rules),
    ChangeAuthority(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u64..8_000).prop_map(Step::Pass),
        2 => (0_u64..40).prop_map(Step::Pass),
        3 => (1_u64..5_000, any::<bool>()).prop_map(|(wait_ms, starts)| Step::Ask { wait_ms, starts }),
        5 => (0_usize..2, 0_u8..5).prop_map(|(which, outcome)| Step::Finish { which, outcome }),
        1 => Just(Step::Hint),
        1 => (100_u64..60_000).prop_map(Step::Sleep),
        1 => (0_usize..3).prop_map(Step::Agents),
        1 => prop_oneof![Just(RULES), Just(SHORTER)].prop_map(Step::Rule),
        1 => any::<bool>().prop_map(Step::ChangeAuthority),
    ];
    proptest::collection::vec(step, 1..120)
}

#[test]
fn a_reload_validates_at_once_and_by_the_new_interval_from_then_on() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    world.finish(world.last_begun, allow());
    world.pass(Duration::from_secs(6));
    world.finish(world.last_begun, allow());
    assert_eq!(begins(&world.tell(GateEvent::Ruled(SHORTER))), 1);
    world.finish(world.last_begun, allow());
    assert_eq!(begins(&world.pass(SHORTER.interval)), 1);
}

#[test]
fn a_shorter_lease_counts_from_the_reload_on() {
    let mut world = World::new(RULES);
    world.tell(GateEvent::Woke);
    world.finish(world.last_begun, allow());
    // Longer than the new lease: nothing is wrong, so nothing may be stopped.
    world.pass(Duration::from_secs(4));
    let actions = world.tell(GateEvent::Ruled(SHORTER));
    assert_eq!(stop_code(&actions), None);
    assert!(actions.contains(&Action::LeaseMoved { until: world.now + SHORTER.lease }));
    let actions = world.pass(SHORTER.lease);
    assert_eq!(stop_code(&actions), Some(&Code::LeaseExpired));
}

#[test]
fn a_longer_lease_begins_with_the_next_allow() {
    let mut world = World::new(SHORTER);
    world.tell(GateEvent::Woke);
    world.finish(world.last_begun, allow());
    let held = world.gate.lease_until();
    world.tell(GateEvent::Ruled(RULES));
    assert_eq!(world.gate.lease_until(), held);
    world.finish(world.last_begun, allow());
    assert_eq!(world.gate.lease_until(), Some(world.begun[&world.last_begun] + RULES.lease));
}

#[test]
fn another_authority_is_registered_with_whatever_one_before_it_says_later() {
    let mut world = World::new(RULES);
    world.gate = Gate::new(RULES, false, First::AtOnce, 7, world.now);
    let registers = |actions: &[Action]| actions.iter().any(|it| matches!(it, Action::Begin { register: true, .. }));
    assert!(registers(&world.tell(GateEvent::Woke)));
    let old = world.last_begun;
    assert!(registers(&world.tell(GateEvent::AuthorityChanged { registered: false })));
    let new = world.last_begun;
    world.tell(GateEvent::Finished { attempt: old, registered: Registered::Yes, outcome: allow() });
    assert!(registers(&world.tell(GateEvent::Hinted)), "the old authority's word counted for the new one");
    world.tell(GateEvent::Finished { attempt: new, registered: Registered::Yes, outcome: allow() });
    assert!(!registers(&world.tell(GateEvent::Hinted)));
}

/// What an observer of one run records, to check the gate's invariants against it.
#[derive(Default)]
struct Ledger {
    asked: HashMap<u64, (BootTime, BootTime)>,
    /// Beginnings of attempts that answered ALLOW.
    allows: Vec<BootTime>,
    newest_decided: Option<AttemptId>,
    unavailable: bool,
    /// By the last ALLOW and the lease in force, when agents must be stopped at the latest.
    bound: Option<BootTime>,
    woke: Option<BootTime>,
}

impl Ledger {
    fn audit(&mut self, now: BootTime, actions: &[Action], world: &World) -> Result<(), TestCaseError> {
        prop_assert!(world.flying.len() <= MOST_IN_FLIGHT);
        for action in actions {
            match action {
                Action::Answer { asker, verdict } => {
                    let (asked, deadline) = self.asked.remove(&asker.0).expect("answered once, and only who asked");
                    prop_assert!(now <= deadline, "answered after the deadline");
                    if let GateVerdict::Allowed { grant, until } = verdict {
                        prop_assert!(grant.confirmed_at >= asked, "an answer from before the question");
                        prop_assert!(
                            self.allows.contains(&grant.confirmed_at),
                            "an ALLOW that the authority did not give"
                        );
                        prop_assert!(*until <= grant.confirmed_at + RULES.lease && now < *until);
                    }
                }
                Action::LeaseMoved { until } => {
                    prop_assert_eq!(world.gate.lease_until().unwrap_or(*until), *until);
                }
                Action::StopAgents { .. } => prop_assert_eq!(world.gate.lease_until(), None),
                Action::BecameUnavailable { .. } => {
                    prop_assert!(!std::mem::replace(&mut self.unavailable, true), "it was unavailable already");
                    let unavailable = matches!(world.gate.standing(), Standing::Unavailable { .. });
                    prop_assert!(unavailable);
                }
                Action::BecameAllowed => {
                    let allowed = matches!(world.gate.standing(), Standing::Allowed { .. });
                    prop_assert!(allowed);
                }
                Action::Begin { .. } | Action::Abandon { .. } => {}
            }
        }
        let unavailable = matches!(world.gate.standing(), Standing::Unavailable { .. });
        prop_assert!(!unavailable || self.unavailable, "agents were not told that their device cannot be asked about");
        self.unavailable = unavailable;
        if let Some(until) = world.gate.lease_until() {
            let grace = self.woke.filter(|woke| until <= *woke).map(|woke| woke + RULES.resume_grace);
            prop_assert!(now < grace.unwrap_or(until), "a lease outlived its end");
            prop_assert!(self.bound.is_some_and(|bound| until <= bound), "a lease longer than its ALLOW gave");
        }
        if let Standing::Allowed { grant, .. } = world.gate.standing() {
            prop_assert!(now < grant.confirmed_at + RULES.lease, "allowed beyond its lease");
            prop_assert!(world.gate.lease_until().is_some());
        }
        let late = self.asked.values().any(|(_, deadline)| *deadline <= now);
        prop_assert!(!late, "an asker was left waiting beyond its deadline");
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_rules_hold_whatever_happens(seed: u64, steps in steps()) {
        let mut world = World::with_seed(RULES, seed);
        let mut ledger = Ledger::default();
        let mut next_asker = 0;
        let actions = world.tell(GateEvent::Woke);
        ledger.audit(world.now, &actions, &world)?;
        for step in steps {
            match step {
                Step::Pass(millis) => {
                    let end = world.now + Duration::from_millis(millis);
                    while let Some(wake) = world.gate.next_wake().filter(|wake| *wake <= end) {
                        prop_assert!(wake > world.now, "the gate wants to be woken in the past");
                        world.now = wake;
                        let actions = world.tell(GateEvent::Woke);
                        ledger.audit(world.now, &actions, &world)?;
                    }
                    world.now = end;
                },
                Step::Ask { wait_ms, starts } => {
                    next_asker += 1;
                    let deadline = world.now + Duration::from_millis(wait_ms);
                    let purpose = if starts { AskPurpose::Start } else { AskPurpose::Check };
                    ledger.asked.insert(next_asker, (world.now, deadline));
                    let actions = world.tell(GateEvent::Asked { asker: AskerId(next_asker), deadline, purpose });
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::Finish { which, outcome } => {
                    let Some(attempt) = world.flying.get(which).copied() else { continue };
                    let outcome = match outcome {
                        0 | 1 => allow(),
                        2 => deny(Code::DeviceRevoked),
                        3 => deny(Code::SystemUnavailable),
                        _ => no_answer(),
                    };
                    let allowed = outcome == allow();
                    if allowed {
                        ledger.allows.push(world.begun[&attempt]);
                        let until = world.begun[&attempt] + world.gate.rules().lease;
                        ledger.bound = ledger.bound.max(Some(until));
                    }
                    let expired = allowed && world.begun[&attempt] + world.gate.rules().lease <= world.now;
                    let overtaken = ledger.newest_decided.is_some_and(|newest| newest > attempt);
                    if !matches!(outcome, AttemptOutcome::NoAnswer { .. }) && !expired {
                        ledger.newest_decided = ledger.newest_decided.max(Some(attempt));
                    }
                    let before = world.gate.standing().clone();
                    let denied = matches!(outcome, AttemptOutcome::Decided(Decision::Deny(_)));
                    let actions = world.finish(attempt, outcome);
                    if allowed && overtaken && !expired {
                        prop_assert_eq!(&before, world.gate.standing(), "an older ALLOW won");
                    }
                    if denied {
                        let stopped = matches!(world.gate.standing(), Standing::Denied { .. });
                        prop_assert!(stopped, "a deny did not count");
                        prop_assert!(stop_code(&actions).is_some());
                    }
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::Sleep(millis) => {
                    world.now = world.now + Duration::from_millis(millis);
                    ledger.woke = Some(world.now);
                    // No asker could be answered meanwhile.
                    ledger.asked.values_mut().for_each(|(_, deadline)| *deadline = (*deadline).max(world.now));
                    let actions = world.tell(GateEvent::Resumed);
                    prop_assert_eq!(begins(&actions), 1, "it validates on waking");
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::Hint => {
                    let actions = world.tell(GateEvent::Hinted);
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::Rule(rules) => {
                    let newest = world.now + rules.lease;
                    ledger.bound = ledger.bound.map(|bound| bound.min(newest));
                    let actions = world.tell(GateEvent::Ruled(rules));
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::ChangeAuthority(registered) => {
                    let actions = world.tell(GateEvent::AuthorityChanged { registered });
                    ledger.audit(world.now, &actions, &world)?;
                },
                Step::Agents(count) => {
                    let actions = world.tell(GateEvent::Agents(count));
                    ledger.audit(world.now, &actions, &world)?;
                },
            }
        }
    }

    #[test]
    fn validations_begin_within_every_interval_and_its_jitter(seed: u64) {
        let mut world = World::with_seed(RULES, seed);
        world.tell(GateEvent::Woke);
        let mut last = world.now;
        for round in 0..40 {
            let attempt = world.last_begun;
            world.finish(attempt, allow());
            let began = world.last_begun;
            while world.last_begun == began {
                world.now = world.gate.next_wake().expect("a next validation");
                world.tell(GateEvent::Woke);
            }
            let gap = world.now.saturating_since(last);
            prop_assert!(gap <= RULES.interval + Duration::from_millis(1), "{gap:?}");
            prop_assert!(round == 0 || gap + Duration::from_millis(1) >= RULES.interval.mul_f64(0.9), "{gap:?}");
            last = world.now;
        }
    }
}
