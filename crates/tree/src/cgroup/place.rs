//! Where a process's control group is in the file system. Pure: takes the texts of `/proc/<pid>/cgroup` and
//! `/proc/self/mountinfo`, both foreign bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// What `/proc/<pid>/cgroup` says about version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership<'a> {
    /// The process is in this group, as seen from the reader's cgroup namespace: `/` is that namespace's root, and what lies
    /// outside begins with `/..`.
    In(&'a [u8]),
    /// The process's group has been removed; the process is about to end.
    Removed,
}

/// Finds the line of version 2, which has number 0 and no controllers. `None` when the kernel has no version 2.
pub(super) fn membership(text: &[u8]) -> Option<Membership<'_>> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    if path.ends_with(b" (deleted)") {
        return Some(Membership::Removed);
    }
    path.starts_with(b"/").then_some(Membership::In(path))
}

/// One mount of cgroup2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The group that is shown at the mount point, as seen from the reader's cgroup namespace.
    root: Vec<u8>,
    point: PathBuf,
}

/// The usual mount points of cgroup2: alone, or beside version 1.
pub(super) fn usual() -> [Mount; 2] {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|point| Mount { root: b"/".to_vec(), point: point.into() })
}

/// All mounts of cgroup2, the latest first: a later one may cover an earlier.
pub(super) fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|&byte| byte == b'\n').rev().filter_map(mount).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.next()?)));
    fields.find(|&field| field == b"-")?;
    let usable = fields.next()? == b"cgroup2" && root.starts_with(b"/") && point.is_absolute();
    usable.then_some(Mount { root, point })
}

/// The kernel writes spaces, tabs, line feeds and backslashes as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| behind.first_chunk().copied().and_then(octal)).flatten();
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &behind[3..] } else { behind };
    }
    plain
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.into_iter().try_fold(0_u8, |number, digit| {
        let value = digit.checked_sub(b'0').filter(|&value| value < 8)?;
        number.checked_mul(8)?.checked_add(value)
    })
}

impl Mount {
    /// The directory of the group with this path, when the mount shows it.
    pub(super) fn directory(&self, path: &[u8]) -> Option<PathBuf> {
        let root = self.root.strip_suffix(b"/").unwrap_or(&self.root);
        let below = path.strip_prefix(root)?;
        // A mount of `/a` shows `/a` and `/a/b`, and not `/ab`.
        let below = if below.is_empty() { below } else { below.strip_prefix(b"/")? };
        let below = Path::new(OsStr::from_bytes(below));
        // A `..` leads out of the namespace, to a group whose name cannot be known here.
        let inside = below.components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }
}

/// Reads `cgroup.events`: whether a process is inside, and whether all are frozen.
pub(super) fn events(text: &[u8]) -> Option<(bool, bool)> {
    let value = |name: &[u8]| {
        let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        match line {
            b"0" => Some(false),
            b"1" => Some(true),
            _ => None,
        }
    };
    Some((value(b"populated ")?, value(b"frozen ")?))
}

