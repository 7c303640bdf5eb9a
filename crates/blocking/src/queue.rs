//! Which call runs next: fair between users, and bounded for each of them and for all.

use std::collections::VecDeque;
use std::time::Duration;

use machineid_clock::BootTime;

/// A call that has run for this long counts as hanging: others need not wait for it.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// The user for whom a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOwner {
    uid: u32,
    /// Root and the daemon's own user: the limits for users do not apply to them.
    privileged: bool,
}

impl CallOwner {
    /// The daemon itself.
    pub const DAEMON: Self = Self { uid: 0, privileged: true };

    /// A user with this id. A privileged user is not limited.
    #[must_use]
    pub const fn user(uid: u32, privileged: bool) -> Self {
        Self { uid, privileged }
    }
}

/// The limits of calls that run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most calls at a time, without those that are overdue.
    pub at_a_time: usize,
    /// The most calls with those that are overdue: the most threads.
    pub most: usize,
}

impl Bounds {
    /// The most calls of one unprivileged owner: a quarter is left to others.
    const fn of_one(&self) -> usize {
        self.at_a_time - self.at_a_time / 4
    }

    /// The most calls of all unprivileged owners together: a quarter is kept for an operator.
    const fn of_the_unprivileged(&self) -> usize {
        self.most - self.most / 4
    }
}

/// One call that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningId(u64);

#[derive(Debug)]
struct Running {
    id: RunningId,
    owner: CallOwner,
    began: BootTime,
}

/// The calls that wait and those that run. `J` is a call.
#[derive(Debug)]
pub(super) struct Queue<J> {
    bounds: Bounds,
    /// The waiting calls of each owner; the owner whose turn is next comes first.
    waiting: VecDeque<(CallOwner, VecDeque<J>)>,
    running: Vec<Running>,
    next: u64,
}

