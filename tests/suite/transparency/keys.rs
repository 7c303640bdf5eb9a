//! The keys that end a command.

use rustix::process::Signal;

use super::terminal::{CTRL_BACKSLASH, CTRL_C};
use super::way::{Case, in_every_way, same_as_without};
use crate::harness::eventually;
use crate::harness::wrapper::{set_flag, somebody_runs, unique_sleep};

/// Says each signal that comes, on the terminal, to the USR1 that ends it. A wrapper that passes a signal on once more has done
/// that before it passes on a USR1 that came later.
pub(super) const COUNTING: &str = "import os, signal, sys\n\
    few = {1, 2, 3, 10, 15, 18, 28}\n\
    signal.pthread_sigmask(signal.SIG_BLOCK, few)\n\
    terminal = os.open('/dev/tty', os.O_WRONLY)\n\
    say = lambda text: os.write(terminal, (' '.join(sys.argv[1:] + [text]) + ';').encode())\n\
    say('ready')\n\
    while (got := signal.sigwait(few)) != 10:\n\
    \x20   say(f'got {got}' + (' %dx%d' % os.get_terminal_size(terminal) if got == 28 else ''))\n\
    say('end')\n\
    sys.exit(5)";

#[test]
fn each_key_reaches_the_command_exactly_once() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.enter(&format!("{} {}", case.run(), case.python(COUNTING)));
        terminal.expect("ready;");
        for (key, said) in [(CTRL_C, "got 2;"), (CTRL_C, "got 2;"), (CTRL_BACKSLASH, "got 3;"), (CTRL_C, "got 2;")] {
            terminal.press_key(key);
            assert_eq!(terminal.expect(said), "");
        }
        terminal.signal_job(case, Signal::USR1);
        let (after, code) = terminal.prompt();
        format!("{after} {code}")
    });
    assert_eq!(seen, "end; 5");
}

#[test]
fn each_process_of_a_pipeline_gets_a_key_once() {
    same_as_without(|case| {
        let mut terminal = case.terminal();
        let agent = case.python(COUNTING);
        // The shell between must not end by the keys.
        let line = format!("{} sh -c 'trap : INT USR1; {agent} a | {agent} b; exit 6'", case.run());
        terminal.enter(&line);
        let mut seen: Vec<String> = (0..2).map(|_| terminal.expect(";")).collect();
        for _ in 0..2 {
            terminal.press_key(CTRL_C);
            seen.extend([terminal.expect(";"), terminal.expect(";")]);
        }
        for pair in seen.chunks_mut(2) {
            pair.sort();
        }
        assert_eq!(seen, ["a ready", "b ready", "a got 2", "b got 2", "a got 2", "b got 2"]);
        terminal.signal_job(case, Signal::USR1);
        let (after, code) = terminal.prompt();
        assert!(after.contains("a end;") && after.contains("b end;") && !after.contains("got"), "{after}");
        code.to_string()
    });
}

#[test]
fn a_command_that_a_key_ends_is_reported_as_without_the_wrapper() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        let mut codes = Vec::new();
        for key in [CTRL_C, CTRL_BACKSLASH] {
            terminal.enter(&format!("ulimit -c 0; {} sh -c 'echo ready; exec sleep 1000'", case.run()));
            terminal.expect("ready\n");
            terminal.press_key(key);
            codes.push(terminal.prompt().1);
        }
        format!("{codes:?}")
    });
    assert_eq!(seen, "[130, 131]");
}

#[test]
fn a_script_around_the_command_ends_by_the_key_as_without_the_wrapper() {
    // Every shell ignores the other key of the two, or ends by it in the same way as by this one.
    for (key, shell, code, redirections) in [
        // With the terminal handed over, and without.
        (CTRL_C, "bash", 130, ["", "</dev/null", "| cat"].as_slice()),
        (CTRL_BACKSLASH, "dash", 131, &["", ">/dev/null"]),
    ] {
        for redirection in redirections {
            let seen = same_as_without(|case| {
                let mut terminal = case.terminal();
                let text = format!(
                    "ulimit -c 0\n{} sh -c 'echo ready >/dev/tty; exec sleep 1000' {redirection}\necho went on; exit 3\n",
                    case.run()
                );
                terminal.enter(&format!("{shell} {} 2>/dev/null", case.file("script", &text)));
                terminal.expect("ready\n");
                terminal.press_key(key);
                let (after, code) = terminal.prompt();
                format!("{} {code}", after.contains("went on"))
            });
            assert_eq!(seen, format!("false {code}"), "{key:?} {shell} {redirection}");
        }
    }
}

/// A leader that ends by a Ctrl-C at once, and a child that takes its time: it ends when `go` is there.
fn slow(case: &Case) -> String {
    let child = case.python(
        "import os, signal, sys\n\
         few = {2, 15, 28}\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, few)\n\
         os.write(1, b'ready;')\n\
         while not os.path.exists(sys.argv[1]):\n\
         \x20   got = signal.sigtimedwait(few, 0.01)\n\
         \x20   if got: os.write(1, f'got {got.si_signo};'.encode())\n\
         os.write(1, b'late;')",
    );
    format!("{} sh -c '{child} {} & wait'", case.run(), case.path("go").display())
}

#[test]
fn the_prompt_is_back_only_when_the_whole_tree_is_empty() {
    in_every_way(|case| {
        let mut terminal = case.terminal();
        let settings = terminal.settings();
        terminal.enter(&slow(case));
        terminal.expect("ready;");
        terminal.press_key(CTRL_C);
        // The key, then the first signal of the stop of what the leader left behind: in this order, once each.
        assert_eq!(terminal.expect("got 2;"), "");
        assert_eq!(terminal.expect("got 15;"), "");
        let shell = terminal.leader_pid();
        eventually("the foreground is the wrapper's again", || terminal.foreground() == terminal.job());
        assert_ne!(terminal.foreground(), shell);
        // A second Ctrl-C reaches the processes that are left, and ends the grace of none.
        terminal.press_key(CTRL_C);
        assert_eq!(terminal.expect("got 2;"), "");
        terminal.press_key(CTRL_C);
        assert_eq!(terminal.expect("got 2;"), "");
        assert_eq!(terminal.unread(), "", "no prompt as long as one of the tree is left");
        set_flag(&case.path("go"));
        assert_eq!(terminal.prompt(), ("late;\n".to_owned(), 130));
        assert_eq!(terminal.settings(), settings);
    });
}

#[test]
fn what_ignores_the_key_ends_with_the_leader_all_the_same() {
    in_every_way(|case| {
        let mut terminal = case.terminal();
        let mark = unique_sleep();
        let line = format!(
            "{} sh -c '(trap \"\" INT; exec sleep {mark}) & (trap \"\" INT; exec setsid sleep {mark}) & echo ready; wait'",
            case.run()
        );
        terminal.enter(&line);
        terminal.expect("ready\n");
        terminal.press_key(CTRL_C);
        assert_eq!(terminal.prompt().1, 130);
        assert!(!somebody_runs(&mark), "the prompt came before the end of the tree");
    });
}