/// Takes the text of `cgroup`, a zero byte and the text of `mountinfo`, and checks that no directory it finds lies
/// outside of its mount.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz(data: &[u8]) {
    let mut texts = data.splitn(2, |&byte| byte == 0);
    let (text, mountinfo) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
    let _ = events(text);
    let Some(Membership::In(path)) = membership(text) else { return };
    for mount in mounts(mountinfo) {
        assert!(mount.point.is_absolute());
        if let Some(directory) = mount.directory(path) {
            let below = directory.strip_prefix(&mount.point).expect("below its mount point");
            assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{}", directory.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n";

    fn places(mountinfo: &[u8], path: &str) -> Vec<PathBuf> {
        mounts(mountinfo).iter().filter_map(|mount| mount.directory(path.as_bytes())).collect()
    }

    #[test]
    fn version_2_is_found_beside_version_1() {
        assert_eq!(places(HYBRID, "/"), [Path::new("/sys/fs/cgroup/unified")]);
        assert_eq!(places(HYBRID, "/a/b"), [Path::new("/sys/fs/cgroup/unified/a/b")]);
    }

    #[test]
    fn a_mount_shows_what_is_below_its_root_and_nothing_else() {
        let bound = b"9 1 0:38 /user.slice/u /mnt/my\\040groups\\134 ro - cgroup2 none rw";
        assert_eq!(places(bound, "/user.slice/u/x"), [Path::new("/mnt/my groups\\/x")]);
        assert_eq!(places(bound, "/user.slice/u"), [Path::new("/mnt/my groups\\")]);
        for elsewhere in ["/", "/user.slice", "/user.slice/ux", "/user.slice/u/../x", "/.."] {
            assert_eq!(places(bound, elsewhere), [] as [&Path; 0], "{elsewhere}");
        }
    }

    #[test]
    fn what_lies_outside_the_namespace_is_found_only_where_a_mount_of_it_says_so() {
        let own = b"9 1 0:38 / /sys/fs/cgroup rw - cgroup2 none rw";
        assert_eq!(places(own, "/../sibling"), [] as [&Path; 0]);
        let outer = b"9 1 0:38 /../.. /host rw - cgroup2 none rw";
        assert_eq!(places(outer, "/../../sibling/a"), [Path::new("/host/sibling/a")]);
        for unnamed in ["/", "/..", "/../x", "/../../.."] {
            assert_eq!(places(outer, unnamed), [] as [&Path; 0], "{unnamed}");
        }
    }

    #[test]
    fn of_several_mounts_the_latest_is_first() {
        let both = [HYBRID, b"50 23 0:38 / /run/cg rw - cgroup2 none rw\n"].concat();
        assert_eq!(places(&both, "/a"), [Path::new("/run/cg/a"), Path::new("/sys/fs/cgroup/unified/a")]);
    }

    #[test]
    fn the_line_of_version_2_is_told_from_the_others() {
        let text = b"9:name=systemd:/s\n4:memory:/m\n0::/user.slice/a b\n";
        assert_eq!(membership(text), Some(Membership::In(b"/user.slice/a b")));
        assert_eq!(membership(b"0::/a (deleted)\n"), Some(Membership::Removed));
        assert_eq!(membership(b"1:cpu:/\n10::/x\n"), None);
        assert_eq!(membership(b"0::a"), None);
        assert_eq!(membership(b""), None);
    }

    #[test]
    fn events_must_be_whole() {
        assert_eq!(events(b"populated 1\nfrozen 0\n"), Some((true, false)));
        assert_eq!(events(b"frozen 1\nnew 7\npopulated 0\n"), Some((false, true)));
        for torn in [&b""[..], b"populated 1\n", b"populated 1\nfrozen", b"populated 2\nfrozen 0\n"] {
            assert_eq!(events(torn), None);
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_cause_no_panic_and_never_lead_outside_the_mount_point(
            info in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(&b" \n/.\\-0177"[..])], 0..200),
            path in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"/."[..])], 0..40),
        ) {
            let _ = (membership(&info), events(&info));
            let line = [b"1 1 0:1 /", &path[..path.len() / 2], b" /point rw - cgroup2 x rw\n", &info].concat();
            for mount in mounts(&line) {
                if let Some(directory) = mount.directory(&[b"/", &path[..]].concat()) {
                    prop_assert!(directory.starts_with(&mount.point));
                    prop_assert!(directory.strip_prefix(&mount.point).unwrap().components()
                        .all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }

        #[test]
        fn what_the_kernel_escapes_is_read_back(plain in proptest::collection::vec(any::<u8>(), 0..60)) {
            let escaped: Vec<u8> = plain.iter().flat_map(|&byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                other => vec![other],
            }).collect();
            prop_assert_eq!(unescape(&escaped), plain);
        }
    }
}
