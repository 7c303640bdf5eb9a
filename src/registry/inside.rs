//! Finds the runs whose trees a process is in. Pure: takes the ancestors of the process.
//!
//! The rules are those of [`Tree`](machineid_tree::Tree): descendants of the leader or of the guardian belong to the tree,
//! and so do the processes that the wrapper inherits once the guardian is gone. A wrapper may hold several runs, such as a
//! program that supervises its children itself. Such a wrapper among the ancestors does not decide the run: the process is in
//! the tree through which it descends from the wrapper, and not in the sibling trees. The wrapper itself is in no tree of its
//! own runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use machineid_tree::Identity;

use super::run::Run;

/// The processes that a run is known by.
pub(super) trait Tied {
    fn leader(&self) -> Option<Identity>;
    fn wrapper(&self) -> Option<Identity>;
    fn guardian(&self) -> Option<Identity>;
    /// Whether the guardian is alive and inherits the tree's orphans.
    fn has_living_guardian(&self) -> bool;
    /// Whether the wrapper stated that all its children belong to the tree.
    fn is_alone(&self) -> bool;
    /// Whether the tree has ended: then no orphan belongs to it.
    fn has_tree_ended(&self) -> bool;
    /// The directory of its control group.
    fn leaf(&self) -> Option<&Path>;
}

impl Tied for Arc<Run> {
    fn leader(&self) -> Option<Identity> {
        Run::leader(self)
    }

    fn wrapper(&self) -> Option<Identity> {
        Run::wrapper(self)
    }

    fn guardian(&self) -> Option<Identity> {
        self.opened.reach.as_ref()?.guardian.as_ref().map(|guardian| guardian.pinned.identity)
    }

    fn has_living_guardian(&self) -> bool {
        let guardian = self.opened.reach.as_ref().and_then(|reach| reach.guardian.as_ref());
        guardian.is_some_and(|guardian| !guardian.pinned.has_ended())
    }

    fn is_alone(&self) -> bool {
        self.opened.reach.as_ref().is_some_and(super::reach::Reach::is_alone)
    }

    fn has_tree_ended(&self) -> bool {
        Run::has_tree_ended(self)
    }

    fn leaf(&self) -> Option<&Path> {
        self.admission()?.containment.leaf.as_ref().map(|leaf| leaf.path())
    }
}

/// The indexes in `runs` of the runs whose trees the process is in, the innermost first.
///
/// `line` is the process and its ancestors, the process first. `groups` returns the directories of its control group; it is
/// called only when descent does not decide.
pub(super) fn inside<R: Tied>(line: &[Identity], runs: &[R], groups: impl Fn() -> Vec<PathBuf>) -> Vec<usize> {
    let mut found = Vec::new();
    let all = || runs.iter().enumerate();
    let mut child: Option<Identity> = None;
    for &at in line {
        let begins = |run: &R, at| run.leader() == Some(at) || run.guardian() == Some(at);
        found.extend(all().filter(|(_, run)| begins(run, at)).map(|(place, _)| place));
        if let Some(child) = child {
            let held = || all().filter(|(_, run)| run.wrapper() == Some(at) && run.leader() != Some(at));
            // A child that begins one of the wrapper's trees decides the run; it was found one step before.
            if !held().any(|(_, run)| begins(run, child)) {
                found.extend(inherited(held(), child, &groups));
            }
        }
        child = Some(at);
    }
    // The ancestors of the process may be gone, and it may have been inherited by a process that knows nothing of the run,
    // possibly one of an inner run, which does not tell about the outer one. A living guardian would have inherited it.
    let by_group = |place: usize, run: &R| {
        run.leaf().is_some() && (found.is_empty() || !run.has_living_guardian()) && !found.contains(&place)
    };
    let unfound: Vec<_> = all().filter(|(place, run)| by_group(*place, run)).collect();
    if !unfound.is_empty() {
        let groups = groups();
        for (place, run) in unfound.into_iter().filter(|(_, run)| is_within(*run, &groups)) {
            let is_below = |other: &usize| match (run.leaf(), runs[*other].leaf()) {
                (Some(leaf), Some(other)) => leaf.starts_with(other),
                (_, None) | (None, _) => false,
            };
            let at = found.iter().position(is_below).unwrap_or(found.len());
            found.insert(at, place);
        }
    }
    let mut seen = Vec::new();
    found.retain(|place| {
        !seen.contains(place) && {
            seen.push(*place);
            true
        }
    });
    found
}

