//! The process that holds a TCP port, for the message that the port is taken.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// What is known of the process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    uid: u32,
    /// Its pid and its command; `None` where the caller may not see its descriptors.
    process: Option<(u32, String)>,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, command)) => write!(f, "{command} (pid {pid})"),
            None => write!(f, "a process of uid {}", self.uid),
        }
    }
}

/// The process that listens at this address. `None` when there is none, or the kernel does not tell. Reads the descriptors of
/// all processes that the caller may look at: for errors, not for requests.
#[must_use]
pub fn holder_of(address: SocketAddr) -> Option<PortHolder> {
    let owner = super::of_listener(address).ok().flatten()?;
    let wanted = format!("socket:[{}]", owner.inode);
    let mut processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let process = processes.find_map(|process| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.join("fd")).ok()?.flatten();
        let holds = open.any(|open| fs::read_link(open.path()).is_ok_and(|target| target == Path::new(&wanted)));
        holds.then(|| (pid, command(&fs::read(process.join("cmdline")).unwrap_or_default())))
    });
    Some(PortHolder { uid: owner.uid, process })
}

/// The program's name with its first argument where that is a flag or a verb: the rest may be anything, also a secret.
fn command(line: &[u8]) -> String {
    let mut arguments = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).filter(|part| !part.is_empty());
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let told = |word: &str| word.len() <= 16 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    match arguments.next() {
        Some(word) if name.starts_with("machineid") && told(&word) => format!("{name} {word}"),
        Some(_) | None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_held_by_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert!(holder.to_string().ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(holder_of(address), None);
    }

    #[test]
    fn a_command_is_told_without_what_it_was_given() {
        assert_eq!(command(b"/usr/bin/machineid-sidecar\0--dev\0--\0x\0"), "machineid-sidecar --dev");
        assert_eq!(command(b"/usr/bin/python3\0server\0"), "python3");
        assert_eq!(command(b"machineid-authority\0org_secret\0"), "machineid-authority");
    }
}
