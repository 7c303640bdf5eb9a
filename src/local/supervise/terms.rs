//! Which containment a run gets. Pure: it is told what was asked for, what is required and what was found.

use machineid_protocol::{Code, Containment, Wish};

use super::No;

/// What a run's containment must satisfy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// What the wrapper asks for.
    pub(super) wish: Wish,
    /// `enforcement.containment`: named, nothing weaker.
    pub(super) floor: Wish,
    /// `enforcement.undecided = "freeze"`: it must be one that can be frozen.
    pub(super) freezable: bool,
}

/// What was found about the tree before anything was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
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
pub(super) enum Plan {
    /// Take what was found.
    Take,
    /// Make a control group; where that fails, `or` else nothing.
    Make { or: Option<Containment> },
    /// Its supervisors alone hold it.
    Loose,
}

impl Wanted {
    /// Decides, or says what cannot be had and how it could be.
    pub(super) fn plan(self, found: Found) -> Result<Plan, No> {
        match (found, self.wish) {
            (Found::Unseen, _) => self.unseen(),
            (Found::Namespace, _) if self.freezable => Err(no(FREEZE_NEEDS_A_LEAF)),
            (Found::Namespace | Found::Leaf, _) => Ok(Plan::Take),
            (Found::Nothing, Wish::Named(Containment::Pidns)) => {
                Err(no("containment pidns was asked for, but the agent is in no PID namespace of its own"))
            }
            (Found::Nothing, Wish::Named(Containment::Subreaper)) => {
                self.satisfied_by(Containment::Subreaper)?;
                if self.freezable { Err(no(FREEZE_NEEDS_A_LEAF)) } else { Ok(Plan::Loose) }
            }
            (Found::Nothing, Wish::Named(Containment::Cgroup)) => Ok(Plan::Make { or: None }),
            (Found::Nothing, Wish::Auto) => {
                let may_be_loose = self.satisfied_by(Containment::Subreaper).is_ok() && !self.freezable;
                Ok(Plan::Make { or: may_be_loose.then_some(Containment::Subreaper) })
            }
        }
    }

    /// What holds an agent that the wrapper alone ends is its own word; a floor holds for that as well.
    fn unseen(self) -> Result<Plan, No> {
        if self.freezable {
            return Err(no(
                "enforcement.undecided is \"freeze\", and the daemon cannot freeze an agent that it cannot see; run it \
                 beside the daemon, or set it to \"run\"",
            ));
        }
        self.satisfied_by(self.claimed())?;
        Ok(Plan::Take)
    }

    /// What an unseen wrapper says it has.
    pub(super) fn claimed(self) -> Containment {
        match self.wish {
            Wish::Auto => Containment::Subreaper,
            Wish::Named(containment) => containment,
        }
    }

    fn satisfied_by(self, containment: Containment) -> Result<(), No> {
        match self.floor {
            Wish::Named(floor) if !containment.satisfies(floor) => Err(no(&format!(
                "this host's configuration (enforcement.containment) asks for {floor}, and {containment} is weaker; start \
                 it with --containment cgroup or pidns"
            ))),
            Wish::Auto | Wish::Named(_) => Ok(()),
        }
    }

    /// No control group could be made, and nothing else will do.
    pub(super) fn refuse_without_leaf(self, why: &str) -> No {
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

fn no(reason: &str) -> No {
    No::new(Code::BadRequest, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Containment::{Cgroup, Pidns, Subreaper};

    const WISHES: [Wish; 4] = [Wish::Auto, Wish::Named(Subreaper), Wish::Named(Cgroup), Wish::Named(Pidns)];

    fn plan(wish: Wish, floor: Wish, freezable: bool, found: Found) -> Result<Plan, String> {
        Wanted { wish, floor, freezable }.plan(found).map_err(|no| no.reason)
    }

    #[test]
    fn auto_takes_the_best_and_a_name_nothing_weaker() {
        let at = |wish, found| plan(wish, Wish::Auto, false, found);
        assert_eq!(at(Wish::Auto, Found::Nothing), Ok(Plan::Make { or: Some(Subreaper) }));
        assert_eq!(at(Wish::Named(Cgroup), Found::Nothing), Ok(Plan::Make { or: None }));
        assert_eq!(at(Wish::Named(Subreaper), Found::Nothing), Ok(Plan::Loose));
        assert!(at(Wish::Named(Pidns), Found::Nothing).unwrap_err().contains("PID namespace"));
        for wish in WISHES {
            assert_eq!(at(wish, Found::Leaf), Ok(Plan::Take));
            assert_eq!(at(wish, Found::Namespace), Ok(Plan::Take));
        }
    }

    #[test]
    fn nothing_below_a_floor_starts() {
        for floor in [Cgroup, Pidns] {
            let at = |wish, found| plan(wish, Wish::Named(floor), false, found);
            assert_eq!(at(Wish::Auto, Found::Nothing), Ok(Plan::Make { or: None }));
            let error = at(Wish::Named(Subreaper), Found::Nothing).unwrap_err();
            assert!(error.contains("enforcement.containment") && error.contains("weaker"), "{error}");
            assert!(at(Wish::Auto, Found::Unseen).is_err());
            assert!(at(Wish::Named(Subreaper), Found::Unseen).is_err());
            assert_eq!(at(Wish::Named(Cgroup), Found::Unseen), Ok(Plan::Take));
        }
        let loose = plan(Wish::Named(Subreaper), Wish::Named(Subreaper), false, Found::Nothing);
        assert_eq!(loose, Ok(Plan::Loose));
    }

    #[test]
    fn what_must_be_frozen_has_a_control_group_whatever_is_asked_for() {
        for wish in WISHES {
            for found in [Found::Nothing, Found::Namespace, Found::Unseen] {
                match plan(wish, Wish::Auto, true, found) {
                    Ok(plan) => assert_eq!(plan, Plan::Make { or: None }, "{wish} {found:?}"),
                    Err(reason) => assert!(reason.contains("freeze") || reason.contains("pidns"), "{reason}"),
                }
            }
            assert_eq!(plan(wish, Wish::Auto, true, Found::Leaf), Ok(Plan::Take));
        }
    }

    #[test]
    fn a_refusal_names_who_asks_and_why_it_cannot_be_had() {
        for (wish, floor, needle) in [
            (Wish::Named(Cgroup), Wish::Auto, "containment cgroup was asked for"),
            (Wish::Auto, Wish::Named(Cgroup), "enforcement.containment"),
            (Wish::Auto, Wish::Named(Subreaper), "enforcement.undecided"),
        ] {
            let no = Wanted { wish, floor, freezable: true }.refuse_without_leaf("read-only");
            assert!(no.reason.contains(needle) && no.reason.contains("read-only"), "{}", no.reason);
        }
    }
}
