//! `status --watch` and `events -f` on a real terminal and off one, until Ctrl-C; `stop --hold` and `release`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use super::fixture::Ran;
use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::pty;
use crate::harness::sidecar::{Setup, Sidecar, clean_environment};
use crate::harness::wait::{eventually, until};

const DEVICE: &str = "watched-host:1";

fn daemon(authority: &Authority) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "allow = [\"worker:*\"]".clone_into(&mut setup.devices);
    setup.start()
}

fn command(sidecar: &Sidecar, words: &str, term: &str) -> Command {
    let mut command = Command::new("setsid");
    clean_environment(&mut command, sidecar.directory());
    command.args(["--ctty", env!("CARGO_BIN_EXE_machineid")]).args(words.split(' '));
    command.env("MACHINEID_SOCKET", sidecar.socket()).env("TERM", term);
    command
}

/// A terminal with a command on it. Killed when dropped.
struct Screen {
    line: File,
    child: Child,
    seen: String,
}

impl Screen {
    fn open(mut command: Command, rows: u16) -> Self {
        let (line, other) = pty::open();
        tcsetwinsize(&other, Winsize { ws_row: rows, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        command
            .stdin(Stdio::from(other.try_clone().unwrap()))
            .stdout(Stdio::from(other.try_clone().unwrap()))
            .stderr(Stdio::from(other));
        let child = command.spawn().unwrap();
        rustix::fs::fcntl_setfl(&line, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        Self { line, child, seen: String::new() }
    }

    fn read(&mut self) {
        let mut part = [0; 4096];
        loop {
            match self.line.read(&mut part) {
                Ok(0) => return,
                Ok(length) => self.seen.push_str(&String::from_utf8_lossy(&part[..length])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing now, or the last process has closed the terminal.
                Err(_) => return,
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let found = crate::harness::wait::until_for(crate::harness::PATIENCE, || {
            self.read();
            self.seen.contains(text).then_some(())
        });
        assert!(found.is_some(), "expected {text:?} in {:?}", self.seen);
    }

    /// The last page that was drawn, whole.
    fn page(&mut self) -> String {
        until("a whole page", || {
            self.read();
            let end = self.seen.rfind("\x1b[J")?;
            let begin = self.seen[..end].rfind("\x1b[H")?;
            Some(self.seen[begin..end].to_owned())
        })
    }

    fn press_ctrl_c(&mut self) -> ExitStatus {
        self.line.write_all(b"\x03").unwrap();
        let status = until("it ends by Ctrl-C", || self.child.try_wait().unwrap());
        self.read();
        status
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_the_page_is_drawn_again_and_the_terminal_given_back() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    let mut screen = Screen::open(command(&sidecar, "status --watch", "xterm"), 24);
    screen.expect("no agents run under enforcement");
    assert!(screen.seen.starts_with("\x1b[?1049h\x1b[?25l\x1b[H"), "{:?}", screen.seen);
    let mut agent = Wrapped::start(sidecar.wrap(&["--name", "painter"], &["sh", "-c", "echo ready; exec sleep 1000"]));
    agent.line_with("ready");
    screen.expect("painter");
    assert!(screen.page().contains(DEVICE));
    assert!(!screen.seen.contains("\x1b[2J"), "it is drawn over, not blanked");
    assert_eq!(screen.press_ctrl_c().code(), Some(0));
    assert!(screen.seen.ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", &screen.seen[screen.seen.len() - 80..]);
}

#[test]
fn a_page_that_is_too_high_is_cut_and_says_so() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    let mut screen = Screen::open(command(&sidecar, "status --watch", "xterm"), 6);
    screen.expect("more lines");
    let page = screen.page();
    assert_eq!(page.matches("\r\n").count(), 5, "{page:?}");
    screen.press_ctrl_c();
}

#[test]
fn what_ends_it_otherwise_gives_the_terminal_back_too() {
    let authority = Authority::start();
    let mut sidecar = daemon(&authority);
    let mut screen = Screen::open(command(&sidecar, "status --watch", "xterm"), 24);
    screen.expect("allowed");
    sidecar.terminate();
    screen.expect("no answer");
    sidecar.start_again();
    until("it shows the new daemon", || screen.page().contains("allowed").then_some(()));
    rustix::process::kill_process(Pid::from_child(&screen.child), Signal::TERM).unwrap();
    let status = until("it ends by SIGTERM", || screen.child.try_wait().unwrap());
    screen.read();
    assert!(status.success() && screen.seen.ends_with("\x1b[?25h\x1b[?1049l"), "{status}");
}

#[test]
fn a_terminal_that_cannot_be_drawn_upon_gets_lines_without_escapes() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    let mut screen = Screen::open(command(&sidecar, "status --watch", "dumb"), 24);
    screen.expect(&format!("{DEVICE} allowed, 0 agents\r\n"));
    assert_eq!(screen.press_ctrl_c().code(), Some(0));
    assert!(!screen.seen.contains('\x1b'), "{:?}", screen.seen);
}

/// A command whose output goes to a file.
fn to_file(sidecar: &Sidecar, words: &str) -> (Child, std::path::PathBuf) {
    let file = sidecar.directory().join(format!("out-{}", words.replace([' ', '-'], "")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid"));
    clean_environment(&mut command, sidecar.directory());
    command.args(words.split(' ')).env("MACHINEID_SOCKET", sidecar.socket()).env("TERM", "xterm").stdin(Stdio::null());
    let child = command.stdout(File::create(&file).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    (child, file)
}

fn interrupt(mut child: Child) -> Option<i32> {
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    until("it ends by SIGINT", || child.try_wait().unwrap()).code()
}

#[test]
fn off_a_terminal_each_change_is_a_line() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    let (child, file) = to_file(&sidecar, "status --watch");
    let text = || std::fs::read_to_string(&file).unwrap();
    eventually("the first line", || text().contains(&format!("{DEVICE} allowed, 0 agents\n")));
    sidecar.machineid(&["stop", "--device", DEVICE, "--hold"]);
    eventually("the change", || text().contains(&format!("{DEVICE} denied (LOCAL_STOP), {DEVICE} HELD, 0 agents\n")));
    assert_eq!(interrupt(child), Some(0));
    let lines = text();
    assert!(lines.lines().count() <= 3 && !lines.contains('\x1b'), "{lines}");
    let (child, file) = to_file(&sidecar, "status --watch --json");
    eventually("a line of JSON", || std::fs::read_to_string(&file).unwrap().contains('\n'));
    assert_eq!(interrupt(child), Some(0));
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["devices"][0]["device_id"], DEVICE);
    }
}

#[test]
fn events_are_shown_followed_and_waited_for_across_a_restart() {
    let authority = Authority::start();
    let mut sidecar = daemon(&authority);
    let ran: Ran = sidecar.machineid(&["events"]).into();
    assert!(ran.code == 0 && ran.out.contains(&format!("decision         {DEVICE} allowed, ALLOW")), "{ran:?}");
    let (child, file) = to_file(&sidecar, "events -f --json");
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let came = |name: &str, times: usize| events().iter().filter(|event| event["event"] == name).count() == times;
    eventually("what was before", || came("decision", 1));
    sidecar.machineid(&["stop", "--device", "worker:9", "--hold"]);
    eventually("what comes", || came("device-held", 1));
    assert!(events().iter().all(|event| event["id"].as_str().is_some_and(|id| id.contains('-'))));
    sidecar.terminate();
    sidecar.start_again();
    eventually("the gap, and then the new daemon's", || came("gap", 1) && came("decision", 2));
    assert_eq!(interrupt(child), Some(0));
    let mut screen = Screen::open(command(&sidecar, "events -f", "xterm"), 24);
    screen.expect("\x1b[32mdecision");
    assert_eq!(screen.press_ctrl_c().code(), Some(0));
    sidecar.terminate();
    let ran: Ran = sidecar.machineid(&["events", "-f"]).into();
    assert!(ran.code == 75 && ran.err.contains("nothing listens"), "{ran:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    for words in ["events -f", "status --watch --json"] {
        let script = format!("'{}' {words} | head -n 1", env!("CARGO_BIN_EXE_machineid"));
        let mut shell = Command::new("sh");
        clean_environment(&mut shell, sidecar.directory());
        shell.arg("-c").arg(script).env("MACHINEID_SOCKET", sidecar.socket()).stdin(Stdio::null());
        let mut child = shell.stdout(Stdio::null()).spawn().unwrap();
        // A stream ends when it next has something to say.
        until("it ends with its reader", || {
            sidecar.machineid(&["stop", "--device", "worker:9", "--hold"]);
            sidecar.machineid(&["release", "--all"]);
            child.try_wait().unwrap()
        });
    }
}

#[test]
fn a_stop_that_holds_says_what_is_held_and_a_release_takes_it_back() {
    let authority = Authority::start();
    let sidecar = daemon(&authority);
    let start = || {
        let flags = ["--name", "scraper", "--device", "worker:1"];
        let mut agent = Wrapped::start(sidecar.wrap(&flags, &["sh", "-c", "echo ready; exec sleep 1000"]));
        agent.line_with("ready");
        agent
    };
    let mut agent = start();
    let ran: Ran = sidecar.machineid(&["stop", "scraper", "--hold"]).into();
    assert!(ran.code == 0 && ran.out.contains("worker:1  held") && ran.out.contains("gone"), "{ran:?}");
    assert_eq!(agent.exit_code(), 77);
    let ran: Ran = sidecar.machineid(&["check", "--device", "worker:1"]).into();
    assert!(ran.code == 77 && ran.out.contains("LOCAL_STOP"), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["status"]).into();
    assert!(ran.out.contains("worker:1 HELD by uid "), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["stop", "--device", "worker:2", "--hold", "--json"]).into();
    assert_eq!((ran.code, &ran.json()["held"]), (0, &serde_json::json!(["worker:2"])), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["release"]).into();
    assert!(ran.code == 2 && ran.err.contains("worker:1, worker:2"), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["release", "--device", "worker:2"]).into();
    assert!(ran.code == 0 && ran.out.contains("worker:2  released"), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["release", "--json"]).into();
    assert_eq!((ran.code, &ran.json()["devices"]), (0, &serde_json::json!(["worker:1"])), "{ran:?}");
    let ran: Ran = sidecar.machineid(&["release"]).into();
    assert!(ran.code == 1 && ran.err.contains("nothing to release"), "{ran:?}");
    let mut agent = start();
    let ran: Ran = sidecar.machineid(&["stop", "--all", "--hold", "--yes"]).into();
    assert!(ran.code == 0 && ran.out.contains(&format!("{DEVICE}  held")), "{ran:?}");
    assert_eq!(agent.exit_code(), 77);
    let ran: Ran = sidecar.machineid(&["stop", "nobody", "--hold"]).into();
    assert!(ran.code == 1 && ran.err.contains("no agent"), "{ran:?}");
}
