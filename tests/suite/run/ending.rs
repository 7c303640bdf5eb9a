//! How it ends: exit codes, leftovers, signals, the status file.

use std::path::Path;
use std::time::Duration;

use machineid_protocol::Code;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::eventually;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{
    Running, run_script, somebody_runs, stderr, stdout, unique_sleep, wait_for_line, wrapper,
};

#[test]
fn every_exit_code_is_the_commands_own() {
    let daemon = ScriptedDaemon::allowing();
    for code in 0..=255 {
        let output = run_script(&daemon.socket(), &[], &format!("exit {code}"));
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn a_fatal_signal_is_128_and_its_number() {
    let daemon = ScriptedDaemon::allowing();
    for signal in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 64] {
        let output = run_script(&daemon.socket(), &[], &format!("ulimit -c 0; kill -{signal} $$; sleep 1000"));
        assert_eq!(output.status.code(), Some(128 + signal), "{}", stderr(&output));
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126_or_127_with_one_message() {
    let daemon = ScriptedDaemon::allowing();
    let directory = daemon.directory();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (command, exit, hint) in [
        ("no-such-command-anywhere".to_owned(), 127, "not found"),
        ("/no/such/command".to_owned(), 127, "not found"),
        (file("no-interpreter", "#!/no/such/interpreter\n", 0o755), 127, "interpreter"),
        (file("not-executable", "#!/bin/sh\n", 0o644), 126, "permission denied"),
        (file("no-format", "true\n", 0o755), 126, "#!/bin/sh"),
        (directory.to_str().unwrap().to_owned(), 126, "permission denied"),
    ] {
        let output = Running::start(wrapper(&daemon.socket()).args(["--", &command])).finish();
        assert_eq!(output.status.code(), Some(exit), "{command}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.lines().count() == 1 && text.contains(hint) && text.contains(&command), "{text}");
    }
}

#[test]
fn leftovers_are_stopped_and_the_code_is_the_leaders() {
    let daemon = ScriptedDaemon::allowing();
    let mark = unique_sleep();
    let output = run_script(&daemon.socket(), &[], &format!("setsid sleep {mark} & sleep {mark} & exit 7"));
    assert_eq!(output.status.code(), Some(7));
    assert!(!somebody_runs(&mark));
    // Also when they ignore the signal, and hold the wrapper's own output open.
    let script = format!("(trap '' TERM; sleep {mark}; sleep {mark}) & exit 8");
    let output = run_script(&daemon.socket(), &["--stop-grace", "200ms"], &script);
    assert_eq!(output.status.code(), Some(8));
    assert!(!somebody_runs(&mark));
}

#[test]
fn leftovers_that_were_stopped_are_named_with_the_way_to_keep_them() {
    let daemon = ScriptedDaemon::allowing();
    let (mark, status) = (unique_sleep(), daemon.directory().join("status"));
    let flags = ["--status-file", status.to_str().unwrap()];
    // Both have become what they are before the leader ends.
    let became = "until [ $(cat /proc/$!/comm) = sleep ]; do :; done";
    let script = format!("setsid sleep {mark} & {became}; sleep {mark} & {became}; exit 7");
    for quiet in [false, true] {
        let flags: Vec<_> = flags.into_iter().chain(quiet.then_some("--quiet")).collect();
        let output = run_script(&daemon.socket(), &flags, &script);
        assert_eq!(output.status.code(), Some(7));
        let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&status).unwrap()).unwrap();
        let left: Vec<_> = text["leftovers"].as_array().unwrap().iter().map(|it| (&it["name"], &it["pid"])).collect();
        assert!(left.len() == 2 && left.iter().all(|(name, _)| *name == "sleep"), "{text}");
        let (first, second) = (left[0].1, left[1].1);
        let line = format!(
            "machineid-run: ended 2 processes that were left running: sleep ({first}), sleep ({second}); --leftovers wait \
             lets them go on, supervised\n"
        );
        assert_eq!(stderr(&output), if quiet { String::new() } else { line });
    }
}

#[test]
fn leftovers_are_waited_for_when_asked_and_stay_supervised() {
    let daemon = ScriptedDaemon::allowing();
    let output =
        run_script(&daemon.socket(), &["--leftovers", "wait"], "(setsid sh -c 'sleep 0.3; echo late' &) ; exit 7");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(7), "late\n"));

    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(Duration::from_millis(600));
        conversation.hold();
    });
    let mark = unique_sleep();
    let output = run_script(&daemon.socket(), &["--leftovers", "wait"], &format!("setsid sleep {mark} & exit 7"));
    assert_eq!(output.status.code(), Some(7));
    assert!(!somebody_runs(&mark), "the lease ended it");
}

