//! Sudden deaths: of the wrapper, of the guardian, of the daemon with either; and who sends the stop signal then.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use machineid_protocol::Code;
use machineid_protocol::local::{Killer, SuperviseEvent};
use rustix::process::Signal;

use crate::harness::scripted_daemon::{Conversation, ScriptedDaemon};
use crate::harness::wrapper::{
    Mark, Running, guardian_of, send, set_flag, somebody_runs, stderr, unique_sleep, wait_for_line, with_mark, wrapper,
};
use crate::harness::{eventually, let_time_pass};

const LEASE: Duration = Duration::from_mins(10);

/// A tree of two, one of them without parents and in a session of its own. Both write a line for each stop signal, and stay.
const COUNTING: &str = r"
import os, signal, sys, time
directory = sys.argv[1]
asked = os.open(directory + '/asked', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
name = b'leader\n'
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    name = b'orphan\n'
signal.signal(signal.SIGTERM, lambda *_: os.write(asked, name))
open(directory + '/' + name.decode().strip(), 'w').write('up\n')
while True: time.sleep(1)
";

struct Counted {
    daemon: ScriptedDaemon,
    mark: Mark,
    run: Running,
}

impl Counted {
    /// Starts the counting tree and waits for both of it.
    fn start(daemon: ScriptedDaemon, flags: &[&str]) -> Self {
        let mark = unique_sleep();
        let mut command = wrapper(&daemon.socket());
        command
            .args(["--timeout", "60s", "--stop-grace", "700ms", "--name", daemon.directory().to_str().unwrap()])
            .args(flags);
        Self::start_behind(command.arg("--"), daemon, mark)
    }

    /// The same with a command that the tree's own is to be added to.
    fn start_behind(command: &mut Command, daemon: ScriptedDaemon, mark: Mark) -> Self {
        command.args(["python3", "-c", COUNTING]).arg(daemon.directory()).arg(&*mark);
        let run = Running::start(command);
        for name in EACH_ONCE {
            wait_for_line(&daemon.directory().join(name));
        }
        Self { daemon, mark, run }
    }

    fn guardian(&self) -> i32 {
        guardian_of(self.run.pid())
    }

    /// Waits until no process is left, wrapper and guardian included; returns which were signalled, in order of name.
    fn asked(&self) -> Vec<String> {
        eventually("no process of it is left", || !somebody_runs(&self.mark));
        let text = std::fs::read_to_string(self.daemon.directory().join("asked")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

const EACH_ONCE: [&str; 2] = ["leader", "orphan"];

fn directory_of(conversation: &Conversation) -> std::path::PathBuf {
    conversation.question.name.clone().unwrap().into()
}

/// Allows, and when the wrapper is gone sends the stop signal to everybody, as a daemon does.
fn daemon_that_signals() -> ScriptedDaemon {
    ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        conversation.hold();
        for pid in with_mark(directory_of(conversation).to_str().unwrap()) {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.starts_with("python") {
                send(pid, Signal::TERM);
            }
        }
    })
}

fn modes() -> &'static [&'static str] {
    // As an ordinary user there is no control group here, and `auto` is what one gets.
    &["subreaper", "auto"]
}

#[test]
fn when_the_wrapper_is_killed_the_guardian_asks_each_once_if_there_is_no_daemon() {
    for mode in modes() {
        let counted = Counted::start(ScriptedDaemon::allowing(), &["--containment", mode]);
        counted.daemon.vanish();
        counted.run.signal(Signal::KILL);
        assert_eq!(counted.asked(), EACH_ONCE, "{mode}");
    }
}

#[test]
fn when_the_wrapper_is_killed_and_the_daemon_knows_the_run_the_signal_is_the_daemons() {
    let counted = Counted::start(daemon_that_signals(), &[]);
    counted.run.signal(Signal::KILL);
    assert_eq!(counted.asked(), EACH_ONCE);
    // And one that only answers is believed: the guardian sends SIGKILL alone.
    let counted = Counted::start(ScriptedDaemon::allowing(), &[]);
    counted.run.signal(Signal::KILL);
    assert_eq!(counted.asked(), [""; 0]);
}

#[test]
fn a_daemon_that_cannot_reach_the_agent_leaves_the_signal_to_the_guardian() {
    let remote = ScriptedDaemon::start(|conversation| {
        let mut event = conversation.allow_event(LEASE);
        if let SuperviseEvent::Allow { killer, .. } = &mut event {
            *killer = Killer::Wrapper;
        }
        conversation.allow_with(&event);
        conversation.hold();
    });
    let counted = Counted::start(remote, &[]);
    counted.run.signal(Signal::KILL);
    assert_eq!(counted.asked(), EACH_ONCE);
}

#[test]
fn a_wrapper_killed_in_the_middle_of_its_stop_is_not_repeated() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        for name in EACH_ONCE {
            wait_for_line(&directory_of(conversation).join(name));
        }
        conversation.stop(Code::DeviceRevoked, false, Duration::from_secs(2));
        conversation.hold();
    });
    let counted = Counted::start(daemon, &["--stop-grace", "2s"]);
    let asked = counted.daemon.directory().join("asked");
    eventually("both are asked", || std::fs::read_to_string(&asked).is_ok_and(|text| text.lines().count() == 2));
    counted.daemon.vanish();
    counted.run.signal(Signal::KILL);
    assert_eq!(counted.asked(), EACH_ONCE);
}

