//! Control groups.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{HoldsAgainst, RunId};
use machineid_sys::{ForkOptions, Namespaces, SignalFd};
use machineid_tree::{Identity, Leaf, LeafState, NoCgroup, Pid, ProcessTable, Tree};

use crate::processes::{
    GRACE, Word, become_subreaper, begin, child, child_with, finish, guardian, is_alive, kill, linger, linger_after,
    own, reap, reap_all,
};
use crate::{Outcome, need, until};
use rustix::io::Errno;

crate::tests![
    a_leaf_is_made_entered_frozen_killed_and_removed,
    a_leaf_that_exists_already_belongs_to_another_run,
    a_leaf_that_was_removed_is_empty,
    a_child_is_forked_straight_into_a_leaf,
    groups_that_an_agent_made_belong_to_its_leaf,
    a_group_of_threads_belongs_too_and_has_no_leaf_below_it,
    a_process_that_leaves_its_leaf_is_found_by_descent,
    a_process_that_only_its_leaf_knows_is_found,
    a_frozen_agent_acts_on_the_stop_signal,
    a_frozen_agent_that_will_not_end_is_killed,
    a_leaf_holds_against_users_that_may_write_no_group_above_it,
    a_leaf_is_made_below_another_processs_group,
    on_a_read_only_mount_none_is_made,
    a_process_that_ends_a_leaf_it_was_moved_into_outlives_it,
];

/// A leaf that is emptied and removed at the end, whatever happens.
pub(crate) struct Made {
    pub(crate) leaf: Arc<Leaf>,
    pub(crate) run: RunId,
}

impl Made {
    pub(crate) fn below_own() -> Result<Self, NoCgroup> {
        Self::by(Leaf::make_below_own)
    }

    fn by(make: impl FnOnce(RunId) -> Result<Leaf, NoCgroup>) -> Result<Self, NoCgroup> {
        let run = RunId::random().expect("random numbers");
        Ok(Self { leaf: Arc::new(make(run)?), run })
    }

    fn state(&self) -> LeafState {
        self.leaf.state().expect("its state")
    }

    fn pids(&self) -> Vec<Pid> {
        self.leaf.processes().expect("its processes")
    }

    /// A child in it.
    pub(crate) fn child(&self, body: impl FnOnce()) -> Identity {
        child(|| {
            self.leaf.enter(Pid::own()).expect("entered");
            body();
        })
    }

    /// A child in it that does nothing, and does not mind SIGTERM.
    fn agent(&self) -> Identity {
        let ready = Word::new();
        let agent = self.child(|| linger_after(|| ready.say()));
        ready.hear();
        agent
    }

    /// Makes a group below it.
    fn group(&self, name: &str) -> PathBuf {
        let path = self.leaf.path().join(name);
        std::fs::create_dir(&path).expect("a group");
        path
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.leaf.kill();
        let _ = self.leaf.thaw();
        until("an empty leaf", || {
            crate::processes::reap();
            self.leaf.remove().is_ok().then_some(())
        });
    }
}

/// Runs this where the given control group is mounted read-only.
pub(crate) fn where_read_only(group: &Path, body: impl FnOnce()) -> Result<(), String> {
    let namespaces = Namespaces { mount: true, ..Namespaces::default() };
    let options = ForkOptions { into_cgroup: None, namespaces };
    let here = child_with(options, || {
        let group = group.to_str().expect("a readable path");
        for arguments in [&["--make-rprivate", "/"][..], &["--bind", group, group], &["-o", "remount,ro,bind", group]] {
            assert!(Command::new("mount").args(arguments).status().expect("mount").success(), "mount {arguments:?}");
        }
        body();
    })
    .map_err(|error| error.to_string())?;
    let pid = rustix::process::Pid::from_raw(here.pid.as_raw()).expect("a pid");
    assert_eq!(crate::wait_for(pid), Some(0));
    Ok(())
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn a_leaf_is_made_entered_frozen_killed_and_removed() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let leaf = &made.leaf;
    assert!(leaf.can_kill() && leaf.can_freeze());
    assert_eq!(made.state(), LeafState { populated: false, frozen: false });
    let agent = child(|| linger());
    assert!(Leaf::around(agent.pid, made.run).expect("its group").is_none());
    leaf.enter(agent.pid).expect("entered");
    assert_eq!(made.pids(), [agent.pid]);
    let found = Leaf::around(agent.pid, made.run).expect("its group").expect("a leaf");
    assert_eq!(found.path(), leaf.path());
    assert!(Leaf::around(agent.pid, RunId::random().expect("random")).expect("its group").is_none());
    let again = Leaf::reopen(leaf.path(), made.run).expect("it").expect("it");
    assert!(Leaf::reopen(leaf.path(), RunId::random().expect("random")).is_err());
    assert_eq!(again.state(), Ok(LeafState { populated: true, frozen: false }));

    leaf.freeze().expect("frozen");
    until("a frozen leaf", || made.state().frozen.then_some(()));
    assert_eq!(leaf.remove(), Err(rustix::io::Errno::BUSY));
    leaf.kill().expect("killed");
    until("an empty leaf", || (!made.state().populated).then_some(()));
    kill(agent);
    assert_eq!(made.pids(), []);
    assert!(leaf.path().exists());
    leaf.remove().expect("removed");
    assert!(!leaf.path().exists());
    leaf.remove().expect("removed before");
    Outcome::Passed
}

