use std::os::unix::fs::symlink;

use super::*;

fn put(path: &Path, text: &str) -> Result<Change, FileError> {
    change(path, false, |_| Ok(Some(text.to_owned())))
}

#[test]
fn a_file_is_replaced_with_its_mode_and_a_copy_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.json");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(put(&path, "new").unwrap(), Change::Written);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), path.metadata().unwrap().mode() & 0o777), ("new", 0o640));
    let copy = directory.path().join("settings.json.before-machineid");
    assert_eq!((fs::read_to_string(&copy).unwrap().as_str(), copy.metadata().unwrap().mode() & 0o777), ("old", 0o640));
    assert_eq!(put(&path, "new").unwrap(), Change::Unchanged);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "old");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
    assert_eq!(change(&path, false, |_| Ok(None)).unwrap(), Change::Removed);
    assert_eq!(change(&path, false, |_| Ok(None)).unwrap(), Change::Unchanged);
}

#[test]
fn the_copy_is_the_file_as_it_was_before_the_first_hook() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.json");
    let copy = directory.path().join("settings.json.before-machineid");
    fs::write(&path, "theirs").unwrap();
    for text in ["/usr/bin/machineid hook codex", "/opt/bin/machineid hook codex"] {
        put(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "theirs");
    }
    // Without a hook in it, what stands there is theirs again.
    fs::write(&path, "theirs, new").unwrap();
    put(&path, "machineid hook codex").unwrap();
    assert_eq!(fs::read_to_string(&copy).unwrap(), "theirs, new");
}

#[test]
fn a_new_file_comes_with_its_directories() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/hook.sh");
    change(&path, true, |_| Ok(Some("#!/bin/sh\n".to_owned()))).unwrap();
    assert!(path.metadata().unwrap().mode() & 0o100 != 0);
}

#[test]
fn a_link_stays_one_and_its_target_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (link, target) = (directory.path().join("link"), directory.path().join("target"));
    fs::write(&target, "old").unwrap();
    symlink("target", &link).unwrap();
    assert_eq!(put(&link, "new").unwrap(), Change::Written);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    fs::remove_file(&target).unwrap();
    assert!(matches!(put(&link, "new"), Err(FileError::Dangling { .. })));
    assert!(!target.exists());
}

#[test]
fn what_cannot_or_must_not_be_written_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.json");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(put(&path, "new"), Err(FileError::ReadOnly { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(matches!(put(&pipe, "new"), Err(FileError::NotAFile { .. })));
    assert!(matches!(put(directory.path(), "new"), Err(FileError::NotAFile { .. })));
    let binary = directory.path().join("binary");
    fs::write(&binary, b"\xff\xfe").unwrap();
    assert!(matches!(put(&binary, "new"), Err(FileError::NotText { .. })));
    assert_eq!(fs::read(&binary).unwrap(), b"\xff\xfe");
}

#[test]
fn a_file_that_changes_meanwhile_is_read_again_and_in_the_end_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.json");
    fs::write(&path, "0").unwrap();
    let tries = std::cell::Cell::new(0);
    let racing = |file: &SettingsFile| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            fs::write(&path, "theirs").unwrap();
        }
        Ok(Some(format!("{} and ours", file.text)))
    };
    assert_eq!(change(&path, false, racing).unwrap(), Change::Written);
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs and ours");
    let endless = |file: &SettingsFile| {
        tries.set(tries.get() + 1);
        fs::write(&path, tries.get().to_string()).unwrap();
        Ok(Some(format!("{} and ours", file.text)))
    };
    assert!(matches!(change(&path, false, endless), Err(FileError::Changing { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), tries.get().to_string());
}
