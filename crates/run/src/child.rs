//! The leader: the process that becomes the command.
//!
//! The guardian forks it, and it waits on a pipe for the wrapper's permit, in a process group of its own. So the daemon
//! is asked about a process that exists and has not begun. When the pipe closes without a permit (the start was denied,
//! or the wrapper died), the leader ends without executing anything.
//!
//! The parent death signal ties it to the guardian and stays set over the exec: a leader does not outlive a guardian
//! that was killed, even when the wrapper was killed in the same moment. (The signal does not pass to the command's own
//! children, and an exec of a setuid program clears it; those processes are found by descent and by their run id.)

use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use machineid_protocol::{Exit, RunId};
use machineid_sys::{self as sys, Inherited, SignalFd};
use nix::fcntl::OFlag;
use nix::unistd::{self, AccessFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::event::Allowed;

/// Stands for the calling process, and for a group with its number, in calls of `setpgid`.
pub(super) const OWN: unistd::Pid = unistd::Pid::from_raw(0);

/// The directories to search when there is no `PATH`, as in the C library.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What the command is executed with.
#[derive(Debug)]
pub(super) struct CommandPlan<'a> {
    pub(super) command: &'a [OsString],
    /// The wrapper's environment, without the variables that it withholds.
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) socket: &'a OsStr,
    pub(super) run_id: RunId,
    /// The wrapper's own pid, as the wrapper sees it.
    pub(super) wrapper: Pid,
}

/// The pipes between wrapper and leader, made before the fork.
#[derive(Debug)]
pub(super) struct Pipes {
    permit: OwnedFd,
    release: OwnedFd,
    error: OwnedFd,
    report: OwnedFd,
}

/// The leader's ends of the pipes.
#[derive(Debug)]
pub(super) struct LeaderEnds {
    permit: OwnedFd,
    report: OwnedFd,
}

impl Pipes {
    pub(super) fn open() -> Result<Self, Errno> {
        let (permit, release) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(sys::from_nix)?;
        let (error, report) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(sys::from_nix)?;
        Ok(Self { permit, release, error, report })
    }

    /// Keeps the ends for the leader's side of the fork. The wrapper's ends are closed there: the permit's pipe must
    /// break when the wrapper ends.
    pub(super) fn into_leader_ends(self) -> LeaderEnds {
        LeaderEnds { permit: self.permit, report: self.report }
    }

    /// Keeps the ends for the wrapper, once the leader exists.
    pub(super) fn into_child(self, leader: Pid) -> LeaderHandle {
        LeaderHandle { pid: leader, ended: false, release: Some(self.release.into()), error: self.error.into() }
    }
}

/// The leader as the wrapper sees it: it waits, or has been released.
#[derive(Debug)]
pub(super) struct LeaderHandle {
    pub(super) pid: Pid,
    /// Whether the leader is known to have ended: its number may soon belong to another process.
    pub(super) ended: bool,
    release: Option<File>,
    /// Delivers an error number when the exec failed; ends empty when it succeeded.
    error: File,
}

impl LeaderHandle {
    /// Lets the leader execute the command. Fails when the leader is gone.
    pub(super) fn release(&mut self, allowed: &Allowed) -> std::io::Result<()> {
        let Some(mut pipe) = self.release.take() else { return Ok(()) };
        pipe.write_all(&encode(allowed))
    }

    /// Closes the pipe: a leader that still waits ends without executing anything.
    pub(super) fn abandon(&mut self) {
        self.release = None;
    }

    /// Reads why the command could not be executed. To be called after the leader's end; `None` when the exec
    /// succeeded.
    pub(super) fn exec_error(&mut self) -> Option<Errno> {
        let mut number = [0; 4];
        self.error.read_exact(&mut number).ok()?;
        Some(Errno::from_raw_os_error(i32::from_ne_bytes(number)))
    }
}

/// Writes the permit: what the leader does not know yet, separated by zero bytes.
fn encode(allowed: &Allowed) -> Vec<u8> {
    let mut permit = allowed.device_id.as_str().as_bytes().to_vec();
    if let Some((base_url, token)) = &allowed.compat {
        for text in [base_url, token] {
            permit.push(0);
            permit.extend(text.bytes());
        }
    }
    permit.push(b'\n');
    permit
}

/// Parses a permit. `None` when it is incomplete.
fn decode(permit: &[u8]) -> Option<Permit<'_>> {
    let mut parts = permit.strip_suffix(b"\n")?.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let device = parts.next()?;
    Some(Permit { device, compat: parts.next().zip(parts.next()) })
}

/// The wrapper's message that lets the leader execute the command.
#[derive(Debug)]
struct Permit<'a> {
    device: &'a OsStr,
    /// Base URL and token of the daemon's own listener.
    compat: Option<(&'a OsStr, &'a OsStr)>,
}