/// The runs of one wrapper to which this child of the wrapper may belong as an orphan. A process in the control group of one
/// run is in no run with another group. When nothing tells the runs apart, the process counts as in all of them, which is the
/// stricter answer.
fn inherited<'a, R: Tied + 'a>(
    held: impl Iterator<Item = (usize, &'a R)>,
    child: Identity,
    groups: impl Fn() -> Vec<PathBuf>,
) -> Vec<usize> {
    // A living guardian inherits the orphans. And a child older than the leader does not descend from it, unless the wrapper
    // states that all its children belong to the tree.
    let older = |run: &R| run.leader().is_some_and(|leader| child.start < leader.start);
    let may_be = |run: &R| !run.has_living_guardian() && !run.has_tree_ended() && (run.is_alone() || !older(run));
    let candidates: Vec<_> = held.filter(|(_, run)| may_be(run)).collect();
    let places = |runs: &[(usize, &R)]| runs.iter().map(|(place, _)| *place).collect();
    if candidates.len() < 2 || candidates.iter().all(|(_, run)| run.leaf().is_none()) {
        return places(&candidates);
    }
    let groups = groups();
    if !candidates.iter().any(|(_, run)| is_within(*run, &groups)) {
        return places(&candidates);
    }
    let may_hold = |run: &R| run.leaf().is_none() || is_within(run, &groups);
    let told: Vec<_> = candidates.iter().copied().filter(|(_, run)| may_hold(run)).collect();
    places(&told)
}

fn is_within<R: Tied>(run: &R, groups: &[PathBuf]) -> bool {
    run.leaf().is_some_and(|leaf| groups.iter().any(|group| group.starts_with(leaf)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_tree::{Pid, StartTime};

    /// A process by its number. A greater number is a younger process.
    fn process(number: i32) -> Identity {
        Identity { pid: Pid::new(number).unwrap(), start: StartTime(u64::try_from(number).unwrap()) }
    }

    #[derive(Clone, Default)]
    struct Ties {
        leader: i32,
        wrapper: i32,
        guardian: Option<(i32, bool)>,
        alone: bool,
        ended: bool,
        leaf: Option<&'static str>,
    }

    impl Tied for Ties {
        fn leader(&self) -> Option<Identity> {
            Some(process(self.leader))
        }

        fn wrapper(&self) -> Option<Identity> {
            Some(process(self.wrapper))
        }

        fn guardian(&self) -> Option<Identity> {
            self.guardian.map(|(number, _)| process(number))
        }

        fn has_living_guardian(&self) -> bool {
            self.guardian.is_some_and(|(_, lives)| lives)
        }

        fn is_alone(&self) -> bool {
            self.alone
        }

        fn has_tree_ended(&self) -> bool {
            self.ended
        }

        fn leaf(&self) -> Option<&Path> {
            self.leaf.map(Path::new)
        }
    }

    fn of(line: &[i32], runs: &[Ties], groups: &[&str]) -> Vec<usize> {
        let line: Vec<_> = line.iter().copied().map(process).collect();
        inside(&line, runs, || groups.iter().map(PathBuf::from).collect())
    }

    fn siblings() -> [Ties; 2] {
        [20, 30].map(|leader| Ties { leader, wrapper: 10, ..Ties::default() })
    }

    #[test]
    fn a_process_is_in_the_tree_it_descends_from_and_not_in_its_wrappers_other_trees() {
        let runs = siblings();
        assert_eq!(of(&[20, 10, 1], &runs, &[]), [0]);
        assert_eq!(of(&[25, 20, 10, 1], &runs, &[]), [0]);
        assert_eq!(of(&[35, 32, 30, 10, 1], &runs, &[]), [1]);
        assert_eq!(of(&[9, 1], &runs, &[]), [] as [usize; 0]);
    }

    #[test]
    fn a_wrapper_is_in_no_tree_of_its_own_runs() {
        assert_eq!(of(&[10, 1], &siblings(), &[]), [] as [usize; 0]);
        // Unless it is the leader as well: a program that asks for itself.
        let own = [Ties { leader: 10, wrapper: 10, ..Ties::default() }];
        assert_eq!(of(&[10, 1], &own, &[]), [0]);
        assert_eq!(of(&[15, 10, 1], &own, &[]), [0]);
    }

    #[test]
    fn an_orphan_comes_to_the_guardian_of_its_own_tree() {
        let runs = [(20, 19), (30, 29)].map(|(leader, guardian)| Ties {
            leader,
            wrapper: 10,
            guardian: Some((guardian, true)),
            ..Ties::default()
        });
        assert_eq!(of(&[25, 19, 10, 1], &runs, &[]), [0]);
        assert_eq!(of(&[35, 29, 10, 1], &runs, &[]), [1]);
        // Another child of the wrapper's, while both guardians are there.
        assert_eq!(of(&[40, 10, 1], &runs, &[]), [] as [usize; 0]);
        // Its guardian is dead: the orphan may be that one's and not the other's.
        let [first, second] = runs;
        let runs = [Ties { guardian: Some((19, false)), ..first }, second];
        assert_eq!(of(&[40, 10, 1], &runs, &[]), [0]);
    }

    #[test]
    fn an_orphan_that_came_to_a_wrapper_of_several_is_in_all_of_them_unless_its_control_group_tells() {
        let [first, second] = siblings();
        assert_eq!(of(&[40, 10, 1], &[first.clone(), second.clone()], &["/cg/x"]), [0, 1], "the stricter answer");
        let over = Ties { ended: true, ..second.clone() };
        assert_eq!(of(&[40, 10, 1], &[first.clone(), over], &[]), [0], "nothing of the second tree is left");
        let runs = [Ties { leaf: Some("/cg/a"), ..first }, Ties { leaf: Some("/cg/b"), ..second }];
        assert_eq!(of(&[40, 10, 1], &runs, &["/cg/a"]), [0]);
        assert_eq!(of(&[40, 10, 1], &runs, &["/cg/b/below"]), [1]);
        assert_eq!(of(&[40, 10, 1], &runs, &["/cg/bb"]), [0, 1]);
        assert_eq!(of(&[40, 10, 1], &runs, &[]), [0, 1], "what cannot be found out");
        // One that has no group can hold it all the same.
        let [first, second] = runs.clone();
        let partly = [first, Ties { leaf: None, ..second }];
        assert_eq!(of(&[40, 10, 1], &partly, &["/cg/a"]), [0, 1]);
        // What is older than both leaders descends from neither, unless the wrapper says that all its children do.
        assert_eq!(of(&[15, 10, 1], &runs, &[]), [] as [usize; 0]);
        let alone = runs.map(|run| Ties { alone: true, ..run });
        assert_eq!(of(&[15, 10, 1], &alone, &[]), [0, 1]);
    }

    #[test]
    fn in_an_inner_run_a_process_is_in_the_outer_one_too_the_inner_first() {
        let outer = Ties { leader: 20, wrapper: 10, ..Ties::default() };
        let beside = Ties { leader: 21, wrapper: 10, ..Ties::default() };
        let inner = Ties { leader: 40, wrapper: 30, ..Ties::default() };
        let sibling = Ties { leader: 41, wrapper: 30, ..Ties::default() };
        let runs = [outer, beside, inner, sibling];
        assert_eq!(of(&[45, 40, 30, 20, 10, 1], &runs, &[]), [2, 0]);
        assert_eq!(of(&[30, 20, 10, 1], &runs, &[]), [0], "the inner wrapper is an agent of the outer run");
    }

    #[test]
    fn who_lost_every_ancestor_is_still_in_the_run_whose_control_group_it_is_in() {
        let run = [Ties { leader: 20, wrapper: 10, leaf: Some("/cg/a"), ..Ties::default() }];
        assert_eq!(of(&[25, 1], &run, &["/cg/a/b"]), [0]);
        assert_eq!(of(&[25, 1], &run, &["/cg/other"]), [] as [usize; 0]);
    }

    #[test]
    fn the_outer_run_is_found_by_its_control_group_where_only_the_inner_one_is_found_by_descent() {
        let outer =
            Ties { leader: 20, wrapper: 10, guardian: Some((19, false)), leaf: Some("/cg/a"), ..Ties::default() };
        let inner = Ties { leader: 40, wrapper: 30, ..Ties::default() };
        let line = [45, 40, 30, 1];
        assert_eq!(of(&line, &[outer.clone(), inner.clone()], &["/cg/a"]), [1, 0]);
        assert_eq!(of(&line, &[outer.clone(), inner.clone()], &["/cg/other"]), [1]);
        // The other way round: the outer run's guardian has inherited what the inner run has lost.
        let outer = Ties { guardian: Some((19, true)), ..outer };
        let inner = Ties { leaf: Some("/cg/a/b"), ..inner };
        assert_eq!(of(&[45, 19, 10, 1], &[outer, inner], &["/cg/a/b"]), [1, 0]);
    }
}
