//! The process that becomes the command.
//!
//! The guardian forks it, and it waits for the wrapper's word on a pipe, in a process group of its own: the daemon is asked
//! about a process that exists and has not begun. When the pipe closes without a word (denied, or the wrapper died) it
//! ends without executing anything.
//!
//! The parent death signal ties it to the guardian and stays set over the exec: a leader does not outlive a guardian that
//! was killed, not even when the wrapper was killed in the same moment. (It does not pass to the command's own children,
//! and an exec of a setuid program clears it; those are found by descent and by their cookie.)

use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use machineid_protocol::{Exit, RunId};
use machineid_sys::{self as sys, Inherited, SignalFd};
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::event::Allowed;

/// `setpgid`'s word for the calling process, and for a group of its own number.
pub(super) const OWN: nix::unistd::Pid = nix::unistd::Pid::from_raw(0);

/// Searched when there is no `PATH`, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What the child is made from.
#[derive(Debug)]
pub(super) struct CommandPlan<'a> {
    pub(super) command: &'a [OsString],
    /// The wrapper's environment, less what it withholds.
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) socket: &'a OsStr,
    pub(super) run_id: RunId,
    /// The wrapper's own number, as it knows it.
    pub(super) wrapper: Pid,
}

/// The pipes between wrapper and leader, which both are forked with.
#[derive(Debug)]
pub(super) struct Pipes {
    word: OwnedFd,
    release: OwnedFd,
    error: OwnedFd,
    report: OwnedFd,
}

/// The leader's ends of the pipes.
#[derive(Debug)]
pub(super) struct LeaderEnds {
    word: OwnedFd,
    report: OwnedFd,
}

impl Pipes {
    pub(super) fn open() -> Result<Self, Errno> {
        let (word, release) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (error, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { word, release, error, report })
    }

    /// For everybody on the leader's side of the fork. The wrapper's ends are closed: the word's pipe must break when the
    /// wrapper ends.
    pub(super) fn into_leader_ends(self) -> LeaderEnds {
        LeaderEnds { word: self.word, report: self.report }
    }

    /// For the wrapper, once the leader is there.
    pub(super) fn into_child(self, leader: Pid) -> LeaderHandle {
        LeaderHandle { pid: leader, ended: false, release: Some(self.release.into()), error: self.error.into() }
    }
}

/// The leader as the wrapper sees it: it waits, or has been released.
#[derive(Debug)]
pub(super) struct LeaderHandle {
    pub(super) pid: Pid,
    /// Whether it is known to have ended: its number may soon be another's.
    pub(super) ended: bool,
    release: Option<File>,
    /// Holds an error number when the exec failed; ends empty when it succeeded.
    error: File,
}

impl LeaderHandle {
    /// Lets it execute the command. Fails when it is gone.
    pub(super) fn release(&mut self, allowed: &Allowed) -> std::io::Result<()> {
        let Some(mut pipe) = self.release.take() else { return Ok(()) };
        pipe.write_all(&encode(allowed))
    }

    /// Closes the pipe: a child that still waits ends without executing anything.
    pub(super) fn abandon(&mut self) {
        self.release = None;
    }

    /// After the child's end: why the command could not be executed, when that is why it ended.
    pub(super) fn exec_error(&mut self) -> Option<Errno> {
        let mut number = [0; 4];
        self.error.read_exact(&mut number).ok()?;
        Some(Errno::from_raw_os_error(i32::from_ne_bytes(number)))
    }
}

/// The word: what the child does not know yet, zero bytes between.
fn encode(allowed: &Allowed) -> Vec<u8> {
    let mut word = allowed.device_id.as_str().as_bytes().to_vec();
    if let Some((base_url, token)) = &allowed.compat {
        for text in [base_url, token] {
            word.push(0);
            word.extend(text.bytes());
        }
    }
    word.push(b'\n');
    word
}

/// The word taken apart. `None` when it is not whole.
fn decode(word: &[u8]) -> Option<Word<'_>> {
    let mut parts = word.strip_suffix(b"\n")?.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let device = parts.next()?;
    Some(Word { device, compat: parts.next().zip(parts.next()) })
}

/// The wrapper's word to the child.
#[derive(Debug)]
struct Word<'a> {
    device: &'a OsStr,
    /// Base URL and token.
    compat: Option<(&'a OsStr, &'a OsStr)>,
}

impl<'a> Word<'a> {
    /// What it adds to the command's environment.
    fn variables(&self) -> impl Iterator<Item = (&'static str, &'a OsStr)> + use<'a> {
        let compat =
            self.compat.map(|(base_url, token)| [("MACHINEID_BASE_URL", base_url), ("MACHINEID_ORG_KEY", token)]);
        std::iter::once(("MACHINEID_DEVICE_ID", self.device)).chain(compat.into_iter().flatten())
    }
}

