//! `machineid-authority org key …`: keys with roles.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use machineid_protocol::{DevicePattern, Exit, KeyRole, span};

use crate::admin::{AdminRequest, KeyRequest, ShownKey};
use crate::org::{KeyName, OrgId};
use crate::role_keys::{KeyReport, KeyState};
use crate::store::WhichKey;

const ROLES: &str = "\
Roles:
  host     register, validate, watch and report for the devices that --devices
           names, and remove one while it is active: what a sidecar should hold
  stop     revoke, and all that read may; gives nothing back
  read     list, usage, fleet, timeline, audit, events
  operate  all of these, and unrevoke, remove and checkout
  admin    everything, with keys, the execution switch and rotation";

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    verb: KeysVerb,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Make a key with a role and show it, once
    #[command(after_help = ROLES)]
    Create {
        /// The organisation's id
        org: OrgId,
        /// What the key may do
        #[arg(long, value_name = "ROLE", value_parser = roles())]
        role: KeyRole,
        /// Of a host key: only devices whose ids match, as in "k8s:*" [default: every device]
        #[arg(long, value_name = "PATTERN")]
        devices: Option<DevicePattern>,
        /// How long it is valid, as in 720h [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = span::parse)]
        expires: Option<Duration>,
        /// A name for people, also in the audit: letters, digits and . _ -
        #[arg(long)]
        name: Option<KeyName>,
        /// Write the key, and nothing else, into this new file, which only its owner may read
        #[arg(long, value_name = "PATH")]
        key_file: Option<PathBuf>,
    },
    /// List the keys with their roles and their last uses; never their texts
    List {
        /// The organisation's id
        org: OrgId,
    },
    /// Make a key invalid, now
    Revoke {
        /// The organisation's id
        org: OrgId,
        /// Its fingerprint or its name
        key: WhichKey,
    },
    /// Make a key in the place of one and show it, once; the old one stays valid for a while
    Rotate {
        /// The organisation's id
        org: OrgId,
        /// Its fingerprint or its name
        key: WhichKey,
        /// How long the old key stays valid beside the new one; 0s ends it at once
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span::parse)]
        overlap: Duration,
        /// Write the key, and nothing else, into this new file, which only its owner may read
        #[arg(long, value_name = "PATH")]
        key_file: Option<PathBuf>,
    },
}

fn roles() -> impl TypedValueParser<Value = KeyRole> {
    PossibleValuesParser::new(KeyRole::ALL.map(KeyRole::as_str)).try_map(|name| name.parse::<KeyRole>())
}

impl Keys {
    /// The file for the new key.
    pub(super) fn key_file(&self) -> Option<&Path> {
        match &self.verb {
            KeysVerb::Create { key_file, .. } | KeysVerb::Rotate { key_file, .. } => key_file.as_deref(),
            KeysVerb::List { .. } | KeysVerb::Revoke { .. } => None,
        }
    }

    pub(super) fn into_request(self) -> AdminRequest {
        let (org, request) = match self.verb {
            KeysVerb::Create { org, role, devices, expires, name, key_file: _ } => {
                (org, KeyRequest::Create { role, devices, name, expires_seconds: expires.map(span::whole_seconds) })
            }
            KeysVerb::List { org } => (org, KeyRequest::List),
            KeysVerb::Revoke { org, key } => (org, KeyRequest::Revoke { key }),
            KeysVerb::Rotate { org, key, overlap, key_file: _ } => {
                (org, KeyRequest::Rotate { key, overlap_seconds: span::whole_seconds(overlap) })
            }
        };
        AdminRequest::Key { org, request }
    }
}

/// The file for a new key cannot be made. Nor was the key.
#[derive(Debug, thiserror::Error)]
#[error("--key-file {}: {source}; no key was made", path.display())]
pub(super) struct NewKeyFileError {
    path: PathBuf,
    source: io::Error,
}

/// Whether a key can be written into this new file: found out before the key is made, which would be lost otherwise.
pub(super) fn can_be_made(path: &Path) -> Result<(), NewKeyFileError> {
    let problem = |source: io::Error| NewKeyFileError { path: path.to_owned(), source };
    if path.symlink_metadata().is_ok() {
        return Err(problem(io::Error::new(ErrorKind::AlreadyExists, "there is a file already; name a new one")));
    }
    new_file(path).map_err(problem)?;
    fs::remove_file(path).map_err(problem)
}

fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Shows a key that was made, this once: on a terminal with what is known of it; elsewhere, the key alone, so that what is
/// written is a key file.
pub(super) fn shown(new: &ShownKey, file: Option<&Path>) -> Exit {
    let lost = |error: io::Error| {
        super::complain(format_args!(
            "the key was made, but it could not be written: {error}\nRevoke it, and make another one: org key revoke {} {}",
            new.org_id, new.key.fingerprint
        ));
        Exit::Failure
    };
    let text = described(new);
    let (about, key) = (text.rsplit_once("\nOrg key").map_or(text.as_str(), |(about, _)| about), &new.org_api_key);
    let note = |kept: &str| {
        let _ = writeln!(io::stderr(), "{about}\n{kept}");
    };
    if let Some(path) = file {
        let written = new_file(path).and_then(|mut file| writeln!(file, "{key}").and_then(|()| file.sync_all()));
        return written.map_or_else(lost, |()| {
            note(&format!("The key is in {}.", path.display()));
            Exit::Success
        });
    }
    let mut stdout = io::stdout();
    let alone = !stdout.is_terminal();
    let line = if alone { key } else { &text };
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        return lost(error);
    }
    if alone {
        note("The key was shown this once. Keep it where only its user can read it, as in: (umask 077; … > KEY-FILE)");
    }
    Exit::Success
}

/// A key that was made, with what is known of it.
pub(super) fn described(new: &ShownKey) -> String {
    let ShownKey { org_id, org_api_key, key } = new;
    let mut text = format!("Organisation  {org_id}\nRole          {}\n", key.role);
    // Writing to a string cannot fail.
    if let Some(devices) = &key.devices {
        let _ = writeln!(text, "Devices       {devices}");
    }
    if let Some(name) = &key.name {
        let _ = writeln!(text, "Name          {name}");
    }
    if let Some(ends) = key.ends {
        let _ = writeln!(text, "Valid until   {ends:.0}");
    }
    let _ = write!(
        text,
        "Fingerprint   {}\nOrg key       {org_api_key}\n\nThe key is shown only this once. Keep it where only its user can read it.",
        key.fingerprint
    );
    text
}

pub(super) fn table(keys: &[KeyReport]) -> String {
    let mut text = format!(
        "{:12}  {:7}  {:5}  {:20}  {:20}  {:>7}  {:16}  DEVICES",
        "FINGERPRINT", "ROLE", "STATE", "VALID UNTIL", "LAST USED", "USED BY", "NAME"
    );
    for key in keys {
        let time = |at: Option<jiff::Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let name = if key.own { "(own key)" } else { key.name.as_deref().unwrap_or("-") };
        let devices = key.devices.as_deref().unwrap_or("*");
        let state = match key.state {
            KeyState::Valid => "valid",
            KeyState::Old => "old",
            KeyState::Ended => "ended",
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:12}  {:7}  {state:5}  {:20}  {:20}  {:>7}  {name:16}  {devices}",
            key.fingerprint,
            key.role,
            time(key.ends),
            time(key.last_used_at),
            key.used_by_devices,
        );
    }
    text
}
