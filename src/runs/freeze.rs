//! Whether a run is to be frozen. Pure: it is told what its devices' gates hold, and freezes nothing.
//!
//! With `enforcement.undecided = "freeze"` an agent halts while one of the devices that rule it cannot be asked about. A
//! user may let it run on ([`Undecided::let_off`]): that holds until a device becomes unavailable anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::DeviceId;

/// What keeps a run undecided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// The devices that rule the run and cannot be asked about, each with the cause.
    unavailable: BTreeMap<DeviceId, Arc<str>>,
    let_off: bool,
}

impl Undecided {
    /// The newest attempt to ask about this device brought no answer.
    pub(crate) fn unavailable(&mut self, device: &DeviceId, cause: &Arc<str>) {
        if self.unavailable.insert(device.clone(), Arc::clone(cause)).is_none() {
            self.let_off = false;
        }
    }

    /// The device was allowed again.
    pub(crate) fn allowed(&mut self, device: &DeviceId) {
        self.unavailable.remove(device);
    }

    /// Lets the run go on until a device becomes unavailable anew.
    pub(crate) fn let_off(&mut self) {
        self.let_off = true;
    }

    /// Whether the run is to be frozen, where that is what undecided means.
    pub(crate) fn freezes(&self) -> bool {
        !self.unavailable.is_empty() && !self.let_off
    }

    /// Why one of the devices cannot be asked about.
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
            prop_assert!(!undecided.freezes());
        }

        #[test]
        fn a_device_that_becomes_unavailable_freezes_whatever_was_let_off_before(events in events()) {
            let mut undecided = told(events);
            tell(&mut undecided, Event::Allowed(0));
            tell(&mut undecided, Event::Unavailable(0));
            prop_assert!(undecided.freezes());
        }

        #[test]
        fn one_that_was_let_off_stays_so_until_a_device_becomes_unavailable_anew(events in events(), again in 1_usize..5) {
            let mut undecided = told(events);
            tell(&mut undecided, Event::Unavailable(0));
            tell(&mut undecided, Event::Unavailable(1));
            tell(&mut undecided, Event::LetOff);
            for _ in 0..again {
                tell(&mut undecided, Event::Unavailable(0));
                prop_assert!(!undecided.freezes(), "another failure is not a new one");
            }
        }
    }
}
