use super::super::pid::StartTime;
use super::super::table::Caller;
use super::*;
use proptest::prelude::*;

fn pid(raw: i32) -> Pid {
    Pid::new(raw).unwrap()
}

fn identity(raw: i32) -> Identity {
    Identity { pid: pid(raw), start: StartTime(u64::from(raw.unsigned_abs())) }
}

/// pid, parent, group
fn table_of(caller: i32, rows: &[(i32, i32, i32)]) -> ProcessTable {
    let entry = |&(raw, parent, group): &(i32, i32, i32)| ProcessEntry {
        identity: identity(raw),
        parent: Pid::new(parent),
        group,
        session: 1,
        activity: Activity::Interruptible,
    };
    let caller = Caller { pid: pid(caller), group: 3 };
    ProcessTable::from_entries(caller, rows.iter().map(entry).collect())
}

fn numbers(members: &[Member]) -> Vec<i32> {
    members.iter().map(|member| member.identity.pid.as_raw()).collect()
}

const START: [(i32, i32, i32); 4] = [(1, 0, 1), (3, 1, 3), (50, 3, 50), (100, 50, 100)];

#[test]
fn leader_descendants_group_and_orphans_of_the_wrapper_belong() {
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &START));
    let mut rows = START.to_vec();
    rows.extend([(101, 100, 100), (102, 101, 102), (103, 50, 103), (104, 1, 100), (200, 1, 200)]);
    assert_eq!(numbers(&tree.members(&table_of(50, &rows))), [100, 101, 102, 103, 104]);
}

#[test]
fn children_the_wrapper_had_before_are_none_of_the_trees() {
    let mut rows = START.to_vec();
    rows.extend([(60, 50, 60), (61, 60, 60)]);
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &rows));
    assert_eq!(numbers(&tree.members(&table_of(50, &rows))), [100]);
    // The bystander's own child is orphaned to the wrapper and stays a bystander.
    let rows: Vec<_> =
        rows.into_iter().filter(|row| row.0 != 60).map(|row| if row.0 == 61 { (61, 50, 60) } else { row }).collect();
    assert_eq!(numbers(&tree.members(&table_of(50, &rows))), [100]);
}

#[test]
fn orphans_that_are_there_when_a_restarted_daemon_first_looks_belong() {
    let mut rows = START.to_vec();
    rows.extend([(60, 50, 60), (110, 50, 110)]);
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &rows));
    assert_eq!(numbers(&tree.members(&table_of(50, &rows))), [100, 110]);
}

#[test]
fn a_known_member_is_followed_after_wrapper_and_parents_are_gone() {
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(9, &START));
    let mut rows = START.to_vec();
    rows.extend([(101, 100, 100), (102, 101, 102)]);
    tree.members(&table_of(9, &rows));
    // Wrapper, leader and 101 are gone; 102 was adopted by init and forked 105.
    let rows = [(1, 0, 1), (102, 1, 102), (105, 102, 102)];
    assert_eq!(numbers(&tree.members(&table_of(9, &rows))), [102, 105]);
}

#[test]
fn a_group_number_taken_over_by_strangers_is_not_the_trees() {
    let mut tree = Tree::new(identity(100), None, &table_of(9, &START));
    tree.members(&table_of(9, &START));
    let mut strangers = table_of(9, &[(1, 0, 1), (100, 1, 100), (101, 1, 100)]).entries().to_vec();
    strangers[1].identity.start = StartTime(77_777);
    let table = ProcessTable::from_entries(Caller { pid: pid(9), group: 3 }, strangers);
    assert_eq!(numbers(&tree.members(&table)), Vec::<i32>::new());
}

#[test]
fn the_callers_group_is_not_swept_but_a_descendant_cannot_hide_in_it() {
    // The leader leads the caller's own group (it is 3): only descent counts, and it counts for 102, which joined it.
    let rows = [(1, 0, 1), (9, 1, 3), (3, 9, 3), (10, 1, 3), (102, 3, 3)];
    let mut tree = Tree::new(identity(3), None, &table_of(9, &rows));
    assert_eq!(numbers(&tree.members(&table_of(9, &rows))), [3, 102]);
}

#[test]
fn a_leader_that_leads_no_group_brings_no_group_with_it() {
    let rows = [(1, 0, 1), (40, 1, 40), (41, 40, 40), (42, 40, 40)];
    let mut tree = Tree::new(identity(41), None, &table_of(9, &rows));
    assert_eq!(numbers(&tree.members(&table_of(9, &rows))), [41]);
}

proptest! {
    #[test]
    fn init_caller_wrapper_zombies_and_strangers_are_never_members(
        looks in proptest::collection::vec(
            proptest::collection::vec((1_i32..20, 0_i32..20, 1_i32..20, any::<bool>()), 0..25), 1..4),
        leader in 2_i32..20,
        wrapper in proptest::option::of(2_i32..20),
        caller in 2_i32..20,
    ) {
        let tables: Vec<_> = looks.iter().map(|rows| {
            let rows: Vec<_> = rows.iter().map(|&(pid, parent, group, alive)| (pid, parent, group, alive)).collect();
            let plain: Vec<_> = rows.iter().map(|&(pid, parent, group, _)| (pid, parent, group)).collect();
            let mut entries = table_of(caller, &plain).entries().to_vec();
            for entry in &mut entries {
                let alive = rows.iter().any(|row| row.0 == entry.identity.pid.as_raw() && row.3);
                if !alive {
                    entry.activity = Activity::Ended;
                }
            }
            ProcessTable::from_entries(Caller { pid: pid(caller), group: 3 }, entries)
        }).collect();
        let wrapper = wrapper.map(identity);
        let mut tree = Tree::new(identity(leader), wrapper, &tables[0]);
        let mut before: Vec<Identity> = Vec::new();
        for table in &tables {
            let members = tree.members(table);
            for member in &members {
                let number = member.identity.pid;
                prop_assert!(!number.is_init());
                prop_assert_ne!(number, pid(caller));
                prop_assert!(table.is_alive(member.identity));
                prop_assert!(tree.supervisor().is_none_or(|wrapper| wrapper.pid != number));
                let group = table.get(number).map(|entry| entry.group);
                let tied = member.identity == tree.leader()
                    || table.is_descendant(tree.leader().pid, number)
                    || (group == Some(leader) && leader != 3)
                    || tree.supervisor().is_some_and(|wrapper| table.is_descendant(wrapper.pid, number))
                    || before.iter().any(|&old| old == member.identity || table.is_descendant(old.pid, number))
                    // Descends from somebody who is a member by group.
                    || members.iter().any(|other| table.is_descendant(other.identity.pid, number))
                    || table.entries().iter().any(|entry| !entry.is_alive() && table.is_descendant(entry.identity.pid, number));
                prop_assert!(tied, "{} is a stranger", number);
            }
            before = members.iter().map(|member| member.identity).collect();
        }
    }
}
