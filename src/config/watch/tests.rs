//! Tests against a real file system.

use std::os::unix::fs::symlink;

use super::*;

/// Longer than any event takes, shorter than the look that would hide a missing one.
const PATIENCE: Duration = Duration::from_secs(20);

async fn sees(watch: &Watch, paths: &[PathBuf], what: &str) {
    let seen = tokio::time::timeout(PATIENCE, watch.seen()).await;
    assert!(seen.is_ok(), "not seen: {what}");
    watch.aim(paths.to_vec()).await;
    // What belongs to the same change.
    while tokio::time::timeout(Duration::from_millis(50), watch.seen()).await.is_ok() {}
}

async fn sees_nothing(watch: &Watch, what: &str) {
    let seen = tokio::time::timeout(Duration::from_millis(200), watch.seen()).await;
    assert!(seen.is_err(), "seen: {what}");
}

#[tokio::test]
async fn every_way_to_change_a_file_is_seen_and_reading_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let file = root.join("config/file");
    let paths = [file.clone()];
    let watch = Watch::start("test").unwrap();
    watch.aim(paths.to_vec()).await;
    fs::create_dir(root.join("config")).unwrap();
    sees(&watch, &paths, "its directory appears").await;
    fs::write(&file, "1").unwrap();
    sees(&watch, &paths, "it appears").await;
    fs::read(&file).unwrap();
    sees_nothing(&watch, "it is read").await;
    fs::write(root.join("config/other"), "1").unwrap();
    sees_nothing(&watch, "another file beside it").await;
    fs::write(&file, "2").unwrap();
    sees(&watch, &paths, "it is written in place").await;
    fs::rename(root.join("config/other"), &file).unwrap();
    sees(&watch, &paths, "another takes its name").await;
    fs::remove_file(&file).unwrap();
    sees(&watch, &paths, "it is deleted").await;
    symlink("nowhere", &file).unwrap();
    sees(&watch, &paths, "a dangling link takes its name").await;
    fs::write(root.join("config/nowhere"), "").unwrap();
    sees(&watch, &paths, "the link leads somewhere").await;
    fs::rename(root.join("config"), root.join("old")).unwrap();
    sees(&watch, &paths, "its directory is moved away").await;
    fs::create_dir(root.join("config")).unwrap();
    sees(&watch, &paths, "another directory takes its name").await;
    fs::write(&file, "3").unwrap();
    sees(&watch, &paths, "it appears in that").await;
    fs::remove_dir_all(root.join("config")).unwrap();
    sees(&watch, &paths, "its directory is deleted").await;
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
    let watch = Watch::start("test").unwrap();
    watch.aim(paths.to_vec()).await;
    for number in 2..6 {
        version(number);
        sees(&watch, &paths, "the link is swapped").await;
        assert_eq!(fs::read_to_string(&file).unwrap(), number.to_string());
    }
}

#[tokio::test]
async fn without_watches_files_are_looked_at_until_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "1").unwrap();
    let paths = [file.clone()];
    let blind = |shared| Watcher { watches: None, blind: true, ..Watcher::new(shared) };
    let watch = Watch::start_with("test", blind).unwrap();
    watch.aim(paths.to_vec()).await;
    sees_nothing(&watch, "nothing").await;
    fs::write(&file, "22").unwrap();
    sees(&watch, &paths, "a change").await;
}
