//! What stops a fleet is confirmed on a terminal, or said twice.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::termios::{Winsize, tcsetwinsize};

use super::fixture::Authority;
use crate::harness::pty;

/// Runs the command on a terminal of this width, types `answer` once it asks, and returns exit code and screen.
pub(super) fn on_a_terminal(mut command: Command, columns: u16, answer: Option<&str>) -> (i32, String) {
    let (mut master, slave) = pty::open();
    tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    command
        .stdin(Stdio::from(slave.try_clone().unwrap()))
        .stdout(Stdio::from(slave.try_clone().unwrap()))
        .stderr(Stdio::from(slave));
    let mut child = command.spawn().unwrap();
    // The command holds the terminal's other end until it is dropped.
    drop(command);
    let mut screen = Vec::new();
    let mut part = [0; 4096];
    let mut answer = answer;
    // The read fails when the last process has closed the terminal.
    while let Ok(length) = master.read(&mut part) {
        if length == 0 {
            break;
        }
        screen.extend_from_slice(&part[..length]);
        if String::from_utf8_lossy(&screen).contains("to go on: ")
            && let Some(answer) = answer.take()
        {
            master.write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
    }
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8(screen).unwrap())
}

#[test]
fn without_a_terminal_stopping_a_fleet_needs_yes() {
    let authority = Authority::start("max");
    let ids: Vec<String> = (0..26).map(|n| format!("w{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    authority.register(&ids);
    for args in [vec!["revoke", "--all-active"], [&["revoke"][..], &ids].concat(), [&["remove"][..], &ids].concat()] {
        let ran = authority.run(&args);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err.contains("26 devices") && ran.err.contains("--yes") && ran.err.contains("--dry-run"),
            "{ran:?}"
        );
    }
    assert_eq!(authority.listed(&["--active"]).len(), 26);
    assert_eq!(authority.run(&[&["revoke"][..], &ids[..25]].concat()).code, 0, "25 are not yet a fleet");
    let ran = authority.run(&[&["remove", "--yes"][..], &ids].concat());
    assert_eq!(ran.code, 1, "--yes does not mean revoked devices: {ran:?}");
    assert!(ran.out.contains("w0   revoked") && ran.out.contains("--revoked"), "{ran:?}");
    assert_eq!((authority.listed(&["--active"]).len(), authority.listed(&[]).len()), (0, 25));
    assert_eq!(authority.run(&[&["remove", "--yes", "--revoked"][..], &ids[..25]].concat()).code, 0);
    assert_eq!(authority.listed(&[]).len(), 0);
}

#[test]
fn on_a_terminal_a_revoked_device_is_removed_only_when_that_was_typed() {
    let authority = Authority::start("free");
    authority.register(&["a", "b"]);
    assert_eq!(authority.run(&["revoke", "a"]).code, 0);
    let (code, screen) = on_a_terminal(authority.machineid(&["remove", "a", "b"]), 80, Some("yes"));
    assert!(code == 1 && screen.contains("register again"), "{screen}");
    assert_eq!(authority.listed(&[]).len(), 1, "{screen}");
    let (code, screen) = on_a_terminal(authority.machineid(&["remove", "a"]), 80, Some("revoked"));
    assert_eq!((code, authority.listed(&[]).len()), (0, 0), "{screen}");
}

#[test]
pub(super) fn on_a_terminal_the_number_must_be_typed() {
    let authority = Authority::start("free");
    authority.register(&["a", "b"]);
    for wrong in ["", "y", "yes", "3", "22"] {
        let (code, screen) = on_a_terminal(authority.machineid(&["revoke", "--all-active"]), 80, Some(wrong));
        assert_eq!(code, 1, "{screen}");
        assert!(screen.contains("revoke all 2 devices at http://127.0.0.1:") && screen.contains("nothing was changed"));
        assert_eq!(authority.listed(&["--active"]).len(), 2, "{wrong}");
    }
    let (code, screen) = on_a_terminal(authority.machineid(&["revoke", "--all-active"]), 80, Some("2"));
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("revoked 2 devices"), "{screen}");
    assert_eq!(authority.listed(&["--active"]).len(), 0);
    let (code, screen) = on_a_terminal(authority.machineid(&["revoke", "--all-active"]), 80, None);
    assert_eq!(code, 0);
    assert!(screen.contains("nothing to revoke"), "{screen}");
    let (code, screen) = on_a_terminal(authority.machineid(&["unrevoke", "--all-revoked"]), 80, Some("2"));
    assert_eq!(code, 0, "{screen}");
}

#[test]
fn a_terminal_gets_colours_and_a_table_that_fits() {
    let authority = Authority::start("free");
    let long = format!("worker:{}", "x".repeat(60));
    authority.register(&["a", &long]);
    let (_, screen) = on_a_terminal(authority.machineid(&["list"]), 40, None);
    assert!(screen.contains("\u{1b}[32mactive\u{1b}[0m"), "{screen:?}");
    for line in screen.lines() {
        let bare = line.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "");
        assert!(bare.contains("places in use") || bare.chars().count() <= 40, "{bare:?}");
    }
    let mut plain = authority.machineid(&["list"]);
    plain.env("NO_COLOR", "1");
    let (_, screen) = on_a_terminal(plain, 200, None);
    assert!(!screen.contains('\u{1b}') && screen.contains(&long), "{screen:?}");
    assert!(!authority.run(&["list"]).out.contains('\u{1b}'));
}

#[test]
fn long_work_shows_progress_on_a_terminal_and_only_there() {
    let authority = Authority::start("max");
    let ids: Vec<String> = (0..600).map(|n| format!("w{n}")).collect();
    let (_directory, path) = super::fixture::file(&ids.join("\n"));
    let args = ["revoke", "--yes", "--json", "--from", path.to_str().unwrap()];
    let mut command = authority.machineid(&args);
    command.env("TERM", "xterm");
    let (code, screen) = on_a_terminal(command, 80, None);
    assert_eq!(code, 1, "they are all unknown");
    let bar: String = screen.chars().take(2_000).collect();
    assert!(bar.contains("500 of 600") && bar.contains("revoking"), "{bar:?}");
    let ran = authority.run(&args);
    assert!(!ran.err.contains("revoking"), "{}", ran.err);
}
