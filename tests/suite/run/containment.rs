//! What holds a tree together: what is asked for, what is had, and what an agent sees of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Code, Containment, Wish};
use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::sidecar::chmod;
use crate::harness::wrapper::{
    Running, guardian_of, python, run_script, somebody_runs, stderr, stdout, unique_sleep, wait_for_line, wrapper,
};

/// A daemon that allows and says that this holds the tree together.
fn offering(offer: Containment) -> ScriptedDaemon {
    ScriptedDaemon::start(move |conversation| {
        let mut event = conversation.allow_event(Duration::from_mins(10));
        if let SuperviseEvent::Allow { containment, .. } = &mut event {
            *containment = offer;
        }
        conversation.allow_with(&event);
        conversation.hold();
    })
}

/// Where cgroup2 is mounted, writable for this user at its own group.
fn own_group() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = PathBuf::from(mount.split(' ').nth(4)?).join(own);
    rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok().then_some(path)
}

#[test]
fn in_a_pid_namespace_the_agent_has_the_first_for_parent_sees_its_own_and_is_who_it_was() {
    let daemon = ScriptedDaemon::allowing();
    let script = "echo $PPID $(id -u) $(id -g) $(cat /proc/1/comm); pwd; ps ax | grep -c run; exit 6";
    let outside = String::from_utf8(Command::new("sh").args(["-c", "id -u; id -g"]).output().unwrap().stdout).unwrap();
    let (uid, gid) = outside.trim().split_once('\n').unwrap();
    let mut command = wrapper(&daemon.socket());
    let output =
        Running::start(command.current_dir("/").args(["--containment", "pidns", "--", "sh", "-c", script])).finish();
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    let text = stdout(&output);
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), format!("1 {uid} {gid} machineid-init"), "{text}");
    assert_eq!(lines.next(), Some("/"));
}

#[test]
fn the_processes_of_two_pid_namespaces_have_different_numbers() {
    let daemon = ScriptedDaemon::allowing();
    let own_number = || {
        let output = run_script(&daemon.socket(), &["--containment", "pidns"], "echo $$");
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
        stdout(&output).trim().parse::<u32>().unwrap()
    };
    let numbers: Vec<_> = (0..3).map(|_| own_number()).collect();
    assert!(numbers.iter().all(|&number| number > 300), "{numbers:?}");
    // Three equal ones are less likely than one in a hundred million, where there are as few numbers as by default.
    assert!(numbers.iter().any(|&number| number != numbers[0]), "{numbers:?}");
}

#[test]
fn an_ordinary_user_has_a_pid_namespace_too_and_stays_who_it_was() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the test above does this for an ordinary user");
        return;
    }
    let daemon = ScriptedDaemon::allowing();
    for path in [daemon.directory(), &daemon.socket()] {
        chmod(path, 0o777);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65532", "--regid", "65531", "--clear-groups", "--"]);
    command.arg(env!("CARGO_BIN_EXE_machineid-run")).arg("--socket").arg(daemon.socket());
    command.args([
        "--containment",
        "pidns",
        "--",
        "sh",
        "-c",
        "echo $PPID $(id -u) $(id -g) $(($$ > 300)); kill -9 1; exit 4",
    ]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = Running::start(&mut command).finish();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(4), "1 65532 65531 1\n"), "{}", stderr(&output));
}

#[test]
fn one_pid_namespace_fits_into_another() {
    let daemon = ScriptedDaemon::allowing();
    let binary = env!("CARGO_BIN_EXE_machineid-run");
    let inner = format!("{binary} --containment pidns -- sh -c 'echo $PPID $(($$ > 300)); exit 5'");
    let output = run_script(&daemon.socket(), &["--containment", "pidns"], &format!("{inner}; echo inner $?"));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "1 1\ninner 5\n"), "{}", stderr(&output));
}

