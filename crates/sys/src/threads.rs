//! Whether the process has only one thread, on which the safety of `fork` and of changing the environment rests.

use std::fs::File;
use std::io::Read;

/// Room for the line of `/proc/self/stat`.
const LINE: usize = 2048;
/// The position of the number of threads behind the program's name, which may hold any bytes and ends with the last
/// `)`.
const NUM_THREADS: usize = 17;

/// `Some(true)` when no other thread runs; `None` when `/proc` does not tell.
pub(super) fn is_single_threaded() -> Option<bool> {
    // Not by the entries of `/proc/self/task`: listing a directory takes memory, which a freshly forked process gets
    // page by page.
    let mut file = File::open("/proc/self/stat").ok()?;
    let mut line = [0; LINE];
    let length = file.read(&mut line).ok()?;
    let threads = threads(line.get(..length)?)?;
    Some(threads == 1)
}

fn threads(stat: &[u8]) -> Option<u32> {
    let name = stat.iter().rposition(|&byte| byte == b')')?;
    let behind = std::str::from_utf8(stat.get(name + 1..)?).ok()?;
    behind.split_ascii_whitespace().nth(NUM_THREADS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_threads_are_seen() {
        std::thread::scope(|scope| {
            let (end, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert_eq!(is_single_threaded(), Some(false));
            drop(end);
        });
    }

    #[test]
    fn the_number_is_found_whatever_the_program_calls_itself() {
        let behind = "S 1 7 7 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 3 0 12345 1 2";
        for name in ["x", "a) S 1 2", ")", "(((", "two words"] {
            assert_eq!(threads(format!("7 ({name}) {behind}").as_bytes()), Some(3), "{name}");
        }
        assert_eq!(threads(b"7 (x"), None);
        assert_eq!(threads(b"7 (x) S 1"), None);
    }
}
