//! Patterns of `device.allow`: `*` matches any run of characters, every other character only itself.

use machineid_protocol::DeviceId;

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the pattern matches the whole id. Linear in its length: each `*` takes as little as it can.
    pub(crate) fn matches(&self, id: &DeviceId) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| id.as_str().strip_prefix(first)) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(place) = rest.find(part) else { return false };
            rest = &rest[place + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_every_character_and_nothing_else_does() {
        for (pattern, id, fits) in [
            ("*", "worker:prod:07", true),
            ("worker:*", "worker:prod:07", true),
            ("worker:*", "worker2:prod", false),
            ("*:07", "worker:prod:07", true),
            ("a*b*c", "a/x/b/y/c", true),
            ("a*b*c", "a/c/b", false),
            ("a*a", "a", false),
            ("agent-01", "agent-01", true),
            ("agent-01", "agent-011", false),
            ("", "agent", false),
            ("agent?", "agent1", false),
        ] {
            let device: DeviceId = id.parse().unwrap();
            assert_eq!(Glob::new(pattern).matches(&device), fits, "{pattern} {id}");
        }
    }
}
