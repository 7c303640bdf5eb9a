//! The configuration file as it is written: syntax, names of keys, positions. What the values mean is
//! [`super::settings`]'s business.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Origin};

/// A value with its place in the file.
pub(super) type Placed<T> = Option<Spanned<T>>;

/// The sections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) authority: Authority,
    pub(super) device: Device,
    pub(super) enforcement: Enforcement,
    pub(super) local: Local,
    pub(super) log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Authority {
    pub(super) url: Placed<String>,
    pub(super) org_key_file: Placed<String>,
    pub(super) timeout: Placed<String>,
    pub(super) ca_file: Placed<String>,
    pub(super) allow_http: Placed<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Device {
    pub(super) id: Placed<String>,
    pub(super) allow: Placed<Vec<String>>,
    pub(super) host_rules_all: Placed<bool>,
    pub(super) ephemeral: Placed<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Enforcement {
    pub(super) interval: Placed<String>,
    pub(super) lease: Placed<String>,
    pub(super) stop_signal: Placed<String>,
    pub(super) stop_grace: Placed<String>,
    pub(super) system_unavailable: Placed<String>,
    pub(super) kill_file: Placed<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Local {
    pub(super) socket: Placed<String>,
    pub(super) mode: Placed<String>,
    pub(super) group: Placed<String>,
    pub(super) max_age_cap: Placed<String>,
    pub(super) runtime_dir: Placed<String>,
    pub(super) check_timeout: Placed<String>,
    pub(super) require_local_killer: Placed<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Placed<String>,
    pub(super) level: Placed<String>,
}

/// A file that has been read, with what is needed to name a place in it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Reads the sections. Fails on bad syntax, an unknown key or a value of the wrong type, naming the line.
    pub(super) fn parse(&self) -> Result<File, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let line = error.span().map_or(0, |span| self.line_at(span.start));
            ConfigError::in_file(self.path, line, error.message().replace('\n', ", "))
        })
    }

    /// Where a value stands.
    pub(super) fn origin<T>(&self, value: &Spanned<T>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line_at(value.span().start) }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}
