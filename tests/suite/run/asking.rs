//! Before the start: who is allowed, who is told what, and that nothing runs before.

use std::time::Duration;

use machineid_protocol::local::SuperviseEvent;
use machineid_protocol::{Code, Containment, Wish};
use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{Running, run_script, set_flag, stderr, stdout, wait_for_line, wrapper};

const LEASE: Duration = Duration::from_mins(10);

#[test]
fn a_refusal_has_its_exit_code_and_one_line_and_starts_nothing() {
    for (status, code, exit) in [
        ("403 Forbidden", Code::DeviceRevoked, 77),
        ("403 Forbidden", Code::LocalKill, 77),
        ("503 Service Unavailable", Code::SystemUnavailable, 75),
        ("503 Service Unavailable", Code::AuthorityUnreachable, 75),
        ("403 Forbidden", Code::RemoteRefused, 125),
        ("400 Bad Request", Code::BadRequest, 125),
    ] {
        let expected = code.to_string();
        let daemon = ScriptedDaemon::start(move |conversation| conversation.refuse(status, code.clone()));
        let witness = daemon.directory().join("ran");
        let output = run_script(&daemon.socket(), &[], &format!("echo ran > {}", witness.display()));
        assert_eq!(output.status.code(), Some(exit), "{expected}: {}", stderr(&output));
        assert!(!witness.exists(), "{expected}");
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(&expected) && text.contains("request_id req-1") && text.contains("because"), "{text}");
    }
}

#[test]
fn without_a_daemon_it_says_what_to_do_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let witness = directory.path().join("ran");
    let stale = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for socket in [directory.path().join("missing.sock"), stale] {
        let output = run_script(&socket, &[], &format!("echo ran > {}", witness.display()));
        assert_eq!(output.status.code(), Some(75));
        let text = stderr(&output);
        assert!(text.contains(socket.to_str().unwrap()) && text.contains("--wait"), "{text}");
        assert!(!witness.exists());
    }
}

#[test]
fn garbage_torn_and_oversized_answers_are_never_a_yes() {
    type Answer = fn(&SuperviseEvent) -> Vec<u8>;
    fn line(allow: &SuperviseEvent) -> String {
        serde_json::to_string(allow).unwrap()
    }
    let answers: [Answer; 9] = [
        |_| Vec::new(),
        |_| b"\x00\xff\xfe garbage \r\n\r\n".to_vec(),
        |_| b"HTTP/1.0 200 OK\r\n\r\nnot json\n".to_vec(),
        // Everything but the line feed, and everything but the last brace.
        |allow| format!("HTTP/1.0 200 OK\r\n\r\n{}", line(allow)).into_bytes(),
        |allow| format!("HTTP/1.0 200 OK\r\n\r\n{}\n", &line(allow)[..line(allow).len() - 1]).into_bytes(),
        |allow| format!("HTTP/1.0 500 Oops\r\n\r\n{}\n", line(allow)).into_bytes(),
        |allow| format!("HTTP/1.0 200 OK\r\n\r\n{}{}\n", " ".repeat(70_000), line(allow)).into_bytes(),
        |allow| format!("HTTP/1.0 200 OK\r\nX: {}\r\n\r\n{}\n", "x".repeat(9_000), line(allow)).into_bytes(),
        |allow| {
            let text = line(allow);
            let twice = text.replacen(r#""code":"ALLOW""#, r#""code":"DEVICE_REVOKED","code":"ALLOW""#, 1);
            assert_ne!(text, twice);
            format!("HTTP/1.0 200 OK\r\n\r\n{twice}\n").into_bytes()
        },
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let daemon = ScriptedDaemon::start(move |conversation| {
            let allow = conversation.allow_event(LEASE);
            conversation.raw(&answer(&allow));
        });
        let witness = daemon.directory().join("ran");
        let output = run_script(&daemon.socket(), &[], &format!("echo ran > {}", witness.display()));
        assert_eq!(output.status.code(), Some(75), "answer {number}: {}", stderr(&output));
        assert!(!witness.exists(), "answer {number}");
    }
}

#[test]
fn an_allow_for_another_run_or_device_is_none() {
    let other = ScriptedDaemon::start(|conversation| {
        conversation.question.run_id = "00000000000000000000000000000001".parse().unwrap();
        conversation.allow(LEASE);
        conversation.hold();
    });
    assert_eq!(run_script(&other.socket(), &[], "true").status.code(), Some(75));
    let other = ScriptedDaemon::start(|conversation| {
        conversation.question.device = Some("another".parse().unwrap());
        conversation.allow(LEASE);
        conversation.hold();
    });
    assert_eq!(run_script(&other.socket(), &["--device", "mine"], "true").status.code(), Some(75));
}

#[test]
fn a_daemon_that_never_answers_is_given_up_after_the_timeout() {
    let daemon = ScriptedDaemon::start(crate::harness::scripted_daemon::Conversation::hold);
    let output = run_script(&daemon.socket(), &["--timeout", "200ms"], "true");
    assert_eq!(output.status.code(), Some(75));
    assert!(stderr(&output).contains("did not answer"), "{}", stderr(&output));
}

#[test]
fn the_question_names_the_waiting_child_and_everything_asked_for() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let asked = &conversation.question;
        assert_eq!(asked.device.as_ref().unwrap().as_str(), "agent-01");
        assert_eq!(asked.name.as_deref(), Some("worker"));
        assert_eq!(asked.command, ["sh", "-c", "echo $MACHINEID_DEVICE_ID"]);
        assert_eq!(asked.stop_signal.as_deref(), Some("INT"));
        assert_eq!(asked.stop_grace.as_deref(), Some("1m30s"));
        assert_eq!(asked.leftovers.as_deref(), Some("wait"));
        assert_eq!(asked.containment, Some(Wish::Named(Containment::Subreaper)));
        // It exists, in a process group of its own, and is still the wrapper's program.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", asked.pid)).unwrap();
        assert!(stat.starts_with(&format!("{} (machineid-run) ", asked.pid)), "{stat}");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        assert_eq!(fields[2], asked.pid.to_string(), "{stat}");
        // Its parent is the guardian, whose parent is the wrapper.
        let guardian = asked.guardian.unwrap();
        assert_eq!(fields[1], guardian.to_string(), "{stat}");
        assert!(asked.alone);
        conversation.allow(LEASE);
        conversation.hold();
    });
    let flags = [
        "--containment",
        "subreaper",
        "--device",
        "agent-01",
        "--name",
        "worker",
        "--stop-signal",
        "int",
        "--stop-grace",
        "90s",
        "--leftovers",
        "wait",
    ];
    let output = run_script(&daemon.socket(), &flags, "echo $MACHINEID_DEVICE_ID");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "agent-01\n"), "{}", stderr(&output));
}