#[test]
fn at_the_end_of_the_lease_and_after_a_deny_each_is_asked_once_by_the_wrapper() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let directory = directory_of(conversation);
        conversation.allow(LEASE);
        for name in EACH_ONCE {
            wait_for_line(&directory.join(name));
        }
        match conversation.question.device {
            Some(_) => conversation.lease(Duration::from_millis(100)),
            None => conversation.stop(Code::DeviceRevoked, false, Duration::from_millis(700)),
        }
        conversation.hold();
    });
    let counted = Counted::start(daemon, &["--device", "lease"]);
    assert_eq!(counted.asked(), EACH_ONCE);
    assert_eq!(counted.run.finish().status.code(), Some(75));
}

#[test]
fn a_killed_guardian_takes_the_leader_with_it_and_the_wrapper_ends_the_rest() {
    for mode in modes() {
        let counted = Counted::start(ScriptedDaemon::allowing(), &["--containment", mode]);
        send(counted.guardian(), Signal::KILL);
        assert_eq!(counted.asked(), ["orphan"], "{mode}: the leader has no time for it");
        let output = counted.run.finish();
        assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
        assert!(stderr(&output).contains("guardian was killed"), "{}", stderr(&output));
    }
}

#[test]
fn wrapper_and_guardian_killed_at_once_leave_no_leader() {
    // What else may be left is the daemon's to find, by its record and the cookie.
    for mode in ["subreaper", "pidns"] {
        let daemon = ScriptedDaemon::allowing();
        let mark = unique_sleep();
        let ready = daemon.directory().join("ready");
        let script = format!("echo up > {}; exec sleep {mark}", ready.display());
        let run = Running::start(wrapper(&daemon.socket()).args(["--containment", mode, "--", "sh", "-c", &script]));
        wait_for_line(&ready);
        let guardian = guardian_of(run.pid());
        run.signal(Signal::STOP);
        send(guardian, Signal::KILL);
        run.signal(Signal::KILL);
        eventually("no process is left", || !somebody_runs(&mark));
    }
}

#[test]
fn a_wrapper_killed_while_asking_leaves_neither_guardian_nor_leader() {
    for mode in ["subreaper", "auto", "pidns"] {
        let daemon = ScriptedDaemon::start(Conversation::hold);
        let mark = unique_sleep();
        let run =
            Running::start(wrapper(&daemon.socket()).args(["--containment", mode, "--timeout", "60s", "sleep", &mark]));
        eventually("the question is asked", || daemon.connections() == 1);
        // Also when the leader cannot notice that its pipe was closed.
        let leader = with_mark(&mark).into_iter().max().unwrap();
        send(leader, Signal::STOP);
        run.signal(Signal::KILL);
        eventually("no process is left", || !somebody_runs(&mark));
    }
}

