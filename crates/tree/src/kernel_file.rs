//! A file of `/proc` or of a control group, read whole.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Reads the file to its end.
///
/// `std::fs::read` asks for the size first, is told 0 and begins with 32 bytes: twelve calls instead of four, and the
/// kernel makes the text again for many of them. The start of an agent reads five such files.
pub(super) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::io::retry_on_intr(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
    read_from_start(file.as_fd())
}

/// Reads the file from its beginning without moving the descriptor's offset, so that several threads may read it at a
/// time.
pub(super) fn read_from_start(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::pread(file, &mut buffer, text.len() as u64) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_read_to_its_end_however_long_it_is() {
        let long = super::read("/proc/self/smaps").unwrap();
        assert!(long.len() > 4096 && long.ends_with(b"\n"), "{} bytes", long.len());
        assert!(long.split(|&byte| byte == b'\n').any(|line| line.ends_with(b"[stack]")));
        assert_eq!(super::read("/proc/self/nothing"), Err(rustix::io::Errno::NOENT));
    }
}
