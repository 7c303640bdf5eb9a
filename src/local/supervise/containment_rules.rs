//! Which containment a run gets. Pure: it is told what was asked for, what is required and what was found.

use std::fmt::Display;

use machineid_protocol::{Code, Containment, Wish};

use super::StartRefusal;

/// What a run's containment must satisfy.
#[derive(Clone, Copy, Debug)]
pub(super) struct WantedContainment {
    /// What the wrapper asks for.
    pub(super) wish: Wish,
    /// `enforcement.containment`: named, nothing weaker.
    pub(super) floor: Wish,
    /// `enforcement.undecided = "freeze"`: it must be one that can be frozen.
    pub(super) freezable: bool,
}

/// What was found about the tree before anything was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundContainment {
    /// Its first process is that of a PID namespace of its own.
    Namespace,
    /// Its leader is in a control group of its own.
    Leaf,
    /// Neither.
    Nothing,
    /// It cannot be seen from here.
    Unseen,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainmentAction {
    /// Take what was found.
    Take,
    /// Make a control group; where that fails, `or` else nothing.
    Make { or: Option<Containment> },
    /// Its supervisors alone hold it.
    Loose,
}

impl WantedContainment {
    /// Decides, or says what cannot be had and how it could be.
    pub(super) fn decide(self, found: FoundContainment) -> Result<ContainmentAction, StartRefusal> {
        match (found, self.wish) {
            (FoundContainment::Unseen, _) => self.unseen(),
            (FoundContainment::Namespace, _) if self.freezable => Err(no(FREEZE_NEEDS_A_LEAF)),
            (FoundContainment::Namespace | FoundContainment::Leaf, _) => Ok(ContainmentAction::Take),
            (FoundContainment::Nothing, Wish::Named(Containment::Pidns)) => {
                Err(no("containment pidns was asked for, but the agent is in no PID namespace of its own"))
            }
            (FoundContainment::Nothing, Wish::Named(Containment::Subreaper)) => {
                self.satisfied_by(Containment::Subreaper)?;
                if self.freezable { Err(no(FREEZE_NEEDS_A_LEAF)) } else { Ok(ContainmentAction::Loose) }
            }
            (FoundContainment::Nothing, Wish::Named(Containment::Cgroup)) => Ok(ContainmentAction::Make { or: None }),
            (FoundContainment::Nothing, Wish::Auto) => {
                let may_be_loose = self.satisfied_by(Containment::Subreaper).is_ok() && !self.freezable;
                Ok(ContainmentAction::Make { or: may_be_loose.then_some(Containment::Subreaper) })
            }
        }
    }

    /// What holds an agent that the wrapper alone ends is its own word; a floor holds for that as well.
    fn unseen(self) -> Result<ContainmentAction, StartRefusal> {
        if self.freezable {
            return Err(no(
                "enforcement.undecided is \"freeze\", and the daemon cannot freeze an agent that it cannot see; run it \
                 beside the daemon, or set it to \"run\"",
            ));
        }
        self.satisfied_by(self.claimed())?;
        Ok(ContainmentAction::Take)
    }

    /// What an unseen wrapper says it has.
    pub(super) fn claimed(self) -> Containment {
        match self.wish {
            Wish::Auto => Containment::Subreaper,
            Wish::Named(containment) => containment,
        }
    }

    fn satisfied_by(self, containment: Containment) -> Result<(), StartRefusal> {
        match self.floor {
            Wish::Named(floor) if !containment.satisfies(floor) => Err(no(&format!(
                "this host's configuration (enforcement.containment) asks for {floor}, and {containment} is weaker; start \
                 it with --containment cgroup or pidns"
            ))),
            Wish::Auto | Wish::Named(_) => Ok(()),
        }
    }

    /// No control group could be made, and nothing else will do.
    pub(super) fn refuse_without_leaf(self, why: &dyn Display) -> StartRefusal {
        let who = match (self.wish, self.floor) {
            (Wish::Named(wish), _) => format!("containment {wish} was asked for"),
            (Wish::Auto, Wish::Named(floor)) if !Containment::Subreaper.satisfies(floor) => {
                format!("this host's configuration (enforcement.containment) asks for {floor}")
            }
            (Wish::Auto, Wish::Auto | Wish::Named(_)) => {
                "this host's configuration (enforcement.undecided = \"freeze\") needs a control group".to_owned()
            }
        };
        no(&format!("{who}, and the daemon can make none: {why}"))
    }
}

