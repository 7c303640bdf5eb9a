//! A process that has nothing to do with it, and notes every signal that it gets.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::wrapper::wait_for_line;

/// A process and its child. Neither may ever get a signal from what is tested.
pub(crate) struct Bystander {
    process: Wrapped,
    child: i32,
    notes: PathBuf,
    _directory: tempfile::TempDir,
}

const PROGRAM: &str = r"
import os, signal, sys, time
notes = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
child = os.fork()
for number in range(1, 65):
    if number in (signal.SIGCHLD, 32, 33): continue
    try: signal.signal(number, lambda n, _: os.write(notes, b'signal %d\n' % n))
    except OSError: pass
if child: print('pid', os.getpid(), 'child', child, flush=True)
os.write(notes, b'up\n')
while os.getppid() > 1: time.sleep(0.1)
";

impl Bystander {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notes = directory.path().join("notes");
        let mut command = Command::new("python3");
        command.args(["-S", "-c", PROGRAM]).arg(&notes).stdin(Stdio::null());
        let mut process = Wrapped::start(command);
        let child = number_after(&process.line_with("child"), "child");
        process.watch(&[child]);
        let bystander = Self { process, child, notes, _directory: directory };
        crate::harness::eventually("both note", || wait_for_line(&bystander.notes).matches("up").count() == 2);
        bystander
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub(crate) fn child(&self) -> i32 {
        self.child
    }

    /// Panics when either of the two got a signal, or has ended.
    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        assert_eq!(wait_for_line(&self.notes).lines().collect::<Vec<_>>(), ["up", "up"]);
        assert!(is_alive(self.pid()) && is_alive(self.child), "a bystander was killed");
    }
}
