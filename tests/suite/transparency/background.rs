//! Started without the foreground, and losing the terminal for good.

use rustix::process::{Pid, Signal};

use super::keys::COUNTING;
use super::terminal::{CTRL_C, CTRL_Z, Terminal, processes, wait_until_stopped};
use super::way::{Case, in_every_way, same_as_without};
use crate::harness::eventually;
use crate::harness::process::is_alive;
use crate::harness::wrapper::{somebody_runs, unique_sleep, wait_for_line, with_mark};

#[test]
fn in_the_background_it_leaves_the_terminal_alone_until_it_is_given_it() {
    let seen = same_as_without(|case| {
        let gate = case.gate();
        let mut terminal = case.terminal();
        terminal.ask(&format!("{} sh -c 'echo working; read x <go; read line; echo got $line; exit 4' &", case.run()));
        assert_eq!(terminal.ask("echo mine").0.replace("working\n", ""), "mine\n");
        gate.open();
        wait_until_stopped(terminal.job());
        assert!(terminal.ask("jobs").0.contains("Stopped"));
        terminal.enter("fg");
        terminal.expect("exit 4'\n");
        terminal.enter("hello");
        let (text, code) = terminal.prompt();
        format!("{text:?} {code}")
    });
    assert_eq!(seen, "\"got hello\\n\" 4");
}

#[test]
fn in_the_background_it_writes_unless_the_terminal_forbids_it() {
    let seen = same_as_without(|case| {
        let gate = case.gate();
        let mut terminal = case.terminal();
        terminal.ask(&format!("stty tostop; {} sh -c 'read x <go; echo said; exit 4' &", case.run()));
        gate.open();
        wait_until_stopped(terminal.job());
        assert!(!terminal.ask("jobs").0.lines().any(|line| line == "said"));
        terminal.enter("fg");
        terminal.expect("exit 4'\n");
        let (text, code) = terminal.prompt();
        format!("{text:?} {code}")
    });
    assert_eq!(seen, "\"said\\n\" 4");
}

#[test]
fn who_reads_the_terminal_itself_gets_it_whatever_its_streams_are() {
    for streams in ["</dev/null", "</dev/null >/dev/null 2>&1", "<&-"] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            terminal.enter(&format!(
                "{} sh -c 'echo ask >/dev/tty; read line </dev/tty; echo got $line >/dev/tty; exit 4' {streams}",
                case.run()
            ));
            terminal.expect("ask\n");
            terminal.enter("hello");
            let (text, code) = terminal.prompt();
            format!("{text:?} {code}")
        });
        assert_eq!(seen, "\"got hello\\n\" 4", "{streams}");
    }
}

#[test]
fn in_a_session_without_a_terminal_it_runs_as_without_the_wrapper() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        let run = case.run();
        // The streams are the terminal, which is not this session's; then they are nothing at all.
        let mut seen = vec![format!("{:?}", terminal.ask(&format!("setsid --wait {run} sh -c 'echo said; exit 4'")))];
        seen.push(format!("{:?}", terminal.ask(&format!("setsid --wait {run} sh -c 'exit 5' <&- >&- 2>&-"))));
        seen.push(format!("{:?}", terminal.ask(&format!("setsid --wait {run} sh -c 'read x; exit $?' </dev/null"))));
        seen.push(format!("{:?}", terminal.ask(&format!("{run} sh -c 'read x; exit $?' </dev/null"))));
        seen.concat()
    });
    assert_eq!(seen, "(\"said\\n\", 4)(\"\", 5)(\"\", 1)(\"\", 1)");
}

#[test]
fn as_the_first_of_its_session_it_behaves_as_without_the_wrapper() {
    // As in a new window, or at the end of ssh. No shell could continue it, so nothing may stop it.
    let seen = same_as_without(|case| {
        let command = format!("{} sh -c 'echo ready; read line; echo got $line; exit 4'", case.run());
        let mut terminal = Terminal::with(case, &command);
        terminal.expect("ready\n");
        terminal.press_key(CTRL_Z);
        terminal.enter("hello");
        terminal.expect("got hello\n");
        terminal.wait_for_leader().to_string()
    });
    assert_eq!(seen, "exit status: 4");
    let seen = same_as_without(|case| {
        let mut terminal = Terminal::with(case, &format!("{} {}", case.run(), case.python(COUNTING)));
        terminal.expect("ready;");
        terminal.press_key(CTRL_C);
        terminal.expect("got 2;");
        let leader = Pid::from_raw(terminal.leader_pid()).unwrap();
        rustix::process::kill_process(leader, Signal::USR1).unwrap();
        let rest = terminal.expect("end;");
        format!("{rest}{}", terminal.wait_for_leader())
    });
    assert_eq!(seen, "exit status: 5");
}