#[test]
fn a_stopped_wrapper_without_a_daemon_is_stood_in_for_by_the_guardian_and_copes_when_it_wakes() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        for name in EACH_ONCE {
            wait_for_line(&directory_of(conversation).join(name));
        }
        conversation.lease(Duration::from_millis(1_500));
        set_flag(&directory_of(conversation).join("short"));
        conversation.hold();
    });
    let counted = Counted::start(daemon, &["--stop-grace", "3s"]);
    wait_for_line(&counted.daemon.directory().join("short"));
    // The wrapper reads the new lease at once; a stop in the same moment would leave it with the long one.
    let_time_pass(Duration::from_millis(300));
    counted.daemon.vanish();
    counted.run.signal(Signal::STOP);
    let asked = counted.daemon.directory().join("asked");
    eventually("both are asked", || std::fs::read_to_string(&asked).is_ok_and(|text| text.lines().count() == 2));
    // It wakes in the middle of the guardian's stop.
    counted.run.signal(Signal::CONT);
    assert_eq!(counted.asked(), EACH_ONCE);
    let output = counted.run.finish();
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert!(stderr(&output).contains("LEASE_EXPIRED"), "{}", stderr(&output));
}

#[test]
fn a_stopped_wrapper_whose_device_stays_allowed_keeps_its_agent() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let directory = directory_of(conversation);
        conversation.allow(LEASE);
        wait_for_line(&directory.join("up"));
        conversation.lease(Duration::from_secs(3));
        set_flag(&directory.join("short"));
        wait_for_line(&directory.join("stopped"));
        conversation.lease(LEASE);
        set_flag(&directory.join("moved"));
        conversation.hold();
    });
    let mark = unique_sleep();
    let directory = daemon.directory();
    let mut command = wrapper(&daemon.socket());
    command.args(["--timeout", "60s", "--name", directory.to_str().unwrap(), "--", "sleep", &mark]);
    let run = Running::start(&mut command);
    eventually("the command runs", || with_mark(&mark).len() == 3);
    set_flag(&directory.join("up"));
    wait_for_line(&directory.join("short"));
    // The wrapper reads it at once and tells the guardian.
    let_time_pass(Duration::from_millis(500));
    run.signal(Signal::STOP);
    set_flag(&directory.join("stopped"));
    wait_for_line(&directory.join("moved"));
    // The deadline that wrapper and guardian know of, the guardian's patience, and more.
    let_time_pass(Duration::from_secs(7));
    assert_eq!(with_mark(&mark).len(), 3);
    run.signal(Signal::CONT);
    run.signal(Signal::TERM);
    assert_eq!(run.finish().status.code(), Some(143));
}

#[test]
fn a_guardian_that_something_stops_is_continued() {
    let daemon = ScriptedDaemon::allowing();
    let go = daemon.directory().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 6", go.display());
    let run = Running::start(wrapper(&daemon.socket()).args(["--", "sh", "-c", &script]));
    send(guardian_of(run.pid()), Signal::STOP);
    set_flag(&go);
    assert_eq!(run.finish().status.code(), Some(6));
}

#[test]
fn the_guardian_holds_none_of_the_commands_streams_and_gets_no_key_of_the_terminal() {
    let daemon = ScriptedDaemon::allowing();
    let mut run = Running::start(wrapper(&daemon.socket()).args(["--stop-grace", "300ms", "--", "sleep", "1000"]));
    let guardian = guardian_of(run.pid());
    let link = |fd: &Path| std::fs::read_link(fd).map(|path| path.display().to_string()).unwrap_or_default();
    eventually("it has closed the command's streams", || {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{guardian}/fd")) else { return true };
        fds.flatten().all(|fd| !link(&fd.path()).starts_with("pipe:"))
    });
    let stat = std::fs::read_to_string(format!("/proc/{guardian}/stat")).unwrap();
    let group = stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(group, guardian.to_string());
    let status = std::fs::read_to_string(format!("/proc/{guardian}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::TSTP, Signal::USR1] {
        assert_ne!(blocked & (1 << (signal.as_raw() - 1)), 0, "{signal:?}");
    }
    // It sleeps; hundredths of a second of processor time say so.
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{guardian}/stat")).unwrap();
        let fields: Vec<String> = stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    let_time_pass(Duration::from_secs(1));
    assert!(ticks() - before < 5, "{} ticks", ticks() - before);
    run.0.kill().unwrap();
    eventually("the guardian goes with the tree", || !Path::new(&format!("/proc/{guardian}/fd/0")).exists());
}

#[test]
fn a_tree_with_a_wrapper_in_it_is_asked_once_to_stop() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        for name in EACH_ONCE {
            wait_for_line(&directory_of(conversation).join(name));
        }
        conversation.stop(Code::DeviceRevoked, false, Duration::from_millis(700));
        conversation.hold();
    });
    let inner = ScriptedDaemon::allowing();
    let mark = unique_sleep();
    let mut command = wrapper(&daemon.socket());
    command.args(["--name", daemon.directory().to_str().unwrap(), "--"]);
    command.arg(env!("CARGO_BIN_EXE_machineid-run")).arg("--socket").arg(inner.socket());
    let counted = Counted::start_behind(command.arg("--"), daemon, mark);
    assert_eq!(counted.asked(), EACH_ONCE);
    assert_eq!(counted.run.finish().status.code(), Some(77));
}

