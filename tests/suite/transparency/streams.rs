//! Streams, environment, arguments.

use std::io::Write;
use std::process::Stdio;

use super::way::Way;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{Running, stdout, wait_for_line, wrapper};

#[test]
fn standard_input_and_output_pass_through_byte_for_byte() {
    let daemon = ScriptedDaemon::allowing();
    for &way in Way::wrapped() {
        let bytes: Vec<u8> =
            (0..300_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let mut child =
            wrapper(&daemon.socket()).args(way.flags()).args(["--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let expected = bytes.clone();
        let writer = std::thread::spawn(move || input.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == expected, "{way:?}");
    }
}

#[test]
fn the_environment_is_the_callers_less_the_key_plus_who_and_where() {
    let daemon = ScriptedDaemon::allowing();
    for &way in Way::wrapped() {
        let mut command = wrapper(&daemon.socket());
        command.env_clear().env("PATH", std::env::vars().find(|(name, _)| name == "PATH").unwrap().1);
        command.env("KEEP", "a=b c").env("MACHINEID_ORG_KEY", "org_topsecret").env("MACHINEID_BASE_URL", "https://x");
        command.env("MACHINEID_RUN_ID", "outer").env("MACHINEID_SOCKET", "/not/this");
        let output = Running::start(command.args(way.flags()).args(["--device", "agent-01", "--", "env"])).finish();
        let text = stdout(&output);
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["KEEP", "MACHINEID_DEVICE_ID", "MACHINEID_RUN_ID", "MACHINEID_SOCKET", "PATH"]);
        assert!(text.contains("KEEP=a=b c\n") && text.contains("MACHINEID_DEVICE_ID=agent-01\n"));
        assert!(text.contains(&format!("MACHINEID_SOCKET={}\n", daemon.socket().display())));
        assert!(text.contains("MACHINEID_RUN_ID=outer,"));
    }
}

#[test]
fn the_key_is_nowhere_in_the_wrappers_own_environment_and_it_is_not_dumpable() {
    let daemon = ScriptedDaemon::allowing();
    let ready = daemon.directory().join("ready");
    let mut command = wrapper(&daemon.socket());
    command.env("MACHINEID_ORG_KEY", "org_topsecret");
    let run = Running::start(command.args(["--", "sh", "-c", "echo ready > $0; sleep 1000"]).arg(&ready));
    wait_for_line(&ready);
    // Root may read it in spite of the attribute; no other user may.
    if let Ok(environment) = std::fs::read(format!("/proc/{}/environ", run.pid())) {
        assert!(!environment.is_empty());
        assert!(!environment.windows(9).any(|window| window == b"topsecret"));
    }
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{}/environ", run.pid())).unwrap());
    assert_eq!(owner, 0, "what belongs to root in /proc belongs to a process that is not dumpable");
    run.signal(rustix::process::Signal::TERM);
    run.finish();
}

#[test]
fn a_daemons_own_listener_replaces_key_and_address() {
    let daemon = ScriptedDaemon::start(|conversation| {
        let mut event = conversation.allow_event(std::time::Duration::from_mins(10));
        if let machineid_protocol::local::SuperviseEvent::Allow { base_url, token, .. } = &mut event {
            *base_url = Some("http://127.0.0.1:8425".to_owned());
            *token = Some("org_local_token".to_owned());
        }
        conversation.head("200 OK");
        conversation.send(&event);
        conversation.hold();
    });
    let mut command = wrapper(&daemon.socket());
    command.env("MACHINEID_ORG_KEY", "org_topsecret").env("MACHINEID_BASE_URL", "https://x");
    let output =
        Running::start(command.args(["--", "sh", "-c", "echo $MACHINEID_ORG_KEY $MACHINEID_BASE_URL"])).finish();
    assert_eq!(stdout(&output), "org_local_token http://127.0.0.1:8425\n");
}

#[test]
fn the_working_directory_and_odd_arguments_pass_through() {
    use std::os::unix::ffi::OsStrExt;
    let daemon = ScriptedDaemon::allowing();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe 'x\n--");
    for &way in Way::wrapped() {
        let mut command = wrapper(&daemon.socket());
        command
            .current_dir("/")
            .args(way.flags())
            .args(["--", "sh", "-c", "pwd; printf '%s|' \"$@\"", "sh", "-q", ""])
            .arg(odd);
        let output = Running::start(&mut command).finish();
        assert_eq!(output.stdout, b"/\n-q||\xff\xfe 'x\n--|");
    }
}
