//! `docs/configuration.md`, made of the commented default file, which in turn must show every key that the types know.
//!
//! To write it anew: `BLESS=1 cargo test --lib documents`.

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
    /// Whether the value is an example, of a setting that has no default.
    is_example: bool,
    description: String,
}

fn settings() -> Vec<Setting> {
    let mut found: Vec<Setting> = Vec::new();
    let (mut section, mut comment) = (String::new(), Vec::new());
    for line in COMMENTED.lines() {
        let (assignment, is_example) = match line.strip_prefix("#: ") {
            Some(shown) => (shown, true),
            None => (line, false),
        };
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, comment) = (name.to_owned(), Vec::new());
        } else if let Some((key, value)) = assignment.split_once(" = ").filter(|_| is_example || !line.starts_with('#'))
        {
            // A comment above two settings is about both.
            let description = match (comment.is_empty(), found.last()) {
                (true, Some(above)) => above.description.clone(),
                (true, None) | (false, _) => std::mem::take(&mut comment).join(" "),
            };
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
         Every setting of `machineid-sidecar`, made from the [commented default file](../machineid-sidecar.toml). The file is \
         `--config`,\n`$MACHINEID_CONFIG`, `~/.config/machineid/machineid-sidecar.toml` (not for root) or \
         `/etc/machineid/machineid-sidecar.toml`. Flags beat the\nenvironment, which beats the file, which beats the \
         defaults.\n\n\
         Durations are whole numbers with `ms`, `s`, `m` or `h`, also joined: `1m30s`. An unknown key, a bad value or an \
         impossible combination is\nan error that names file, line and key; `--check-config` says what the settings mean.\n",
    );
    let mut section = String::new();
    for setting in settings() {
        if setting.section != section {
            section.clone_from(&setting.section);
            write!(page, "\n## `[{section}]`\n\n| setting | default | what it is |\n|---|---|---|\n").unwrap();
        }
        let Setting { key, value, is_example, description, .. } = setting;
        let default = if is_example { format!("none, as in `{value}`") } else { format!("`{value}`") };
        writeln!(page, "| `{key}` | {default} | {} |", description.replace('|', "\\|")).unwrap();
    }
    page.push_str(
        "\n## Environment\n\n| variable | what it is |\n|---|---|\n\
         | `MACHINEID_ORG_KEY` | the org key; a file is safer, and outside `--dev` this is warned about |\n\
         | `MACHINEID_BASE_URL` | the authority, instead of `authority.url` |\n\
         | `MACHINEID_DEVICE_ID` | this host's device, instead of `device.id` |\n\
         | `MACHINEID_CONFIG` | the configuration file |\n\
         | `MACHINEID_SOCKET` | where clients find the socket |\n\
         | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | the HTTP proxy through which an authority on another host is \
         reached, and the hosts that are reached without it; also in lower case |\n\
         | `CREDENTIALS_DIRECTORY` | systemd's: the credential `org-key` is the org key |\n",
    );
    page
}

/// The names that the types would have accepted in the place of one nobody knows.
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
        assert!(!setting.description.is_empty(), "{setting:?}");
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
