//! Processes that fork, leave their session and exit as fast as they can, with SIGTERM blocked: none of them lives for
//! long. With every containment, nothing of the tree is left a second after SIGKILL is due.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Containment;
use machineid_sys::{self as sys, Fork, ForkOptions, Namespaces, SignalFd};
use machineid_tree::{Guardian, Leaf, StopSummary, Tree};

use crate::cgroups::{Made, where_read_only};
use crate::processes::{
    GRACE, Word, become_subreaper, begin, child, child_of, finish, finish_by_tables, guardian, guardian_with, is_alive,
    kill, linger, own, reap_all, wait_for_end,
};
use crate::{Outcome, need};

crate::tests![
    a_wrapper_without_a_guardian_ends_them,
    a_wrapper_with_a_guardian_ends_them,
    a_guardian_ends_them,
    a_daemon_that_inherits_no_orphans_ends_them,
    a_control_group_ends_them,
    a_control_group_that_may_not_be_killed_ends_them,
    a_pid_namespace_ends_them,
];

const COMETS: usize = 8;

/// Starts the comets, says so, and waits. They end by themselves after a while, if the test does not end them.
fn fly(flying: &Word) {
    let _blocked = SignalFd::open().expect("signalfd");
    let until = BootTime::now() + Duration::from_secs(15);
    for _ in 0..COMETS {
        if sys::fork() == Ok(Fork::Child) {
            while BootTime::now() < until {
                let _ = nix::unistd::setsid();
                if let Ok(Fork::Parent(_)) = sys::fork() {
                    sys::exit_now(0);
                }
            }
            sys::exit_now(0);
        }
    }
    flying.say();
    linger();
}

fn in_time(report: &StopSummary) -> Outcome {
    assert!(report.took < GRACE + Duration::from_secs(1), "{report:?}");
    assert!(report.killed >= 1 && report.survivors.is_empty(), "{report:?}");
    Outcome::Passed
}

fn a_wrapper_without_a_guardian_ends_them() -> Outcome {
    become_subreaper();
    let flying = Word::new();
    let leader = child(|| fly(&flying));
    flying.hear();
    in_time(&finish_by_tables(begin(Tree::alone(leader, Some(own())), GRACE)))
}

fn a_wrapper_with_a_guardian_ends_them() -> Outcome {
    become_subreaper();
    let flying = Word::new();
    let guardian = guardian(|| fly(&flying));
    let leader = child_of(guardian);
    flying.hear();
    let tree = Tree::alone(leader, Some(own())).guarded_by(Guardian::Sweeper(guardian));
    let report = finish(begin(tree, GRACE));
    wait_for_end(guardian);
    in_time(&report)
}

fn a_guardian_ends_them() -> Outcome {
    become_subreaper();
    let flying = Word::new();
    let wrapper = child(|| linger());
    let leader = child(|| fly(&flying));
    flying.hear();
    let tree = Tree::alone(leader, Some(wrapper)).guarded_by(Guardian::Sweeper(own()));
    // The wrapper is a child of ours here, and no orphan of the tree's for all that.
    let outcome = in_time(&finish(begin(tree, GRACE)));
    assert!(is_alive(wrapper));
    kill(wrapper);
    outcome
}

fn a_daemon_that_inherits_no_orphans_ends_them() -> Outcome {
    let flying = Word::new();
    let wrapper = child(|| {
        become_subreaper();
        guardian(|| fly(&flying));
        reap_all();
    });
    let guardian = child_of(wrapper);
    let leader = child_of(guardian);
    flying.hear();
    let tree = Tree::alone(leader, Some(wrapper)).guarded_by(Guardian::Sweeper(guardian));
    let report = finish(begin(tree, GRACE));
    wait_for_end(wrapper);
    in_time(&report)
}

fn a_control_group_ends_them() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    become_subreaper();
    let flying = Word::new();
    let leader = made.child(|| fly(&flying));
    flying.hear();
    let tree = Tree::alone(leader, Some(own())).in_leaf(Arc::clone(&made.leaf));
    let report = finish(begin(tree, GRACE));
    assert_eq!(report.containment, Containment::Cgroup);
    assert!(!made.leaf.state().expect("its state").populated);
    in_time(&report)
}

fn a_control_group_that_may_not_be_killed_ends_them() -> Outcome {
    let made = need!(Made::below_own(), "a control group");
    let path = made.leaf.path().to_owned();
    need!(
        where_read_only(&path, || {
            become_subreaper();
            let flying = Word::new();
            let leader = made.child(|| fly(&flying));
            flying.hear();
            let leaf = Leaf::reopen(&path, made.run).expect("it").expect("it");
            assert!(!leaf.can_kill());
            in_time(&finish(begin(Tree::alone(leader, Some(own())).in_leaf(Arc::new(leaf)), GRACE)));
        }),
        "a mount namespace"
    );
    assert!(!made.leaf.state().expect("its state").populated);
    Outcome::Passed
}

fn a_pid_namespace_ends_them() -> Outcome {
    become_subreaper();
    let flying = Word::new();
    let user = !rustix::process::geteuid().is_root();
    let namespaces = Namespaces { pid: true, mount: true, user };
    let options = ForkOptions { into_cgroup: None, namespaces };
    let init = need!(
        guardian_with(options, || {
            sys::mount_own_proc().expect("/proc of its own");
            fly(&flying);
        }),
        "namespaces"
    );
    let leader = child_of(init);
    flying.hear();
    let tree = Tree::alone(leader, Some(own())).guarded_by(Guardian::Init(init));
    let report = finish(begin(tree, GRACE));
    wait_for_end(init);
    assert_eq!(report.containment, Containment::Pidns);
    in_time(&report)
}
