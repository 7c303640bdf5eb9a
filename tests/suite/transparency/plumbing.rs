//! In pipes, under other programs that start programs, and one in another.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use machineid_protocol::Code;
use rustix::process::Signal;

use super::keys::COUNTING;
use super::terminal::CTRL_C;
use super::way::{Case, Way, same_as_without};
use crate::harness::authority::Authority;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::sidecar::Setup;
use crate::harness::wrapper::{Running, somebody_runs, stdout, unique_sleep};

#[test]
fn in_pipes_it_ends_as_without_the_wrapper() {
    let lines = [
        "yes | {run} head -1",
        "{run} yes | head -1",
        "(trap '' PIPE; {run} yes 2>/dev/null | head -1)",
        "{run} yes | {run} head -2 | {run} wc -l",
        "echo hello | {run} cat",
        "{run} false | {run} true | {run} sh -c 'exit 3'",
        "{run} sh -c 'echo out; echo err >&2' 2>&1 >/dev/null | {run} cat",
    ];
    let seen = same_as_without(|case| {
        let lines = lines.map(|line| format!("{}; echo ${{PIPESTATUS[@]}}\n", line.replace("{run}", &case.run())));
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &lines.concat()]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        stdout(&Running::start(&mut bash).finish())
    });
    assert_eq!(seen, "y\n141 0\ny\n141 0\ny\n0\n2\n141 0 0\nhello\n0 0\n1 0 3\nerr\n0 0\n");
}

#[test]
fn several_at_once_under_xargs() {
    same_as_without(|case| {
        let mut terminal = case.terminal();
        let line = format!("seq 8 | xargs -P 4 -n 1 {} sh -c 'echo $0; exit 0' | sort", case.run());
        let (text, code) = terminal.ask(&line);
        assert_eq!(text, "1\n2\n3\n4\n5\n6\n7\n8\n");
        let line = format!("seq 8 | xargs -P 4 -n 1 {} sh -c 'exit $(($0 % 2))'", case.run());
        format!("{code} {:?}", terminal.ask(&line))
    });
}

#[test]
fn ctrl_c_ends_several_at_once() {
    same_as_without(|case| {
        let mark = unique_sleep();
        let mut terminal = case.terminal();
        terminal.enter(&format!("seq 4 | xargs -P 4 -n 1 {} sh -c 'echo ready; exec sleep {mark}'", case.run()));
        for _ in 0..4 {
            terminal.expect("ready\n");
        }
        terminal.press_key(CTRL_C);
        let code = terminal.prompt().1;
        crate::harness::eventually("no process is left", || !somebody_runs(&mark));
        code.to_string()
    });
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_no_stop() {
    let daemon = ScriptedDaemon::start(|conversation| {
        conversation.allow(Duration::from_mins(10));
        conversation.stop(Code::DeviceRevoked, false, Duration::from_secs(30));
        conversation.hold();
    });
    for &way in Way::wrapped() {
        let case = Case::asking(way, daemon.socket());
        let (reader, mut writer) = std::io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        while writer.write(&[b'x'; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
        let mut command = case.command(&["sleep", "1000"]);
        let run = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer));
        // The command's own descriptor of the pipe.
        drop(command);
        assert_eq!(run.finish().status.code(), Some(77), "{way:?}");
        drop(reader);
    }
}

#[test]
fn one_in_another_passes_a_key_on_once() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.enter(&format!("{0} {0} {1}", case.run(), case.python(COUNTING)));
        terminal.expect("ready;");
        terminal.press_key(CTRL_C);
        terminal.expect("got 2;");
        terminal.signal_job(case, Signal::USR1);
        let (text, code) = terminal.prompt();
        format!("{text} {code}")
    });
    assert_eq!(seen, "end; 5");
}

#[test]
fn one_in_another_is_stopped_alone_or_with_it() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    setup.devices = "allow = [\"*\"]".to_owned();
    let sidecar = setup.start();
    for (number, &way) in Way::wrapped().iter().enumerate() {
        // Which of the two is denied makes no difference to how they are held together.
        let denied: &[_] = if number == 0 { &["inner", "outer"] } else { &["outer"] };
        for &denied in denied {
            let case = Case::asking(way, sidecar.socket());
            let mut terminal = case.terminal();
            let settings = terminal.settings();
            let wrapped = |which: &str| case.words_with(&["--device", &format!("{which}-{denied}-{number}")]).join(" ");
            let (outer, inner) = (wrapped("outer"), wrapped("inner"));
            // Each says every TERM that comes, and goes a while after the first.
            let agent = case.python(
                "import os, signal, sys\n\
                 signal.pthread_sigmask(signal.SIG_BLOCK, {15})\n\
                 os.write(1, f'{sys.argv[1]} ready;'.encode())\n\
                 signal.sigwait({15})\n\
                 os.write(1, f'{sys.argv[1]} TERM;'.encode())\n\
                 while signal.sigtimedwait({15}, 0.2): os.write(1, f'{sys.argv[1]} again;'.encode())\n\
                 sys.exit(9)",
            );
            terminal.enter(&format!("{outer} sh -c '{agent} beside & stty -icanon; {inner} sh -c \"trap : TERM; {agent} inside & {agent} inside & {agent} inside & wait; wait; wait; wait; exit 9\"; echo inner $?; trap \"\" TERM; read x; wait'"));
            for _ in 0..4 {
                terminal.expect("ready;");
            }
            assert_eq!(org.device("revoke", &format!("{denied}-{denied}-{number}")).status, 200);
            let mut text;
            if denied == "inner" {
                text = terminal.expect("inner 77\n");
                assert!(text.contains("inside TERM;") && !text.contains("beside"), "{way:?}: {text}");
                terminal.press_key(CTRL_C);
                text += &terminal.prompt().0;
            } else {
                let code;
                (text, code) = terminal.prompt();
                assert_eq!(code, 77, "{way:?}: {text}");
                assert!(text.contains("inside TERM;") && text.contains("beside TERM;"), "{way:?}: {text}");
            }
            assert!(!text.contains("again;"), "{way:?}, {denied} denied: {text}");
            terminal.ask("stty icanon");
            assert_eq!(terminal.settings(), settings, "{way:?}, {denied} denied");
        }
    }
}