#[test]
fn children_the_caller_had_before_are_left_alone() {
    let daemon = ScriptedDaemon::allowing();
    let mark = unique_sleep();
    let script = format!(
        "sleep {mark} & echo $! > $0/pid; exec {} --socket {} -- sh -c 'sleep 0.1; exit 3'",
        env!("CARGO_BIN_EXE_machineid-run"),
        daemon.socket().display()
    );
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(&script).arg(daemon.directory());
    let output = Running::start(&mut command).finish();
    assert_eq!(output.status.code(), Some(3));
    let pid: i32 = wait_for_line(&daemon.directory().join("pid")).trim().parse().unwrap();
    assert!(somebody_runs(&mark));
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn signals_reach_the_command_and_start_no_ladder() {
    let daemon = ScriptedDaemon::allowing();
    let ready = daemon.directory().join("ready");
    let program = "import os,signal,sys,time\n\
        def note(n, _):\n    os.write(1, b'%d\\n' % n)\n    open(sys.argv[1] + str(n), 'w').write('got\\n')\n    if n == 15: sys.exit(9)\n\
        for n in (1, 2, 3, 10, 12, 14, 15, 28, 40): signal.signal(n, note)\n\
        open(sys.argv[1], 'w').write('ready\\n')\nwhile True: time.sleep(1)";
    let mut command = wrapper(&daemon.socket());
    let run = Running::start(command.args(["--", "python3", "-c", program]).arg(&ready));
    wait_for_line(&ready);
    let signals = [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("ALRM", 14), ("WINCH", 28)];
    for (signal, number) in signals.into_iter().chain([("40", 40), ("TERM", 15)]) {
        let status =
            std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", run.pid())]).status().unwrap();
        assert!(status.success());
        wait_for_line(Path::new(&format!("{}{number}", ready.display())));
    }
    let output = run.finish();
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    assert_eq!(stdout(&output), "1\n2\n3\n10\n12\n14\n28\n40\n15\n");
}

#[test]
fn a_command_that_has_joined_another_group_gets_the_signals_all_the_same() {
    let daemon = ScriptedDaemon::allowing();
    let ready = daemon.directory().join("ready");
    let program = "import os,signal,sys,time\n\
        signal.signal(15, lambda *_: os._exit(9))\n\
        child = os.fork()\n\
        if child == 0:\n    while True: time.sleep(1)\n\
        os.setpgid(child, child)\nos.setpgid(0, child)\n\
        open(sys.argv[1], 'w').write('ready\\n')\nwhile True: time.sleep(1)";
    let mut command = wrapper(&daemon.socket());
    let run = Running::start(command.args(["--stop-grace", "300ms", "--", "python3", "-c", program]).arg(&ready));
    wait_for_line(&ready);
    run.signal(Signal::TERM);
    assert_eq!(run.finish().status.code(), Some(9));
}

#[test]
fn an_unhandled_signal_to_the_wrapper_ends_the_whole_tree() {
    let daemon = ScriptedDaemon::allowing();
    for (signal, exit) in
        [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143), (Signal::USR1, 138), (Signal::PIPE, 141)]
    {
        let mark = unique_sleep();
        let run = Running::start(wrapper(&daemon.socket()).args(["--", "sleep", &mark]));
        eventually("the command runs", || crate::harness::wrapper::with_mark(&mark).len() == 3);
        run.signal(signal);
        assert_eq!(run.finish().status.code(), Some(exit));
        assert!(!somebody_runs(&mark));
    }
}

fn status_of(path: &std::path::Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_status_file_says_how_it_ended() {
    let daemon = ScriptedDaemon::start(|conversation| {
        match conversation.question.name.as_deref() {
            Some("denied") => return conversation.refuse("403 Forbidden", Code::DeviceRevoked),
            Some("stopped") => {
                conversation.allow(Duration::from_mins(10));
                conversation.stop(Code::OrgDisabled, false, Duration::from_secs(30));
            }
            Some("lease") => conversation.allow(Duration::from_millis(200)),
            _ => conversation.allow(Duration::from_mins(10)),
        }
        conversation.hold();
    });
    let path = daemon.directory().join("status.json");
    for (name, script, cause, exit, code) in [
        ("plain", "exit 3", "exited", 3, Value::Null),
        ("plain", "kill -9 $$", "signalled", 137, Value::Null),
        ("denied", "true", "denied", 77, "DEVICE_REVOKED".into()),
        ("stopped", "sleep 1000", "denied", 77, "ORG_DISABLED".into()),
        ("lease", "sleep 1000", "lease-expired", 75, "LEASE_EXPIRED".into()),
        ("plain", "exec /no/such/command", "exited", 127, Value::Null),
    ] {
        let output = run_script(&daemon.socket(), &["--status-file", path.to_str().unwrap(), "--name", name], script);
        assert_eq!(output.status.code(), Some(exit), "{name}: {}", stderr(&output));
        let status = status_of(&path);
        assert_eq!((&status["cause"], &status["code"]), (&Value::from(cause), &code), "{status}");
        assert_eq!(status["exit_code"], exit);
        assert_eq!(status["run_id"].as_str().unwrap().len(), 32);
        assert_eq!(status["survivors"], Value::Array(Vec::new()));
        assert_eq!(status["took_ms"].is_u64(), name == "stopped" || name == "lease", "{status}");
    }
    let output =
        Running::start(wrapper(&daemon.socket()).arg("--status-file").arg(&path).args(["--", "/no/such"])).finish();
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(status_of(&path)["cause"], "cannot-execute");
    let output = run_script(&daemon.directory().join("none.sock"), &["--status-file", path.to_str().unwrap()], "true");
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(status_of(&path)["cause"], "could-not-ask");
}

#[test]
fn a_status_file_that_is_a_link_or_a_directory_is_refused_before_anything_starts() {
    let daemon = ScriptedDaemon::allowing();
    let (link, target) = (daemon.directory().join("link"), daemon.directory().join("target"));
    let started = daemon.directory().join("started");
    std::fs::write(&target, "somebody's").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for place in [link.as_path(), daemon.directory()] {
        let script = format!("echo > {}", started.display());
        let output = run_script(&daemon.socket(), &["--status-file", place.to_str().unwrap()], &script);
        assert_eq!(output.status.code(), Some(125));
        assert!(stderr(&output).contains("--status-file"), "{}", stderr(&output));
    }
    assert!(!started.exists());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "somebody's");
    assert_eq!(std::fs::read_link(&link).unwrap(), target);
    // What was planted while the command ran is not followed either.
    let script = format!("ln -sfn {} {}", target.display(), link.display());
    std::fs::remove_file(&link).unwrap();
    let output = run_script(&daemon.socket(), &["--status-file", link.to_str().unwrap()], &script);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("status file"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "somebody's");
}