/// A tree with one that has left it, and one that is slow to go.
fn tree(case: &Case, mark: &str) -> String {
    format!("{} sh -c 'setsid sleep {mark} & sleep {mark} & echo ready; wait'", case.run())
}

#[test]
fn a_hang_up_ends_the_whole_tree() {
    // In the foreground, in the background, stopped, and as the session's first.
    for start in ["fg", "bg", "stopped", "first"] {
        in_every_way(|case| {
            let mark = unique_sleep();
            let mut terminal =
                if start == "first" { Terminal::with(case, &tree(case, &mark)) } else { case.terminal() };
            match start {
                // A shell that reads when the line goes dead may see the end of its input before the signal, and then ends
                // without a word to its jobs.
                "bg" => {
                    terminal.enter(&format!("{} & echo waiting; wait", tree(case, &mark)));
                    terminal.expect("waiting\n");
                }
                "first" => {}
                _ => terminal.enter(&tree(case, &mark)),
            }
            // The wrapper, the command and its two children.
            eventually("the tree is there", || with_mark(&mark).len() >= 4);
            if start == "stopped" {
                terminal.expect("ready\n");
                terminal.suspend();
            }
            terminal.hang_up();
            terminal.wait_for_leader();
            eventually("no process is left", || !somebody_runs(&mark));
        });
    }
}

#[test]
fn a_command_that_handles_the_hang_up_is_told_of_it() {
    same_as_without(|case| {
        let _gate = case.gate();
        let mut terminal = case.terminal();
        // It does not read the terminal, where the hang-up would be the end of the file first.
        terminal.enter(&format!(
            "{} sh -c 'trap \"echo hung up >told; exit 4\" HUP; echo ready; read x <go; exit 5'",
            case.run()
        ));
        terminal.expect("ready\n");
        terminal.hang_up();
        terminal.wait_for_leader();
        wait_for_line(&case.path("told"))
    });
}

#[test]
fn with_nohup_it_survives_the_hang_up() {
    same_as_without(|case| {
        let mut terminal = case.terminal();
        let agent = case.python(
            "import os, signal\n\
             few = {10, 15}\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, few)\n\
             open('ready', 'w').write('yes\\n')\n\
             signal.sigwait(few)\n\
             open('survived', 'w').write('yes\\n')",
        );
        terminal.ask(&format!("nohup {} {agent} >out 2>&1 &", case.run()));
        wait_for_line(&case.path("ready"));
        let job = terminal.job();
        terminal.hang_up();
        terminal.wait_for_leader();
        assert!(is_alive(job));
        rustix::process::kill_process(Pid::from_raw(job).unwrap(), Signal::USR1).unwrap();
        let text = wait_for_line(&case.path("survived"));
        eventually("it ends", || !is_alive(job));
        assert!(!processes().iter().any(|it| it.session == terminal.leader_pid() && it.state != 'Z'));
        text
    });
}

#[test]
fn a_wrapper_that_is_killed_leaves_the_shell_its_terminal() {
    in_every_way(|case| {
        let mark = unique_sleep();
        let mut terminal = case.terminal();
        let settings = terminal.settings();
        terminal.enter(&format!(
            "{} sh -c 'trap : TERM; stty -icanon; echo ready; sleep {mark}; sleep {mark}'",
            case.run()
        ));
        terminal.expect("ready\n");
        let wrapper = Pid::from_raw(terminal.job()).unwrap();
        rustix::process::kill_process(wrapper, Signal::KILL).unwrap();
        assert_eq!(terminal.prompt().1, 137);
        eventually("no process is left", || !somebody_runs(&mark));
        terminal.enter("read line; echo got $line");
        eventually("the shell has begun to read a line", || terminal.settings() != settings);
        terminal.enter("hello");
        assert_eq!(terminal.prompt(), ("got hello\n".to_owned(), 0));
    });
}
