//! Overwriting a secret in the process's own environment.

#![expect(
    unsafe_code,
    reason = "the environment block is memory the C library owns; there is no safe way to overwrite it"
)]

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::threads::is_single_threaded;

/// Why a variable could not be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubError {
    /// Another thread runs, which may be reading the environment at this moment.
    Threads,
    /// Whether other threads run could not be found out: `/proc` is not readable.
    NoProc,
    /// The name is empty or holds `=` or a zero byte.
    BadName,
}

impl fmt::Display for ScrubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "the environment can only be cleaned before the first thread is started",
            Self::NoProc => "the environment cannot be cleaned: /proc/self/stat is not readable; mount /proc",
            Self::BadName => "this is not the name of an environment variable",
        })
    }
}

impl std::error::Error for ScrubError {}

/// Overwrites the value of every entry `name` in the process's environment block, which other processes may read in
/// `/proc/<pid>/environ`, and removes the variable. Returns whether there was one.
///
/// Must run before the first thread is started, and fails otherwise.
pub fn scrub_environment(name: &OsStr) -> Result<bool, ScrubError> {
    let wanted = name.as_bytes();
    if wanted.is_empty() || wanted.contains(&b'=') || wanted.contains(&0) {
        return Err(ScrubError::BadName);
    }
    if !is_single_threaded().ok_or(ScrubError::NoProc)? {
        return Err(ScrubError::Threads);
    }
    let mut found = false;
    // SAFETY: `environ` is the C library's list of pointers to zero-terminated strings, itself ended by a null pointer.
    // This is the only thread, as was just checked, so no other code reads or changes the list or the strings
    // meanwhile. Only bytes before each terminator are written, so every string stays one.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = *entry;
            let length = CStr::from_ptr(text).count_bytes();
            let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length);
            let value_at = bytes.strip_prefix(wanted).and_then(|rest| rest.first()).filter(|&&b| b == b'=');
            if value_at.is_some() {
                found = true;
                for at in wanted.len() + 1..length {
                    // Volatile, so that the compiler keeps a write that no code reads.
                    text.cast::<u8>().add(at).write_volatile(b'x');
                }
            }
            entry = entry.add(1);
        }
        std::env::remove_var(name);
    }
    Ok(found)
}

// SAFETY: the C library defines it with this type; libc does not declare it.
unsafe extern "C" {
    static environ: *const *mut std::ffi::c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_while_other_threads_run_and_names_that_are_none() {
        assert_eq!(scrub_environment(OsStr::new("A=B")), Err(ScrubError::BadName));
        assert_eq!(scrub_environment(OsStr::new("")), Err(ScrubError::BadName));
        std::thread::scope(|scope| {
            let (end, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert_eq!(scrub_environment(OsStr::new("MACHINEID_NOT_SET")), Err(ScrubError::Threads));
            drop(end);
        });
    }
}
