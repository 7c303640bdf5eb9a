use super::super::pid::StartTime;
use super::super::stat::Activity;
use super::*;
use proptest::prelude::*;

pub(super) fn pid(raw: i32) -> Pid {
    Pid::new(raw).unwrap()
}

fn entry(raw: i32, parent: i32) -> ProcessEntry {
    ProcessEntry {
        identity: Identity { pid: pid(raw), start: StartTime(u64::from(raw.unsigned_abs())) },
        parent: Pid::new(parent),
        group: raw,
        session: raw,
        activity: Activity::Interruptible,
    }
}

fn table(rows: &[(i32, i32)]) -> ProcessTable {
    let entries = rows.iter().map(|&(pid, parent)| entry(pid, parent)).collect();
    ProcessTable::from_entries(Observer { pid: pid(9999), group: 9999 }, entries)
}

fn numbers(entries: &[&ProcessEntry]) -> Vec<i32> {
    let mut numbers: Vec<_> = entries.iter().map(|entry| entry.identity.pid.as_raw()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn descendants_are_found_at_any_depth_and_the_root_is_none() {
    let table = table(&[(1, 0), (10, 1), (11, 10), (12, 11), (13, 11), (20, 1)]);
    assert_eq!(numbers(&table.descendants(pid(10))), [11, 12, 13]);
    assert!(table.is_descendant(pid(10), pid(13)));
    assert!(!table.is_descendant(pid(10), pid(20)));
    assert!(!table.is_descendant(pid(10), pid(10)));
    assert!(!table.is_descendant(pid(10), pid(777)));
}

#[test]
fn this_process_and_its_parent_are_in_a_real_scan() {
    let table = ProcessTable::scan().unwrap();
    let own = table.get(Pid::own()).unwrap();
    assert!(table.is_alive(own.identity));
    assert!(table.is_descendant(own.parent.unwrap(), Pid::own()));
    assert_eq!(table.caller().pid, Pid::own());
}

#[test]
fn a_scan_that_is_late_is_given_up() {
    let now = BootTime::now();
    assert!(ProcessTable::scan_until(Some(now + std::time::Duration::from_mins(1))).is_ok());
    // A host has more entries in its /proc than are read between two looks at the clock.
    assert_eq!(ProcessTable::scan_until(Some(now)).err(), Some(Errno::TIME));
}

#[test]
fn a_peer_of_the_same_namespace_names_itself_and_its_descendants_only() {
    let table = table(&[(1, 0), (10, 1), (11, 10), (20, 1), (21, 20)]);
    let same = |pid: Pid| Some(vec![pid.as_raw()]);
    assert_eq!(table.resolve(pid(10), 10, same).map(|found| found.pid), Some(pid(10)));
    assert_eq!(table.resolve(pid(10), 11, same).map(|found| found.pid), Some(pid(11)));
    for foreign in [1, 20, 21, 0, -1, 777, i32::MIN] {
        assert_eq!(table.resolve(pid(10), foreign, same), None, "{foreign}");
    }
}

#[test]
fn a_peer_of_an_inner_namespace_is_understood_in_its_own_numbers() {
    // 500 is pid 1 of its namespace, 501 is 2, and 502 sits one namespace deeper: 3 for the peer, 1 for itself.
    let table = table(&[(1, 0), (2, 1), (3, 1), (500, 1), (501, 500), (502, 501)]);
    let pids = |pid: Pid| {
        Some(match pid.as_raw() {
            500 => vec![500, 1],
            501 => vec![501, 2],
            502 => vec![502, 3, 1],
            other => vec![other],
        })
    };
    assert_eq!(table.resolve(pid(500), 1, pids).map(|found| found.pid), Some(pid(500)));
    assert_eq!(table.resolve(pid(500), 2, pids).map(|found| found.pid), Some(pid(501)));
    assert_eq!(table.resolve(pid(500), 3, pids).map(|found| found.pid), Some(pid(502)));
    assert_eq!(table.resolve(pid(500), 501, pids), None);
}

#[test]
fn a_zombie_cannot_be_supervised() {
    let mut entries = vec![entry(10, 1), entry(11, 10)];
    entries[1].activity = Activity::Ended;
    let table = ProcessTable::from_entries(Observer { pid: pid(9999), group: 9999 }, entries);
    assert_eq!(table.resolve(pid(10), 11, |pid| Some(vec![pid.as_raw()])), None);
    assert!(table.descendants(pid(10)).is_empty());
}

proptest! {
    #[test]
    fn descendants_and_is_descendant_agree_on_any_table(
        rows in proptest::collection::vec((1_i32..30, 0_i32..30), 0..40),
        root in 1_i32..30,
    ) {
        let table = table(&rows);
        let found = numbers(&table.descendants(pid(root)));
        for entry in table.entries() {
            let number = entry.identity.pid.as_raw();
            if number != root {
                prop_assert_eq!(found.contains(&number), table.is_descendant(pid(root), pid(number)), "{}", number);
            }
        }
    }

    #[test]
    fn whatever_is_resolved_is_the_peer_or_descends_from_it(
        rows in proptest::collection::vec((1_i32..30, 0_i32..30), 0..40),
        peer in 1_i32..30,
        requested in -2_i32..32,
        depth in 1_usize..3,
    ) {
        let table = table(&rows);
        let pids = |pid: Pid| Some((0..depth).map(|level| pid.as_raw() - i32::try_from(level).unwrap()).collect());
        if let Some(found) = table.resolve(pid(peer), requested, pids) {
            prop_assert!(found.pid == pid(peer) || table.is_descendant(pid(peer), found.pid));
        }
    }
}