/// What the leader does, just forked by `parent`. Nothing here prints: its streams are the command's.
///
/// `announce` tells the wrapper that it is there, and gives up the guardian's connection to the wrapper: a copy of it here
/// would hide the guardian's end for as long as the leader waits.
pub(super) fn become_command(
    plan: &CommandPlan<'_>,
    signals: &SignalFd,
    parent: Pid,
    ends: LeaderEnds,
    announce: impl FnOnce(),
) -> ! {
    // Before anybody knows its number, so that nobody ever sees it outside its group.
    let grouped = nix::unistd::setpgid(OWN, OWN);
    let tied = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    // The parent may have died before that took effect; compared with the saved number, since an orphan's parent need
    // not be 1.
    if grouped.is_err() || tied.is_err() || rustix::process::getppid() != Some(parent) {
        sys::exit_now(Exit::Wrapper.code());
    }
    announce();
    let LeaderEnds { word, report } = ends;
    let mut text = Vec::new();
    // While the daemon is asked.
    let prepared = Prepared::new(plan, rustix::process::getpid());
    let read = File::from(word).read_to_end(&mut text);
    let Some(word) = read.ok().and_then(|_| decode(&text)) else { sys::exit_now(Exit::Wrapper.code()) };
    let errno = prepared.map_or(Errno::INVAL, |prepared| prepared.exec(&word, signals));
    let _ = File::from(report).write_all(&errno.raw_os_error().to_ne_bytes());
    sys::exit_now(Exit::NotFound.code())
}

/// What can be made ready before the word comes.
struct Prepared {
    arguments: Vec<CString>,
    /// Without what the word will say.
    variables: Vec<CString>,
    candidates: Vec<CString>,
    /// The command was named with its path.
    named: bool,
}

impl Prepared {
    fn new(plan: &CommandPlan<'_>, own: Pid) -> Result<Self, NulError> {
        let path = plan.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let variables = environment(plan, own);
        Ok(Self {
            arguments: plan.command.iter().map(|part| CString::new(part.as_bytes())).collect::<Result<_, _>>()?,
            variables: variables.iter().map(|(name, value)| variable(name, value)).collect::<Result<_, _>>()?,
            candidates: candidates(&plan.command[0], path).into_iter().map(CString::new).collect::<Result<_, _>>()?,
            named: plan.command[0].as_bytes().contains(&b'/'),
        })
    }

    fn exec(mut self, word: &Word<'_>, signals: &SignalFd) -> Errno {
        for (name, value) in word.variables() {
            let Ok(variable) = variable(OsStr::new(name), value) else { return Errno::INVAL };
            self.variables.push(variable);
        }
        if let Err(errno) = sys::restore_inherited(Inherited::get()).and_then(|()| signals.restore_mask()) {
            return errno;
        }
        search_and_exec(&self)
    }
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, NulError> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
}

fn search_and_exec(prepared: &Prepared) -> Errno {
    let Prepared { arguments, variables, candidates, named } = prepared;
    // An empty result of the search is ENOENT; of several failures the one worth telling is kept.
    let mut worst = Errno::NOENT;
    for candidate in candidates {
        match sys::exec(candidate, arguments, variables) {
            Errno::NOENT | Errno::NOTDIR => {
                // The file is there and what it names as its interpreter is not: that is worth telling apart.
                if exists(candidate) {
                    worst = Errno::LIBBAD;
                }
            }
            // A directory of the path that may not be searched hides whatever is in it, most likely nothing.
            Errno::ACCESS if *named || exists(candidate) => worst = Errno::ACCESS,
            Errno::ACCESS => {}
            errno => return errno,
        }
    }
    worst
}

