//! Tests of the list, the overlay and the reserve file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use jiff::Timestamp;
use machineid_protocol::DeviceId;

use super::record::{self, HEADER};
use super::*;
use crate::audit::{Actor, Call, KeyLabel};
use crate::org::{HeldKey, Switch};
use crate::store::WhichKey;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn call(second: i64) -> Call {
    let actor = Actor::Key(KeyLabel::new([1; 6], Some("oncall".parse().unwrap())));
    Call { at: at(second), request_id: "id".to_owned(), actor, reason: Some("gone mad".parse().unwrap()) }
}

fn ids(of: &[&str]) -> Vec<DeviceId> {
    of.iter().map(|id| id.parse().unwrap()).collect()
}

fn devices(org: OrgId, of: &[&str], second: i64) -> UnwrittenStop {
    UnwrittenStop { org, stop: StopScope::Devices { ids: ids(of), batch: true }, counted: 0, call: call(second) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn named(unwritten: &Unwritten) -> Vec<String> {
    let name = |(_, stop): (u64, Arc<UnwrittenStop>)| {
        if let StopScope::Devices { ids, .. } = &stop.stop {
            return ids.iter().map(DeviceId::as_str).collect::<Vec<_>>().join("+");
        }
        stop.stop.name().to_owned()
    };
    unwritten.waiting(None).into_iter().map(name).collect()
}

/// What a crash leaves is the file alone.
fn again(path: &std::path::Path) -> Unwritten {
    Unwritten::open(Some(path.to_owned())).unwrap()
}

#[test]
fn what_waits_is_read_at_the_next_start_and_what_was_written_is_not() {
    let (directory, org, other) = (tempfile::TempDir::new().unwrap(), OrgId::random(), OrgId::random());
    let path = directory.path().join("reserve");
    let runtime = runtime();
    let unwritten = again(&path);
    let off = UnwrittenStop { org: other, stop: StopScope::Off(Switch::Operator), counted: 0, call: call(3) };
    let numbers: Vec<u64> =
        [devices(org, &["a", "b"], 1), devices(org, &["c"], 2), off].map(|stop| unwritten.put(stop)).into();
    for number in &numbers {
        assert!(runtime.block_on(unwritten.keep(*number)));
    }
    runtime.block_on(unwritten.written(numbers[1]));
    assert_eq!(unwritten.counts(), (2, 0));
    drop(unwritten);
    let unwritten = again(&path);
    assert_eq!(named(&unwritten), ["a+b", "off-operator"]);
    let (_, first) = unwritten.waiting(Some(org)).pop().unwrap();
    assert_eq!((first.call.at, first.call.actor.to_string()), (at(1), "key:010101010101:oncall".to_owned()));
    for (number, _) in unwritten.waiting(None) {
        runtime.block_on(unwritten.written(number));
    }
    // The next one begins the file anew; what stood behind it is never read as a stop.
    let number = unwritten.put(devices(org, &["d", "e"], 4));
    assert!(runtime.block_on(unwritten.keep(number)));
    drop(unwritten);
    assert_eq!(named(&again(&path)), ["d+e"]);
}

#[test]
fn the_file_has_its_whole_size_from_the_beginning() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("reserve");
    let unwritten = again(&path);
    let size = fs::metadata(&path).unwrap();
    assert_eq!((size.len(), size.mode() & 0o777), (1024 * 1024, 0o600));
    assert!(size.blocks() * 512 >= size.len(), "{} blocks", size.blocks());
    assert!(matches!(Unwritten::open(Some(path.clone())), Err(ReserveError::InUse { .. })));
    drop(unwritten);
    fs::write(&path, "[something]\nelse = true\n").unwrap();
    assert!(matches!(Unwritten::open(Some(path)), Err(ReserveError::Foreign { .. })));
}

#[test]
fn half_a_record_ends_the_file_and_a_full_file_keeps_nothing_more() {
    let (directory, org) = (tempfile::TempDir::new().unwrap(), OrgId::random());
    let path = directory.path().join("reserve");
    let runtime = runtime();
    let unwritten = again(&path);
    let first = unwritten.put(devices(org, &["a"], 1));
    assert!(runtime.block_on(unwritten.keep(first)));
    drop(unwritten);
    // A power cut in the middle of the second one.
    let length = record::record(1, &devices(org, &["a"], 1)).unwrap().len();
    let second = record::record(1, &devices(org, &["b"], 2)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&second[..second.len() - 1], (HEADER + length) as u64).unwrap();
    drop(file);
    let unwritten = again(&path);
    assert_eq!(named(&unwritten), ["a"]);
    let many: Vec<String> = (0..500).map(|number| format!("{number:0128}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let kept = |_: &i64| {
        let number = unwritten.put(devices(org, &many, 3));
        runtime.block_on(unwritten.keep(number))
    };
    assert!((12..17).contains(&(0..100).take_while(kept).count()));
    let (in_file, in_memory) = unwritten.counts();
    assert_eq!(in_memory, 1, "and it is in force all the same; {in_file} are in the file");
    assert!(unwritten.examine().trouble.unwrap().text.contains("1 of them in no file"));
}

#[test]
fn a_stop_that_is_repeated_waits_twice_at_most_however_often_it_is() {
    let (directory, org) = (tempfile::TempDir::new().unwrap(), OrgId::random());
    let path = directory.path().join("reserve");
    let unwritten = again(&path);
    runtime().block_on(async {
        for second in 1..6 {
            let number = unwritten.put(devices(org, &["a"], second));
            assert!(unwritten.keep(number).await && unwritten.keep(number).await, "and it is kept once");
            unwritten.forget_repeats(number);
        }
        let other = unwritten.put(devices(org, &["a", "b"], 9));
        unwritten.forget_repeats(other);
        let times: Vec<_> = unwritten.waiting(None).iter().map(|(_, stop)| stop.call.at).collect();
        assert_eq!(times, [at(1), at(5), at(9)]);
        unwritten.forget(other);
        // What was crossed out is no longer in the file.
        while Arc::strong_count(&unwritten.0) > 1 {
            tokio::task::yield_now().await;
        }
    });
    drop(unwritten);
    assert_eq!(named(&again(&path)), ["a", "a"]);
}

#[test]
fn a_large_stop_that_is_repeated_for_a_day_never_fills_the_file() {
    let (directory, org) = (tempfile::TempDir::new().unwrap(), OrgId::random());
    let path = directory.path().join("reserve");
    let unwritten = again(&path);
    let many: Vec<String> = (0..500).map(|number| format!("{number:0128}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    runtime().block_on(async {
        let other = unwritten.put(devices(org, &["a"], 0));
        assert!(unwritten.keep(other).await);
        for second in 1..100 {
            let number = unwritten.put(devices(org, &many, second));
            assert!(unwritten.keep(number).await, "{second}");
            unwritten.forget_repeats(number);
            while Arc::strong_count(&unwritten.0) > 1 {
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(unwritten.counts(), (3, 0));
    drop(unwritten);
    let unwritten = again(&path);
    let times: Vec<_> = unwritten.waiting(None).iter().map(|(_, stop)| stop.call.at).collect();
    assert_eq!(times, [at(0), at(1), at(99)]);
    // It goes on from where it was.
    assert!(runtime().block_on(async { unwritten.keep(unwritten.put(devices(org, &["z"], 100))).await }));
    drop(unwritten);
    assert_eq!(again(&path).waiting(None).len(), 4);
}

#[test]
fn a_file_that_cannot_be_made_is_a_problem_and_is_made_when_it_can_be() {
    let (directory, org) = (tempfile::TempDir::new().unwrap(), OrgId::random());
    let path = directory.path().join("missing/reserve");
    let runtime = runtime();
    let unwritten = again(&path);
    assert!(unwritten.examine().trouble.unwrap().text.contains("cannot be made"));
    let number = unwritten.put(devices(org, &["a"], 1));
    assert!(!runtime.block_on(unwritten.keep(number)));
    fs::create_dir(path.parent().unwrap()).unwrap();
    runtime.block_on(unwritten.mend_reserve());
    assert_eq!(unwritten.counts(), (1, 0));
    drop(unwritten);
    assert_eq!(named(&again(&path)), ["a"]);
}

#[test]
fn stops_deny_what_they_name_and_nothing_else() {
    let (org, other) = (OrgId::random(), OrgId::random());
    let keys = StopScope::Keys(vec![WhichKey::Mark([7; 6]), WhichKey::Name("ci".parse().unwrap())]);
    let stops = [
        devices(org, &["a"], 1),
        UnwrittenStop { org, stop: keys, counted: 0, call: call(2) },
        devices(org, &["a", "b"], 3),
    ];
    let overlay = Overlay::new(stops.iter());
    assert!(overlay.of(other).is_none());
    let stops = overlay.of(org).unwrap();
    let revoked = |id: &str| stops.revoke_of(&id.parse().unwrap(), 1).map(|revoke| revoke.at);
    assert_eq!((revoked("a"), revoked("b"), revoked("c")), (Some(at(1)), Some(at(3)), None), "the first revoke counts");
    let with_role =
        |name: Option<&str>| HeldKey { own: false, name: name.map(|name| name.parse().unwrap()), ..HeldKey::own() };
    let ended = |mark: u8, mut key: HeldKey| {
        stops.on_key([mark; 6], &mut key);
        key.revoked
    };
    assert!(ended(7, with_role(None)) && ended(1, with_role(Some("ci"))));
    assert!(!ended(1, with_role(Some("cd"))) && !ended(7, HeldKey::own()), "own keys are rotated");
    assert!(stops.covers(&StopScope::Devices { ids: ids(&["b", "a"]), batch: false }));
    assert!(!stops.covers(&StopScope::AllActive { newest: Some(0) }));
}

/// An upgrade while a stop waits must find that stop.
#[test]
fn a_stop_of_all_that_a_version_without_numbers_of_devices_kept_is_read() {
    let stop = UnwrittenStop { stop: StopScope::AllActive { newest: Some(7) }, ..devices(OrgId::random(), &[], 1) };
    let mut json = serde_json::to_value(&stop).unwrap();
    assert_eq!(serde_json::from_value::<UnwrittenStop>(json.clone()).unwrap().stop, stop.stop);
    json["stop"] = "all_active".into();
    json.as_object_mut().unwrap().remove("counted");
    let before: UnwrittenStop = serde_json::from_value(json).unwrap();
    assert_eq!((before.stop, before.counted), (StopScope::AllActive { newest: None }, 0));
}
