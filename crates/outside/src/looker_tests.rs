use std::path::PathBuf;

use machineid_clock::BootTime;
use machineid_protocol::outside::OutsideKind;
use machineid_sockets::UnixSocket;
use machineid_tree::StartTime;

use super::*;
use crate::links::tests::{called, sockets};

/// Processes that a test makes up: their sockets, and how often their descriptors were read.
#[derive(Default)]
struct Host {
    sockets: BTreeMap<i32, Vec<u64>>,
    closed: HashSet<i32>,
    reads: Vec<i32>,
}

impl Processes for Host {
    fn all(&mut self) -> Vec<Pid> {
        self.sockets.keys().copied().filter_map(Pid::new).collect()
    }

    fn sockets(&mut self, pid: Pid, budget: &mut Budget, meet: &mut dyn FnMut(u64)) -> Descriptors {
        self.reads.push(pid.as_raw());
        if self.closed.contains(&pid.as_raw()) {
            return Descriptors::NotPermitted;
        }
        for inode in self.sockets.get(&pid.as_raw()).into_iter().flatten() {
            if !budget.take() {
                return Descriptors::Cut;
            }
            meet(*inode);
        }
        Descriptors::All
    }

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        self.sockets.contains_key(&pid.as_raw()).then_some(Identity { pid, start: StartTime(1) })
    }

    fn program(&mut self, pid: Pid) -> Option<Program> {
        let name = if pid.as_raw() == 50 { "codex" } else { "broker" };
        self.identity(pid)?;
        Some(Program {
            exe: Some(PathBuf::from(name)),
            args: [name, "app-server", "--listen", "unix:///x"].iter().map(Into::into).collect(),
            uid: 7,
        })
    }
}

fn pid(number: i32) -> Pid {
    Pid::new(number).unwrap()
}

fn run(number: u32) -> RunId {
    format!("{number:032x}").parse().unwrap()
}

fn tree(number: u32, pids: &[i32]) -> TreeMembers {
    let pids = pids.iter().copied().map(pid).collect();
    TreeMembers { run: run(number), uid: 7, pids, supervisors: vec![pid(2)] }
}

fn plenty() -> Budget {
    Budget::new(BootTime::from_millis(1), 1000, BootTime::default)
}

/// Process 10 is the tree's and has called the broker, process 50.
fn host() -> Host {
    Host { sockets: [(2, vec![]), (10, vec![1]), (11, vec![]), (50, vec![100, 2])].into(), ..Host::default() }
}

fn at(looker: &mut Looker, trees: &[TreeMembers], unix: Vec<UnixSocket>, host: &mut Host) -> Look {
    looker.look(trees, true, &sockets(unix, Vec::new()), &[], host, &mut plenty())
}

#[test]
fn a_process_outside_that_a_member_called_is_found_once() {
    let (mut looker, mut host) = (Looker::default(), host());
    let look = at(&mut looker, &[tree(1, &[10, 11])], called(), &mut host);
    assert_eq!(look.found.len(), 1);
    let found = &look.found[0];
    assert_eq!((found.run, found.process.unwrap().pid), (run(1), pid(50)));
    assert_eq!((found.helper.kind, found.helper.name.as_str()), (OutsideKind::AgentDaemon, "codex app-server"));
    assert_eq!((found.helper.via.as_str(), look.unfinished), ("unix:/broker", false));
    // Nothing has changed, so no descriptor is read.
    host.reads.clear();
    assert_eq!(at(&mut looker, &[tree(1, &[10, 11])], called(), &mut host), Look::default());
    assert_eq!(host.reads, [] as [i32; 0]);
}

#[test]
fn a_further_connection_to_a_known_server_is_found_without_a_search() {
    let (mut looker, mut host) = (Looker::default(), host());
    at(&mut looker, &[tree(1, &[10, 11])], called(), &mut host);
    let mut more = called();
    more.extend([UnixSocket { inode: 3, peer: Some(4), ..more[1].clone() }]);
    more.extend([UnixSocket { inode: 4, peer: Some(3), ..more[2].clone() }]);
    host.sockets.get_mut(&11).unwrap().push(3);
    host.reads.clear();
    let look = at(&mut looker, &[tree(1, &[10, 11])], more, &mut host);
    assert_eq!(look.found[0].process.unwrap().pid, pid(50));
    assert_eq!(host.reads, [10, 11]);
}