#[test]
fn nothing_is_executed_before_the_allow() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let go = std::path::Path::new(conversation.question.name.as_deref().unwrap()).to_owned();
        conversation.head("200 OK");
        wait_for_line(&go);
        let allow = conversation.allow_event(LEASE);
        conversation.send(&allow);
        conversation.hold();
    });
    let (go, witness) = (daemon.directory().join("go"), daemon.directory().join("ran"));
    let script = format!("echo ran > {}", witness.display());
    let flags = ["--timeout", "60s", "--name", go.to_str().unwrap()];
    let run = Running::start(wrapper(&daemon.socket()).args(flags).args(["--", "sh", "-c", &script]));
    eventually("the question is asked", || daemon.connections() == 1);
    assert!(!witness.exists());
    set_flag(&go);
    assert_eq!(run.finish().status.code(), Some(0));
    assert!(witness.exists());
}

#[test]
fn a_wrapper_killed_while_asking_leaves_a_child_that_executes_nothing() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let note = std::path::Path::new(conversation.question.name.as_deref().unwrap()).to_owned();
        std::fs::write(note, format!("{}\n", conversation.question.pid)).unwrap();
        conversation.hold();
    });
    let (note, witness) = (daemon.directory().join("pid"), daemon.directory().join("ran"));
    let script = format!("echo ran > {}", witness.display());
    let flags = ["--timeout", "60s", "--name", note.to_str().unwrap()];
    let run = Running::start(wrapper(&daemon.socket()).args(flags).args(["--", "sh", "-c", &script]));
    let child = wait_for_line(&note).trim().to_owned();
    run.signal(Signal::KILL);
    run.finish();
    let ended = || {
        std::fs::read_to_string(format!("/proc/{child}/stat"))
            .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
    };
    eventually("the child ends", ended);
    assert!(!witness.exists());
}

#[test]
fn a_signal_while_asking_ends_it_at_once_with_nothing_started() {
    let daemon = ScriptedDaemon::start(crate::harness::scripted_daemon::Conversation::hold);
    let witness = daemon.directory().join("ran");
    let script = format!("echo ran > {}", witness.display());
    for (signal, exit) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let before = daemon.connections();
        let run = Running::start(wrapper(&daemon.socket()).args(["--timeout", "60s", "--", "sh", "-c", &script]));
        eventually("the question is asked", || daemon.connections() > before);
        run.signal(signal);
        assert_eq!(run.finish().status.code(), Some(exit));
        assert!(!witness.exists());
    }
}

#[test]
fn waiting_begins_without_a_daemon_and_ends_when_one_allows() {
    let daemon = ScriptedDaemon::start(|conversation| match conversation.number {
        0 => conversation.refuse("503 Service Unavailable", Code::Starting),
        1 => conversation.refuse("403 Forbidden", Code::DeviceRevoked),
        _ => {
            conversation.allow(LEASE);
            conversation.hold();
        }
    });
    let elsewhere = daemon.directory().join("elsewhere.sock");
    let run = Running::start(wrapper(&elsewhere).args(["--wait", "--", "echo", "ran"]));
    std::fs::rename(daemon.socket(), &elsewhere).unwrap();
    let output = run.finish();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "ran\n"), "{}", stderr(&output));
    assert_eq!(daemon.connections(), 3);
}

#[test]
fn waiting_for_a_time_ends_with_what_was_last_known() {
    let daemon = ScriptedDaemon::start(|conversation| conversation.refuse("403 Forbidden", Code::DeviceRevoked));
    let output = run_script(&daemon.socket(), &["--wait=400ms", "-q"], "true");
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    let directory = tempfile::tempdir().unwrap();
    let output = run_script(&directory.path().join("none.sock"), &["--wait=300ms"], "true");
    assert_eq!(output.status.code(), Some(75));
}

#[test]
fn a_wrong_command_line_is_a_wrapper_failure_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    for flags in [&["--devise", "x"][..], &["--stop-grace", "10"], &["--device", "-x"], &["--leftovers", "keep"]] {
        let output = run_script(&directory.path().join("none.sock"), flags, "true");
        assert_eq!(output.status.code(), Some(125), "{flags:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    let long = directory.path().join("x".repeat(120));
    let output = run_script(&long, &[], "true");
    assert_eq!(output.status.code(), Some(75));
    assert!(stderr(&output).contains("too long"), "{}", stderr(&output));
}