impl<J> Queue<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: VecDeque::new(), running: Vec::new(), next: 0 }
    }

    /// Adds a call, behind those of the same owner.
    pub(super) fn push(&mut self, owner: CallOwner, call: J) {
        match self.waiting.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, calls)) => calls.push_back(call),
            None => self.waiting.push_back((owner, VecDeque::from([call]))),
        }
    }

    /// Forgets the calls that no caller waits for.
    pub(super) fn keep(&mut self, wanted: impl Fn(&J) -> bool) {
        for (_, calls) in &mut self.waiting {
            calls.retain(&wanted);
        }
        self.waiting.retain(|(_, calls)| !calls.is_empty());
    }

    /// How many calls run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How many calls may begin now at most; an owner's own limit may allow fewer.
    pub(super) fn may_begin(&self, now: BootTime) -> usize {
        if self.next_owner(now).is_none() {
            return 0;
        }
        let waiting = self.waiting.iter().map(|(_, calls)| calls.len()).sum::<usize>();
        let left = self.bounds.at_a_time.saturating_sub(self.in_time(now));
        waiting.min(left).min(self.bounds.most.saturating_sub(self.running.len()))
    }

    /// How many calls run and are not overdue.
    fn in_time(&self, now: BootTime) -> usize {
        self.running.iter().filter(|running| now < running.began + OVERDUE).count()
    }

    /// Takes the call to run now, if one may run. The owner with the fewest running calls is next, and equals take
    /// turns.
    pub(super) fn begin(&mut self, now: BootTime) -> Option<(RunningId, J)> {
        let place = self.next_owner(now)?;
        let (owner, mut calls) = self.waiting.remove(place)?;
        let call = calls.pop_front()?;
        if !calls.is_empty() {
            self.waiting.push_back((owner, calls));
        }
        let id = RunningId(self.next);
        self.next += 1;
        self.running.push(Running { id, owner, began: now });
        Some((id, call))
    }

    /// Takes note that a call has returned.
    pub(super) fn end(&mut self, id: RunningId) {
        self.running.retain(|running| running.id != id);
    }

    fn next_owner(&self, now: BootTime) -> Option<usize> {
        if self.in_time(now) >= self.bounds.at_a_time || self.running.len() >= self.bounds.most {
            return None;
        }
        let unprivileged = self.running.iter().filter(|running| !running.owner.privileged).count();
        let of = |owner: &CallOwner| self.running.iter().filter(|running| running.owner == *owner).count();
        let may = |owner: &CallOwner| {
            owner.privileged || (of(owner) < self.bounds.of_one() && unprivileged < self.bounds.of_the_unprivileged())
        };
        let owners = self.waiting.iter().enumerate().filter(|(_, (owner, _))| may(owner));
        // The first of the owners with the fewest.
        owners.min_by_key(|(_, (owner, _))| of(owner)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { at_a_time: 4, most: 16 };

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    fn user(uid: u32) -> CallOwner {
        CallOwner::user(uid, false)
    }

    fn begin_all(queue: &mut Queue<u32>, now: BootTime) -> Vec<(RunningId, u32)> {
        std::iter::from_fn(|| queue.begin(now)).collect()
    }

    #[test]
    fn users_take_turns_however_many_calls_one_has() {
        let mut queue = Queue::new(BOUNDS);
        (0..100).for_each(|call| queue.push(user(1), call));
        let first = begin_all(&mut queue, at(0));
        assert_eq!(first.len(), 3, "one user leaves a place to others");
        queue.push(user(2), 1000);
        queue.push(user(3), 2000);
        assert_eq!(begin_all(&mut queue, at(0)).iter().map(|(_, call)| *call).collect::<Vec<_>>(), [1000]);
        queue.end(first[0].0);
        assert_eq!(queue.begin(at(0)).unwrap().1, 2000, "before the 97 that came before it");
        queue.end(first[1].0);
        assert_eq!(queue.begin(at(0)).unwrap().1, 3, "then in order");
    }

    #[test]
    fn calls_that_hang_delay_no_other_user_and_are_bounded() {
        let mut queue = Queue::new(BOUNDS);
        (0..100).for_each(|call| queue.push(user(1), call));
        assert_eq!(begin_all(&mut queue, at(0)).len(), 3);
        assert!(begin_all(&mut queue, at(5_000)).is_empty(), "the user's own wait for them");
        for uid in 2..100 {
            queue.push(user(uid), uid);
        }
        let hanging = (0..10).map(|round| begin_all(&mut queue, at(10_000 * round)).len()).sum::<usize>();
        assert_eq!(3 + hanging, 12, "all users together leave room for an operator");
        queue.push(CallOwner::DAEMON, 7);
        assert_eq!(queue.begin(at(200_000)).unwrap().1, 7);
    }

    #[test]
    fn calls_without_a_waiter_are_forgotten() {
        let mut queue = Queue::new(BOUNDS);
        (0..10).for_each(|call| queue.push(user(call), call));
        queue.keep(|call| *call == 9);
        assert_eq!(begin_all(&mut queue, at(0)).len(), 1);
        assert!(queue.waiting.is_empty());
    }

    proptest! {
        #[test]
        fn bounds_hold_and_no_call_is_lost(steps in prop::collection::vec((0_u8..3, 0_u32..5, 0_u64..3_000), 1..200)) {
            let mut queue = Queue::new(BOUNDS);
            let (mut now, mut pushed, mut begun, mut running) = (0, 0, 0, Vec::new());
            for (step, uid, passes) in steps {
                now += passes;
                match step {
                    0 => {
                        queue.push(CallOwner::user(uid, uid == 0), pushed);
                        pushed += 1;
                    }
                    1 => {
                        if let Some((id, _)) = queue.begin(at(now)) {
                            begun += 1;
                            running.push((id, now));
                        }
                    }
                    _ => if !running.is_empty() {
                        queue.end(running.remove(0).0);
                    }
                }
                let in_time = running.iter().filter(|(_, began)| now < began + 1_000).count();
                prop_assert!(in_time <= BOUNDS.at_a_time && running.len() <= BOUNDS.most);
            }
            for (id, _) in running {
                queue.end(id);
            }
            while let Some((id, _)) = queue.begin(at(now)) {
                begun += 1;
                queue.end(id);
            }
            prop_assert_eq!(begun, pushed);
        }
    }
}
