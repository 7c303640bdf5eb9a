//! Finding an ended child without reaping it.

#![expect(
    unsafe_code,
    reason = "rustix's waitid does not say which child it found, and nix's fails with EINVAL for a child that a real-time \
              signal ended"
)]

use std::mem::MaybeUninit;

use rustix::io::Errno;
use rustix::process::Pid;

use super::process::last_errno;

/// Returns a child that has ended, without reaping it. `Ok(None)` when every child lives. Fails with `ECHILD` when
/// there are no children.
pub fn ended_child() -> Result<Option<Pid>, Errno> {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` has room for what the call writes; the other arguments are plain numbers.
        if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) } == 0 {
            // SAFETY: all bytes zero is a valid `siginfo_t`, and the call fills in the fields of a child's end or leaves
            // them zero.
            return Ok(Pid::from_raw(unsafe { info.assume_init().si_pid() }));
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_child_is_found_and_stays() {
        // Other tests of this process have children too, so only this one's is looked for.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(ended_child().unwrap().is_some());
        assert!(child.wait().unwrap().success());
    }
}
