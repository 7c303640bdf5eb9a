//! Decides which containment a run gets. Pure: it is told what was requested, what the configuration requires and what was
//! found.

use std::fmt::Display;

use machineid_protocol::{Code, Containment, Wish};

use super::StartRefusal;

/// The demands on a run's containment.
#[derive(Clone, Copy, Debug)]
pub(super) struct WantedContainment {
    /// What the wrapper requests.
    pub(super) wish: Wish,
    /// `enforcement.containment`: if named, nothing weaker is accepted.
    pub(super) floor: Wish,
    /// Set by `enforcement.undecided = "freeze"`: the containment must be one that can be frozen.
    pub(super) freezable: bool,
}

/// The containment that the tree had before the daemon made any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundContainment {
    /// A PID namespace of its own.
    Namespace,
    /// A control group of its own.
    Leaf,
    /// Neither.
    Nothing,
    /// The daemon cannot see the tree.
    Unseen,
}

/// What the daemon does about the containment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainmentAction {
    /// Use what was found.
    Take,
    /// Make a control group; if that fails, use `or`, or refuse if there is none.
    Make { or: Option<Containment> },
    /// Leave the tree with its supervisors only.
    Loose,
}

impl WantedContainment {
    /// Decides, or says which demand cannot be met and what to do.
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

    /// Decides for a tree that only the wrapper can end: its containment is the wrapper's claim, and the configured minimum
    /// applies to that as well.
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

    /// The containment that an unseen wrapper claims.
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

    /// The refusal when no control group could be made and nothing else satisfies the demands.
    pub(super) fn refuse_without_leaf(self, why: &dyn Display) -> StartRefusal {
        let demand = match (self.wish, self.floor) {
            (Wish::Named(wish), _) => format!("containment {wish} was asked for"),
            (Wish::Auto, Wish::Named(floor)) if !Containment::Subreaper.satisfies(floor) => {
                format!("this host's configuration (enforcement.containment) asks for {floor}")
            }
            (Wish::Auto, Wish::Auto | Wish::Named(_)) => {
                "this host's configuration (enforcement.undecided = \"freeze\") needs a control group".to_owned()
            }
        };
        let other = match (self.wish, self.freezable) {
            // What the operator demands, a PID namespace satisfies as well; the reason is the control group's.
            (Wish::Auto, false) => "; or start it in a PID namespace: --containment pidns",
            (Wish::Auto | Wish::Named(_), _) => "",
        };
        no(&format!("{demand}, and the daemon can make no control group: {why}{other}"))
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
            assert!(no.reason.contains(needle) && no.reason.contains("no control group: read-only"), "{}", no.reason);
        }
        let demanded = WantedContainment { wish: Wish::Auto, floor: Wish::Named(Pidns), freezable: false };
        let no = demanded.refuse_without_leaf(&"read-only").reason;
        assert!(
            no.contains("no control group: read-only; or start it in a PID namespace: --containment pidns"),
            "{no}"
        );
    }
}
