//! The command cannot tell it is wrapped: streams, environment, signals, descriptors.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::{Running, python, run_script, stderr, stdout, wait_for_line, wrapper};

#[test]
fn standard_input_and_output_pass_through_byte_for_byte() {
    let daemon = ScriptedDaemon::allowing();
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut child = wrapper(&daemon.socket()).args(["--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success() && output.stdout == expected);
}

#[test]
fn the_environment_is_the_callers_less_the_key_plus_who_and_where() {
    let daemon = ScriptedDaemon::allowing();
    let mut command = wrapper(&daemon.socket());
    command.env_clear().env("PATH", std::env::vars().find(|(name, _)| name == "PATH").unwrap().1);
    command.env("KEEP", "a=b c").env("MACHINEID_ORG_KEY", "org_topsecret").env("MACHINEID_BASE_URL", "https://x");
    command.env("MACHINEID_RUN_ID", "outer").env("MACHINEID_SOCKET", "/not/this");
    let output = Running::start(command.args(["--device", "agent-01", "--", "env"])).finish();
    let text = stdout(&output);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["KEEP", "MACHINEID_DEVICE_ID", "MACHINEID_RUN_ID", "MACHINEID_SOCKET", "PATH"]);
    assert!(text.contains("KEEP=a=b c\n") && text.contains("MACHINEID_DEVICE_ID=agent-01\n"));
    assert!(text.contains(&format!("MACHINEID_SOCKET={}\n", daemon.socket().display())));
    assert!(text.contains("MACHINEID_RUN_ID=outer,"));
}

#[test]
fn the_key_is_nowhere_in_the_wrappers_own_environment_and_it_is_not_dumpable() {
    let daemon = ScriptedDaemon::allowing();
    let ready = daemon.directory().join("ready");
    let mut command = wrapper(&daemon.socket());
    command.env("MACHINEID_ORG_KEY", "org_topsecret");
    let run = Running::start(command.args(["--", "sh", "-c", "echo ready > $0; sleep 1000"]).arg(&ready));
    wait_for_line(&ready);
    // Root may read it in spite of the attribute; nobody else may.
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
        if let machineid_sidecar::protocol::local::SuperviseEvent::Allow { base_url, token, .. } = &mut event {
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
fn signal_mask_and_dispositions_are_the_callers() {
    let daemon = ScriptedDaemon::allowing();
    // The caller blocks, ignores or leaves alone what its arguments say, then becomes the rest of them.
    let launcher = "import os,signal,sys\n\
        for n in eval(sys.argv[1]): signal.signal(n, signal.SIG_IGN)\n\
        for n in eval(sys.argv[2]): signal.signal(n, signal.SIG_DFL)\n\
        signal.pthread_sigmask(signal.SIG_SETMASK, eval(sys.argv[3]))\n\
        os.execvp(sys.argv[4], sys.argv[4:])";
    // A shell and not Python shows them, since Python changes SIGPIPE itself.
    let show = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    for (ignored, default, blocked) in
        [("[]", "[13]", "[]"), ("[13]", "[]", "[]"), ("[1,2,17]", "[13]", "[10,12]"), ("[1]", "[13]", "range(1,65)")]
    {
        let direct = python(launcher, &[ignored, default, blocked, "sh", "-c", show].map(AsRef::as_ref));
        let binary = env!("CARGO_BIN_EXE_machineid-run");
        let socket = daemon.socket();
        let wrapped = python(
            launcher,
            &[ignored, default, blocked, binary, "--socket", socket.to_str().unwrap(), "--", "sh", "-c", show]
                .map(AsRef::as_ref),
        );
        assert!(stdout(&direct).contains("SigIgn"), "{}", stderr(&direct));
        assert_eq!(stdout(&direct), stdout(&wrapped), "{ignored} {default} {blocked}: {}", stderr(&wrapped));
    }
}

#[test]
fn no_descriptor_of_the_wrapper_is_in_the_command_and_a_closed_one_stays_closed() {
    let daemon = ScriptedDaemon::allowing();
    let socket = daemon.socket();
    let show = "import os\nprint(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])";
    for redirection in ["", "<&-", "7</dev/null", "2>&- <&-"] {
        let output = |before: &str| {
            let line = format!("{before} python3 -c \"$0\" {redirection}");
            let mut command = Command::new("sh");
            command.args(["-c", &line, show]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            stdout(&Running::start(&mut command).finish())
        };
        let wrapped = format!("{} --socket {} --", env!("CARGO_BIN_EXE_machineid-run"), socket.display());
        assert_eq!(output("exec"), output(&format!("exec {wrapped}")), "{redirection}");
    }
}

#[test]
fn the_working_directory_and_odd_arguments_pass_through() {
    use std::os::unix::ffi::OsStrExt;
    let daemon = ScriptedDaemon::allowing();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe 'x\n--");
    let mut command = wrapper(&daemon.socket());
    command.current_dir("/").args(["--", "sh", "-c", "pwd; printf '%s|' \"$@\"", "sh", "-q", ""]).arg(odd);
    let output = Running::start(&mut command).finish();
    assert_eq!(output.stdout, b"/\n-q||\xff\xfe 'x\n--|");
}

#[test]
fn one_inside_another_is_stopped_alone_or_with_it() {
    let outer = ScriptedDaemon::allowing();
    let inner = ScriptedDaemon::start(|conversation| {
        conversation.allow(std::time::Duration::from_millis(300));
        conversation.hold();
    });
    let script = format!(
        "{} --socket {} -- sleep 1000; echo inner $?",
        env!("CARGO_BIN_EXE_machineid-run"),
        inner.socket().display()
    );
    let output = run_script(&outer.socket(), &[], &script);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "inner 75\n"));
}
