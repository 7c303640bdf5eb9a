//! The terminal after a stop, as two emulators show it: what a full-screen agent leaves on is off, our line is on the main
//! screen, and the screen and cursor of a plain agent are left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::way::{Case, Way};
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::process::is_alive;
use crate::harness::sidecar::{Setup, clean_environment};
use crate::harness::wait::until;

/// Takes the whole terminal, as codex, pi and others do, reads its keys without blocking, and has to be killed.
const FULL_SCREEN: &str = "import os, signal, time, tty\n\
    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
    tty.setraw(0)\n\
    os.set_blocking(0, False)\n\
    modes = [1049, 1000, 1002, 1003, 1006, 1015, 1004, 2004, 2031, 1]\n\
    os.write(1, ''.join(f'\\033[?{mode}h' for mode in modes).encode())\n\
    os.write(1, b'\\033[2J\\033[>1u\\033[>4;2m\\033=\\033[?25l\\033[?7l\\033[5;5H\\033[0;4mdrawn')\n\
    open('ready', 'w').close()\n\
    time.sleep(1000)";

/// Writes to the terminal as to any file.
const PLAIN: &str = "import os, time\n\
    os.write(1, b'working')\n\
    open('ready', 'w').close()\n\
    time.sleep(1000)";

/// Ten lines, in the middle of which a program has used the alternate screen: the terminal has kept its cursor of then.
const AN_EDITOR_WAS_HERE: &str = "for line in 1 2 3 4 5; do echo line $line; done\n\
    printf '\\033[?1049h\\033[?1049l'\n\
    for line in 6 7 8 9 10; do echo line $line; done";

const DEVICE: &str = "agent-1";

/// An authority, a daemon, and a script that a terminal runs: something before the agent, the agent, and what it left.
struct Scene<'a> {
    case: Case,
    org: &'a Org<'a>,
}

fn play(act: impl FnOnce(&Scene<'_>)) {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    "allow = [\"agent-*\"]".clone_into(&mut setup.devices);
    let sidecar = setup.start();
    act(&Scene { case: Case::asking(Way::Plain, sidecar.socket()), org: &org });
}

impl Scene<'_> {
    fn run(&self) -> String {
        let status = self.case.path("status").display().to_string();
        let flags = ["--device", DEVICE, "--stop-grace", "200ms", "--status-file", &status];
        self.case.words_with(&flags).join(" ")
    }

    /// The script's path. `after` is its last line.
    fn script(&self, before: &str, agent: &str, after: &str) -> String {
        let python = super::way::python();
        let agent = self.case.python(agent);
        let text = format!(
            "{before}\n{} {agent}\necho code $?\n{python} -c 'import os; print(\"blocking\", os.get_blocking(0))'\n\
             touch ended\n{after}\n",
            self.run()
        );
        self.case.file("script", &text)
    }

    fn wait_for(&self, file: &str) {
        let path = self.case.path(file);
        eventually(file, || path.exists());
    }

    fn revoke(&self) {
        assert_eq!(self.org.device("revoke", DEVICE).status, 200);
    }
}

/// A tmux server of its own, with one pane.
struct Tmux {
    socket: PathBuf,
    directory: PathBuf,
}