#[test]
fn connections_within_a_tree_and_to_its_supervisor_are_none_outside() {
    for inside in [vec![10, 50], vec![10]] {
        let (mut looker, mut host) = (Looker::default(), host());
        let tree = TreeMembers { supervisors: vec![pid(if inside.len() == 1 { 50 } else { 2 })], ..tree(1, &inside) };
        let look = at(&mut looker, std::slice::from_ref(&tree), called(), &mut host);
        assert_eq!(look, Look::default());
        host.reads.clear();
        at(&mut looker, &[tree], called(), &mut host);
        assert_eq!(host.reads, [] as [i32; 0], "that is settled");
    }
}

#[test]
fn a_process_outside_that_calls_a_server_in_the_tree_is_no_helper() {
    let (mut looker, mut host) = (Looker::default(), host());
    assert_eq!(at(&mut looker, &[tree(1, &[50])], called(), &mut host).found, []);
}

#[test]
fn a_connection_that_was_there_before_the_tree_is_found_when_the_tree_comes() {
    let (mut looker, mut host) = (Looker::default(), host());
    at(&mut looker, &[tree(1, &[11])], called(), &mut host);
    let look = at(&mut looker, &[tree(1, &[11]), tree(2, &[10])], called(), &mut host);
    assert_eq!(look.found.iter().map(|found| found.run).collect::<Vec<_>>(), [run(2)]);
    // A run in a run: both use it, and the outer one was told before.
    let look = at(&mut looker, &[tree(2, &[10]), tree(3, &[10])], called(), &mut host);
    assert_eq!(look.found.iter().map(|found| found.run).collect::<Vec<_>>(), [run(3)]);
}

#[test]
fn a_look_without_budget_says_so_and_the_next_ones_go_on() {
    let (mut looker, mut host) = (Looker::default(), host());
    // Process 11 holds more than a look reads of one process, and the whole more than a look may read.
    host.sockets.insert(11, (1000..1100).collect());
    host.sockets.extend((12..40).map(|pid| (pid, vec![2000; 4])));
    host.sockets.insert(10, Vec::new());
    host.sockets.insert(40, vec![1]);
    let trees = [tree(1, &(10..=40).collect::<Vec<_>>())];
    let mut looks = Vec::new();
    for _ in 0..6 {
        let mut budget = Budget::new(BootTime::from_millis(1), 64, BootTime::default);
        looks.push(looker.look(&trees, true, &sockets(called(), Vec::new()), &[], &mut host, &mut budget));
    }
    assert!(looks[0].unfinished && looks[0].found.is_empty());
    // Once or twice: a tree that no look has read to its end counts as new.
    let found: HashSet<Pid> =
        looks.iter().flat_map(|look| &look.found).filter_map(|found| Some(found.process?.pid)).collect();
    assert_eq!(found, [pid(50)].into());
}

#[test]
fn descriptors_that_may_not_be_read_are_told_and_their_owner_is_known_by_its_socket() {
    let (mut looker, mut host) = (Looker::default(), host());
    host.closed = [10].into();
    let look = at(&mut looker, &[tree(1, &[10, 11])], called(), &mut host);
    assert_eq!((look.not_permitted.as_slice(), look.found.len()), (&[run(1)][..], 0));
    let (mut looker, mut host) = (Looker::default(), self::host());
    host.closed = [50].into();
    let look = at(&mut looker, &[tree(1, &[10])], called(), &mut host);
    assert_eq!((look.found[0].process, look.found[0].helper.uid), (None, Some(7)));
}

#[test]
fn the_listener_of_a_service_manager_is_not_taken_for_its_service() {
    let (mut looker, mut host) = (Looker::default(), host());
    host.sockets.insert(1, vec![100]);
    let look = at(&mut looker, &[tree(1, &[10])], called(), &mut host);
    assert_eq!(look.found[0].process.unwrap().pid, pid(50));
}

#[test]
fn own_addresses_are_left_out() {
    let (mut looker, mut host) = (Looker::default(), host());
    let own = [Via::Unix(b"/broker".to_vec())];
    let look = looker.look(&[tree(1, &[10])], true, &sockets(called(), vec![]), &own, &mut host, &mut plenty());
    assert_eq!(look, Look::default());
}
