//! Examines the socket, the process behind it, and the daemon's answers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_sys as sys;
use machineid_tree::Users;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::super::facts::{Daemon, Listener, Powers, SocketFacts, SocketState};
use super::users;
use crate::Env;
use crate::args::SocketArgs;
use crate::host::socket::{self, DaemonError};
use crate::host::status;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn ask(args: &SocketArgs, env: Env<'_>) -> (SocketFacts, Result<Daemon, DaemonError>) {
    let path = socket::find(args, env);
    let state = look(&path);
    let daemon = match status::ask(args, env, TIMEOUT).await {
        Ok((status, _)) => {
            let listener = listener(&path, status.pid);
            let authority_socket = status.authority.url.strip_prefix("unix:").map(|path| {
                let path = PathBuf::from(path);
                SocketFacts { state: look(&path), path }
            });
            let not_ready = readiness(args, env).await;
            Ok(Daemon { status: Box::new(status), not_ready, authority_socket, listener })
        }
        Err(why) => Err(why),
    };
    (SocketFacts { path, state }, daemon)
}

async fn readiness(args: &SocketArgs, env: Env<'_>) -> Option<String> {
    match socket::get(args, env, "/readyz", &[], TIMEOUT).await {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(String::from_utf8_lossy(&answer.body).trim().to_owned()),
        Err(why) => Some(why.to_string()),
    }
}

fn look(path: &Path) -> SocketState {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) => {
            return match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) => SocketState::Missing,
                Some(Errno::ACCESS) => SocketState::Hidden,
                errno => SocketState::Unreadable(errno.unwrap_or(Errno::IO)),
            };
        }
    };
    if !found.file_type().is_socket() {
        return SocketState::OtherFile;
    }
    let above = path.parent().and_then(|directory| fs::metadata(directory).ok());
    SocketState::There {
        owner: users::user(found.uid()),
        group: users::group(found.gid()),
        mode: found.mode() & 0o7777,
        may_open: rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok(),
        // In a sticky directory only the owner may replace the socket.
        replaceable: above.is_some_and(|above| above.mode() & 0o1002 == 0o002),
    }
}

fn listener(path: &Path, daemon: u32) -> Option<Listener> {
    let found = sys::peer_credentials(UnixStream::connect(path).ok()?).ok()?;
    let pid = (found.pid > 0).then_some(found.pid);
    let trusted = found.is_trusted_at(path);
    let status = |pid: i32| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    // The kernel names the process that made the socket. If that is a service manager, the daemon was handed the
    // socket, and its own answer names its process; that is as trustworthy as the maker.
    let served = i32::try_from(daemon).ok().filter(|&daemon| trusted && pid.is_some_and(|pid| pid != daemon));
    let served = served.and_then(|daemon| Some((daemon, status(daemon).filter(|text| is_sidecar(text))?)));
    if let Some((pid, text)) = served {
        let uid = Users::parse(text.as_bytes()).map_or(found.uid, |users| users.effective);
        return Some(Listener { pid: Some(pid), uid, trusted, powers: powers(&text) });
    }
    let status = pid.and_then(status);
    Some(Listener { pid, uid: found.uid, trusted, powers: status.map(|text| powers(&text)).unwrap_or_default() })
}

/// Whether `/proc/<pid>/status` is that of our daemon, and not of a process with the same number in another namespace.
fn is_sidecar(status: &str) -> bool {
    // The kernel keeps 15 characters.
    status.lines().next().is_some_and(|line| line.trim_end() == "Name:\tmachineid-sidec")
}

/// The capabilities from the bits of `CapEff` in `/proc/<pid>/status`.
fn powers(status: &str) -> Powers {
    const DAC_OVERRIDE: u32 = 1;
    const KILL: u32 = 5;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| set & (1 << bit) != 0;
    Powers { kill: has(KILL), write: has(DAC_OVERRIDE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_told_from_another_process_with_its_number() {
        let daemon = "Name:\tmachineid-sidec\nUmask:\t0077\nUid:\t995\t994\t995\t995\n";
        assert!(is_sidecar(daemon) && !is_sidecar("Name:\tsystemd\nUid:\t0\t0\t0\t0\n") && !is_sidecar(""));
        assert_eq!(Users::parse(daemon.as_bytes()).unwrap().effective, 994);
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let all = powers("CapPrm:\t0\nCapEff:\t000001ffffffffff\n");
        assert!(all.kill && all.write);
        let kill = powers("CapEff:\t0000000000000020\n");
        assert!(kill.kill && !kill.write);
        let none = powers("CapInh:\tff\n");
        assert!(!none.kill && !none.write);
    }
}
