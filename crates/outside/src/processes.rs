//! What a look reads of processes, from `/proc`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use machineid_agents::{HelperKind, Seen, kind_of, split_command_line};
use machineid_tree::{Identity, Pid, ProcessEntry, Users};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat};
use rustix::io::Errno;

use super::budget::Budget;

/// The most of a command line that is read, in bytes: a program is recognised by its first arguments.
const COMMAND_LINE: u64 = 4096;

/// What came of reading the descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// All were read, or the process is gone.
    All,
    /// The budget ended before them.
    Cut,
    /// The caller may not read them.
    NotPermitted,
}

/// The program of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable; `None` when it may not be read.
    pub exe: Option<PathBuf>,
    /// The command line, the program's own name first. May be empty, and is what the process says of itself.
    pub args: Vec<OsString>,
    /// The effective user.
    pub uid: u32,
}

impl Program {
    /// What the process is to an agent beside it. One whose executable may not be read is known by the name that it gives
    /// itself.
    #[must_use]
    pub fn kind(&self) -> HelperKind {
        let exe = self.exe.as_ref().map(|exe| exe.as_os_str()).or_else(|| self.args.first().map(AsRef::as_ref));
        kind_of(&Seen { exe: exe.unwrap_or_default(), arguments: &self.args, uid: self.uid })
    }
}

/// Reads processes.
pub trait Processes {
    /// The numbers of all processes. Empty when they cannot be listed.
    fn all(&mut self) -> Vec<Pid>;
    /// Calls `meet` with the inode of each socket that the process holds.
    fn sockets(&mut self, pid: Pid, budget: &mut Budget, meet: &mut dyn FnMut(u64)) -> Descriptors;
    /// The process that has this number now, if it lives.
    fn identity(&mut self, pid: Pid) -> Option<Identity>;
    /// The program of the process.
    fn program(&mut self, pid: Pid) -> Option<Program>;
}

/// The processes in `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proc;

impl Processes for Proc {
    fn all(&mut self) -> Vec<Pid> {
        let mut found = Vec::new();
        let Ok(proc) = directory("/proc") else { return found };
        let mut names = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(proc, &mut names);
        while let Some(Ok(entry)) = entries.next() {
            found.extend(entry.file_name().to_str().ok().and_then(|name| name.parse().ok()).and_then(Pid::new));
        }
        found
    }

    fn sockets(&mut self, pid: Pid, budget: &mut Budget, meet: &mut dyn FnMut(u64)) -> Descriptors {
        let fds = match directory(&format!("/proc/{pid}/fd")) {
            Ok(fds) => fds,
            Err(Errno::ACCESS | Errno::PERM) => return Descriptors::NotPermitted,
            Err(_) => return Descriptors::All,
        };
        let mut names = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&fds, &mut names);
        let mut target = Vec::with_capacity(64);
        while let Some(entry) = entries.next() {
            if !budget.take() {
                return Descriptors::Cut;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::ACCESS | Errno::PERM) => return Descriptors::NotPermitted,
                Err(_) => return Descriptors::All,
            };
            if entry.file_name().to_bytes().first() == Some(&b'.') {
                continue;
            }
            target.clear();
            match readlinkat(&fds, entry.file_name(), target) {
                Ok(link) => {
                    if let Some(inode) = socket_inode(link.to_bytes()) {
                        meet(inode);
                    }
                    target = link.into_bytes();
                }
                // The directory can be listed, and its links not be read, where the process changed its user meanwhile.
                Err(Errno::ACCESS | Errno::PERM) => return Descriptors::NotPermitted,
                Err(_) => target = Vec::with_capacity(64),
            }
        }
        Descriptors::All
    }

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        ProcessEntry::read(pid).ok().flatten().filter(ProcessEntry::is_alive).map(|entry| entry.identity)
    }

    fn program(&mut self, pid: Pid) -> Option<Program> {
        let uid = Users::parse(&read(&format!("/proc/{pid}/status"))?)?.effective;
        let exe = readlinkat(CWD, format!("/proc/{pid}/exe"), Vec::new()).ok();
        let exe = exe.map(|exe| {
            let path = exe.into_bytes();
            // The kernel says so of a program that was replaced since, as by an update.
            let path = path.strip_suffix(b" (deleted)").map_or(path.clone(), <[u8]>::to_vec);
            PathBuf::from(OsString::from_vec(path))
        });
        let line = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut args = split_command_line(&line);
        if args.is_empty() {
            let name = read(&format!("/proc/{pid}/comm")).unwrap_or_default();
            args.push(OsString::from_vec(name.trim_ascii_end().to_vec()));
        }
        Some(Program { exe, args, uid })
    }
}

fn directory(path: &str) -> Result<rustix::fd::OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(COMMAND_LINE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The inode in `socket:[4711]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_clock::BootTime;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn budget(entries: usize) -> Budget {
        Budget::new(BootTime::from_millis(u64::MAX), entries, BootTime::default)
    }

    #[test]
    fn the_sockets_of_a_process_are_found_within_the_budget() {
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let mut found = Vec::new();
        assert_eq!(Proc.sockets(Pid::own(), &mut budget(100_000), &mut |inode| found.push(inode)), Descriptors::All);
        assert!(found.contains(&inode(&one)) && found.contains(&inode(&other)));
        let mut read = 0;
        assert_eq!(Proc.sockets(Pid::own(), &mut budget(2), &mut |_| read += 1), Descriptors::Cut);
        assert!(read <= 2);
        let late = &mut Budget::new(BootTime::default(), 100_000, BootTime::now);
        assert_eq!(Proc.sockets(Pid::own(), late, &mut |_| {}), Descriptors::Cut);
    }

    #[test]
    fn a_program_is_described_and_one_that_is_gone_is_not() {
        let program = Proc.program(Pid::own()).unwrap();
        assert_eq!(program.uid, rustix::process::geteuid().as_raw());
        assert_eq!(program.exe, std::env::current_exe().ok());
        assert!(!program.args.is_empty() && Proc.all().contains(&Pid::own()));
        assert_eq!(Proc.program(Pid::new(i32::MAX).unwrap()), None);
        assert_eq!(Proc.identity(Pid::new(i32::MAX).unwrap()), None);
    }

    #[test]
    fn what_is_no_socket_has_no_inode() {
        assert_eq!(socket_inode(b"socket:[12]"), Some(12));
        for other in ["pipe:[12]", "socket:[]", "socket:[x]", "/tmp/socket:[12]", "socket:[12", ""] {
            assert_eq!(socket_inode(other.as_bytes()), None, "{other}");
        }
    }
}
