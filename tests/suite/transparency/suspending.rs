//! Ctrl-Z and what follows: `jobs`, `bg`, `fg`, and a deny in between.

use rustix::process::{Pid, Signal};

use super::keys::COUNTING;
use super::terminal::{CTRL_C, CTRL_D, CTRL_Z, processes, wait_until_stopped};
use super::way::{Case, Way, same_as_without};
use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::process::is_alive;
use crate::harness::sidecar::Setup;
use crate::harness::wrapper::{somebody_runs, unique_sleep, with_mark};

/// What bash writes about a job, less the command.
fn about_the_job(text: &str) -> String {
    let line = text.lines().find(|line| line.starts_with("[1]")).unwrap_or_else(|| panic!("no job in {text:?}"));
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_suspended_command_is_a_stopped_job_and_fg_continues_it() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.enter(&format!("{} sh -c 'echo ready; read line; echo got $line; exit 4'", case.run()));
        terminal.expect("ready\n");
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (text, code) = terminal.suspend();
            seen.push(format!("{} {code}; ", about_the_job(&text)));
            let (text, code) = terminal.ask("jobs");
            seen.push(format!("{} {code}; ", about_the_job(&text)));
            wait_until_stopped(terminal.job());
            terminal.foreground_again("exit 4'");
        }
        terminal.enter("hello");
        let (text, code) = terminal.prompt();
        seen.push(format!("{text:?} {code}"));
        seen.concat()
    });
    assert_eq!(seen, "[1]+ Stopped 148; [1]+ Stopped 0; [1]+ Stopped 148; [1]+ Stopped 0; \"got hello\\n\" 4");
}

#[test]
fn in_the_background_it_works_on_and_stops_when_it_reads() {
    let seen = same_as_without(|case| {
        let gate = case.gate();
        let mut terminal = case.terminal();
        let line = "sh -c 'echo ready; read x <go; echo went; read line; echo got $line; exit 4'";
        terminal.enter(&format!("{} {line}", case.run()));
        terminal.expect("ready\n");
        terminal.suspend();
        assert_eq!(terminal.ask("bg").1, 0);
        let (text, _) = terminal.ask("jobs");
        let mut seen = vec![about_the_job(&text)];
        gate.open();
        terminal.expect("went\n");
        wait_until_stopped(terminal.job());
        seen.push(about_the_job(&terminal.ask("jobs").0));
        assert_eq!(terminal.ask("echo mine").0, "mine\n", "the shell still has the terminal");
        terminal.foreground_again("exit 4'");
        terminal.enter("hello");
        let (text, code) = terminal.prompt();
        seen.push(format!("{text:?} {code}"));
        seen.concat()
    });
    assert_eq!(seen, "[1]+ Running[1]+ Stopped\"got hello\\n\" 4");
}

#[test]
fn a_command_of_several_processes_stops_and_goes_on_as_one() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        // What reads and what writes are children of the command, and the command itself a shell that waits for them.
        terminal.enter(&format!("{} sh -c 'echo ready; cat | sed -u s/^/got_/; exit 7'", case.run()));
        terminal.expect("ready\n");
        terminal.enter("one");
        terminal.expect("got_one\n");
        let mut seen = vec![format!("{} ", terminal.suspend().1)];
        terminal.foreground_again("exit 7'");
        terminal.enter("two");
        terminal.expect("got_two\n");
        terminal.press(CTRL_D);
        let (text, code) = terminal.prompt();
        seen.push(format!("{text:?} {code}"));
        seen.concat()
    });
    assert_eq!(seen, "148 \"\" 7");
}

#[test]
fn the_command_is_continued_once() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.enter(&format!("{} {}", case.run(), case.python(COUNTING)));
        terminal.expect("ready;");
        terminal.suspend();
        terminal.foreground_again("agent.py");
        assert_eq!(terminal.expect("got 18;"), "");
        terminal.suspend();
        // The shell's prompt and the command's word come in any order.
        if !terminal.ask("bg").0.contains("got 18;") {
            terminal.expect("got 18;");
        }
        // The shell continues no job that runs already.
        terminal.foreground_again("agent.py");
        terminal.signal_job(case, Signal::USR1);
        let (text, code) = terminal.prompt();
        format!("{text} {code}")
    });
    assert_eq!(seen, "end; 5");
}

