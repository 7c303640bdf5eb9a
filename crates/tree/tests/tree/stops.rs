//! Stops: which processes get a signal, which get none, and when a stop is over.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use machineid_protocol::RunId;
use machineid_sys::{
    ForkOptions, Namespaces, SignalFd, let_children_vanish, map_own_ids, mount_own_proc, queue_signal,
};
use machineid_tree::{Guardian, Identity, Process, ProcessTable, Tree};
use rustix::process::Signal;

use crate::processes::{
    GRACE, Word, become_subreaper, begin, child, child_of, child_with, finish, finish_by_tables, guardian, is_alive,
    kill, linger, own, reap, reap_all, wait_for_end,
};
use crate::{Outcome, need, until};

crate::tests![
    a_number_that_passed_to_another_process_is_not_signalled,
    a_ladders_signal_is_told_from_any_other,
    a_process_that_was_asked_at_once_is_not_asked_again,
    what_comes_from_a_dead_guardian_to_its_wrapper_is_the_trees,
    what_hangs_on_a_wrapper_with_a_guardian_is_not_the_trees,
    a_tree_whose_last_process_is_a_grandchild_is_not_empty,
    what_both_supervisors_left_is_found_by_its_environment,
    an_environment_is_no_reason_to_end_a_process_while_the_supervisors_live,
    ids_are_mapped_to_themselves_in_a_user_namespace,
    children_may_vanish_without_being_reaped,
];

/// A child that executes a program with these run ids in its environment.
fn sleeper(runs: &str) -> Identity {
    let sleeper = child(|| {
        let error = Command::new("sleep").arg("1000").env("MACHINEID_RUN_ID", runs).exec();
        panic!("sleep: {error}");
    });
    until("an environment", || {
        let environment = std::fs::read(format!("/proc/{}/environ", sleeper.pid)).ok()?;
        environment.windows(runs.len()).any(|part| part == runs.as_bytes()).then_some(sleeper)
    })
}

/// In a PID namespace of its own, where the next number can be chosen.
fn a_number_that_passed_to_another_process_is_not_signalled() -> Outcome {
    let user = !rustix::process::geteuid().is_root();
    let namespaces = Namespaces { pid: true, mount: true, user };
    let init = need!(
        child_with(ForkOptions { into_cgroup: None, namespaces }, || {
            mount_own_proc().expect("/proc of its own");
            let agent = child(|| linger());
            // The table that the stop is told has the agent in it.
            let table = ProcessTable::scan().expect("/proc");
            let tree = Tree::alone(agent, Some(own()));
            assert!(tree.clone().members(&table).iter().any(|member| member.identity == agent));
            kill(agent);
            let bystander = until("a process with the same number", || {
                // A number is not used twice in a clock tick, by which two processes are told apart.
                std::thread::sleep(Duration::from_millis(20));
                let last = agent.pid.as_raw() - 1;
                std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).expect("the last number");
                let next = child(|| linger());
                if next.pid == agent.pid {
                    return Some(next);
                }
                kill(next);
                None
            });
            assert_ne!(bystander, agent);
            assert!(Process::pin(agent.pid, agent.start).expect("a descriptor").is_none());
            // With a supervisor whose child it is it would be an orphan of the tree: so here there is none.
            let mut stop = begin(Tree::alone(agent, None), Duration::ZERO);
            for _ in 0..3 {
                let _ = stop.step(machineid_clock::BootTime::now(), &table);
            }
            finish(stop);
            assert!(is_alive(bystander), "a stranger was signalled");
            kill(bystander);
        }),
        "namespaces"
    );
    let pid = rustix::process::Pid::from_raw(init.pid.as_raw()).expect("a pid");
    assert_eq!(crate::wait_for(pid), Some(0));
    Outcome::Passed
}

/// A child that ends well when it has got SIGTERM once, with or without a ladder's mark, and nothing but that.
fn asked_once(by_ladder: bool) -> Identity {
    let ready = Word::new();
    let agent = child(|| {
        let signals = SignalFd::open().expect("signalfd");
        ready.say();
        let mut got = Vec::new();
        until("the end of the signals", || {
            got.extend(std::iter::from_fn(|| signals.next().expect("a signal")));
            got.iter().any(|arrived| arrived.signal == libc::SIGUSR1).then_some(())
        });
        let terms: Vec<_> = got.iter().filter(|arrived| arrived.signal == libc::SIGTERM).collect();
        assert!(terms.len() == 1 && terms[0].from_ladder == by_ladder && !terms[0].own, "{got:?}");
    });
    ready.hear();
    agent
}

