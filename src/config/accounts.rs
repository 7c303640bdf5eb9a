//! The groups and users that the configuration names.

/// A group of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: u32,
}

/// Resolves a group: a number, or a name in the text of `/etc/group`. Directory services are not asked: a static build
/// cannot, and the daemon must be able to start without them.
pub(crate) fn group_id(group: &str, etc_group: &str) -> Option<u32> {
    group.parse().ok().or_else(|| {
        etc_group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let named = fields.next() == Some(group);
            let gid = fields.nth(1)?;
            named.then(|| gid.parse().ok()).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_number_or_a_whole_name() {
        let text = "root:x:0:\nmachineid:x:900:alice,bob\nmachine:x:901:\nbroken\n";
        assert_eq!(group_id("machineid", text), Some(900));
        assert_eq!(group_id("machine", text), Some(901));
        assert_eq!(group_id("4711", text), Some(4711));
        for unknown in ["", "alice", "broken", "-1", "x"] {
            assert_eq!(group_id(unknown, text), None, "{unknown}");
        }
    }
}
