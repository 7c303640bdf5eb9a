//! An interactive shell on a terminal, typed at and read as a person does it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize};

use super::way::Case;
use crate::harness::process::is_alive;
use crate::harness::pty;
use crate::harness::wait::{PATIENCE, eventually, until};

pub(super) const CTRL_C: &str = "\x03";
pub(super) const CTRL_D: &str = "\x04";
pub(super) const CTRL_Z: &str = "\x1a";
pub(super) const CTRL_BACKSLASH: &str = "\x1c";

/// The shell's prompt holds the last exit code, so that a test that waits for the one reads the other.
const PROMPT: &str = "{$?} ";

/// The keyboard and the screen of a terminal, with the process that leads its session.
pub(super) struct Terminal {
    /// `None` after a hang-up.
    line: Option<File>,
    leader: Child,
    /// What has come and was not asked for yet, without carriage returns.
    unread: String,
}

impl Terminal {
    /// `bash` with job control, before its first prompt. The terminal does not echo: what comes is what is written.
    pub(super) fn open(case: &Case) -> Self {
        let mut terminal = Self::with(case, "bash --norc --noprofile -i");
        assert_eq!(terminal.prompt(), (String::new(), 0));
        terminal
    }

    /// A command as the first of its session, with the terminal as its controlling one.
    pub(super) fn with(case: &Case, command: &str) -> Self {
        let (line, other) = pty::open();
        let mut modes = rustix::termios::tcgetattr(&other).unwrap();
        modes.local_modes.remove(LocalModes::ECHO);
        rustix::termios::tcsetattr(&other, OptionalActions::Now, &modes).unwrap();
        rustix::termios::tcsetwinsize(&other, size(24, 80)).unwrap();
        // What the terminal belongs to is settled before the command begins, and no code of ours has to run after the fork.
        // Nor with signals ignored that the tests themselves may have been started with, in the background or by nohup.
        let mut leader = Command::new("env");
        leader
            .args(["--default-signal", "setsid", "--ctty", "sh", "-c", &format!("exec {command}")])
            .current_dir(case.directory());
        crate::harness::sidecar::clean_environment(&mut leader, case.directory());
        leader
            .env("LC_ALL", "C")
            .env("TERM", "dumb")
            .env("PS1", PROMPT)
            .env("HISTFILE", "")
            .env("INPUTRC", "/dev/null");
        leader
            .stdin(Stdio::from(other.try_clone().unwrap()))
            .stdout(Stdio::from(other.try_clone().unwrap()))
            .stderr(Stdio::from(other));
        let child = leader.spawn().unwrap();
        rustix::fs::fcntl_setfl(&line, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        Self { line: Some(line), leader: child, unread: String::new() }
    }

    fn line(&self) -> &File {
        self.line.as_ref().expect("not hung up")
    }

    /// Presses a key that signals the foreground, once there is no process of the shell's any more that has not become
    /// its command yet: that one would miss it, without the wrapper as well.
    pub(super) fn press_key(&mut self, key: &str) {
        let shell = std::fs::read(format!("/proc/{}/cmdline", self.leader_pid())).unwrap();
        eventually("everybody has begun", || {
            processes().iter().all(|it| {
                it.session != self.leader_pid()
                    || it.pid == self.leader_pid()
                    || it.name != "bash"
                    || std::fs::read(format!("/proc/{}/cmdline", it.pid)).is_ok_and(|line| line != shell)
            })
        });
        self.press(key);
    }

    /// Presses keys.
    pub(super) fn press(&mut self, keys: &str) {
        self.line().write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line.
    pub(super) fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Waits until `text` comes, and gives what came before it.
    #[track_caller]
    pub(super) fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(text) {
                let rest = self.unread.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.unread, rest);
                before.truncate(at);
                return before;
            }
            assert!(self.read_more(), "expected {text:?} in {:?}", self.unread);
        }
    }

    /// Waits for the shell's prompt: what came before it, and the exit code in it. The shell is in the foreground then,
    /// and no job of it.
    #[track_caller]
    pub(super) fn prompt(&mut self) -> (String, i32) {
        let mut before = String::new();
        loop {
            before += &self.expect("{");
            while !self.unread.contains(' ') {
                assert!(self.read_more(), "the rest of a prompt behind {:?}", self.unread);
            }
            if let Some((number, rest)) = self.unread.split_once("} ")
                && let Ok(code) = number.parse()
            {
                self.unread = rest.to_owned();
                assert_eq!(self.foreground(), self.leader_pid(), "a prompt while another has the foreground");
                return (before, code);
            }
            before.push('{');
        }
    }

    /// Suspends the job by Ctrl-Z: what came before the prompt, and the exit code in it. A process that was reading the terminal
    /// stops a moment after the first of the job has, and until then would take what is typed for the shell.
    #[track_caller]
    pub(super) fn suspend(&mut self) -> (String, i32) {
        self.press_key(CTRL_Z);
        let prompt = self.prompt();
        let ours = |it: &Seen| it.pid == self.leader_pid() || it.name.starts_with("machineid-");
        eventually("the whole job is stopped", || {
            let session = processes().into_iter().filter(|it| it.session == self.leader_pid());
            session.filter(|it| !ours(it)).all(|it| matches!(it.state, 'T' | 'Z'))
        });
        prompt
    }

    /// Runs a line to its end: what it wrote, and its exit code.
    #[track_caller]
    pub(super) fn ask(&mut self, line: &str) -> (String, i32) {
        self.enter(line);
        self.prompt()
    }

    /// What has come so far and was not asked for.
    pub(super) fn unread(&mut self) -> &str {
        while self.read_what_is_there().is_ok_and(|length| length > 0) {}
        &self.unread
    }

    /// Waits for more to come; says whether there is any.
    fn read_more(&mut self) -> bool {
        let wait = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap(), tv_nsec: 0 };
        loop {
            let mut fds = [PollFd::new(self.line(), PollFlags::IN)];
            if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&wait))).unwrap() == 0 {
                return false;
            }
            match self.read_what_is_there() {
                Ok(length) => return length > 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // When the last process has closed the terminal.
                Err(_) => return false,
            }
        }
    }

    fn read_what_is_there(&mut self) -> std::io::Result<usize> {
        let mut part = [0; 4096];
        let length = self.line().read(&mut part)?;
        self.unread.extend(String::from_utf8_lossy(&part[..length]).chars().filter(|&c| c != '\r'));
        Ok(length)
    }

    pub(super) fn leader_pid(&self) -> i32 {
        self.leader.id().try_into().unwrap()
    }

    /// The process group in the foreground.
    pub(super) fn foreground(&self) -> i32 {
        rustix::termios::tcgetpgrp(self.line()).unwrap().as_raw_pid()
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) {
        rustix::termios::tcsetwinsize(self.line(), size(rows, columns)).unwrap();
    }

    /// The terminal's settings, as text to compare.
    pub(super) fn settings(&self) -> String {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } =
            rustix::termios::tcgetattr(self.line()).unwrap();
        format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
    }

    /// The one process the shell has started and not reaped: the wrapper, or without it the command itself.
    pub(super) fn job(&self) -> i32 {
        until("the shell has one child", || {
            let children: Vec<_> = processes().into_iter().filter(|it| it.parent == self.leader_pid()).collect();
            (children.len() == 1).then(|| children[0].pid)
        })
    }

    /// Types `fg` and waits until the job has the terminal and goes on. `end` is the end of its command line, which the
    /// shell shows before that: keys pressed too early would be lost without the wrapper as well.
    #[track_caller]
    pub(super) fn foreground_again(&mut self, end: &str) {
        self.enter("fg");
        self.expect(&format!("{end}\n"));
        eventually("the job has the terminal and goes on", || {
            self.foreground() != self.leader_pid()
                && !processes().iter().any(|it| it.session == self.leader_pid() && it.state == 'T')
        });
    }

    /// Sends a signal to the job the way that reaches the whole command: to the wrapper, or without it to the group.
    pub(super) fn signal_job(&self, case: &Case, signal: Signal) {
        let pid = Pid::from_raw(self.job()).unwrap();
        if case.is_wrapped() {
            rustix::process::kill_process(pid, signal).unwrap();
        } else {
            rustix::process::kill_process_group(pid, signal).unwrap();
        }
    }

    /// The line goes dead.
    pub(super) fn hang_up(&mut self) {
        self.line = None;
    }

    /// Waits for the end of the session's first process.
    pub(super) fn wait_for_leader(&mut self) -> std::process::ExitStatus {
        until("the session's first process ends", || {
            if self.line.is_some() {
                // No process may be kept from its end by a screen that is not read.
                self.unread();
            }
            self.leader.try_wait().unwrap()
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the rest on the screen: {:?}", if self.line.is_some() { self.unread() } else { "" });
            if let Some(line) = &self.line {
                eprintln!("--- in the foreground: {:?}", rustix::termios::tcgetpgrp(line));
            }
            for it in processes().into_iter().filter(|it| it.session == self.leader_pid()) {
                eprintln!("--- in the session: {it:?}");
            }
        }
        // As long as its leader is not reaped, no other session gets its number.
        if matches!(self.leader.try_wait(), Ok(None)) {
            for it in processes().into_iter().filter(|it| it.session == self.leader_pid()) {
                let _ = rustix::process::kill_process(Pid::from_raw(it.pid).unwrap(), Signal::KILL);
            }
            let _ = self.leader.wait();
        }
    }
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A process as `/proc/PID/stat` has it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) session: i32,
}

/// Everybody, zombies too.
pub(super) fn processes() -> Vec<Seen> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name).to_owned();
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields[at].parse().unwrap();
        seen.push(Seen { pid, name, state: fields[0].chars().next().unwrap(), parent: number(1), session: number(3) });
    }
    seen
}

/// Waits until this process is stopped.
pub(super) fn wait_until_stopped(pid: i32) {
    until("the process is stopped", || {
        assert!(is_alive(pid), "it ended instead");
        processes().into_iter().any(|it| it.pid == pid && it.state == 'T').then_some(())
    });
}
