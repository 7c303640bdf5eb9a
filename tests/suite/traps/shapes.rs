//! The shapes of process trees that get away from ordinary wrappers. One fixture for the tests here, and for the table of
//! survivors and the comet in `benches`.
//!
//! Every process of a shape has its mark in its command line, so that a process that is left can be found whatever it did to its
//! parents, session, environment and descriptors. Comets are too quick to be found so: they hold a named pipe open.

use std::ffi::OsString;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What must become of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Gone in every containment.
    Uncooperative,
    /// Ends one of its supervisors: gone in every containment, since each does without the other.
    Hostile,
    /// Ends both supervisors at once: gone where another process still holds the tree.
    Murderous,
}

/// A tree, by what its leader does.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) temper: Temper,
    /// How many bytes the shape writes to its ready file when all of it is there.
    ready: u64,
    program: Program,
}

#[derive(Debug)]
enum Program {
    /// `sh -c … MARK READY GO`.
    Sh(&'static str),
    /// The same for Python, behind [`PRELUDE`].
    Python(&'static str),
    /// So many processes that fork, begin a session and exit, as fast as they can.
    Comets(usize),
    /// A wrapper of its own around this script.
    Nested(&'static str),
}

/// How quick comets are, and how long they last when nothing ends them. At full speed they leave nothing to others on a
/// small host: no processor, and in the end no process number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long each process lives, at least.
    pub(crate) nap: Duration,
    /// How many processes one comet is in all.
    pub(crate) hops: u32,
}

/// Where one tree is started.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// A number for `sleep` that no other command line contains.
    pub(crate) mark: String,
    /// A directory of this tree's own, writable for it.
    pub(crate) directory: PathBuf,
    /// The program that [`be_comets`] is called in, with its first arguments.
    pub(crate) comet: Vec<OsString>,
    pub(crate) pace: Pace,
    /// The wrapper and the socket, for one inside another.
    pub(crate) wrapper: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Stage {
    pub(crate) fn ready(&self) -> PathBuf {
        self.directory.join("ready")
    }

    /// Hostile shapes wait for this file before they do what they are here for.
    pub(crate) fn go(&self) -> PathBuf {
        self.directory.join("go")
    }

    /// The pipe that comets hold open.
    pub(crate) fn witness(&self) -> PathBuf {
        self.directory.join("witness")
    }

    /// What the stop left behind: a line for each stop signal that a process of the shape noted.
    pub(crate) fn noted(&self) -> PathBuf {
        self.directory.join("noted")
    }

    fn prepare(&self) {
        std::fs::write(self.ready(), "").unwrap();
        std::fs::write(self.noted(), "").unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, self.witness(), kind, mode, 0).unwrap();
        for file in [self.ready(), self.noted(), self.witness()] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
    }
}

/// Those the tests look at by name.
pub(crate) const CLEANS_UP: &str = "a stopped child that cleans up on TERM";
pub(crate) const COUNTS: &str = "counts its stop signals, in a session of its own too";
pub(crate) const COMETS: &str = "eight comets: fork, setsid, exit";
/// The note of a comet that was not ended.
pub(crate) const GAVE_UP: &str = "a comet gave up";
pub(crate) const STOPS_WRAPPER: &str = "stops its wrapper";
pub(crate) const NESTED: &str = "a wrapper inside, TERM ignored";

pub(crate) const SHAPES: &[Shape] = &[
    Shape {
        name: "a child in a session of its own",
        temper: Temper::Uncooperative,
        ready: 2,
        program: Program::Sh(r#"setsid sh -c 'echo >> "$1"; exec sleep $0' $0 "$1" & echo >> "$1"; exec sleep $0"#),
    },
    Shape {
        name: "a double-forked daemon, its parents gone",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Sh(
            r#"(setsid sh -c '(trap "" TERM; echo >> "$1"; exec sleep $0) & exit' $0 "$1" &); exec sleep $0"#,
        ),
    },
    Shape {
        name: "the leader obeys, its child ignores TERM",
        temper: Temper::Uncooperative,
        ready: 2,
        program: Program::Sh(
            r#"(trap "" TERM; echo >> "$1"; exec sleep $0) & trap 'exit 0' TERM; echo >> "$1"; while :; do wait; done"#,
        ),
    },
    Shape {
        name: "leader and child ignore TERM",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Sh(r#"trap "" TERM; sleep $0 & echo >> "$1"; sleep $0; true"#),
    },
    Shape {
        name: "a shell that cannot exec its command",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Sh(r#"sh -c 'echo >> "$1"; sleep $0; true' $0 "$1"; true"#),
    },
    Shape {
        name: CLEANS_UP,
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Sh(
            r#"sh -c 'trap "echo cleaned up >> $1/noted; exit 0" TERM; kill -STOP $$; exit 9' $0 "${1%/*}" & \
               until grep -q "^State:.T" /proc/$!/status; do sleep 0.01; done; echo >> "$1"; exec sleep $0"#,
        ),
    },
    Shape {
        name: "a stopped child without a trap, another with TERM ignored",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Sh(
            r#"sh -c 'kill -STOP $$; sleep $0' $0 & one=$!; \
               (trap "" TERM; exec sh -c 'kill -STOP $$; sleep $0' $0) & \
               for child in $one $!; do until grep -q "^State:.T" /proc/$child/status; do sleep 0.01; done; done; \
               echo >> "$1"; exec sleep $0"#,
        ),
    },
    Shape {
        name: "forks when asked to stop",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Python(
            "def again(*_):\n\
             \x20   if os.fork() == 0:\n\
             \x20       os.setsid(); ignore()\n\
             \x20       if os.fork() != 0: os._exit(0)\n\
             \x20       rest()\n\
             signal.signal(signal.SIGTERM, again); up(); rest()",
        ),
    },
    Shape {
        name: "closes every descriptor, or holds the output open",
        temper: Temper::Uncooperative,
        ready: 2,
        program: Program::Python(
            "ignore()\n\
             if os.fork() == 0: os.setsid(); up(); os.closerange(0, 4096); rest()\n\
             if os.fork() == 0: os.setsid(); up(); rest()\n\
             rest()",
        ),
    },
    Shape {
        name: "moves itself to the parent control group",
        temper: Temper::Uncooperative,
        ready: 2,
        program: Program::Python(
            "def move():\n\
             \x20   try:\n\
             \x20       mount = [l for l in open('/proc/self/mountinfo') if ' - cgroup2 ' in l][0].split()[4]\n\
             \x20       own = [l[3:].strip() for l in open('/proc/self/cgroup') if l.startswith('0::')][0]\n\
             \x20       open(mount + os.path.dirname(own) + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
             \x20   except (OSError, IndexError): pass\n\
             ignore()\n\
             if os.fork() == 0: os.setsid(); move(); up(); rest()\n\
             move(); up(); rest()",
        ),
    },
    Shape {
        name: "empties its environment after a double fork",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Python(
            "if os.fork() == 0:\n\
             \x20   os.setsid(); ignore()\n\
             \x20   if os.fork() != 0: os._exit(0)\n\
             \x20   up(); os.execve('/bin/sleep', ['sleep', mark], {})\n\
             rest()",
        ),
    },
    Shape {
        name: "clears its parent-death signal",
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Python(
            "import ctypes\n\
             PR_SET_PDEATHSIG = 1\n\
             clear = lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)\n\
             clear()\n\
             if os.fork() == 0: os.setsid(); clear(); ignore(); up()\n\
             rest()",
        ),
    },
    Shape {
        name: COUNTS,
        temper: Temper::Uncooperative,
        ready: 2,
        program: Program::Python(
            "def count(*_): note('TERM %d' % os.getpid())\n\
             signal.signal(signal.SIGTERM, count)\n\
             if os.fork() == 0: os.setsid()\n\
             up(); rest()",
        ),
    },
    Shape {
        name: "sixteen children, each in a session of its own",
        temper: Temper::Uncooperative,
        ready: 16,
        program: Program::Python(
            "ignore()\n\
             for _ in range(16):\n\
             \x20   if os.fork() == 0: os.setsid(); up(); rest()\n\
             rest()",
        ),
    },
    Shape {
        name: NESTED,
        temper: Temper::Uncooperative,
        ready: 1,
        program: Program::Nested(r#"trap "" TERM; setsid sleep $0 & echo >> "$1"; sleep $0; true"#),
    },
    Shape {
        name: STOPS_WRAPPER,
        temper: Temper::Hostile,
        ready: 1,
        program: Program::Python(
            "above = supervisors()\n\
             ignore(); up(); wait_for_go()\n\
             if above: send(above[-1], signal.SIGSTOP)\n\
             rest()",
        ),
    },
    Shape {
        name: "kills its wrapper",
        temper: Temper::Hostile,
        ready: 1,
        program: Program::Python(
            "above = supervisors()\n\
             ignore()\n\
             if os.fork() == 0: os.setsid(); rest()\n\
             up(); wait_for_go()\n\
             if above: send(above[-1], signal.SIGKILL)\n\
             rest()",
        ),
    },
    Shape {
        name: "kills its guardian",
        temper: Temper::Hostile,
        ready: 1,
        program: Program::Python(
            "above = supervisors()\n\
             ignore()\n\
             if os.fork() == 0: os.setsid(); rest()\n\
             up(); wait_for_go()\n\
             if len(above) > 1: send(above[0], signal.SIGKILL)\n\
             rest()",
        ),
    },
    Shape {
        name: "kills wrapper and guardian at once",
        temper: Temper::Murderous,
        ready: 1,
        program: Program::Python(
            "above = supervisors()\n\
             ignore()\n\
             if os.fork() == 0: os.setsid(); rest()\n\
             up(); wait_for_go()\n\
             for pid in above: send(pid, signal.SIGSTOP)\n\
             for pid in above: send(pid, signal.SIGKILL)\n\
             rest()",
        ),
    },
    Shape { name: COMETS, temper: Temper::Uncooperative, ready: 8, program: Program::Comets(8) },
];

/// What every Python shape begins with.
const PRELUDE: &str = "\
import os, signal, sys, time
mark, ready, go = sys.argv[1:4]
here = os.path.dirname(ready)
def append(path, line):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND); os.write(fd, line.encode() + b'\\n'); os.close(fd)
def up(): append(ready, '')
def note(line): append(here + '/noted', line)
def ignore(): signal.signal(signal.SIGTERM, signal.SIG_IGN)
def rest():
    while True: time.sleep(1000)
def wait_for_go():
    while not os.path.exists(go): time.sleep(0.005)
def send(pid, number):
    try: os.kill(pid, number)
    except OSError: pass
def supervisors():
    # The ancestors that have the mark, and so this command, in their command lines: the nearest first.
    found, pid = [], os.getppid()
    while pid > 0:
        try:
            if mark not in open(f'/proc/{pid}/cmdline').read(): break
            parent = int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1])
        except OSError: break
        found.append(pid); pid = parent
    return found
";

impl Shape {
    /// Prepares the stage and gives the command that starts the tree on it.
    pub(crate) fn command(&self, stage: &Stage) -> Vec<OsString> {
        stage.prepare();
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let (ready, go) = (stage.ready(), stage.go());
        let arguments = [stage.mark.as_ref(), ready.as_os_str(), go.as_os_str()].map(OsString::from);
        let command = match self.program {
            Program::Sh(script) => words(&["sh", "-c", script]),
            Program::Python(program) => words(&["python3", "-S", "-c", &format!("{PRELUDE}{program}")]),
            Program::Comets(count) => {
                let ignoring = words(&["sh", "-c", r#"trap "" TERM; exec "$@""#, "sh"]);
                let (nap, hops) = (stage.pace.nap.as_micros().to_string(), stage.pace.hops.to_string());
                let rest = [count.to_string().into(), nap.into(), hops.into(), stage.witness().into_os_string()];
                [ignoring, stage.comet.clone(), rest.to_vec()].concat()
            }
            Program::Nested(script) => {
                let wrapper = [stage.wrapper.as_os_str(), "--socket".as_ref(), stage.socket.as_os_str()];
                let wrapper = wrapper.map(OsString::from).to_vec();
                [wrapper, words(&["--", "sh", "-c", script])].concat()
            }
        };
        [command, arguments.to_vec()].concat()
    }

    /// Whether all of it has been started.
    pub(crate) fn is_ready(&self, stage: &Stage) -> bool {
        std::fs::metadata(stage.ready()).is_ok_and(|metadata| metadata.len() >= self.ready)
    }

    /// Whether it takes so much of a host that it is to be alone.
    pub(crate) fn is_comets(&self) -> bool {
        matches!(self.program, Program::Comets(_))
    }
}

/// The other side of [`Stage::witness`]: knows, without looking at processes, whether a process holds it open.
#[derive(Debug)]
pub(crate) struct Witness(std::fs::File);

impl Witness {
    pub(crate) fn of(stage: &Stage) -> Self {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        Self(std::fs::File::options().read(true).custom_flags(flags).open(stage.witness()).unwrap())
    }

    /// Waits at most this long until no process holds it. Only true after one did.
    pub(crate) fn is_alone(&self, patience: Duration) -> bool {
        let mut polled = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::empty())];
        let timeout = rustix::event::Timespec::try_from(patience).unwrap();
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
        polled[0].revents().contains(rustix::event::PollFlags::HUP)
    }
}

/// The body of the process that is comets: takes what [`Shape::command`] appended to the program's own arguments.
pub(crate) fn be_comets(arguments: &[String]) {
    let [count, nap, hops, witness, _mark, ready, _go] = arguments else { panic!("{arguments:?}") };
    let witness = std::fs::File::options().write(true).open(witness).unwrap();
    let pace = Pace { nap: Duration::from_micros(nap.parse().unwrap()), hops: hops.parse().unwrap() };
    let up = std::fs::File::options().append(true).open(ready).unwrap();
    for _ in 0..count.parse::<usize>().unwrap() {
        if fork() {
            comet(&up, Path::new(ready), pace);
        }
    }
    drop(witness);
    // The process that started this decides when it ends; should that fail, the scratch directory goes some day.
    while Path::new(ready).exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Never in one process for longer than it takes to make the next.
///
/// Perhaps nothing is left that ends it or reaps its zombies: so it gives up by itself when its stage is gone, or
/// after so many that it has had its chance. It says so, lest that be taken for a stop.
fn comet(up: &std::fs::File, leash: &Path, pace: Pace) -> ! {
    for hop in 0..pace.hops {
        if !fork() {
            machineid_sys::exit_now(0);
        }
        let _ = nix::unistd::setsid();
        if !pace.nap.is_zero() {
            std::thread::sleep(pace.nap);
        }
        if hop == 10 {
            let _ = std::io::Write::write(&mut &*up, b"\n");
        }
        if hop % 64 == 0 && !leash.exists() {
            machineid_sys::exit_now(0);
        }
    }
    let _ = std::fs::write(leash.with_file_name("noted"), GAVE_UP);
    machineid_sys::exit_now(0);
}

/// Forks; true in the child.
///
/// Not the product's own, which refuses while other threads run: the test harness has one more, which only waits.
#[expect(unsafe_code, reason = "a comet is nothing but forks")]
fn fork() -> bool {
    // SAFETY: the child only calls what takes no lock: fork, setsid, stat, write and _exit. Its copy of the harness's
    // other thread does not exist, and nothing here waits for it.
    // If it cannot fork, the comet ends.
    unsafe { libc::fork() == 0 }
}
