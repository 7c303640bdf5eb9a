//! A fork storm at its limit of processes: each place that a SIGKILL makes free is taken by a fork at once.

use std::fs;

use rustix::process::Pid;

use super::census::with_marks;
use super::matrix::{Ender, Mode, User};
use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::place::{is_root, skipped};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;
use crate::harness::wrapper::unique_sleep;

/// How many processes a storm may have, besides those its user has already.
const LIMIT: u32 = 150;

/// `python3 -c … MARK READY`. Forks without end; none of it ever ends by itself, but when its ready file is gone.
const STORM: &str = r"
import os, resource, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def owner(pid):
    try: return os.stat('/proc/' + pid).st_uid
    except OSError: return None
threads = sum(len(os.listdir('/proc/%s/task' % pid)) for pid in os.listdir('/proc') if pid.isdigit() and owner(pid) == os.getuid())
limit = threads + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
full = False
while full or os.path.exists(sys.argv[2]):
    try:
        if os.fork() == 0: os.setsid()
    except OSError:
        if not full: open(sys.argv[2], 'w').write('full\n')
        full = os.path.exists(sys.argv[2])
        time.sleep(0.001)
";

/// Gives all threads of the process precedence: of the authority, since it stands for another machine, whose processors no
/// storm here takes; of the daemon, as its unit does (`CPUWeight=1000`). Not permitted without privileges; then answers
/// may come late.
fn puts_first(pid: u32) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().file_name().to_str().and_then(|task| task.parse().ok());
        let _ = rustix::process::setpriority_process(task.and_then(Pid::from_raw), -15);
    }
}

/// Precedence of this session until it is dropped. Where the kernel groups sessions for scheduling, each has the same part of
/// the processors, whatever the nice values inside are; and a storm has as many sessions as processes.
struct SessionFirst {
    before: Option<String>,
}

const SESSION: &str = "/proc/self/autogroup";

impl SessionFirst {
    fn new() -> Self {
        // As in `/autogroup-12 nice 0`. There is no such file in a kernel without such groups.
        let before = fs::read_to_string(SESSION).ok().and_then(|text| Some(text.trim().rsplit_once(' ')?.1.to_owned()));
        let _ = fs::write(SESSION, "-15");
        Self { before }
    }
}

impl Drop for SessionFirst {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(SESSION, before);
        }
    }
}

/// Ends within a bounded wait in this containment.
fn ends(mode: Mode) {
    let user = if is_root() { User::OrdinaryUnderRoot } else { User::Ordinary };
    let place = match mode.place(user) {
        Ok(place) => place,
        Err(why) => return skipped(&format!("a fork storm in {}", mode.word()), why),
    };
    let authority = Authority::start();
    puts_first(authority.pid());
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:storm").at(place);
    "interval = \"200ms\"\nlease = \"2m\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    puts_first(sidecar.pid());
    let mark = unique_sleep().to_string();
    let stage = sidecar.directory().join("stage");
    fs::create_dir(&stage).unwrap();
    sidecar.place().give_to_agents(&stage);
    let ready = stage.join("ready");
    fs::write(&ready, "").unwrap();
    sidecar.place().give_to_agents(&ready);
    let command = ["python3", "-S", "-c", STORM, &mark, ready.to_str().unwrap(), &LIMIT.to_string()];
    let _ender = Ender(mark.clone());
    let mut wrapped = Wrapped::start(sidecar.wrap(&["--containment", mode.word()], &command));
    until("the storm has reached its limit", || {
        fs::read_to_string(&ready).is_ok_and(|text| !text.is_empty()).then_some(())
    });
    org.device("revoke", "host:storm");
    let code = wrapped.exit_code();
    // Not within a second here: at its limit a storm takes all processors, and a killed process needs one to end.
    eventually("no process of the storm is left", || with_marks(&[&mark]).is_empty());
    assert_eq!(code, 77, "{}", wrapped.stderr());
}

/// One after the other: a limit is a user's, and two storms would share it.
#[test]
fn a_fork_storm_at_its_limit_is_ended_in_every_containment() {
    let _first = SessionFirst::new();
    for mode in [Mode::Subreaper, Mode::Cgroup, Mode::Pidns] {
        ends(mode);
    }
}
