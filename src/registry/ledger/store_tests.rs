use super::super::run_record::tests::{here, record};
use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), here()).unwrap();
    (directory, store)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.join("runs"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_entry_is_ours_alone_and_goes_when_the_run_is_over() {
    let (directory, store) = store();
    store.write(&record()).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(directory.path().join("runs")), 0o700);
    assert_eq!(mode(store.path(record().id)), 0o600);
    assert_eq!(store.read_all().unwrap(), [record()]);
    let later = RunRecord { stop: None, ..record() };
    store.write(&later).unwrap();
    assert_eq!(store.read_all().unwrap(), [later], "an older one is replaced");
    store.remove(record().id).unwrap();
    store.remove(record().id).unwrap();
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn the_entries_of_another_boot_are_removed() {
    let (directory, store) = store();
    store.write(&record()).unwrap();
    let after = Store::open(directory.path(), Here { boot_id: "boot-2".to_owned(), ..here() }).unwrap();
    assert_eq!(after.read_all().unwrap(), []);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn what_is_torn_or_another_programs_is_left_aside_once() {
    let (directory, store) = store();
    let runs = directory.path().join("runs");
    let text = record().to_text(&here());
    let id = record().id;
    fs::write(runs.join("README"), "hello").unwrap();
    write_whole(&runs.join(format!("{id}.json")), &text[..text.len() / 2]).unwrap();
    let other = "f".repeat(32);
    write_whole(&runs.join(format!("{other}.json")), &text).unwrap();
    let linked = "e".repeat(32);
    std::os::unix::fs::symlink("/etc/hostname", runs.join(format!("{linked}.json"))).unwrap();
    let open = "d".repeat(32);
    fs::write(runs.join(format!("{open}.json")), &text).unwrap();
    fs::set_permissions(runs.join(format!("{open}.json")), fs::Permissions::from_mode(0o666)).unwrap();
    write_whole(&runs.join(format!("{id}.new")), &text[..20]).unwrap();
    assert_eq!(store.read_all().unwrap(), []);
    let mut aside: Vec<_> = [&id.to_string(), &other, &linked, &open].map(|id| format!("{id}.json.aside")).into();
    aside.push("README.aside".to_owned());
    aside.sort();
    assert_eq!(names(directory.path()), aside);
    assert_eq!(store.read_all().unwrap(), []);
    assert_eq!(names(directory.path()), aside, "they are not taken up again");
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/tmp", directory.path().join("runs")).unwrap();
    assert!(Store::open(directory.path(), here()).is_err());
}

#[test]
fn nothing_is_written_into_the_directory_of_another_daemon() {
    let (directory, store) = store();
    store.clone().set_displaced(true);
    assert!(store.write(&record()).is_err());
    assert_eq!(names(directory.path()), Vec::<String>::new());
    store.set_displaced(false);
    store.write(&record()).unwrap();
}
