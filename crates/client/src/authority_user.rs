//! The user who may run an authority on this host.

/// The user that the packages give to an authority.
pub const PACKAGED_USER: &str = "machineid-authority";

/// Resolves a user: a number, or a name in the text of `/etc/passwd`. Directory services are not asked: a static build
/// cannot, and the daemon must be able to start without them.
#[must_use]
pub fn user_id(user: &str, etc_passwd: &str) -> Option<u32> {
    user.parse().ok().or_else(|| {
        etc_passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let named = fields.next() == Some(user);
            let uid = fields.nth(1)?;
            named.then(|| uid.parse().ok()).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\nmachineid-authority:x:900:901::/:/bin/false\nbroken\n";
        assert_eq!(user_id(PACKAGED_USER, text), Some(900));
        assert_eq!(user_id("4711", text), Some(4711));
        for unknown in ["", "machineid", "broken", "-1", "x"] {
            assert_eq!(user_id(unknown, text), None, "{unknown}");
        }
    }
}