fn exists(path: &CStr) -> bool {
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Where to look for a command: there, when it holds a slash; else in each directory of the path.
fn candidates(command: &OsStr, path: Option<&OsStr>) -> Vec<Vec<u8>> {
    let command = command.as_bytes();
    if command.contains(&b'/') {
        return vec![command.to_vec()];
    }
    path.unwrap_or(OsStr::new(DEFAULT_PATH))
        .as_bytes()
        .split(|&byte| byte == b':')
        // An empty entry is the working directory.
        .map(|directory| if directory.is_empty() { b"." } else { directory })
        .map(|directory| [directory, b"/", command].concat())
        .collect()
}

/// Say which process a service manager means. Where it is the wrapper, the command takes its place: else it would not
/// look at the sockets it is given, nor keep the watchdog quiet.
const ADDRESSED: [&str; 3] = ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
/// Says the same as the first of them, by a number of the kernel's that the command will not have.
const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";

/// The command's environment, but for what the word says: the wrapper's, less the org key and the authority's address, plus
/// where to ask and which run it is.
fn environment(plan: &CommandPlan<'_>, own: Pid) -> Vec<(OsString, OsString)> {
    const OURS: [&str; 5] =
        ["MACHINEID_ORG_KEY", "MACHINEID_BASE_URL", "MACHINEID_SOCKET", "MACHINEID_DEVICE_ID", "MACHINEID_RUN_ID"];
    let mut environment: Vec<_> =
        plan.environment.iter().filter(|(name, _)| OURS.iter().all(|ours| name != ours)).cloned().collect();
    let wrapper = OsString::from(plan.wrapper.to_string());
    if environment.iter().any(|(name, value)| name == ADDRESSED[0] && *value == wrapper) {
        environment.retain(|(name, _)| name != LISTEN_PIDFDID);
    }
    for (name, value) in &mut environment {
        if *value == wrapper && ADDRESSED.iter().any(|addressed| name == addressed) {
            *value = own.to_string().into();
        }
    }
    let mut run_id = OsString::new();
    if let Some((_, outer)) =
        plan.environment.iter().find(|(name, value)| name == "MACHINEID_RUN_ID" && !value.is_empty())
    {
        run_id.push(outer);
        run_id.push(",");
    }
    run_id.push(plan.run_id.to_string());
    environment.push(("MACHINEID_SOCKET".into(), plan.socket.into()));
    environment.push(("MACHINEID_RUN_ID".into(), run_id));
    environment
}

/// The exit and the message for a command that could not be executed.
pub(super) fn explain(command: &OsStr, errno: Errno) -> (Exit, String) {
    let name = command.to_string_lossy();
    match errno {
        Errno::NOENT => (Exit::NotFound, format!("{name}: not found; check the spelling, the path and PATH")),
        Errno::LIBBAD => {
            let text = "it is there, but the interpreter it names (its first line, or its dynamic loader) is not";
            (Exit::NotFound, format!("{name}: {text}"))
        }
        Errno::ACCESS => {
            (Exit::NotExecutable, format!("{name}: permission denied; is it a program, and executable (chmod +x)?"))
        }
        Errno::NOEXEC => {
            let text = "not a program for this machine; a script needs #!/bin/sh or the like as its first line";
            (Exit::NotExecutable, format!("{name}: {text}"))
        }
        errno => (Exit::NotExecutable, format!("{name}: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::Containment;

    fn plan<'a>(environment: &'a [(OsString, OsString)], command: &'a [OsString]) -> CommandPlan<'a> {
        CommandPlan {
            command,
            environment,
            socket: OsStr::new("/s"),
            run_id: "00000000000000000000000000000007".parse().unwrap(),
            wrapper: Pid::from_raw(42).unwrap(),
        }
    }

    #[test]
    fn the_environment_withholds_the_key_and_says_who_and_where() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(OsString, OsString)> {
            list.iter().map(|&(name, value)| (name.into(), value.into())).collect()
        };
        let before = pairs(&[
            ("A", "1"),
            ("MACHINEID_ORG_KEY", "org_secret"),
            ("MACHINEID_BASE_URL", "https://x"),
            ("MACHINEID_RUN_ID", "outer"),
        ]);
        let own = Pid::from_raw(43).unwrap();
        let run_id = "outer,00000000000000000000000000000007";
        let expected = [("A", "1"), ("MACHINEID_SOCKET", "/s"), ("MACHINEID_RUN_ID", run_id)];
        assert_eq!(environment(&plan(&before, &[]), own), pairs(&expected));
        let text = OsStr::new;
        let said = |compat| Word { device: text("dev"), compat }.variables().collect::<Vec<_>>();
        let device = ("MACHINEID_DEVICE_ID", text("dev"));
        assert_eq!(said(None), [device]);
        let compat = [("MACHINEID_BASE_URL", text("http://l")), ("MACHINEID_ORG_KEY", text("org_local_t"))];
        assert_eq!(said(Some((text("http://l"), text("org_local_t")))), [device, compat[0], compat[1]]);
    }

    #[test]
    fn what_is_addressed_to_the_wrapper_is_the_commands() {
        let variables = |listen: &str, watchdog: &str| {
            let pairs =
                [("LISTEN_PID", listen), ("LISTEN_FDS", "2"), ("LISTEN_PIDFDID", "9"), ("WATCHDOG_PID", watchdog)];
            let before: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let mut after = environment(&plan(&before, &[]), Pid::from_raw(43).unwrap());
            after.retain(|(name, _)| !name.as_bytes().starts_with(b"MACHINEID_"));
            after.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect::<Vec<_>>()
        };
        assert_eq!(variables("42", "7"), ["LISTEN_PID=43", "LISTEN_FDS=2", "WATCHDOG_PID=7"]);
        assert_eq!(variables("7", "42"), ["LISTEN_PID=7", "LISTEN_FDS=2", "LISTEN_PIDFDID=9", "WATCHDOG_PID=43"]);
    }

    #[test]
    fn a_torn_word_is_no_word() {
        let containment = Containment::Subreaper;
        let allowed = Allowed { device_id: "d".parse().unwrap(), containment, compat: Some(("u".into(), "t".into())) };
        let word = encode(&allowed);
        let read = decode(&word).unwrap();
        assert!(read.device == "d" && read.compat == Some((OsStr::new("u"), OsStr::new("t"))));
        for end in 0..word.len() {
            assert!(decode(&word[..end]).is_none());
        }
    }

    #[test]
    fn the_path_is_searched_as_the_c_library_does() {
        let text = |command: &str, path| {
            let found = candidates(OsStr::new(command), path);
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(text("./x", Some(OsStr::new("/a"))), ["./x"]);
        assert_eq!(text("x", Some(OsStr::new("/a::/b"))), ["/a/x", "./x", "/b/x"]);
        assert_eq!(text("x", None), ["/bin/x", "/usr/bin/x"]);
    }
}
