//! As the first process of a container.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::terminal::processes;
use super::way::{Case, Way, in_every_way};
use crate::harness::wait::until;
use crate::harness::wrapper::{Running, stderr, stdout, wait_for_line};

/// Makes the rest of the words the first process of a namespace, as the first of a container is.
fn container(case: &Case, words: &[&str]) -> Command {
    // The tests themselves may have been started with signals ignored.
    let mut command = Command::new("env");
    command.args(["--default-signal", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(case.words()).args(words).current_dir(case.directory());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether such a container can be had; says so if not.
fn can_be_had() -> bool {
    let output = container(&Case::allowed(Way::Bare), &["true"]).output().unwrap();
    if !output.status.success() {
        eprintln!("SKIPPED: no PID namespace available here: {}", stderr(&output));
    }
    output.status.success()
}

/// A container in a container may not be had.
fn works(case: &Case) -> bool {
    let output = container(case, &["true"]).output().unwrap();
    if output.status.code() == Some(125) {
        eprintln!("SKIPPED, not available in a container here: {:?}: {}", case.way, stderr(&output));
    }
    output.status.code() != Some(125)
}

fn in_a_container(play: impl Fn(&Case)) {
    if can_be_had() {
        in_every_way(|case| {
            if works(case) {
                play(case);
            }
        });
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    in_a_container(|case| {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
            let output = Running::start(&mut container(case, &["sh", "-c", script])).finish();
            assert_eq!(output.status.code(), Some(code), "{script}: {}", stderr(&output));
        }
    });
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    in_a_container(|case| {
        // Ten whose parents are gone before them. Then no zombie may be left, though the command goes on.
        let agent = case.python(
            "import os, time\n\
             read, write = os.pipe()\n\
             for _ in range(10):\n\
             \x20   if os.fork() == 0:\n\
             \x20       if os.fork() == 0: os.write(write, b'%d ' % os.getpid())\n\
             \x20       os._exit(0)\n\
             \x20   os.wait()\n\
             os.close(write)\n\
             orphans = os.fdopen(read).read().split()\n\
             assert len(orphans) == 10, orphans\n\
             def left(): return sum(os.path.exists(f'/proc/{pid}') for pid in orphans)\n\
             end = time.monotonic() + 30\n\
             while left() and time.monotonic() < end: time.sleep(0.01)\n\
             print(left())",
        );
        let words: Vec<&str> = agent.split(' ').collect();
        let output = Running::start(&mut container(case, &words)).finish();
        assert_eq!(stdout(&output), "0\n", "{}", stderr(&output));
    });
}

#[test]
fn signals_from_outside_reach_the_command() {
    in_a_container(|case| {
        for (name, signal, code) in [("TERM", Signal::TERM, 9), ("INT", Signal::INT, 9), ("USR1", Signal::USR1, 9)] {
            // It ends by itself, as a server does that is asked to.
            let script = format!("trap 'exit 9' {name}; echo ready >$0; read x <go");
            let ready = case.path(name);
            let gate = case.path("go");
            if !gate.exists() {
                drop(case.gate());
            }
            let run = Running::start(&mut container(case, &["sh", "-c", &script, ready.to_str().unwrap()]));
            wait_for_line(&ready);
            let first = until("the container has its first process", || {
                processes().into_iter().find(|it| it.parent == run.pid())
            });
            rustix::process::kill_process(rustix::process::Pid::from_raw(first.pid).unwrap(), signal).unwrap();
            assert_eq!(run.finish().status.code(), Some(code), "{name}");
        }
    });
}