/// Does as an editor does: tidies up, stops everybody by hand, and draws anew.
const EDITOR: &str = "import os, signal, sys, termios\n\
    def stop(*_):\n\
    \x20   termios.tcsetattr(0, termios.TCSADRAIN, cooked)\n\
    \x20   os.write(1, b'tidied;')\n\
    \x20   signal.signal(signal.SIGTSTP, signal.SIG_DFL)\n\
    \x20   if sys.argv[1] == 'group': os.kill(0, signal.SIGTSTP)\n\
    \x20   else: os.kill(os.getpid(), signal.SIGTSTP)\n\
    \x20   signal.signal(signal.SIGTSTP, stop)\n\
    \x20   draw()\n\
    def draw():\n\
    \x20   modes = termios.tcgetattr(0)\n\
    \x20   modes[3] &= ~termios.ICANON\n\
    \x20   termios.tcsetattr(0, termios.TCSADRAIN, modes)\n\
    \x20   os.write(1, b'drawn;')\n\
    signal.signal(signal.SIGTSTP, stop)\n\
    cooked = termios.tcgetattr(0)\n\
    draw()\n\
    while (key := os.read(0, 1)) != b'q': os.write(1, b'key ' + key + b';')\n\
    termios.tcsetattr(0, termios.TCSADRAIN, cooked)";

#[test]
fn a_command_that_suspends_itself_its_own_way_is_left_to_it() {
    for whom in ["group", "itself"] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            let settings = terminal.settings();
            terminal.enter(&format!("{} {} {whom}", case.run(), case.python(EDITOR)));
            terminal.expect("drawn;");
            let raw = terminal.settings();
            assert_ne!(raw, settings);
            terminal.press("x");
            terminal.expect("key x;");
            let mut seen = Vec::new();
            for _ in 0..2 {
                let (text, code) = terminal.suspend();
                seen.push(format!("{} {code} ", text.contains("tidied;")));
                terminal.enter("fg");
                terminal.expect("drawn;");
                assert_eq!(terminal.settings(), raw);
                terminal.press("y");
                terminal.expect("key y;");
            }
            terminal.press("q");
            let (text, code) = terminal.prompt();
            seen.push(format!("{text:?} {code}"));
            seen.concat()
        });
        assert_eq!(seen, "true 148 true 148 \"\" 0");
    }
}

#[test]
fn a_command_stopped_by_somebody_is_a_stopped_job() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.enter(&format!("{} sh -c 'echo ready; kill -STOP $$; echo again; exit 4'", case.run()));
        terminal.expect("ready\n");
        let (text, code) = terminal.prompt();
        let mut seen = vec![format!("{} {code}; ", about_the_job(&text))];
        terminal.enter("fg");
        terminal.expect("exit 4'\n");
        let (text, code) = terminal.prompt();
        seen.push(format!("{text:?} {code}"));
        seen.concat()
    });
    assert_eq!(seen, "[1]+ Stopped 147; \"again\\n\" 4");
}

#[test]
fn redirected_and_in_pipelines_it_is_suspended_too() {
    for (before, after, end) in [
        ("", "</dev/null", "< /dev/null"),
        ("", ">/dev/null", "> /dev/null"),
        ("echo x |", "", "'"),
        ("", "| cat", "| cat"),
        ("echo x |", "| cat", "| cat"),
    ] {
        let seen = same_as_without(|case| {
            let gate = case.gate();
            let mut terminal = case.terminal();
            let script = "echo ready >/dev/tty; read x <go; echo end >/dev/tty";
            terminal.enter(&format!("{before} {} sh -c '{script}' {after}", case.run()));
            terminal.expect("ready\n");
            // The code of a stopped pipeline is 148 or 128, depending on who in it has ended before.
            assert!(terminal.suspend().1 >= 128);
            terminal.foreground_again(end);
            gate.open();
            terminal.expect("end\n");
            terminal.prompt().1.to_string()
        });
        assert_eq!(seen, "0", "{before} {after}");
    }
}

#[test]
fn a_script_around_the_command_is_suspended_with_it() {
    for shell in ["bash", "sh"] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            let text = format!("{} sh -c 'echo ready; read line; echo got $line'\necho code $?\n", case.run());
            terminal.enter(&format!("{shell} {}", case.file("script", &text)));
            terminal.expect("ready\n");
            let mut seen = vec![format!("{} ", terminal.suspend().1)];
            terminal.foreground_again("/script");
            terminal.enter("hello");
            let (text, code) = terminal.prompt();
            seen.push(format!("{text:?} {code}"));
            seen.concat()
        });
        assert_eq!(seen, "148 \"got hello\\ncode 0\\n\" 0");
    }
}

