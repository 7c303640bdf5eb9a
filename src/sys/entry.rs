//! What Rust's runtime does before `main`, for a program that begins without it.

#![expect(unsafe_code, reason = "the arguments come as pointers")]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::inherited::{Inherited, set_disposition};

/// Ignores SIGPIPE, and opens those of the standard descriptors to `/dev/null` that are closed: else the next file that is
/// opened would be taken for one of them. [`super::restore_inherited`] undoes both.
pub fn begin() -> Result<(), Errno> {
    set_disposition(libc::SIGPIPE, libc::SIG_IGN)?;
    for _ in 0..Inherited::get().closed_streams() {
        // Each gets the lowest number that is free.
        let _ = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?.into_raw_fd();
    }
    Ok(())
}

/// The arguments that the C library hands to `main`, the program's name first.
///
/// # Safety
///
/// `values` must point to `count` pointers to strings that live as long as the process and that nobody changes.
#[must_use]
pub unsafe fn arguments(count: c_int, values: *const *const c_char) -> Vec<OsString> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: so the caller promises; with a count of 0 the kernel still gives a pointer to the list's end.
    let values = unsafe { std::slice::from_raw_parts(values, count) };
    // SAFETY: so the caller promises.
    values.iter().map(|&value| OsStr::from_bytes(unsafe { CStr::from_ptr(value) }.to_bytes()).to_owned()).collect()
}