fn a_leaf_that_was_removed_is_empty() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    made.leaf.remove().expect("removed");
    assert_eq!(made.state(), LeafState { populated: false, frozen: false });
    assert_eq!(made.pids(), []);
    assert_eq!((made.leaf.kill(), made.leaf.thaw()), (Ok(()), Ok(())));
    assert!(Leaf::reopen(made.leaf.path(), made.run).expect("no failure").is_none());
    assert_eq!(made.leaf.holds_against(12_345), HoldsAgainst::Bugs);
    Outcome::Passed
}

fn a_leaf_that_exists_already_belongs_to_another_run() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let second = Leaf::make_below_own(made.run);
    assert_eq!(second.err(), Some(NoCgroup::Exists(made.leaf.path().to_owned())));
    assert!(made.leaf.path().exists());
    Outcome::Passed
}

fn a_child_is_forked_straight_into_a_leaf() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let options = ForkOptions { into_cgroup: Some(made.leaf.directory()), ..ForkOptions::default() };
    let inside = child_with(options, || linger()).expect("forked");
    assert_eq!(made.pids(), [inside.pid]);
    kill(inside);
    Outcome::Passed
}

fn groups_that_an_agent_made_belong_to_its_leaf() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let deep = made.group("a");
    let deeper = made.group("a/b");
    made.group("c");
    let agents = [made.agent(), made.agent(), made.agent()];
    write(&deep.join("cgroup.procs"), &agents[1].pid.to_string());
    write(&deeper.join("cgroup.procs"), &agents[2].pid.to_string());
    assert_eq!(made.pids(), agents.map(|agent| agent.pid));
    become_subreaper();
    let report = finish(begin(Tree::alone(agents[0], None).in_leaf(Arc::clone(&made.leaf)), GRACE));
    assert!(!agents.into_iter().any(is_alive), "{report:?}");
    made.leaf.remove().expect("removed with what is below");
    assert!(!made.leaf.path().exists());
    Outcome::Passed
}

fn a_group_of_threads_belongs_too_and_has_no_leaf_below_it() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let threaded = made.group("threads");
    write(&threaded.join("cgroup.type"), "threaded");
    let agent = made.agent();
    write(&threaded.join("cgroup.procs"), &agent.pid.to_string());
    assert_eq!(made.pids(), [agent.pid]);
    let below = Made::by(|run| Leaf::make_below(agent.pid, run));
    assert_eq!(below.err(), Some(NoCgroup::Threaded(threaded)));
    made.leaf.kill().expect("killed");
    kill(agent);
    Outcome::Passed
}

fn a_process_that_leaves_its_leaf_is_found_by_descent() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let above = made.leaf.path().parent().expect("a group above").join("cgroup.procs");
    let left = Word::new();
    become_subreaper();
    let guardian = guardian(|| {
        made.leaf.enter(Pid::own()).expect("entered");
        let _blocked = SignalFd::open().expect("signalfd");
        child(|| {
            write(&above, &Pid::own().to_string());
            linger_after(|| left.say());
        });
        linger();
    });
    left.hear();
    let leader = crate::processes::child_of(guardian);
    let escaped = crate::processes::child_of(leader);
    assert_eq!(made.pids(), [leader.pid]);
    let tree = Tree::alone(leader, Some(own()))
        .guarded_by(machineid_tree::Guardian::Sweeper(guardian))
        .in_leaf(Arc::clone(&made.leaf));
    let report = finish(begin(tree, GRACE));
    assert!(!is_alive(leader) && !is_alive(escaped), "{report:?}");
    assert_eq!((report.signalled, report.killed), (2, 2));
    Outcome::Passed
}

fn a_process_that_only_its_leaf_knows_is_found() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    // No supervisor: an orphan goes to init, or to the process that stands for it here.
    let leader = made.child(|| {
        let _ = child(|| {
            let _ = nix::unistd::setsid();
            linger();
        });
    });
    let orphan = until("an orphan", || {
        crate::processes::reap();
        let table = ProcessTable::scan().expect("/proc");
        let [pid] = made.pids()[..] else { return None };
        table.get(pid).map(|entry| entry.identity).filter(|&identity| identity != leader)
    });
    let report = finish(begin(Tree::alone(leader, None).in_leaf(Arc::clone(&made.leaf)), GRACE));
    assert!(!is_alive(orphan), "{report:?}");
    assert_eq!(report.signalled, 1);
    Outcome::Passed
}

