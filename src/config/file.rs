//! The syntax of the configuration file: sections, names of keys, positions. What the values mean is defined in
//! [`super::settings`].

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Origin};

/// A value with its position in the file.
pub(super) type Placed<T> = Option<Spanned<T>>;

/// The file: its sections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) authority: RawAuthority,
    pub(super) device: RawDevice,
    pub(super) enforcement: RawEnforcement,
    pub(super) local: RawLocal,
    pub(super) compat: RawCompat,
    pub(super) log: RawLog,
    pub(super) audit: RawAudit,
    pub(super) metrics: RawMetrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAuthority {
    pub(super) url: Placed<String>,
    pub(super) org_key_file: Placed<String>,
    pub(super) timeout: Placed<String>,
    pub(super) ca_file: Placed<String>,
    pub(super) allow_http: Placed<bool>,
    pub(super) user: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDevice {
    pub(super) id: Placed<String>,
    pub(super) workload: Placed<String>,
    pub(super) allow: Placed<Vec<String>>,
    pub(super) host_rules_all: Placed<bool>,
    pub(super) ephemeral: Placed<bool>,
    pub(super) new_per_hour: Placed<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEnforcement {
    pub(super) interval: Placed<String>,
    pub(super) lease: Placed<String>,
    pub(super) resume_grace: Placed<String>,
    pub(super) stop_signal: Placed<String>,
    pub(super) stop_grace: Placed<String>,
    pub(super) containment: Placed<String>,
    pub(super) system_unavailable: Placed<String>,
    pub(super) undecided: Placed<String>,
    pub(super) outside_helpers: Placed<String>,
    pub(super) kill_file: Placed<String>,
    pub(super) leaf_helper: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLocal {
    pub(super) socket: Placed<String>,
    pub(super) mode: Placed<String>,
    pub(super) group: Placed<String>,
    pub(super) max_age_cap: Placed<String>,
    pub(super) runtime_dir: Placed<String>,
    pub(super) check_timeout: Placed<String>,
    pub(super) admin_group: Placed<String>,
    pub(super) require_local_killer: Placed<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: Placed<String>,
    pub(super) level: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAudit {
    pub(super) file: Placed<String>,
    pub(super) key_file: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMetrics {
    pub(super) listen: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCompat {
    pub(super) listen: Placed<String>,
}

/// The text of a file with its path, for error messages with positions.
#[derive(Debug)]
pub(super) struct ConfigText<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> ConfigText<'a> {
    /// Parses the sections. Fails on bad syntax, an unknown key or a value of the wrong type, naming line and key.
    pub(super) fn parse(&self) -> Result<RawConfig, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let mut problem = error.message().replace('\n', ", ");
            if problem.ends_with("expected a string") {
                problem.push_str("; write it in quotes");
            }
            let Some(span) = error.span() else { return ConfigError::in_file(self.path, 0, problem) };
            let line = self.line_at(span.start);
            match self.key_at(span.start) {
                Some(key) => ConfigError::at(&Origin::File { path: self.path.to_owned(), line }, &key, problem),
                None => ConfigError::in_file(self.path, line, problem),
            }
        })
    }

    /// The key on the line at this offset, with its section: the parser's errors contain only the offset. `None` if the line
    /// is not `key = value`.
    fn key_at(&self, offset: usize) -> Option<String> {
        let lines: Vec<&str> = self.text.lines().take(self.line_at(offset)).map(str::trim).collect();
        let (last, before) = lines.split_last()?;
        let key = last.split_once('=')?.0.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if key.is_empty() || !key.chars().all(plain) {
            return None;
        }
        let heading = |line: &&'a str| line.strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim());
        let section = before.iter().rev().find_map(heading);
        Some(section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")))
    }

    /// The origin of a value: its line in this file.
    pub(super) fn origin<T>(&self, value: &Spanned<T>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line_at(value.span().start) }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}