#[test]
fn a_pid_namespace_ends_with_its_wrapper_and_with_its_first_process() {
    for killed in ["wrapper", "init"] {
        let daemon = ScriptedDaemon::allowing();
        let mark = unique_sleep();
        let ready = daemon.directory().join("ready");
        let script = format!("trap '' TERM; setsid sleep {mark} & echo up > {}; sleep {mark}", ready.display());
        let run = Running::start(wrapper(&daemon.socket()).args(["--containment", "pidns", "--", "sh", "-c", &script]));
        wait_for_line(&ready);
        let init = guardian_of(run.pid());
        match killed {
            "wrapper" => run.signal(Signal::KILL),
            _ => crate::harness::wrapper::send(init, Signal::KILL),
        }
        eventually("no process is left", || !somebody_runs(&mark));
        let output = run.finish();
        assert_eq!(output.status.code(), if killed == "init" { Some(125) } else { None }, "{}", stderr(&output));
    }
}

#[test]
fn a_stop_in_a_pid_namespace_asks_each_process_and_kills_them_with_the_first() {
    let daemon = ScriptedDaemon::start(|conversation| {
        assert_eq!(conversation.question.containment, Some(Wish::Named(Containment::Pidns)));
        conversation.allow(Duration::from_mins(10));
        wait_for_line(std::path::Path::new(conversation.question.name.as_deref().unwrap()));
        conversation.stop(Code::DeviceRevoked, false, Duration::from_millis(500));
        conversation.hold();
    });
    let mark = unique_sleep();
    let ready = daemon.directory().join("ready");
    let status_file = daemon.directory().join("status.json");
    let flags =
        ["--containment", "pidns", "--name", ready.to_str().unwrap(), "--status-file", status_file.to_str().unwrap()];
    let program = format!(
        "import signal,os,time\nsignal.signal(15, lambda *_: os.write(1, b'asked\\n'))\n\
         open('{}','w').write('up\\n')\nwhile True: time.sleep(1)\n#{mark}",
        ready.display()
    );
    let output = Running::start(wrapper(&daemon.socket()).args(flags).args(["--", "python3", "-c", &program])).finish();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(77), "asked\n"), "{}", stderr(&output));
    assert!(!somebody_runs(&mark));
    let status: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&status_file).unwrap()).unwrap();
    assert_eq!((&status["containment"], &status["signalled"]), (&"pidns".into(), &1.into()), "{status}");
    assert!(status["killed"].as_u64().unwrap() >= 1 && status["took_ms"].as_u64().unwrap() >= 500, "{status}");
}

#[test]
fn a_pid_namespace_that_is_not_to_be_had_is_a_wrapper_failure_that_says_why() {
    let daemon = ScriptedDaemon::allowing();
    for path in [daemon.directory(), &daemon.socket()] {
        chmod(path, 0o777);
    }
    let witness = daemon.directory().join("ran");
    // A user namespace of the test's own, in which no other may be made.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all \
         --securebits +noroot,+noroot_locked -- {} --socket {} --containment pidns -- touch {}",
        env!("CARGO_BIN_EXE_machineid-run"),
        daemon.socket().display(),
        witness.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = Running::start(&mut command).finish();
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("pidns is not available") && text.contains("max_user_namespaces"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!witness.exists());
}

#[test]
fn a_control_group_is_the_wrappers_own_where_it_may_make_one_and_goes_with_the_run() {
    let Some(own) = own_group() else {
        println!("skipped: this user may make no control group here");
        return;
    };
    for mode in ["auto", "cgroup"] {
        let daemon = offering(Containment::Cgroup);
        let output = run_script(&daemon.socket(), &["--containment", mode], "grep ^0:: /proc/self/cgroup; exit 3");
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let text = stdout(&output);
        let name = text.trim().rsplit('/').next().unwrap();
        assert!(name.starts_with("machineid-"), "{text}");
        assert!(!own.join(name).exists(), "it is removed at the end");
    }
}

#[test]
fn one_the_wrapper_leaves_behind_is_removed_by_the_guardian() {
    let Some(own) = own_group() else {
        println!("skipped: this user may make no control group here");
        return;
    };
    let daemon = offering(Containment::Cgroup);
    let ready = daemon.directory().join("ready");
    let script = format!("grep ^0:: /proc/self/cgroup > {}; sleep 1000", ready.display());
    let run = Running::start(wrapper(&daemon.socket()).args(["--stop-grace", "200ms", "--", "sh", "-c", &script]));
    let leaf = own.join(wait_for_line(&ready).trim().rsplit('/').next().unwrap());
    assert!(leaf.exists());
    run.signal(Signal::KILL);
    eventually("its control group is gone", || !leaf.exists());
}

