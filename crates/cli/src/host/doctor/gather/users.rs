//! Names of users and groups, from the files alone: what a directory service knows stays a number.

use std::path::Path;

use super::super::facts::{Owner, Sessions, User};

pub(super) fn own() -> User {
    let uid = rustix::process::geteuid().as_raw();
    User { uid, name: name_of("/etc/passwd", uid) }
}

pub(super) fn user(id: u32) -> Owner {
    Owner { id, name: name_of("/etc/passwd", id) }
}

pub(super) fn group(id: u32) -> Owner {
    Owner { id, name: name_of("/etc/group", id) }
}

/// The user whose sessions a path depends on: a path below `/run/user/UID` is removed with that user's last session,
/// unless the user lingers.
pub(super) fn sessions(path: &Path) -> Option<Sessions> {
    let below = path.strip_prefix("/run/user").ok()?;
    let uid = below.components().next()?.as_os_str().to_str()?.parse().ok()?;
    let user = user(uid);
    // One empty file for each user that lingers, by name.
    let lingers = |name: &String| Path::new("/var/lib/systemd/linger").join(name).exists();
    let lingers = uid == 0 || user.name.as_ref().is_some_and(lingers);
    Some(Sessions { user, lingers })
}

/// Both files have the name first and the number third.
fn name_of(file: &str, id: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}