fn ends_well(agent: Identity) {
    let process = Process::pin(agent.pid, agent.start).expect("a descriptor").expect("a living process");
    process.signal(Signal::USR1).expect("sent");
    let pid = rustix::process::Pid::from_raw(agent.pid.as_raw()).expect("a pid");
    assert_eq!(crate::wait_for(pid), Some(0));
}

fn a_ladders_signal_is_told_from_any_other() -> Outcome {
    for by_ladder in [true, false] {
        let agent = asked_once(by_ladder);
        let process = Process::pin(agent.pid, agent.start).expect("a descriptor").expect("a living process");
        if by_ladder {
            queue_signal(&process, Signal::TERM).expect("sent");
        } else {
            process.signal(Signal::TERM).expect("sent");
        }
        ends_well(agent);
    }
    Outcome::Passed
}

fn a_process_that_was_asked_at_once_is_not_asked_again() -> Outcome {
    let agent = asked_once(true);
    let stranger = child(|| linger());
    let held = |identity: Identity| {
        Process::pin(identity.pid, identity.start).expect("a descriptor").expect("a living process")
    };
    let mut stop = begin(Tree::alone(agent, None), Duration::from_mins(1));
    stop.send_at_once(&held(stranger));
    stop.send_at_once(&held(agent));
    stop.send_at_once(&held(agent));
    let now = machineid_clock::BootTime::now();
    let _ = stop.step(now, &ProcessTable::scan().expect("/proc"));
    assert_eq!(stop.report(now).signalled, 1);
    ends_well(agent);
    // Nothing is asked when there is no grace.
    let mut stop = begin(Tree::alone(stranger, None), Duration::ZERO);
    stop.send_at_once(&held(stranger));
    assert_eq!(stop.report(now).signalled, 0);
    finish(stop);
    assert!(!is_alive(stranger));
    Outcome::Passed
}

fn what_comes_from_a_dead_guardian_to_its_wrapper_is_the_trees() -> Outcome {
    become_subreaper();
    let ready = Word::new();
    let guardian = guardian(|| {
        child(|| linger());
        ready.say();
        linger();
    });
    ready.hear();
    let leader = child_of(guardian);
    let grandchild = child_of(leader);
    let tree = Tree::alone(leader, Some(own())).guarded_by(Guardian::Sweeper(guardian));
    kill(guardian);
    assert!(is_alive(leader) && is_alive(grandchild));
    let report = finish(begin(tree, GRACE));
    assert!(!is_alive(leader) && !is_alive(grandchild), "{report:?}");
    Outcome::Passed
}

fn what_hangs_on_a_wrapper_with_a_guardian_is_not_the_trees() -> Outcome {
    become_subreaper();
    let bystander = child(|| linger());
    let guardian = guardian(|| linger());
    let leader = child_of(guardian);
    let table = ProcessTable::scan().expect("/proc");
    let tree = Tree::new(leader, Some(own()), &table).guarded_by(Guardian::Sweeper(guardian));
    // Also when the guardian has nothing left to guard and ends.
    let report = finish_by_tables(begin(tree, GRACE));
    assert!(!is_alive(leader) && is_alive(bystander), "{report:?}");
    kill(bystander);
    wait_for_end(guardian);
    Outcome::Passed
}

fn a_tree_whose_last_process_is_a_grandchild_is_not_empty() -> Outcome {
    become_subreaper();
    let leader = child(|| {
        child(|| {
            let _ = nix::unistd::setsid();
            child(|| linger());
        });
        reap_all();
    });
    let tree = Tree::alone(leader, Some(own()));
    until("an orphan alone", || {
        reap();
        let table = ProcessTable::scan().expect("/proc");
        (table.find(leader).is_none() && tree.clone().members(&table).len() == 1).then_some(())
    });
    assert!(!tree.is_surely_empty());
    finish(begin(tree.clone(), GRACE));
    assert!(tree.is_surely_empty());
    Outcome::Passed
}