#[test]
fn a_suspended_command_can_be_ended() {
    let seen = same_as_without(|case| {
        let mark = unique_sleep();
        let mut terminal = case.terminal();
        terminal.enter(&format!("{} sh -c 'echo ready; sleep {mark}; exit 4'", case.run()));
        terminal.expect("ready\n");
        let leader = terminal.leader_pid();
        eventually("it sleeps", || processes().iter().any(|it| it.session == leader && it.name == "sleep"));
        terminal.suspend();
        let (_, code) = terminal.ask("kill %1");
        eventually("no process is left", || !somebody_runs(&mark));
        // It may miss that, and does not look again before the next child of its own ends.
        eventually("the shell has seen the job's end", || terminal.ask("/bin/true; jobs").0.is_empty());
        code.to_string()
    });
    assert_eq!(seen, "0");
}

#[test]
fn a_daemon_in_front_of_its_command_is_not_suspended_with_it() {
    // Suspended, it could stop no agent.
    let case = Case::allowed(Way::Bare);
    let mut terminal = case.terminal();
    let mark = unique_sleep();
    terminal.enter(&format!(
        "TMPDIR=$PWD {} --dev -- sh -c 'echo agent is $((1+1)); exec sleep {mark}'",
        crate::harness::sidecar::BINARY
    ));
    terminal.expect("agent is 2\n");
    terminal.press_key(CTRL_Z);
    terminal.expect("not suspended");
    terminal.press_key(CTRL_C);
    assert_eq!(terminal.prompt().1, 130);
    assert!(!somebody_runs(&mark));
}

#[test]
fn a_deny_ends_a_suspended_tree_and_its_wrapper_and_the_shell_goes_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    setup.devices = "allow = [\"agent-*\"]".to_owned();
    let sidecar = setup.start();
    for (number, &way) in Way::wrapped().iter().enumerate() {
        let case = Case::asking(way, sidecar.socket());
        let device = format!("agent-{number}");
        let mut terminal = case.terminal();
        let settings = terminal.settings();
        let mark = unique_sleep();
        let status = case.path("status").display().to_string();
        let run = case.words_with(&["--device", &device, "--stop-grace", "300ms", "--status-file", &status]).join(" ");
        // One obeys, one must be killed, one has left session and group.
        let script = format!(
            "trap \"echo asked >>asked; exit 1\" TERM; setsid sleep {mark} & (trap \"\" TERM; exec sleep {mark}) & \
             stty -icanon; echo ready; wait; wait; wait"
        );
        terminal.enter(&format!("{run} sh -c '{script}'"));
        terminal.expect("ready\n");
        assert_eq!(terminal.suspend().1, 148, "{way:?}");
        let wrapper = terminal.job();
        wait_until_stopped(wrapper);
        assert!(with_mark(&mark).len() >= 3);
        assert_eq!(org.device("revoke", &device).status, 200);
        eventually("the tree ends", || with_mark(&mark).iter().all(|&pid| pid == wrapper));
        eventually("the stopped wrapper ends", || !is_alive(wrapper));
        assert!(!somebody_runs(&mark));
        assert_eq!(std::fs::read_to_string(case.path("asked")).unwrap(), "asked\n", "one TERM");
        // The wrapper was continued, and reports as it does without Ctrl-Z: line, status file, exit code.
        terminal.expect("machineid-run: stopped: DEVICE_REVOKED");
        let status: serde_json::Value = serde_json::from_slice(&std::fs::read(&status).unwrap()).unwrap();
        assert_eq!((&status["exit_code"], &status["cause"]), (&77.into(), &"denied".into()), "{way:?}");
        let (text, _) = terminal.ask("wait %1; echo code $?");
        assert!(text.contains("code 77") && !text.contains("Killed"), "{way:?}: {text:?}");
        assert_eq!(terminal.ask("jobs"), (String::new(), 0), "the shell has seen the job's end");
        assert_eq!(terminal.ask("echo still $((1 + 1))"), ("still 2\n".to_owned(), 0));
        assert_eq!(terminal.ask("stty -a | grep -o ' -\\?icanon'").0.trim(), "icanon");
        assert_eq!(terminal.settings(), settings);
    }
}

#[test]
fn a_stopped_wrapper_that_is_continued_finds_its_command_where_it_was() {
    // Only the wrapper: what it runs is not stopped by that, and must not be disturbed by what follows.
    super::way::in_every_way(|case| {
        let gate = case.gate();
        let mut terminal = case.terminal();
        let script = "echo ready; read x <go; read line; echo got $line; exit 3";
        terminal.enter(&format!("{} sh -c '{script}'", case.run()));
        terminal.expect("ready\n");
        let wrapper = terminal.job();
        rustix::process::kill_process(Pid::from_raw(wrapper).unwrap(), Signal::STOP).unwrap();
        assert_eq!(terminal.prompt().1, 147);
        terminal.foreground_again("exit 3'");
        gate.open();
        terminal.enter("hello");
        assert_eq!(terminal.prompt(), ("got hello\n".to_owned(), 3));
    });
}
