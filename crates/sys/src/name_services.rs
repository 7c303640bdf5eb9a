//! Name services of a statically linked program.

#[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
#[expect(unsafe_code, reason = "neither std nor nix nor rustix nor libc offers this call of the C library")]
mod linked {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    pub(super) fn keep_inside() {
        // SAFETY: both are zero-terminated strings that live for ever. The C library copies what it needs under its own lock. If
        // the call fails, which only a lack of memory can cause, the lookup stays as nsswitch.conf has it.
        unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}

/// Makes a statically linked program find hosts by `/etc/hosts` and DNS alone; any other program stays as it is.
///
/// `nsswitch.conf` may name more services (mDNS, `myhostname`, LDAP), each a library of the host's own C library. To load one into a
/// program that contains another version of that library can end the program. `files` and `dns` are linked in.
pub fn keep_name_services_inside() {
    #[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
    linked::keep_inside();
}