const FREEZE_NEEDS_A_LEAF: &str = "enforcement.undecided is \"freeze\", for which an agent needs a control group; start it \
                                   with --containment cgroup, or set that to \"run\"";

fn no(reason: &str) -> StartRefusal {
    StartRefusal::new(Code::BadRequest, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Containment::{Cgroup, Pidns, Subreaper};

    const WISHES: [Wish; 4] = [Wish::Auto, Wish::Named(Subreaper), Wish::Named(Cgroup), Wish::Named(Pidns)];

    fn decided(wish: Wish, floor: Wish, freezable: bool, found: FoundContainment) -> Result<ContainmentAction, String> {
        WantedContainment { wish, floor, freezable }.decide(found).map_err(|no| no.reason)
    }

    #[test]
    fn auto_takes_the_best_and_a_name_nothing_weaker() {
        let at = |wish, found| decided(wish, Wish::Auto, false, found);
        assert_eq!(at(Wish::Auto, FoundContainment::Nothing), Ok(ContainmentAction::Make { or: Some(Subreaper) }));
        assert_eq!(at(Wish::Named(Cgroup), FoundContainment::Nothing), Ok(ContainmentAction::Make { or: None }));
        assert_eq!(at(Wish::Named(Subreaper), FoundContainment::Nothing), Ok(ContainmentAction::Loose));
        assert!(at(Wish::Named(Pidns), FoundContainment::Nothing).unwrap_err().contains("PID namespace"));
        for wish in WISHES {
            assert_eq!(at(wish, FoundContainment::Leaf), Ok(ContainmentAction::Take));
            assert_eq!(at(wish, FoundContainment::Namespace), Ok(ContainmentAction::Take));
        }
    }

    #[test]
    fn nothing_below_a_floor_starts() {
        for floor in [Cgroup, Pidns] {
            let at = |wish, found| decided(wish, Wish::Named(floor), false, found);
            assert_eq!(at(Wish::Auto, FoundContainment::Nothing), Ok(ContainmentAction::Make { or: None }));
            let error = at(Wish::Named(Subreaper), FoundContainment::Nothing).unwrap_err();
            assert!(error.contains("enforcement.containment") && error.contains("weaker"), "{error}");
            assert!(at(Wish::Auto, FoundContainment::Unseen).is_err());
            assert!(at(Wish::Named(Subreaper), FoundContainment::Unseen).is_err());
            assert_eq!(at(Wish::Named(Cgroup), FoundContainment::Unseen), Ok(ContainmentAction::Take));
        }
        let loose = decided(Wish::Named(Subreaper), Wish::Named(Subreaper), false, FoundContainment::Nothing);
        assert_eq!(loose, Ok(ContainmentAction::Loose));
    }

    #[test]
    fn what_must_be_frozen_has_a_control_group_whatever_is_asked_for() {
        for wish in WISHES {
            for found in [FoundContainment::Nothing, FoundContainment::Namespace, FoundContainment::Unseen] {
                match decided(wish, Wish::Auto, true, found) {
                    Ok(action) => assert_eq!(action, ContainmentAction::Make { or: None }, "{wish} {found:?}"),
                    Err(reason) => assert!(reason.contains("freeze") || reason.contains("pidns"), "{reason}"),
                }
            }
            assert_eq!(decided(wish, Wish::Auto, true, FoundContainment::Leaf), Ok(ContainmentAction::Take));
        }
    }

    #[test]
    fn a_refusal_names_who_asks_and_why_it_cannot_be_had() {
        for (wish, floor, needle) in [
            (Wish::Named(Cgroup), Wish::Auto, "containment cgroup was asked for"),
            (Wish::Auto, Wish::Named(Cgroup), "enforcement.containment"),
            (Wish::Auto, Wish::Named(Subreaper), "enforcement.undecided"),
        ] {
            let no = WantedContainment { wish, floor, freezable: true }.refuse_without_leaf(&"read-only");
            assert!(no.reason.contains(needle) && no.reason.contains("read-only"), "{}", no.reason);
        }
    }
}
