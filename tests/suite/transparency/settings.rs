//! The terminal's size and settings, and programs that take the whole of it.

use rustix::process::{Pid, Signal};

use super::keys::COUNTING;
use super::terminal::{Terminal, processes};
use super::way::same_as_without;
use crate::harness::wait::until;

#[test]
fn a_new_size_reaches_the_command_once() {
    // With the terminal handed over, and beside others that share the wrapper's group.
    for after in ["", "| cat"] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            terminal.enter(&format!("{} {} {after}", case.run(), case.python(COUNTING)));
            terminal.expect("ready;");
            for (rows, columns) in [(30, 100), (50, 132)] {
                terminal.resize(rows, columns);
                assert_eq!(terminal.expect(&format!("got 28 {columns}x{rows};")), "");
            }
            let agent = processes().into_iter().find(|it| it.session == terminal.leader_pid() && it.name == "python3");
            let python = Pid::from_raw(agent.unwrap().pid).unwrap();
            let wrapper =
                processes().into_iter().find(|it| it.name == "machineid-run" && it.parent == terminal.leader_pid());
            let target = wrapper.map_or(python, |it| Pid::from_raw(it.pid).unwrap());
            rustix::process::kill_process(target, Signal::USR1).unwrap();
            let (text, code) = terminal.prompt();
            format!("{text} {code}")
        });
        assert_eq!(seen, if after == "| cat" { "end; 0" } else { "end; 5" }, "{after}");
    }
}

#[test]
fn the_command_sees_the_size_it_has() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.resize(33, 77);
        terminal.ask(&format!("{} stty size", case.run())).0
    });
    assert_eq!(seen, "33 77\n");
}

#[test]
fn settings_the_command_leaves_behind_are_treated_as_without_the_wrapper() {
    for (command, kept) in [
        // It ends by itself: what it leaves is meant.
        ("stty -opost -ixon", true),
        ("sh -c 'stty -opost -ixon; exit 3'", true),
        // It is killed in the middle: the shell puts back what was.
        ("sh -c 'stty -opost -ixon; kill -KILL $$'", false),
        ("sh -c 'stty -opost -ixon; kill -TERM $$'", false),
    ] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            let (_, code) = terminal.ask(&format!("{} {command}", case.run()));
            format!("{} {code}", terminal.ask("stty -a | grep -o -e '[-]\\?opost' -e '[-]\\?ixon'").0)
        });
        assert_eq!(seen.contains("-opost") && seen.contains("-ixon"), kept, "{command}: {seen}");
    }
}

#[test]
fn after_a_kill_in_raw_mode_the_shell_has_the_terminal_back() {
    same_as_without(|case| {
        let mut terminal = case.terminal();
        let settings = terminal.settings();
        terminal.enter(&format!("{} sh -c 'stty raw; echo ready; exec sleep 1000'", case.run()));
        terminal.expect("ready");
        // Found from outside: in a namespace of its own it knows itself by another number.
        let sleeper = until("it has become what it is to be", || {
            processes().into_iter().find(|it| it.session == terminal.leader_pid() && it.name == "sleep")
        });
        rustix::process::kill_process(Pid::from_raw(sleeper.pid).unwrap(), Signal::KILL).unwrap();
        let (_, code) = terminal.prompt();
        let (text, _) = terminal.ask("stty -a | grep -o '[-]\\?icanon'");
        assert_eq!(terminal.settings(), settings);
        format!("{code} {text}")
    });
}

#[test]
fn a_password_is_read_without_an_echo() {
    let bash = "bash -c 'printf \"password: \"; read -s word; echo; echo ${#word}'";
    let python = "-ES -c 'import getpass; print(len(getpass.getpass(\"password: \")))'";
    for command in [bash.to_owned(), format!("{} {python}", super::way::python())] {
        let seen = same_as_without(|case| {
            let mut terminal = case.terminal();
            // With an echo, which the command turns off.
            terminal.enter(&format!("stty echo; {} {command}; stty -echo", case.run()));
            terminal.expect("password: ");
            wait_for_echo(&terminal, false);
            terminal.enter("secret");
            let (text, code) = terminal.prompt();
            format!("{text} {code}")
        });
        assert_eq!(seen, "\n6\n 0", "{command}");
    }
}

fn wait_for_echo(terminal: &Terminal, echo: bool) {
    crate::harness::eventually("the echo is as the command wants it", || {
        terminal.settings().contains(" | ECHO |") == echo
    });
}

/// The first of these programs that is here; says so if none is.
fn found_here(programs: &[&'static str]) -> Option<&'static str> {
    let is_here = |program: &&str| {
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", &format!("command -v {program}")])
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    let found = programs.iter().copied().find(is_here);
    if found.is_none() {
        eprintln!("SKIPPED: none of {programs:?} is here; .ci/run installs it");
    }
    found
}

#[test]
fn a_pager_shows_scrolls_and_quits() {
    if found_here(&["less"]).is_none() {
        return;
    }
    // It reads its keys from the terminal also when its text comes from elsewhere.
    for command in ["{run} less text", "cat text | {run} less", "{run} less <text", "{run} sh -c 'cat text | less'"] {
        same_as_without(|case| {
            let lines: Vec<String> = (1..=100).map(|number| format!("line {number}.\n")).collect();
            case.file("text", &lines.concat());
            let mut terminal = case.terminal();
            let settings = terminal.settings();
            terminal.ask("export TERM=xterm LESS= LESSHISTFILE=-");
            terminal.enter(&command.replace("{run}", &case.run()));
            terminal.expect("line 23.");
            terminal.press(" ");
            terminal.expect("line 46.");
            terminal.press("G");
            terminal.expect("line 100.");
            terminal.press("q");
            let code = terminal.prompt().1;
            assert_eq!(terminal.settings(), settings);
            code.to_string()
        });
    }
}

#[test]
fn an_editor_inserts_writes_and_quits() {
    let Some(vim) = found_here(&["vim", "vim.tiny"]) else { return };
    same_as_without(|case| {
        let mut terminal = case.terminal();
        let settings = terminal.settings();
        terminal.ask("export TERM=xterm");
        terminal.enter(&format!("{} {vim} -u NONE -i NONE -N -n written", case.run()));
        terminal.expect("written");
        terminal.press("ihello");
        terminal.expect("hello");
        terminal.press("\x1b");
        assert_eq!(terminal.suspend().1, 148);
        terminal.enter("fg");
        terminal.expect("hello");
        terminal.press(":wq\r");
        let code = terminal.prompt().1;
        assert_eq!(terminal.settings(), settings);
        format!("{code} {}", std::fs::read_to_string(case.path("written")).unwrap())
    });
}