#[test]
fn the_signal_of_a_stop_that_a_wrapper_is_itself_in_is_not_passed_on() {
    let daemon = ScriptedDaemon::allowing();
    let (ready, got) = (daemon.directory().join("ready"), daemon.directory().join("got"));
    let program = "import os, signal, sys, time\n\
        got = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n\
        for n in (signal.SIGTERM, signal.SIGUSR1): signal.signal(n, lambda n, _: os.write(got, b'%d\\n' % n))\n\
        open(sys.argv[1], 'w').write('ready\\n')\nwhile True: time.sleep(1)";
    let mut command = wrapper(&daemon.socket());
    let run =
        Running::start(command.args(["--stop-grace", "300ms", "--", "python3", "-c", program]).args([&ready, &got]));
    wait_for_line(&ready);
    let wrapper = rustix::process::Pid::from_child(&run.0);
    let pidfd = rustix::process::pidfd_open(wrapper, rustix::process::PidfdFlags::empty()).unwrap();
    machineid_sys::queue_signal(&pidfd, Signal::TERM).unwrap();
    // One that comes later, so that the first would have come before it.
    eventually("the wrapper has taken it", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap().trim();
        u64::from_str_radix(pending, 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) == 0
    });
    run.signal(Signal::USR1);
    assert_eq!(wait_for_line(&got), "10\n");
    run.signal(Signal::KILL);
    run.finish();
}

/// A process of another user, which root in a user namespace of its own may not signal.
#[test]
fn one_that_may_not_be_signalled_is_reported_after_a_bounded_wait() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: takes root to start a wrapper that may not signal its agent");
        return;
    }
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        wait_for_line(&directory_of(conversation).join("up"));
        conversation.stop(Code::DeviceRevoked, false, Duration::from_millis(100));
        conversation.hold();
    });
    let directory = daemon.directory();
    let status_file = directory.join("status.json");
    let mark = unique_sleep();
    // A program that is set-uid to another user: what `sudo` and `su` make of an agent's child.
    let other = directory.join("other");
    std::fs::copy("/usr/bin/python3", &other).unwrap();
    std::os::unix::fs::chown(&other, Some(65_533), None).unwrap();
    crate::harness::sidecar::chmod(&other, 0o4755);
    for path in [directory, &daemon.socket()] {
        crate::harness::sidecar::chmod(path, 0o777);
    }
    let program = format!(
        "import os,time\nos.setresuid(65533, 65533, 65533)\nopen('{}','w').write('up\\n')\ntime.sleep(1000)",
        directory.join("up").display()
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65532", "--regid", "65532", "--clear-groups", "--"]);
    command.arg(env!("CARGO_BIN_EXE_machineid-run")).arg("--socket").arg(daemon.socket());
    command.args(["--name", directory.to_str().unwrap(), "--status-file", status_file.to_str().unwrap(), "--"]);
    command.arg(&other).args(["-c", &program, &mark]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = Running::start(&mut command);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    assert!(stderr(&output).contains("still running after SIGKILL"), "{}", stderr(&output));
    let status: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&status_file).unwrap()).unwrap();
    assert!(status["survivors"][0]["reason"].as_str().unwrap().contains("EPERM"), "{status}");
    assert_eq!(status["containment"], "subreaper");
    // The guardian goes on: it is there for as long as the survivor is.
    assert!(with_mark(&mark).len() >= 2, "{:?}", with_mark(&mark));
}
