use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::super::pid::{Identity, Pid};
use super::super::stat::ProcessEntry;
use super::*;

#[test]
fn a_process_that_outlives_the_end_of_its_group_is_named_within_a_second_of_its_kill() {
    let identity = Identity { pid: Pid::new(10).unwrap(), start: super::super::pid::StartTime(5) };
    let asleep = Member { identity, activity: super::super::stat::Activity::Uninterruptible, in_leaf: true };
    let leaf = super::super::ladder::LeafLook { populated: true, can_kill: true, needs_thawing: false };
    let look = TreeLook { members: &[asleep], leaf: Some(leaf), init: None, gaps: Gaps::None };
    let begin = BootTime::from_millis(1_000_000);
    let grace = Duration::from_secs(3);
    let kill_at = begin + grace;
    let mut ladder = Ladder::begin(begin, FirstSignal::Theirs, grace);
    for pause in [0, 5, 10] {
        ladder.step(begin + Duration::from_millis(pause), &look);
    }
    assert!(ladder.is_all_of_it(&[identity.pid]));
    ladder.strike(kill_at, None, Some(leaf));
    let mut now = kill_at + DYING_IN_GROUP;
    while ladder.survivors().is_empty() {
        let Next::LookAt(at) = ladder.step(now, &look).next else { unreachable!("it is there") };
        if ladder.survivors().is_empty() {
            now = at;
        }
    }
    assert!(now < kill_at + Duration::from_secs(1), "{:?}", now.saturating_since(kill_at));
}

/// A shell in a process group of its own that has said `ready`; processes left in its group are killed at the end.
struct Agent {
    child: Child,
    output: BufReader<ChildStdout>,
    identity: Identity,
}

impl Agent {
    fn start(script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let pid = Pid::new(i32::try_from(child.id()).unwrap()).unwrap();
        let identity = ProcessEntry::read(pid).unwrap().unwrap().identity;
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, output, identity }
    }

    /// The leader alone, as a client without a wrapper.
    fn tree(&self) -> Tree {
        Tree::new(self.identity, None, &ProcessTable::scan().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.identity.pid.as_raw()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Steps until it is over; returns how long that took.
fn run(mut stop: Stop) -> Duration {
    let began = BootTime::now();
    loop {
        let now = BootTime::now();
        assert!(now.saturating_since(began) < Duration::from_secs(30), "still there: {:?}", stop.survivors());
        match stop.step(now, &ProcessTable::scan().unwrap()) {
            Next::Over => return BootTime::now().saturating_since(began),
            Next::LookAt(when) => std::thread::sleep(when.saturating_since(BootTime::now())),
        }
    }
}

fn begin(tree: Tree, grace: Duration) -> Stop {
    Stop::begin(BootTime::now(), tree, Signal::TERM, FirstSignal::Ours, grace)
}

#[test]
fn a_cooperative_tree_ends_long_before_the_grace_does() {
    let agent = Agent::start("sleep 1000 & sleep 1000 & echo ready; wait");
    assert!(run(begin(agent.tree(), Duration::from_mins(1))) < Duration::from_secs(20));
}

#[test]
fn a_tree_that_ignores_the_stop_signal_is_killed_after_the_grace() {
    let agent = Agent::start("trap '' TERM; (setsid sleep 1000) & sleep 1000 & echo ready; wait");
    let mut tree = agent.tree();
    // `setsid` may not have happened yet at the first look; descent finds it either way.
    assert!(tree.members(&ProcessTable::scan().unwrap()).len() >= 3);
    let took = run(begin(tree, Duration::from_millis(300)));
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_stopped_process_gets_to_act_on_the_stop_signal_and_gets_it_once() {
    let mut agent = Agent::start("trap 'echo asked' TERM; echo ready; kill -STOP $$; while :; do sleep 0.05; done");
    run(begin(agent.tree(), Duration::from_millis(500)));
    let mut text = String::new();
    agent.output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "asked\n");
}

#[test]
fn an_orphan_that_a_foreign_supervisor_does_not_inherit_is_ended_with_the_leaders_group() {
    // The shell is no child subreaper: what the leader's subshell has started goes to the first process of the host.
    const LEADER: &str = "setsid sh -c '(sleep 1000 & echo $!); echo $$; exec sleep 1000' & wait; exec sleep 1000";
    let mut supervisor = Command::new("sh").args(["-c", LEADER]).stdout(Stdio::piped()).spawn().unwrap();
    let identity = |raw: i32| ProcessEntry::read(Pid::new(raw).unwrap()).unwrap().unwrap().identity;
    let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    let mut next = || identity(lines.next().unwrap().unwrap().parse().unwrap());
    let (orphan, leader) = (next(), next());
    let tree = Tree::alone(leader, Some(identity(i32::try_from(supervisor.id()).unwrap())));
    let mut stop = begin(tree, Duration::from_millis(300));
    let began = BootTime::now();
    while BootTime::now().saturating_since(began) < Duration::from_secs(30) {
        let now = BootTime::now();
        let next = match stop.advance(now) {
            Advance::Empty => Next::Over,
            Advance::Next(next) => next,
            Advance::NeedsTable => stop.step(now, &ProcessTable::scan().unwrap()),
        };
        match next {
            Next::Over => break,
            Next::LookAt(when) => std::thread::sleep(when.saturating_since(BootTime::now())),
        }
    }
    let is_left = orphans::is_alive(orphan);
    let group = rustix::process::Pid::from_raw(leader.pid.as_raw()).unwrap();
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(!is_left, "the stop was called complete while the orphan lives");
    assert!(stop.report(BootTime::now()).signalled >= 2);
}
