//! The wrapper; see the library's `run`.
//!
//! It begins at the C library's `main`. Rust's own looks its stack up in `/proc/self/maps` first, for a message should it
//! overflow: 0.1 ms before each agent, a twentieth of what the wrapper may cost.

#![no_main]

use std::ffi::{c_char, c_int};
use std::panic;

use machineid_sidecar::protocol::Exit;
use machineid_sidecar::{run, sys};

#[expect(unsafe_code, reason = "the name `main`, and the arguments as the C library hands them over")]
// SAFETY: no other function has this name: with `no_main` the compiler makes none.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, values: *const *const c_char) -> c_int {
    // SAFETY: as the C library calls it, with what the kernel has laid down for as long as the process lives.
    let arguments = unsafe { sys::arguments(count, values) };
    let exit = match sys::begin() {
        // What has gone wrong with a panic is on stderr already. It must not end as a signal, which would read as the
        // command's.
        Ok(()) => panic::catch_unwind(|| run::main(arguments.into_iter().skip(1))).unwrap_or(Exit::Wrapper),
        Err(errno) => {
            run::fail(&format!("cannot open /dev/null in the place of a closed stdin, stdout or stderr: {errno}"))
        }
    };
    c_int::from(exit.code())
}
