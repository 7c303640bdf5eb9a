//! Lines on stderr. None of them may hold up a stop: a full pipe without a reader, or a terminal that is halted with
//! Ctrl-S, gets a line only if there is room for it soon.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use machineid_clock::BootTime;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::terminal;

/// How long all that is written at once may wait for room.
const PATIENCE: Duration = Duration::from_millis(200);

/// Writes one line to stderr, or drops it.
pub(super) fn say(line: &str) {
    let line = format!("{line}\n");
    let stderr = std::io::stderr();
    // A blocking write waits for a halted terminal even if there was room a moment ago, or while another process waits
    // in one. The wrapper's stderr shares its description with others, so it stays as it is.
    if terminal::is_controlling(stderr.as_fd())
        && let Ok(terminal) = terminal::open_controlling()
    {
        write_or_drop(&terminal, line.as_bytes());
    } else if has_room(stderr.as_fd(), PATIENCE) {
        let _ = stderr.lock().write_all(line.as_bytes());
    }
}

/// Writes to a file that does not block, or drops what there is no room for.
pub(super) fn write_or_drop(mut file: &File, mut bytes: &[u8]) {
    let until = BootTime::now() + PATIENCE;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = until.saturating_since(BootTime::now());
                if left.is_zero() || !has_room(file.as_fd(), left) {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}

fn has_room(file: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut fds, patience), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_has_no_room_is_dropped_in_time() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let began = BootTime::now();
        write_or_drop(&file, &vec![b'x'; 16 << 20]);
        let took = BootTime::now().saturating_since(began);
        assert!(took >= PATIENCE && took < Duration::from_secs(5), "{took:?}");
        drop(file);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert!(!text.is_empty() && text.len() < 16 << 20);
    }
}