#[test]
fn a_named_control_group_that_is_not_to_be_had_is_a_wrapper_failure_that_says_why() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: takes root to become a user that may make no control group");
        return;
    }
    let daemon = offering(Containment::Subreaper);
    for path in [daemon.directory(), &daemon.socket()] {
        chmod(path, 0o777);
    }
    for (mode, exit) in [("cgroup", 125), ("auto", 0)] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65532", "--regid", "65532", "--clear-groups", "--"]);
        command.arg(env!("CARGO_BIN_EXE_machineid-run")).arg("--socket").arg(daemon.socket());
        command.args(["--containment", mode, "--", "true"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = Running::start(&mut command).finish();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(exit), "{text}");
        if exit == 125 {
            assert!(text.contains("cgroup is not available") && text.contains("no permission"), "{text}");
        }
    }
}

#[test]
fn on_a_terminal_a_frozen_agent_is_remarked_on_and_ctrl_c_lets_it_go_on_and_interrupts_it() {
    if own_group().is_none() {
        println!("skipped: this user may make no control group here");
        return;
    }
    let daemon = offering(Containment::Cgroup);
    let program = r"
import os, pty, select, sys, time
binary, socket = sys.argv[1:3]
agent = '''import os, signal, time
signal.signal(2, lambda *_: (os.write(1, b'interrupted'), os._exit(5)))
print('leaf', open('/proc/self/cgroup').read().split('0::')[1].split()[0], flush=True)
while True: time.sleep(0.1)'''
pid, fd = pty.fork()
if pid == 0:
    os.execv(binary, [binary, '--socket', socket, '--', 'python3', '-c', agent])
seen = ''
def expect(text):
    global seen
    end = time.monotonic() + 40
    while text not in seen:
        if time.monotonic() > end or not select.select([fd], [], [], 40)[0]:
            print('expected', repr(text), 'in', repr(seen)); sys.exit(1)
        seen += os.read(fd, 4096).decode(errors='replace')
    _, _, seen = seen.partition(text)
    return seen
expect('leaf ')
while '\n' not in seen: seen += os.read(fd, 4096).decode(errors='replace')
mount = [line.split()[4] for line in open('/proc/self/mountinfo') if ' - cgroup2 ' in line][0]
leaf = mount + seen.split()[0]
open(leaf + '/cgroup.freeze', 'w').write('1')
expect('the agent is frozen')
open(leaf + '/cgroup.freeze', 'w').write('0')
expect('the agent continues')
open(leaf + '/cgroup.freeze', 'w').write('1')
expect('the agent is frozen')
os.write(fd, b'\x03')
expect('interrupted')
_, status = os.waitpid(pid, 0)
print('exit', os.waitstatus_to_exitcode(status))
";
    let socket = daemon.socket();
    let output = python(program, &[env!("CARGO_BIN_EXE_machineid-run").as_ref(), socket.as_ref()]);
    assert_eq!(stdout(&output), "exit 5\n", "{}", stderr(&output));
}

#[test]
fn a_frozen_agent_is_stopped_at_the_end_of_its_lease_and_can_act_on_the_signal() {
    if own_group().is_none() {
        println!("skipped: this user may make no control group here");
        return;
    }
    let daemon = ScriptedDaemon::start(|conversation| {
        let mut event = conversation.allow_event(Duration::from_mins(10));
        if let SuperviseEvent::Allow { containment, .. } = &mut event {
            *containment = Containment::Cgroup;
        }
        conversation.allow_with(&event);
        let directory = PathBuf::from(conversation.question.name.clone().unwrap());
        let path = wait_for_line(&directory.join("leaf")).trim().rsplit('/').next().unwrap().to_owned();
        std::fs::write(own_group().unwrap().join(path).join("cgroup.freeze"), "1").unwrap();
        conversation.lease(Duration::from_millis(300));
        conversation.hold();
    });
    let directory = daemon.directory().to_str().unwrap();
    let script = format!(
        "trap 'echo asked; exit 0' TERM; grep ^0:: /proc/self/cgroup > {directory}/leaf; while :; do sleep 0.05; done"
    );
    let output = run_script(&daemon.socket(), &["--name", directory], &script);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(75), "asked\n"), "{}", stderr(&output));
}
