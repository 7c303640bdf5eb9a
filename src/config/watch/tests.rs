//! Against a real file system.

use std::os::unix::fs::symlink;

use super::*;

/// Longer than any event takes, shorter than the look that would hide a missing one.
const PATIENCE: Duration = Duration::from_secs(20);

async fn sees(watcher: &mut Watcher, paths: &[PathBuf], what: &str) {
    let seen = tokio::time::timeout(PATIENCE, watcher.seen()).await;
    assert!(seen.is_ok(), "not seen: {what}");
    watcher.aim(paths);
    // What belongs to the same change.
    while tokio::time::timeout(Duration::from_millis(50), watcher.seen()).await.is_ok() {}
}

async fn sees_nothing(watcher: &mut Watcher, what: &str) {
    let seen = tokio::time::timeout(Duration::from_millis(200), watcher.seen()).await;
    assert!(seen.is_err(), "seen: {what}");
}

#[tokio::test]
async fn every_way_to_change_a_file_is_seen_and_reading_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let file = root.join("config/file");
    let paths = [file.clone()];
    let mut watcher = Watcher::new();
    watcher.aim(&paths);
    fs::create_dir(root.join("config")).unwrap();
    sees(&mut watcher, &paths, "its directory appears").await;
    fs::write(&file, "1").unwrap();
    sees(&mut watcher, &paths, "it appears").await;
    fs::read(&file).unwrap();
    sees_nothing(&mut watcher, "it is read").await;
    fs::write(root.join("config/other"), "1").unwrap();
    sees_nothing(&mut watcher, "another file beside it").await;
    fs::write(&file, "2").unwrap();
    sees(&mut watcher, &paths, "it is written in place").await;
    fs::rename(root.join("config/other"), &file).unwrap();
    sees(&mut watcher, &paths, "another takes its name").await;
    fs::remove_file(&file).unwrap();
    sees(&mut watcher, &paths, "it is deleted").await;
    symlink("nowhere", &file).unwrap();
    sees(&mut watcher, &paths, "a dangling link takes its name").await;
    fs::write(root.join("config/nowhere"), "").unwrap();
    sees(&mut watcher, &paths, "the link leads somewhere").await;
    fs::rename(root.join("config"), root.join("old")).unwrap();
    sees(&mut watcher, &paths, "its directory is moved away").await;
    fs::create_dir(root.join("config")).unwrap();
    sees(&mut watcher, &paths, "another directory takes its name").await;
    fs::write(&file, "3").unwrap();
    sees(&mut watcher, &paths, "it appears in that").await;
    fs::remove_dir_all(root.join("config")).unwrap();
    sees(&mut watcher, &paths, "its directory is deleted").await;
}

#[tokio::test]
async fn a_volume_that_is_swapped_by_one_link_is_seen_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let file = root.join("file");
    let paths = [file.clone()];
    let version = |number: u32| {
        let name = format!("..version-{number}");
        fs::create_dir(root.join(&name)).unwrap();
        fs::write(root.join(&name).join("file"), number.to_string()).unwrap();
        symlink(&name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        let old = root.join(format!("..version-{}", number - 1));
        let _ = fs::remove_dir_all(old);
    };
    version(1);
    symlink("..data/file", &file).unwrap();
    let mut watcher = Watcher::new();
    watcher.aim(&paths);
    for number in 2..6 {
        version(number);
        sees(&mut watcher, &paths, "the link is swapped").await;
        assert_eq!(fs::read_to_string(&file).unwrap(), number.to_string());
    }
}

#[tokio::test]
async fn without_watches_files_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "1").unwrap();
    let paths = [file.clone()];
    let mut watcher = Watcher { watches: None, blind: true, ..Watcher::new() };
    watcher.aim(&paths);
    sees_nothing(&mut watcher, "nothing").await;
    fs::write(&file, "22").unwrap();
    sees(&mut watcher, &paths, "a change").await;
}
