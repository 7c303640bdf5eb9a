//! While it runs: stops, leases, a daemon that goes and comes back.

use std::time::Duration;

use machineid_protocol::Code;
use rustix::process::Signal;

use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{
    Running, run_script, set_flag, somebody_runs, stderr, stdout, unique_sleep, wait_for_line, with_mark, wrapper,
};
use crate::harness::{PATIENCE, eventually, let_time_pass};

const LEASE: Duration = Duration::from_mins(10);

/// A daemon that allows, and says `stop` once the script has written a line to the file the wrapper is named after.
fn stopping_daemon(signalled: bool, grace: Duration) -> ScriptedDaemon {
    ScriptedDaemon::start(move |conversation| {
        let ready = std::path::PathBuf::from(conversation.question.name.clone().unwrap());
        conversation.allow(LEASE);
        wait_for_line(&ready);
        conversation.stop(Code::DeviceRevoked, signalled, grace);
        conversation.hold();
    })
}

fn ready_file(daemon: &ScriptedDaemon) -> String {
    daemon.directory().join("ready").to_str().unwrap().to_owned()
}

#[test]
fn a_deny_stops_the_agent_with_the_stop_signal_and_says_why() {
    let daemon = stopping_daemon(false, PATIENCE);
    let ready = ready_file(&daemon);
    let script = format!("trap 'echo asked; exit 3' TERM; echo ready > {ready}; while :; do sleep 0.05; done");
    let output = run_script(&daemon.socket(), &["--name", &ready], &script);
    assert_eq!(output.status.code(), Some(77));
    assert_eq!(stdout(&output), "asked\n");
    // The shell may have remarked on its own `sleep`.
    let line = "machineid-run: stopped: DEVICE_REVOKED (request_id req-1): because\n";
    assert!(
        stderr(&output).ends_with(line) && stderr(&output).matches("machineid-run").count() == 1,
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_agent_that_ignores_the_stop_signal_is_killed_after_the_grace() {
    let daemon = stopping_daemon(false, Duration::from_millis(300));
    let ready = ready_file(&daemon);
    let mark = unique_sleep();
    let script = format!("trap '' TERM; sleep {mark} & echo ready > {ready}; wait; sleep {mark}");
    let output = run_script(&daemon.socket(), &["--name", &ready], &script);
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    assert!(!somebody_runs(&mark));
}

#[test]
fn descendants_with_sessions_of_their_own_and_without_parents_are_gone_too() {
    let daemon = stopping_daemon(false, Duration::from_millis(300));
    let ready = ready_file(&daemon);
    let mark = unique_sleep();
    // A session of its own; a double fork whose parents are gone; one that ignores the signal; one with closed streams.
    let script = format!(
        "setsid sleep {mark} & (setsid sh -c 'trap \"\" TERM; sleep {mark} & sleep {mark} & exit' &) ; \
         sh -c 'exec <&- >&- 2>&-; exec setsid sleep {mark}' & env -i setsid sleep {mark} & \
         while [ $(ps ax -o args | grep -c '^sleep {mark}') -lt 5 ]; do sleep 0.05; done; echo ready > {ready}; sleep {mark}"
    );
    let output = run_script(&daemon.socket(), &["--name", &ready], &script);
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    assert_eq!(with_mark(&mark), Vec::<i32>::new());
}

#[test]
fn a_process_gets_the_stop_signal_once_and_from_one_side_only() {
    for (signalled, expected) in [(false, "asked\n"), (true, "")] {
        let daemon = stopping_daemon(signalled, Duration::from_millis(700));
        let ready = ready_file(&daemon);
        // Python, because a shell runs its trap only between two commands.
        let program = format!(
            "import signal,time,os\nsignal.signal(15, lambda *_: os.write(1, b'asked\\n'))\n\
             open('{ready}','w').write('ready\\n')\nwhile True: time.sleep(1)"
        );
        let mut command = wrapper(&daemon.socket());
        let output = Running::start(command.args(["--name", &ready, "--", "python3", "-c", &program])).finish();
        assert_eq!(output.status.code(), Some(77));
        assert_eq!(stdout(&output), expected, "signalled: {signalled}");
    }
}

#[test]
fn a_stopped_agent_gets_to_act_on_the_stop_signal() {
    let daemon = stopping_daemon(false, PATIENCE);
    let ready = ready_file(&daemon);
    let script = format!("trap 'echo asked; exit 0' TERM; echo ready > {ready}; kill -STOP $$; sleep 0.1; exit 9");
    let output = run_script(&daemon.socket(), &["--name", &ready], &script);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(77), "asked\n"));
}

#[test]
fn an_agent_that_obeys_at_once_counts_as_stopped_however_it_ends() {
    // The daemon signals, and its line would come after the leader has gone.
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(LEASE);
        let pid = conversation.question.pid;
        eventually("the command is executed", || {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
        });
        conversation.begin_stop(Code::DeviceRevoked, true, Duration::from_secs(1));
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        conversation.hold();
    });
    let signalled = Running::start(wrapper(&daemon.socket()).args(["--", "sleep", "1000"])).finish();
    assert_eq!(signalled.status.code(), Some(77), "{}", stderr(&signalled));
}

#[test]
fn at_the_end_of_the_lease_the_agent_is_stopped_without_the_daemon() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(Duration::from_millis(500));
        conversation.hold();
    });
    let mark = unique_sleep();
    let output = run_script(&daemon.socket(), &[], &format!("trap 'echo asked; exit 0' TERM; sleep {mark} & wait"));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(75), "asked\n"));
    assert!(stderr(&output).contains("stopped: LEASE_EXPIRED"), "{}", stderr(&output));
    assert!(!somebody_runs(&mark));
}