fn a_frozen_agent_acts_on_the_stop_signal() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let ready = Word::new();
    let agent = made.child(|| {
        let signals = SignalFd::open().expect("signalfd");
        ready.say();
        until("SIGTERM", || {
            signals.next().expect("a signal").filter(|arrived| arrived.signal == libc::SIGTERM && arrived.from_ladder)
        });
    });
    ready.hear();
    made.leaf.freeze().expect("frozen");
    until("a frozen leaf", || made.state().frozen.then_some(()));
    let tree = Tree::alone(agent, Some(own())).in_leaf(Arc::clone(&made.leaf));
    let report = finish(begin(tree, Duration::from_mins(1)));
    assert_eq!((report.signalled, report.killed), (1, 0), "{report:?}");
    Outcome::Passed
}

fn a_frozen_agent_that_will_not_end_is_killed() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let agent = made.agent();
    made.leaf.freeze().expect("frozen");
    until("a frozen leaf", || made.state().frozen.then_some(()));
    let path = made.leaf.path().to_owned();
    // Where it may be neither thawed nor killed as a whole.
    need!(
        where_read_only(&path, || {
            let leaf = Leaf::reopen(&path, made.run).expect("it").expect("it");
            assert!(!leaf.can_freeze() && !leaf.can_kill());
            let report = finish(begin(Tree::alone(agent, None).in_leaf(Arc::new(leaf)), GRACE));
            assert_eq!((report.signalled, report.killed), (1, 1), "{report:?}");
        }),
        "a mount namespace"
    );
    assert!(!made.state().populated);
    Outcome::Passed
}

fn a_leaf_holds_against_users_that_may_write_no_group_above_it() -> Outcome {
    const AGENT: u32 = 12_345;
    let made = need!(Made::below_own(), "a control group");
    if !rustix::process::geteuid().is_root() {
        return Outcome::Skipped("only root can give groups away".to_owned());
    }
    let delegated = made.group("delegated");
    let wrapper = made.agent();
    write(&delegated.join("cgroup.procs"), &wrapper.pid.to_string());
    let inner = Made::by(|run| Leaf::make_below(wrapper.pid, run)).expect("a leaf below it");
    let (own_file, above) = (inner.leaf.path().join("cgroup.procs"), delegated.join("cgroup.procs"));
    let verdict = || inner.leaf.holds_against(AGENT);
    assert_eq!((verdict(), inner.leaf.holds_against(0)), (HoldsAgainst::Hostile, HoldsAgainst::Bugs));
    for file in [&own_file, &above] {
        chown(file, Some(AGENT), None).expect("chown");
        assert_eq!(verdict(), HoldsAgainst::Bugs, "{}", file.display());
        chown(file, Some(0), None).expect("chown");
        std::fs::set_permissions(file, Permissions::from_mode(0o646)).expect("chmod");
        assert_eq!(verdict(), HoldsAgainst::Bugs, "{}", file.display());
        std::fs::set_permissions(file, Permissions::from_mode(0o644)).expect("chmod");
    }
    assert_eq!(verdict(), HoldsAgainst::Hostile);
    drop(inner);
    kill(wrapper);
    Outcome::Passed
}

fn a_leaf_is_made_below_another_processs_group() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let wrapper = made.agent();
    let inner = Made::by(|run| Leaf::make_below(wrapper.pid, run)).expect("a leaf below it");
    assert_eq!(inner.leaf.path().parent(), Some(made.leaf.path()));
    drop(inner);
    kill(wrapper);
    let gone = Made::by(|run| Leaf::make_below(wrapper.pid, run));
    assert_eq!(gone.err(), Some(NoCgroup::Gone));
    Outcome::Passed
}

fn on_a_read_only_mount_none_is_made() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let above = made.leaf.path().parent().expect("a group above").to_owned();
    need!(
        where_read_only(&above, || {
            let failure = Made::below_own().err();
            assert!(matches!(&failure, Some(NoCgroup::ReadOnly(path)) if *path == above), "{failure:?}");
            reap_all();
        }),
        "a mount namespace"
    );
    Outcome::Passed
}

fn a_process_that_ends_a_leaf_it_was_moved_into_outlives_it() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    become_subreaper();
    let agent = made.child(|| linger());
    // As an agent does that may: it moves the daemon into its own group.
    let home = OwnGroup::enter(&made.leaf);
    assert_eq!((made.leaf.kill(), made.leaf.freeze()), (Err(Errno::DEADLK), Err(Errno::DEADLK)));
    let mut stop = begin(Tree::alone(agent, Some(own())).in_leaf(Arc::clone(&made.leaf)), Duration::ZERO);
    until("an end of the agent alone", || {
        let _ = stop.step(BootTime::now(), &ProcessTable::scan().expect("/proc"));
        reap();
        (!is_alive(agent)).then_some(())
    });
    drop(home);
    assert_eq!(made.pids(), []);
    Outcome::Passed
}

/// This process in a leaf; it goes back to the group it came from.
struct OwnGroup(PathBuf);

impl OwnGroup {
    fn enter(leaf: &Leaf) -> Self {
        leaf.enter(Pid::own()).expect("entered");
        Self(leaf.path().parent().expect("a group above").join("cgroup.procs"))
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        std::fs::write(&self.0, Pid::own().to_string()).expect("back");
    }
}