fn what_both_supervisors_left_is_found_by_its_environment() -> Outcome {
    let run = RunId::random().expect("random numbers");
    let older = sleeper(&run.to_string());
    std::thread::sleep(Duration::from_millis(20));
    let ready = Word::new();
    let wrapper = child(|| {
        become_subreaper();
        guardian(|| {
            // Never seen at any look: its parent is gone before the first.
            child(|| {
                let _ = nix::unistd::setsid();
                sleeper(&format!("{},{run}", "0".repeat(32)));
            });
            reap_all();
            ready.say();
            linger();
        });
        reap_all();
    });
    ready.hear();
    let guardian = child_of(wrapper);
    let table = ProcessTable::scan().expect("/proc");
    let found: Vec<Identity> = table.children(guardian.pid).map(|entry| entry.identity).collect();
    let leader = found.iter().copied().min_by_key(|identity| (identity.start, identity.pid)).expect("a leader");
    let orphan = found.iter().copied().find(|&identity| identity != leader).expect("an orphan");
    let tree = Tree::alone(leader, Some(wrapper)).guarded_by(Guardian::Sweeper(guardian)).with_cookie(run);
    // From the inside out: as long as one of the two lives it inherits the orphan.
    for identity in [leader, guardian, wrapper] {
        let process = Process::pin(identity.pid, identity.start).expect("a descriptor").expect("a living process");
        process.signal(Signal::KILL).expect("sent");
    }
    until("dead supervisors", || {
        reap();
        (![leader, guardian, wrapper].into_iter().any(is_alive)).then_some(())
    });
    assert!(is_alive(orphan));
    let report = finish(begin(tree, GRACE));
    assert!(!is_alive(orphan), "{report:?}");
    assert!(is_alive(older), "one older than the agent was ended");
    kill(older);
    Outcome::Passed
}

fn an_environment_is_no_reason_to_end_a_process_while_the_supervisors_live() -> Outcome {
    let run = RunId::random().expect("random numbers");
    let ready = Word::new();
    let wrapper = child(|| {
        child(|| {
            child(|| linger());
            ready.say();
            linger();
        });
        linger();
    });
    ready.hear();
    let guardian = child_of(wrapper);
    let leader = child_of(guardian);
    let other = sleeper(&run.to_string());
    let tree = Tree::alone(leader, Some(wrapper)).guarded_by(Guardian::Sweeper(guardian)).with_cookie(run);
    let report = finish(begin(tree, Duration::ZERO));
    assert_eq!(report.killed, 1);
    assert!(!is_alive(leader) && is_alive(other), "{report:?}");
    for identity in [wrapper, guardian, other] {
        let process = Process::pin(identity.pid, identity.start).expect("a descriptor").expect("a living process");
        process.signal(Signal::KILL).expect("sent");
    }
    kill(wrapper);
    kill(other);
    Outcome::Passed
}

fn ids_are_mapped_to_themselves_in_a_user_namespace() -> Outcome {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let namespaces = Namespaces { user: true, ..Namespaces::default() };
    let inside = need!(
        child_with(ForkOptions { into_cgroup: None, namespaces }, || {
            map_own_ids(uid, gid).expect("mapped");
            assert_eq!(rustix::process::geteuid().as_raw(), uid);
            assert_eq!(rustix::process::getegid().as_raw(), gid);
            assert!(map_own_ids(uid, gid).is_err());
        }),
        "a user namespace"
    );
    let pid = rustix::process::Pid::from_raw(inside.pid.as_raw()).expect("a pid");
    assert_eq!(crate::wait_for(pid), Some(0));
    Outcome::Passed
}

fn children_may_vanish_without_being_reaped() -> Outcome {
    let before = child(|| linger());
    let_children_vanish().expect("done");
    let after = child(|| linger());
    for identity in [before, after] {
        let process = Process::pin(identity.pid, identity.start).expect("a descriptor").expect("a living process");
        process.signal(Signal::KILL).expect("sent");
        until("the end of a child", || ProcessTable::scan().expect("/proc").find(identity).is_none().then_some(()));
    }
    Outcome::Passed
}