#[test]
fn leases_keep_the_agent_alive_and_their_end_is_latched() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let name = std::path::PathBuf::from(conversation.question.name.clone().unwrap());
        conversation.allow(Duration::from_secs(5));
        for _ in 0..3 {
            let_time_pass(Duration::from_millis(100));
            conversation.lease(Duration::from_secs(5));
        }
        conversation.lease(Duration::from_millis(100));
        // The agent says when it was asked to stop; an allow after that comes too late.
        wait_for_line(&name);
        conversation.lease(LEASE);
        conversation.hold();
    });
    let asked = ready_file(&daemon);
    let script = format!("trap 'echo asked > {asked}' TERM; while :; do sleep 0.05; done");
    let output = run_script(&daemon.socket(), &["--name", &asked, "--stop-grace", "500ms"], &script);
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
}

#[test]
fn a_daemon_that_comes_back_is_asked_again_with_the_same_run() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let file = std::path::PathBuf::from(conversation.question.name.clone().unwrap());
        match conversation.number {
            // Gone at once, with two seconds of lease left.
            0 => {
                std::fs::write(&file, format!("{}\n", conversation.question.run_id)).unwrap();
                conversation.allow(Duration::from_secs(5));
            }
            1 => conversation.raw(b"garbage\r\n\r\n"),
            2 => conversation.refuse("503 Service Unavailable", Code::Starting),
            _ => {
                assert_eq!(wait_for_line(&file).trim(), conversation.question.run_id.to_string());
                conversation.allow(LEASE);
                set_flag(&file.with_extension("back"));
                conversation.hold();
            }
        }
    });
    let file = ready_file(&daemon);
    let script = format!("while [ ! -e {file}.back ]; do sleep 0.05; done; sleep 5.2; echo survived; exit 4");
    let output = run_script(&daemon.socket(), &["--name", &file], &script);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(4), "survived\n"), "{}", stderr(&output));
}

#[test]
fn a_daemon_that_comes_back_with_a_deny_stops_the_agent() {
    let daemon = ScriptedDaemon::start(|conversation| match conversation.number {
        0 => conversation.allow(LEASE),
        _ => conversation.refuse("403 Forbidden", Code::DeviceRevoked),
    });
    let mark = unique_sleep();
    let output = run_script(&daemon.socket(), &[], &format!("sleep {mark}"));
    assert_eq!(output.status.code(), Some(77));
    assert!(stderr(&output).contains("DEVICE_REVOKED"), "{}", stderr(&output));
    assert!(!somebody_runs(&mark));
}

#[test]
fn an_agent_without_a_daemon_runs_to_its_deadline_and_no_further() {
    let daemon = ScriptedDaemon::start(|conversation| match conversation.number {
        0 => conversation.allow(Duration::from_secs(1)),
        _ => conversation.refuse("503 Service Unavailable", Code::AuthorityUnreachable),
    });
    let output = run_script(&daemon.socket(), &[], "sleep 0.4; echo still here; sleep 1000");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(75), "still here\n"), "{}", stderr(&output));
}

#[test]
fn one_that_was_stopped_past_its_deadline_reads_the_news_first() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let file = std::path::PathBuf::from(conversation.question.name.clone().unwrap());
        conversation.allow_with_left(Duration::from_secs(1), LEASE);
        // Written while the wrapper is stopped.
        wait_for_line(&file);
        conversation.lease(LEASE);
        set_flag(&file.with_extension("back"));
        conversation.hold();
    });
    let file = ready_file(&daemon);
    let script = format!("echo > {file}.up; while [ ! -e {file}.go ]; do sleep 0.05; done; exit 6");
    let run = Running::start(wrapper(&daemon.socket()).args(["--name", &file, "--", "sh", "-c", &script]));
    wait_for_line(std::path::Path::new(&format!("{file}.up")));
    run.signal(Signal::STOP);
    let_time_pass(Duration::from_millis(1_500));
    set_flag(std::path::Path::new(&file));
    wait_for_line(std::path::Path::new(&format!("{file}.back")));
    run.signal(Signal::CONT);
    let_time_pass(Duration::from_millis(1_200));
    set_flag(std::path::Path::new(&format!("{file}.go")));
    let output = run.finish();
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
}

#[test]
fn what_the_daemon_says_beside_the_protocol_is_ignored() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let allow = conversation.allow_event(LEASE);
        let text = serde_json::to_string(&allow).unwrap().replacen('{', r#"{"newer":[1,{"x":null}],"#, 1);
        conversation.head("200 OK");
        conversation.raw(b"\n{\"event\":\"unheard-of\",\"allow\":true}\n");
        conversation.raw(format!("{text}\n").as_bytes());
        conversation.raw(b"{\"event\":\"unheard-of\"}\n");
        conversation.hold();
    });
    assert_eq!(run_script(&daemon.socket(), &[], "exit 5").status.code(), Some(5));
}

#[test]
fn two_denied_at_once_do_not_disturb_a_third() {
    let allowing = ScriptedDaemon::allowing();
    let mark = unique_sleep();
    let third = Running::start(wrapper(&allowing.socket()).args(["--", "sleep", &mark]));
    eventually("the third runs", || somebody_runs(&mark));
    for _ in 0..2 {
        let daemon = stopping_daemon(false, Duration::from_millis(200));
        let ready = ready_file(&daemon);
        let script = format!("trap '' TERM; echo ready > {ready}; while :; do sleep 0.05; done");
        assert_eq!(run_script(&daemon.socket(), &["--name", &ready], &script).status.code(), Some(77));
    }
    assert!(somebody_runs(&mark));
    third.signal(Signal::TERM);
    assert_eq!(third.finish().status.code(), Some(143));
    assert!(!somebody_runs(&mark));
}
