//! A file system that takes requests and never answers them, as one whose server is gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::place::is_root;
use super::process::Wrapped;

/// Its end is the end of all who wait.
const NEVER: &str = r"
import os, struct, subprocess, sys, time
fd = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other'
subprocess.Popen(['mount', '-i', '-t', 'fuse', '-o', options, 'never', sys.argv[1]], pass_fds=[fd])
INIT = 26
while True:
    try: request = os.read(fd, 1 << 17)
    # Not mounted yet.
    except PermissionError: time.sleep(0.01); continue
    length, opcode, unique = struct.unpack('<IIQ', request[:16])
    if opcode == INIT:
        body = struct.pack('<IIIIHHIIHHI7I', 7, 31, 65536, 0, 16, 12, 4096, 1, 1, 0, 0, *[0] * 7)
        os.write(fd, struct.pack('<IiQ', 16 + len(body), 0, unique) + body)
        print('mounted', flush=True)
        # Who waits for a request that was not even taken can be killed, as on a network file system.
        while sys.argv[2] == 'killable': time.sleep(1000)
    else: print('keeps somebody waiting', flush=True)
";

/// The file system, mounted until this is dropped. Then what it covered is there again, and a call that waits gets an error.
pub(crate) struct Never {
    server: Wrapped,
    mount: PathBuf,
    /// Removed after the file system, when it was made for it.
    own: Option<tempfile::TempDir>,
}

impl Never {
    /// Whether one can be mounted here.
    pub(crate) fn is_possible() -> bool {
        is_root() && Path::new("/dev/fuse").exists()
    }

    /// In a directory of its own. Who waits for it cannot be killed.
    pub(crate) fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut never = Self::mount(own.path(), "for good");
        never.own = Some(own);
        never
    }

    /// In the place of this directory and all that is in it. Who waits for it can be killed.
    pub(crate) fn over(mount: &Path) -> Self {
        Self::mount(mount, "killable")
    }

    fn mount(mount: &Path, waits: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-S", "-c", NEVER]).arg(mount).arg(waits).stdin(Stdio::null());
        let mut server = Wrapped::start(command);
        server.line_with("mounted");
        Self { server, mount: mount.to_owned(), own: None }
    }

    /// How many requests have come that cannot be interrupted.
    pub(crate) fn waiting(&self) -> usize {
        self.server.stdout().matches("keeps somebody waiting").count()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Never {
    fn drop(&mut self) {
        // Its connection ends with the server; a call that waits gets an error.
        self.server.signal(rustix::process::Signal::KILL);
        let _ = self.server.exit_code();
        let _ = Command::new("umount").args(["-l"]).arg(&self.mount).status();
        drop(self.own.take());
    }
}