impl Tmux {
    /// `None` when there is no tmux here, which is said.
    fn start(case: &Case, script: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("SKIPPED: no tmux here; .ci/run installs it");
            return None;
        }
        let tmux = Self { socket: case.path("tmux"), directory: case.directory().to_owned() };
        tmux.ask(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &format!("exec sh {script}")]);
        Some(tmux)
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(words).current_dir(&self.directory);
        clean_environment(&mut command, &self.directory);
        let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
        assert!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> Vec<String> {
        self.ask(&["capture-pane", "-p"]).lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The modes that tmux tells of: what a full-screen program turns on or off.
    fn modes(&self) -> String {
        let names = ["alternate_on", "mouse_any_flag", "mouse_sgr_flag", "keypad_flag", "keypad_cursor_flag"];
        let off = ["cursor_flag", "wrap_flag"];
        let format: Vec<_> = names.iter().chain(&off).map(|name| format!("#{{{name}}}")).collect();
        self.ask(&["display-message", "-p", &format.join(" ")]).trim_end().to_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// The rows of a screen around our line, from `first` on, without what differs from run to run.
fn around_our_line(rows: &[String], first: &str) -> Vec<String> {
    let from = rows.iter().position(|row| row.starts_with(first)).unwrap_or_else(|| panic!("no {first:?}: {rows:#?}"));
    let rows = rows[from..].iter().take_while(|row| !row.is_empty());
    rows.map(|row| row.split(" (request_id").next().unwrap_or_default().to_owned()).collect()
}

const OUR_LINE: &str = "machineid-run: stopped: DEVICE_REVOKED";

/// Our line takes two rows of the terminal.
fn without_the_rest_of_our_line(mut rows: Vec<String>) -> Vec<String> {
    rows.retain(|row| [OUR_LINE, "before", "line", "working", "code", "blocking"].iter().any(|it| row.starts_with(it)));
    rows
}

#[test]
fn after_a_full_screen_agent_tmux_is_as_before() {
    play(|scene| {
        let Some(tmux) = Tmux::start(&scene.case, &scene.script("echo before", FULL_SCREEN, "exec sleep 1000")) else {
            return;
        };
        scene.wait_for("ready");
        // tmux reads what the agent has written in its own time.
        eventually("the agent has the screen", || tmux.modes() == "1 1 1 1 1 0 0");
        assert!(tmux.screen().iter().any(|row| row.contains("drawn")));
        scene.revoke();
        scene.wait_for("ended");
        let rows = until("the screen is there", || {
            let rows = tmux.screen();
            rows.iter().any(|row| row.starts_with("blocking")).then_some(rows)
        });
        assert_eq!(tmux.modes(), "0 0 0 0 0 1 1");
        let rows = without_the_rest_of_our_line(around_our_line(&rows, "before"));
        assert_eq!(rows, ["before", OUR_LINE, "code 77", "blocking True"]);
    });
}

#[test]
fn the_cursor_of_a_plain_agent_stays_where_it_is_in_tmux() {
    play(|scene| {
        let Some(tmux) = Tmux::start(&scene.case, &scene.script(AN_EDITOR_WAS_HERE, PLAIN, "exec sleep 1000")) else {
            return;
        };
        scene.wait_for("ready");
        scene.revoke();
        scene.wait_for("ended");
        let rows = until("the screen is there", || {
            let rows = tmux.screen();
            rows.iter().any(|row| row.starts_with("blocking")).then_some(rows)
        });
        let rows = without_the_rest_of_our_line(around_our_line(&rows, "line 1"));
        let mut expected: Vec<String> = (1..=10).map(|line| format!("line {line}")).collect();
        expected.extend([format!("working{OUR_LINE}"), "code 77".to_owned(), "blocking True".to_owned()]);
        assert_eq!(rows, expected);
    });
}

/// Runs the script on a terminal that pyte emulates, with a revoke in the middle, and gives what it shows at the end.
/// `None` when there is no pyte here, which is said.
fn emulated(scene: &Scene<'_>, script: &str) -> Option<Value> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pyte/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no pyte in target/pyte; .ci/run installs it");
        return None;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/transparency/screen.py");
    let mut command = Command::new(python);
    command.arg(program).args(["sh", script]).current_dir(scene.case.directory());
    clean_environment(&mut command, scene.case.directory());
    std::thread::scope(|scope| {
        let running = scope.spawn(move || command.output().unwrap());
        scene.wait_for("ready");
        scene.revoke();
        let output = running.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    })
}

fn rows_of(seen: &Value) -> Vec<String> {
    seen["lines"].as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect()
}

#[test]
fn after_a_full_screen_agent_pyte_has_no_mode_of_it_left() {
    play(|scene| {
        let Some(seen) = emulated(scene, &scene.script("echo before", FULL_SCREEN, "")) else { return };
        // 7 and 25 are on in a new terminal: wrapping and the cursor.
        assert_eq!(seen["modes"], serde_json::json!([7, 25]), "{seen}");
        assert_eq!((&seen["hidden"], &seen["pops"]), (&false.into(), &2.into()));
        // pyte has no alternate screen: our line stands behind what the agent drew, and is not underlined.
        let rows = rows_of(&seen);
        let drawn = rows.iter().position(|row| row.contains(&format!("drawn{OUR_LINE}"))).unwrap();
        assert_eq!(seen["underlined"], serde_json::json!([drawn]), "{seen}");
        assert!(rows.iter().any(|row| row == "blocking True"), "{rows:#?}");
    });
}

#[test]
fn the_screen_of_a_plain_agent_is_left_alone_in_pyte() {
    play(|scene| {
        let Some(seen) = emulated(scene, &scene.script(AN_EDITOR_WAS_HERE, PLAIN, "")) else { return };
        let rows = without_the_rest_of_our_line(around_our_line(&rows_of(&seen), "line 1"));
        let mut expected: Vec<String> = (1..=10).map(|line| format!("line {line}")).collect();
        expected.extend([format!("working{OUR_LINE}"), "code 77".to_owned(), "blocking True".to_owned()]);
        assert_eq!(rows, expected, "{seen}");
        assert_eq!(seen["underlined"], serde_json::json!([]));
    });
}

#[test]
fn a_terminal_that_takes_nothing_does_not_hold_up_the_end() {
    // Nothing reads what `yes` writes; or the terminal was halted with Ctrl-S.
    for (agent, halted) in [("sh -c 'touch ready; exec yes'", false), ("sh -c 'touch ready; exec sleep 1000'", true)] {
        play(|scene| {
            let mut terminal = scene.case.terminal();
            terminal.ask("export TERM=xterm");
            terminal.enter(&format!("{} {agent}", scene.run()));
            scene.wait_for("ready");
            let wrapper = terminal.job();
            if halted {
                terminal.press("\x13");
            }
            scene.revoke();
            eventually("the wrapper ends", || !is_alive(wrapper));
            let status: Value = serde_json::from_slice(&std::fs::read(scene.case.path("status")).unwrap()).unwrap();
            assert_eq!(status["exit_code"], 77, "{agent}");
            if halted {
                terminal.press("\x11");
            }
        });
    }
}

#[test]
fn a_wrapper_without_the_terminal_writes_no_sequence_to_it() {
    play(|scene| {
        let mut terminal = scene.case.terminal();
        terminal.ask("export TERM=xterm");
        // In the background; and once it has been there from the start to the end of its life.
        terminal.enter(&format!("{} sh -c 'touch ready; exec sleep 1000' &", scene.run()));
        terminal.prompt();
        scene.wait_for("ready");
        scene.revoke();
        let before = terminal.expect("DEVICE_REVOKED");
        terminal.expect("\n");
        let (text, _) = terminal.ask("wait; echo all $((1 + 1))");
        assert!(!format!("{before}{text}").contains("\x1b["), "{before:?} {text:?}");
    });
}
