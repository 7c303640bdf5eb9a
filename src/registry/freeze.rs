//! Decides whether a run is frozen. Pure: it is told what the gates of the run's devices know, and freezes nothing itself.
//!
//! With `enforcement.undecided = "freeze"` an agent is frozen while one of the devices that rule it cannot be validated. An
//! agent whose lease ended during a suspend is frozen in any case, until an ALLOW or the end of `resume_grace`. A user may
//! let it continue ([`Undecided::let_off`]): that holds until a device becomes unavailable again, or the machine is suspended
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;

use machineid_clock::BootTime;
use machineid_protocol::DeviceId;

/// The reasons why a run is undecided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// The devices that rule the run and cannot be validated, each with the cause.
    unavailable: BTreeMap<DeviceId, Arc<str>>,
    /// Set when the lease ended during a suspend.
    overslept: Option<Overslept>,
    let_off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Overslept {
    woke: BootTime,
    /// The end of the grace for a new ALLOW.
    grace_until: BootTime,
}

impl Undecided {
    /// Notes that the newest attempt to validate this device brought no answer.
    pub(crate) fn unavailable(&mut self, device: &DeviceId, cause: &Arc<str>) {
        if self.unavailable.insert(device.clone(), Arc::clone(cause)).is_none() {
            self.let_off = false;
        }
    }

    /// Notes that the device is allowed again.
    pub(crate) fn allowed(&mut self, device: &DeviceId) {
        self.unavailable.remove(device);
    }

    /// Notes that the machine woke at `woke`, after the end of the lease. An ALLOW may still come until `grace_until`.
    pub(crate) fn overslept(&mut self, woke: BootTime, grace_until: BootTime) {
        self.overslept = Some(Overslept { woke, grace_until });
        self.let_off = false;
    }

    /// Notes the run's new deadline. It lies after the waking only when every device was allowed since.
    pub(crate) fn lease_moved(&mut self, deadline: Option<BootTime>) {
        self.overslept = self.overslept.filter(|slept| deadline.is_none_or(|deadline| deadline <= slept.woke));
    }

    /// The end of the grace for a lease that ended during a suspend.
    pub(crate) fn grace_until(&self) -> Option<BootTime> {
        self.overslept.map(|slept| slept.grace_until)
    }

    /// Lets the run continue until a device becomes unavailable again.
    pub(crate) fn let_off(&mut self) {
        self.let_off = true;
    }

    /// Whether the run must be frozen. `while_unavailable`: also while a device cannot be validated.
    pub(crate) fn freezes(&self, while_unavailable: bool) -> bool {
        let unavailable = while_unavailable && !self.unavailable.is_empty();
        (unavailable || self.overslept.is_some()) && !self.let_off
    }

    /// The cause why one of the devices cannot be validated.
    pub(crate) fn cause(&self) -> Option<&Arc<str>> {
        self.unavailable.values().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Unavailable(usize),
        Allowed(usize),
        LetOff,
    }

    #[test]
    fn a_lease_that_ended_in_the_machines_sleep_freezes_until_it_is_renewed() {
        let at = |seconds: u64| Some(BootTime::from_millis(1000 * seconds));
        let (woke, grace_until) = (BootTime::from_millis(100_000), BootTime::from_millis(103_000));
        let mut undecided = Undecided::default();
        undecided.overslept(woke, grace_until);
        assert!(undecided.freezes(false) && undecided.grace_until() == Some(grace_until));
        undecided.lease_moved(at(90));
        assert!(undecided.freezes(false), "of two devices one was allowed");
        undecided.let_off();
        assert!(!undecided.freezes(false) && undecided.grace_until() == Some(grace_until));
        undecided.overslept(woke, grace_until);
        assert!(undecided.freezes(false), "it slept again");
        undecided.lease_moved(at(130));
        assert!(!undecided.freezes(true) && undecided.grace_until().is_none());
    }

    fn device(at: usize) -> DeviceId {
        format!("device:{at}").parse().unwrap()
    }

    fn tell(undecided: &mut Undecided, event: Event) {
        match event {
            Event::Unavailable(at) => undecided.unavailable(&device(at), &Arc::from("no answer")),
            Event::Allowed(at) => undecided.allowed(&device(at)),
            Event::LetOff => undecided.let_off(),
        }
    }

    fn told(events: Vec<Event>) -> Undecided {
        let mut undecided = Undecided::default();
        for event in events {
            tell(&mut undecided, event);
        }
        undecided
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => (0_usize..2).prop_map(Event::Unavailable),
            3 => (0_usize..2).prop_map(Event::Allowed),
            1 => Just(Event::LetOff),
        ];
        proptest::collection::vec(event, 0..40)
    }

    proptest! {
        #[test]
        fn nothing_is_frozen_while_every_device_is_decided(events in events()) {
            let mut undecided = told(events);
            tell(&mut undecided, Event::Allowed(0));
            tell(&mut undecided, Event::Allowed(1));
            prop_assert!(!undecided.freezes(true));
        }

        #[test]
        fn a_device_that_becomes_unavailable_freezes_whatever_was_let_off_before(events in events()) {
            let mut undecided = told(events);
            tell(&mut undecided, Event::Allowed(0));
            tell(&mut undecided, Event::Unavailable(0));
            prop_assert!(undecided.freezes(true));
        }

        #[test]
        fn one_that_was_let_off_stays_so_until_a_device_becomes_unavailable_anew(events in events(), again in 1_usize..5) {
            let mut undecided = told(events);
            tell(&mut undecided, Event::Unavailable(0));
            tell(&mut undecided, Event::Unavailable(1));
            tell(&mut undecided, Event::LetOff);
            for _ in 0..again {
                tell(&mut undecided, Event::Unavailable(0));
                prop_assert!(!undecided.freezes(true), "another failure is not a new one");
            }
        }
    }
}