impl<'a> Permit<'a> {
    /// The variables that the permit adds to the command's environment.
    fn variables(&self) -> impl Iterator<Item = (&'static str, &'a OsStr)> + use<'a> {
        let compat =
            self.compat.map(|(base_url, token)| [("MACHINEID_BASE_URL", base_url), ("MACHINEID_ORG_KEY", token)]);
        std::iter::once(("MACHINEID_DEVICE_ID", self.device)).chain(compat.into_iter().flatten())
    }
}

/// The leader's code, just forked by `parent`. Nothing here prints: the standard streams are the command's.
///
/// `announce` tells the wrapper that the leader exists, and closes the guardian's connection to the wrapper: a copy of
/// it in the leader would hide the guardian's end for as long as the leader waits.
pub(super) fn become_command(
    plan: &CommandPlan<'_>,
    signals: &SignalFd,
    parent: Pid,
    ends: LeaderEnds,
    announce: impl FnOnce(),
) -> ! {
    // Done before any process learns the leader's number, so that none ever sees it outside its group.
    let grouped = unistd::setpgid(OWN, OWN);
    let tied = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    // The parent may have died before that took effect. Its number is compared with the saved one, since an orphan's
    // parent need not be 1.
    if grouped.is_err() || tied.is_err() || rustix::process::getppid() != Some(parent) {
        sys::exit_now(Exit::Wrapper.code());
    }
    announce();
    let LeaderEnds { permit, report } = ends;
    let mut text = Vec::new();
    // The daemon is asked meanwhile.
    let prepared = Prepared::new(plan, rustix::process::getpid());
    let read = File::from(permit).read_to_end(&mut text);
    let Some(permit) = read.ok().and_then(|_| decode(&text)) else { sys::exit_now(Exit::Wrapper.code()) };
    let errno = prepared.map_or(Errno::INVAL, |prepared| prepared.exec(&permit, signals));
    let _ = File::from(report).write_all(&errno.raw_os_error().to_ne_bytes());
    sys::exit_now(Exit::NotFound.code())
}

/// What can be prepared before the permit comes.
struct Prepared {
    arguments: Vec<CString>,
    /// The environment without the permit's variables.
    variables: Vec<CString>,
    candidates: Vec<CString>,
    /// Whether the command was given with a path.
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

    fn exec(mut self, permit: &Permit<'_>, signals: &SignalFd) -> Errno {
        for (name, value) in permit.variables() {
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
    // An empty result of the search is ENOENT; of several failures the most informative one is kept.
    let mut worst = Errno::NOENT;
    for candidate in candidates {
        match sys::exec(candidate, arguments, variables) {
            Errno::NOENT | Errno::NOTDIR => {
                // The file exists, but the interpreter that it names does not: that is reported differently.
                if exists(candidate) {
                    worst = Errno::LIBBAD;
                }
            }
            // A directory of the path that may not be searched hides its files, most likely none.
            Errno::ACCESS if *named || exists(candidate) => worst = Errno::ACCESS,
            Errno::ACCESS => {}
            errno => return errno,
        }
    }
    worst
}

fn exists(path: &CStr) -> bool {
    unistd::access(path, AccessFlags::F_OK).is_ok()
}

/// Returns the paths to try for a command: the command itself if it contains a slash, else one in each directory of
/// `PATH`.
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

/// Variables by which a service manager addresses one process. Where they name the wrapper, the command takes its
/// place: otherwise the command would ignore the sockets passed to it, and would not serve the watchdog.
const ADDRESSED: [&str; 3] = ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
/// Names the same process as `LISTEN_PID`, by an id of its pidfd, which the command cannot have.
const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";

/// The command's environment without the permit's variables: the wrapper's, without the org key and the authority's
/// address, plus the daemon's socket and the run id.
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

/// The exit code and the message for a command that could not be executed.
pub(super) fn explain(command: &OsStr, errno: Errno) -> (Exit, String) {
    let name = command.to_string_lossy();
    match errno {
        Errno::NOENT => (Exit::NotFound, format!("{name}: not found; check the spelling, the path and PATH")),
        Errno::LIBBAD => {
            let text = "the file exists, but its interpreter (see its first line, or its dynamic loader) does not";
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
    fn the_environment_withholds_the_key_and_names_device_run_and_socket() {
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
        let said = |compat| Permit { device: text("dev"), compat }.variables().collect::<Vec<_>>();
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
    fn a_torn_permit_is_no_permit() {
        let containment = Containment::Subreaper;
        let allowed = Allowed { device_id: "d".parse().unwrap(), containment, compat: Some(("u".into(), "t".into())) };
        let permit = encode(&allowed);
        let read = decode(&permit).unwrap();
        assert!(read.device == "d" && read.compat == Some((OsStr::new("u"), OsStr::new("t"))));
        for end in 0..permit.len() {
            assert!(decode(&permit[..end]).is_none());
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
