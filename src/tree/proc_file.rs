//! A file of `/proc`, read whole.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What most of them fit in, in bytes.
const USUAL: usize = 4096;

/// Reads it to its end.
///
/// `std::fs::read` asks for its size first, hears that it is 0 and begins with 32 bytes: twelve calls where three do, and
/// the kernel makes the text anew for many of them. A start of an agent reads five such files.
pub(super) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::io::retry_on_intr(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
    let mut text = Vec::with_capacity(USUAL);
    loop {
        text.reserve(USUAL / 2);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)) {
            Ok(0) => return Ok(text),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_read_to_its_end_however_long_it_is() {
        let long = super::read("/proc/self/smaps").unwrap();
        assert!(long.len() > super::USUAL && long.ends_with(b"\n"), "{} bytes", long.len());
        assert!(long.split(|&byte| byte == b'\n').any(|line| line.ends_with(b"[stack]")));
        assert_eq!(super::read("/proc/self/nothing"), Err(rustix::io::Errno::NOENT));
    }
}
