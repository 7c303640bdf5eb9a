//! Finds where a path can change: in every directory that contains a name on which the path depends.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The most links that are followed, as in the kernel.
const MOST_LINKS: usize = 40;

/// The names on which a path depends, each in its directory: the file itself, every link on the way to it, and the first name
/// that is missing.
///
/// Kubernetes replaces one link, `..data`, in the middle of the path and leaves the file's own name alone; other tools
/// replace the whole directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkChain {
    /// Full paths. Their parents exist and are directories.
    pub(super) names: BTreeSet<PathBuf>,
}

impl LinkChain {
    /// Follows the path as it is now.
    pub(super) fn of(path: &Path) -> Self {
        let mut names = BTreeSet::new();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        let mut ahead: VecDeque<OsString> = parts(path);
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let name = at.join(&part);
            match fs::symlink_metadata(&name) {
                Ok(about) if about.file_type().is_symlink() && links < MOST_LINKS => {
                    links += 1;
                    names.insert(name.clone());
                    let Ok(target) = fs::read_link(&name) else { break };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        ahead.push_front(part);
                    }
                }
                Ok(about) if about.is_dir() && !ahead.is_empty() => at = name,
                // The file itself, or a name that is missing or not a directory.
                Ok(_) | Err(_) => {
                    names.insert(name);
                    break;
                }
            }
        }
        Self { names }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, path: &str) -> Vec<String> {
        let chain = LinkChain::of(&root.join(path));
        let shown = |name: &PathBuf| name.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        chain.names.iter().map(shown).collect()
    }

    #[test]
    fn a_file_depends_on_its_name_and_on_every_link_on_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("volume/..2026_1")).unwrap();
        fs::write(root.join("volume/..2026_1/key"), "").unwrap();
        symlink("..2026_1", root.join("volume/..data")).unwrap();
        symlink("..data/key", root.join("volume/key")).unwrap();
        symlink(root.join("volume"), root.join("etc")).unwrap();
        assert_eq!(names(&root, "volume/..2026_1/key"), ["volume/..2026_1/key"]);
        let all = ["etc", "volume/..2026_1/key", "volume/..data", "volume/key"];
        assert_eq!(names(&root, "etc/key"), all);
        assert_eq!(names(&root, "volume/../etc/./key"), all);
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_would_appear() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        assert_eq!(names(&root, "a/b/c"), ["a"]);
        fs::create_dir(root.join("a")).unwrap();
        assert_eq!(names(&root, "a/b/c"), ["a/b"]);
        symlink("nowhere", root.join("a/b")).unwrap();
        assert_eq!(names(&root, "a/b/c"), ["a/b", "a/nowhere"]);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(names(&root, "loop"), ["loop"]);
    }
}
