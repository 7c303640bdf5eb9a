//! Tests the kernel's features, and this program's view of `/proc`.

use std::os::unix::net::UnixStream;

use machineid_sys::{self as sys, Fork, ForkError, ForkOptions};
use rustix::process::{PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid};

use super::super::facts::{Kernel, ProcView};

pub(super) fn features() -> Kernel {
    Kernel {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        pidfd: pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
        peer_pidfd: UnixStream::pair().is_ok_and(|(one, _other)| matches!(sys::peer_pidfd(&one), Ok(Some(_)))),
        clone3: clone3(),
    }
}

fn clone3() -> Result<(), ForkError> {
    match sys::fork_with(ForkOptions::default())? {
        Fork::Child => sys::exit_now(0),
        Fork::Parent(child) => waitpid(Some(child), WaitOptions::empty()).map(drop).map_err(ForkError::Kernel),
    }
}

pub(super) fn proc() -> ProcView {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    ProcView { usable: sys::check_proc().map_err(|error| error.to_string()), hides: hidepid(&mounts) }
}

/// The option by which the newest mount of `/proc` hides other users' processes.
fn hidepid(mountinfo: &str) -> Option<String> {
    let line = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some("/proc"))?;
    let option = line.split([' ', ',']).find(|option| option.starts_with("hidepid="))?;
    (!matches!(option, "hidepid=0" | "hidepid=off")).then(|| option.to_owned())
}

#[cfg(test)]
mod tests {
    use super::hidepid;

    #[test]
    fn a_proc_that_hides_says_so_in_its_options() {
        let mount = |options: &str| format!("22 1 0:21 / /proc rw,nosuid shared:5 - proc proc {options}\n");
        assert_eq!(hidepid(&mount("rw,gid=5,hidepid=invisible")), Some("hidepid=invisible".to_owned()));
        assert_eq!(hidepid(&mount("rw,hidepid=0")), None);
        assert_eq!(hidepid(&mount("rw")), None);
        assert_eq!(hidepid(&(mount("rw,hidepid=2") + &mount("rw"))), None, "the newest covers the others");
    }
}
