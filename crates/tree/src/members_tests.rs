use super::super::pid::StartTime;
use super::super::table::Observer;
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
    let caller = Observer { pid: pid(caller), group: 3 };
    ProcessTable::from_entries(caller, rows.iter().map(entry).collect())
}

fn entry_of(raw: i32, parent: i32) -> ProcessEntry {
    table_of(9, &[(raw, parent, raw)]).entries()[0]
}

/// A look at a table and nothing else.
fn look(tree: &mut Tree, table: &ProcessTable) -> Vec<Member> {
    tree.join(&Sighting::of(table))
}

fn numbers(members: &[Member]) -> Vec<i32> {
    members.iter().map(|member| member.identity.pid.as_raw()).collect()
}

#[test]
fn an_adopted_tree_is_its_descendants_and_not_the_job_of_the_shell() {
    // `agent | tee`: the shell 50 has made the agent 100 the leader of both. The agent has a child in its group.
    let table = table_of(9, &[(1, 0, 1), (50, 1, 50), (100, 50, 100), (101, 50, 100), (110, 100, 100)]);
    let mut tree = Tree::alone(identity(100), None).without_group();
    assert_eq!(numbers(&look(&mut tree, &table)), [100, 110]);
    let mut whole = Tree::alone(identity(100), None);
    assert_eq!(numbers(&look(&mut whole, &table)), [100, 101, 110]);
    // What an earlier look found stays known when its parent has ended.
    let later = table_of(9, &[(1, 0, 1), (50, 1, 50), (101, 50, 100), (110, 1, 100)]);
    assert_eq!(numbers(&look(&mut tree, &later)), [110]);
}

const START: [(i32, i32, i32); 4] = [(1, 0, 1), (3, 1, 3), (50, 3, 50), (100, 50, 100)];

#[test]
fn leader_descendants_group_and_orphans_of_the_wrapper_belong() {
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &START));
    let mut rows = START.to_vec();
    rows.extend([(101, 100, 100), (102, 101, 102), (103, 50, 103), (104, 1, 100), (200, 1, 200)]);
    assert_eq!(numbers(&look(&mut tree, &table_of(50, &rows))), [100, 101, 102, 103, 104]);
}

#[test]
fn children_the_wrapper_had_before_are_none_of_the_trees() {
    let mut rows = START.to_vec();
    rows.extend([(60, 50, 60), (61, 60, 60)]);
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &rows));
    assert_eq!(numbers(&look(&mut tree, &table_of(50, &rows))), [100]);
    // The bystander's own child is orphaned to the wrapper and stays a bystander.
    let rows: Vec<_> =
        rows.into_iter().filter(|row| row.0 != 60).map(|row| if row.0 == 61 { (61, 50, 60) } else { row }).collect();
    assert_eq!(numbers(&look(&mut tree, &table_of(50, &rows))), [100]);
}

#[test]
fn orphans_that_are_there_when_a_restarted_daemon_first_looks_belong() {
    let mut rows = START.to_vec();
    rows.extend([(60, 50, 60), (110, 50, 110)]);
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(50, &rows));
    assert_eq!(numbers(&look(&mut tree, &table_of(50, &rows))), [100, 110]);
}

#[test]
fn a_known_member_is_followed_after_wrapper_and_parents_are_gone() {
    let mut tree = Tree::new(identity(100), Some(identity(50)), &table_of(9, &START));
    let mut rows = START.to_vec();
    rows.extend([(101, 100, 100), (102, 101, 102)]);
    look(&mut tree, &table_of(9, &rows));
    // Wrapper, leader and 101 are gone; 102 was adopted by init and forked 105.
    let rows = [(1, 0, 1), (102, 1, 102), (105, 102, 102)];
    assert_eq!(numbers(&look(&mut tree, &table_of(9, &rows))), [102, 105]);
}

#[test]
fn a_group_number_taken_over_by_strangers_is_not_the_trees() {
    let mut tree = Tree::new(identity(100), None, &table_of(9, &START));
    look(&mut tree, &table_of(9, &START));
    let mut strangers = table_of(9, &[(1, 0, 1), (100, 1, 100), (101, 1, 100)]).entries().to_vec();
    strangers[1].identity.start = StartTime(77_777);
    let table = ProcessTable::from_entries(Observer { pid: pid(9), group: 3 }, strangers);
    assert_eq!(numbers(&look(&mut tree, &table)), Vec::<i32>::new());
}

#[test]
fn the_callers_group_is_not_swept_but_a_descendant_cannot_hide_in_it() {
    // The leader leads the caller's own group (it is 3): only descent counts, and it counts for 102, which joined it.
    let rows = [(1, 0, 1), (9, 1, 3), (3, 9, 3), (10, 1, 3), (102, 3, 3)];
    let mut tree = Tree::new(identity(3), None, &table_of(9, &rows));
    assert_eq!(numbers(&look(&mut tree, &table_of(9, &rows))), [3, 102]);
}

