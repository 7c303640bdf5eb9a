//! `docs/configuration.md`, generated from the commented default file, which in turn must show every key of the types.
//!
//! To regenerate it: `BLESS=1 cargo test --lib documents`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::file::ConfigText;

const COMMENTED: &str = include_str!("../../machineid-sidecar.toml");

/// One setting as the commented file shows it.
#[derive(Debug)]
struct Setting {
    section: String,
    key: String,
    /// As TOML.
    value: String,
    /// Whether the value is an example, since the setting has no default.
    is_example: bool,
    description: String,
}

/// The sections in their order, each with its introduction: the comment above its heading.
fn introductions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = Vec::new();
    for line in COMMENTED.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        let introduction = std::mem::take(&mut comment).join(" ");
        found.extend(heading(line).map(|name| (name.to_owned(), introduction)));
    }
    found
}

fn heading(line: &str) -> Option<&str> {
    line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
}

/// Each setting with its description: the comment above it.
fn settings() -> Vec<Setting> {
    let mut found: Vec<Setting> = Vec::new();
    let (mut section, mut comment) = (String::new(), Vec::new());
    for line in COMMENTED.lines() {
        let (assignment, is_example) = match line.strip_prefix("#: ") {
            Some(shown) => (shown, true),
            None => (line, false),
        };
        if let Some(name) = heading(line) {
            (section, comment) = (name.to_owned(), Vec::new());
        } else if let Some((key, value)) = assignment.split_once(" = ").filter(|_| is_example || !line.starts_with('#'))
        {
            let description = std::mem::take(&mut comment).join(" ");
            let (key, value) = (key.to_owned(), value.to_owned());
            found.push(Setting { section: section.clone(), key, value, is_example, description });
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        }
    }
    found
}

fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         This page lists every setting of `machineid-sidecar`. It is generated from the [commented default \
         file](../machineid-sidecar.toml).\n\n\
         The daemon reads one configuration file: the one named by `--config`; otherwise by `$MACHINEID_CONFIG`; otherwise \
         the first\nof `~/.config/machineid/machineid-sidecar.toml` (not for root) and \
         `/etc/machineid/machineid-sidecar.toml` that exists. Without a\nfile it uses the defaults. Command-line flags \
         override environment variables, which override the file.\n\n\
         A duration is a whole number with the unit `ms`, `s`, `m` or `h`; several can be joined: `1m30s`. An unknown key, \
         an invalid\nvalue or an impossible combination of values is an error that names the file, the line and the key. \
         `machineid-sidecar\n--check-config` checks the file and prints what the settings mean.\n",
    );
    let settings = settings();
    for (section, introduction) in introductions() {
        write!(page, "\n## `[{section}]`\n\n{introduction}\n\n| setting | default | meaning |\n|---|---|---|\n")
            .unwrap();
        for setting in settings.iter().filter(|setting| setting.section == section) {
            let Setting { key, value, is_example, description, .. } = setting;
            let default = match (is_example, description.contains("Default: ")) {
                (false, _) => format!("`{value}`"),
                (true, true) => format!("depends, see the meaning; example: `{value}`"),
                (true, false) => format!("none; example: `{value}`"),
            };
            writeln!(page, "| `{key}` | {default} | {} |", description.replace('|', "\\|")).unwrap();
        }
    }
    page.push_str(
        "\n## Environment\n\n\
         The daemon reads these environment variables.\n\n| variable | meaning |\n|---|---|\n\
         | `MACHINEID_ORG_KEY` | The org key, instead of `authority.org_key_file`. A file is safer, and the daemon logs a \
         warning. |\n\
         | `MACHINEID_BASE_URL` | The URL of the authority, instead of `authority.url`. |\n\
         | `MACHINEID_DEVICE_ID` | The device id of this host, instead of `device.id`. |\n\
         | `MACHINEID_CONFIG` | The path of the configuration file, unless `--config` is given. |\n\
         | `MACHINEID_SOCKET` | The path of the socket, for `machineid-sidecar healthcheck`, `machineid-run` and \
         `machineid`; the daemon itself uses `local.socket`. |\n\
         | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | The HTTP proxy for an authority on another host, and the \
         hosts that are reached without it. The names may be in lower case. |\n\
         | `CREDENTIALS_DIRECTORY` | Set by systemd. Its file `org-key` is the org key when no other source is \
         configured. |\n",
    );
    page
}

/// The key names that the types accept, from the error for an unknown key.
fn known(text: &str) -> BTreeSet<String> {
    let path = Path::new("x.toml");
    let error = ConfigText { path, text }.parse().unwrap_err().to_string();
    let expected = error.split_once("expected ").unwrap_or_else(|| panic!("{error}")).1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_commented_file_shows_every_key_that_the_types_know_and_documents_it() {
    let shown = settings();
    for section in known("[zzz]\n") {
        let keys: BTreeSet<_> =
            shown.iter().filter(|setting| setting.section == section).map(|setting| setting.key.clone()).collect();
        assert_eq!(keys, known(&format!("[{section}]\nzzz = 1\n")), "[{section}]");
    }
    for setting in &shown {
        assert!(!setting.description.is_empty(), "each key has a comment of its own: {setting:?}");
    }
    for (section, introduction) in introductions() {
        assert!(!introduction.is_empty(), "[{section}] has no introduction");
    }
}

#[test]
fn the_reference_documents_the_settings_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    #[expect(clippy::disallowed_methods, reason = "how the one who runs this test asks for a new file")]
    let bless = std::env::var_os("BLESS").is_some();
    if bless {
        std::fs::write(&path, page()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == page(), "write {} anew with BLESS=1 cargo test --lib documents", path.display());
}
