//! How it ended, told by a number.

use super::way::{in_every_way, same_as_without};

#[test]
fn every_exit_code_is_the_commands_own() {
    in_every_way(|case| {
        let mut terminal = case.terminal();
        // All of them in one mode, and in the others those that mean something to a program.
        let some = "0 1 2 64 74 75 76 77 78 124 125 126 127 128 129 130 137 143 192 254 255";
        let (text, _) = terminal.ask(&format!(
            "for code in {some}; do {} sh -c \"exit $code\"; [ $? = $code ] || echo $code became $?; done",
            case.run()
        ));
        assert_eq!(text, "");
    });
}

#[test]
fn a_signals_end_is_128_and_its_number() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        terminal.ask("ulimit -c 0");
        let mut seen = Vec::new();
        for signal in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 64] {
            let (_, code) = terminal.ask(&format!("{} sh -c 'kill -{signal} $$; exec sleep 1000'", case.run()));
            seen.push(code - signal);
        }
        format!("{seen:?}")
    });
    assert!(seen.starts_with("[128, 128,") && !seen.contains("127"), "{seen}");
}

#[test]
fn what_dumps_core_dumps_the_same_core() {
    let seen = same_as_without(|case| {
        let mut terminal = case.terminal();
        let mut seen = Vec::new();
        for signal in ["QUIT", "ABRT", "SEGV"] {
            let line = format!("ulimit -c unlimited; {} sh -c 'kill -{signal} $$; exec sleep 1000'", case.run());
            let (_, code) = terminal.ask(&line);
            // Named core or core.PID, or nothing where another program takes them.
            let cores = terminal.ask("ls | grep -c ^core; rm -f core*").0;
            seen.push(format!("{code} {cores}"));
        }
        seen.concat()
    });
    assert!(seen.starts_with("131 ") && seen.contains("\n134 ") && seen.contains("\n139 "), "{seen}");
}

#[test]
fn what_cannot_be_executed_is_126_or_127() {
    let seen = same_as_without(|case| {
        case.file("script", "true\n");
        let mut terminal = case.terminal();
        let mut seen = Vec::new();
        for command in ["no-such-command-anywhere", "/no/such/command", "./script", "/"] {
            seen.push(format!("{} ", terminal.ask(&format!("{} {command}", case.run())).1));
        }
        seen.concat()
    });
    assert_eq!(seen, "127 127 126 126 ");
}