#[test]
fn a_leader_that_leads_no_group_brings_no_group_with_it() {
    let rows = [(1, 0, 1), (40, 1, 40), (41, 40, 40), (42, 40, 40)];
    let mut tree = Tree::new(identity(41), None, &table_of(9, &rows));
    assert_eq!(numbers(&look(&mut tree, &table_of(9, &rows))), [41]);
}

#[test]
fn what_descends_from_a_living_guardian_belongs_and_its_wrappers_other_children_do_not() {
    // 50 is the wrapper, 60 its guardian, 100 the leader, 70 a child that the wrapper had before.
    let rows = [(1, 0, 1), (3, 1, 3), (50, 3, 50), (60, 50, 60), (70, 50, 50), (71, 70, 50), (100, 60, 100)];
    let before = table_of(50, &rows);
    let tree = Tree::new(identity(100), Some(identity(50)), &before).guarded_by(Guardian::Sweeper(identity(60)));
    let mut rows = rows.to_vec();
    // 103 is an orphan of the tree; 104 is another child that the wrapper has started since.
    rows.extend([(101, 100, 100), (103, 60, 103), (104, 50, 50)]);
    assert_eq!(numbers(&look(&mut tree.clone(), &table_of(50, &rows))), [100, 101, 103]);
    // Guardian and daemon see the same.
    for caller in [60, 9] {
        assert_eq!(numbers(&look(&mut tree.clone(), &table_of(caller, &rows))), [100, 101, 103]);
    }
    // The guardian has died: what was below it came to the wrapper.
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|row| row.0 != 60)
        .map(|(pid, parent, group)| (pid, if parent == 60 { 50 } else { parent }, group))
        .collect();
    assert_eq!(numbers(&look(&mut tree.clone(), &table_of(50, &rows))), [100, 101, 103, 104]);
}

#[test]
fn a_namespaces_first_process_is_no_member_and_its_children_are_also_when_it_is_the_one_that_looks() {
    let rows = [(1, 0, 1), (50, 1, 50), (60, 50, 60), (100, 60, 100), (103, 60, 103)];
    let mut tree = Tree::alone(identity(100), Some(identity(50))).guarded_by(Guardian::Init(identity(60)));
    assert_eq!(numbers(&look(&mut tree, &table_of(50, &rows))), [100, 103]);
    assert_eq!(tree.living_init(pid(50), |_| true), Some(identity(60)));
    assert_eq!(tree.living_init(pid(60), |_| true), None);
    assert_eq!(tree.living_init(pid(50), |_| false), None);
    // Inside the namespace the guardian is process 1, and the wrapper cannot be seen.
    let rows = [(1, 0, 1), (2, 1, 2), (5, 1, 5)];
    let mut tree = Tree::alone(identity(2), None).guarded_by(Guardian::Init(identity(1)));
    assert_eq!(numbers(&look(&mut tree, &table_of(1, &rows))), [2, 5]);
    assert_eq!(tree.living_init(pid(1), |_| true), None);
}

#[test]
fn a_process_in_the_leaf_belongs_also_when_no_table_has_it_yet() {
    let table = table_of(9, &START);
    let mut tree = Tree::alone(identity(100), None);
    let inside = [entry_of(100, 50), entry_of(300, 1)];
    let members = tree.join(&Sighting { table: &table, leaf: &inside, holders: &[] });
    assert_eq!(
        members.iter().map(|member| (member.identity, member.in_leaf)).collect::<Vec<_>>(),
        [(identity(100), true), (identity(300), true)]
    );
    let members = tree.join(&Sighting { table: &table, leaf: &inside[1..], holders: &[] });
    assert_eq!(members.iter().map(|member| member.in_leaf).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_process_that_carries_the_run_id_belongs_with_its_children_unless_it_is_older_than_the_run() {
    let mut rows = START.to_vec();
    rows.extend([(40, 1, 40), (200, 1, 200), (201, 200, 200)]);
    let table = table_of(9, &rows);
    let holders = [entry_of(40, 1), entry_of(200, 1)];
    let mut tree = Tree::alone(identity(100), Some(identity(50)));
    let members = tree.join(&Sighting { table: &table, leaf: &[], holders: &holders });
    assert_eq!(numbers(&members), [100, 200, 201]);
}

#[test]
fn a_tree_is_held_when_all_that_were_to_hold_it_live() {
    let table = table_of(9, &START);
    let tree = |supervisor: Option<i32>| Tree::alone(identity(100), supervisor.map(identity));
    assert!(tree(Some(50)).is_held(&table));
    assert!(!tree(Some(51)).is_held(&table));
    assert!(!tree(None).is_held(&table));
    assert!(!tree(Some(50)).guarded_by(Guardian::Sweeper(identity(60))).is_held(&table));
    assert!(tree(None).guarded_by(Guardian::Init(identity(50))).is_held(&table));
}

/// What a look may find: pid, parent, group, alive, in the leaf, carrying the run id.
type Row = (i32, i32, i32, bool, bool, bool);

proptest! {
    #[test]
    fn init_caller_wrapper_guardian_bystanders_zombies_and_strangers_are_never_members(
        looks in proptest::collection::vec(
            proptest::collection::vec(
                (1_i32..20, 0_i32..20, 1_i32..20, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
                0..25),
            1..4),
        leader in 2_i32..20,
        wrapper in proptest::option::of(2_i32..20),
        guardian in proptest::option::of((2_i32..20, any::<bool>())),
        caller in 1_i32..20,
    ) {
        // A process that has ended in one look, or is missing in it, has ended in every later one.
        let (mut found, mut ended) = (HashSet::new(), HashSet::new());
        let read = |rows: &Vec<Row>| {
            let here: HashSet<i32> = rows.iter().map(|row| row.0).collect();
            ended.extend(found.difference(&here).copied());
            found.extend(here);
            let plain: Vec<_> = rows.iter().map(|row| (row.0, row.1, row.2)).collect();
            let row_of = |entry: &ProcessEntry| *rows.iter().find(|row| row.0 == entry.identity.pid.as_raw()).unwrap();
            let mut entries = table_of(caller, &plain).entries().to_vec();
            for entry in &mut entries {
                let number = entry.identity.pid.as_raw();
                if !row_of(entry).3 || ended.contains(&number) {
                    entry.activity = Activity::Ended;
                    ended.insert(number);
                }
            }
            let leaf: Vec<_> = entries.iter().filter(|entry| row_of(entry).4).copied().collect();
            let holders: Vec<_> = entries.iter().filter(|entry| row_of(entry).5).copied().collect();
            (ProcessTable::from_entries(Observer { pid: pid(caller), group: 3 }, entries), leaf, holders)
        };
        let looks: Vec<_> = looks.iter().map(read).collect();
        let mut tree = Tree::new(identity(leader), wrapper.map(identity), &looks[0].0);
        if let Some((guardian, init)) = guardian.filter(|&(guardian, _)| guardian != leader) {
            let kind = if init { Guardian::Init } else { Guardian::Sweeper };
            tree = tree.guarded_by(kind(identity(guardian)));
        }
        let bystanders = tree.bystanders.clone();
        let mut before: Vec<Identity> = Vec::new();
        for (table, leaf, holders) in &looks {
            let members = tree.join(&Sighting { table, leaf, holders });
            let is_in = |list: &[ProcessEntry], number: Pid| {
                list.iter().any(|root| root.identity.pid == number || table.is_descendant(root.identity.pid, number))
            };
            for member in &members {
                let number = member.identity.pid;
                prop_assert!(!number.is_init());
                prop_assert_ne!(number, pid(caller));
                prop_assert!(table.is_alive(member.identity));
                prop_assert!(tree.supervisor().is_none_or(|wrapper| wrapper.pid != number));
                prop_assert!(tree.guardian().is_none_or(|guardian| guardian.identity().pid != number));
                prop_assert!(!tree.bystanders.contains(&member.identity));
                prop_assert!(!bystanders.contains(&member.identity) || !table.is_alive(member.identity));
                prop_assert_eq!(member.in_leaf, leaf.iter().any(|entry| entry.identity == member.identity));
                let young = |root: &&ProcessEntry| root.identity.start >= tree.leader().start;
                let young: Vec<_> = holders.iter().filter(young).copied().collect();
                let group = table.get(number).map(|entry| entry.group);
                let reaper = [tree.guardian().map(Guardian::identity), tree.supervisor()];
                let tied = member.identity == tree.leader()
                    || table.is_descendant(tree.leader().pid, number)
                    || (group == Some(leader) && leader != 3)
                    || reaper.into_iter().flatten().any(|reaper| table.is_descendant(reaper.pid, number))
                    || before.iter().any(|&old| old == member.identity || table.is_descendant(old.pid, number))
                    || is_in(leaf, number)
                    || is_in(&young, number)
                    // It descends from a process that is a member by its group, or was one until it ended.
                    || members.iter().any(|other| table.is_descendant(other.identity.pid, number))
                    || table.entries().iter().any(|entry| !entry.is_alive() && table.is_descendant(entry.identity.pid, number));
                prop_assert!(tied, "{} is a stranger", number);
            }
            before = members.iter().map(|member| member.identity).collect();
        }
    }
}
