//! What a user chose, and the configuration that it makes. Pure.

use std::path::{Path, PathBuf};

use machineid_client::BaseUrl;
use toml_edit::{DocumentMut, TomlError, value};

/// The packages' default: each setting with its comment.
pub(super) const DEFAULT: &str = include_str!("../../../../../machineid-sidecar.toml");
/// The daemon's own default for `device.id`.
pub(super) const DEFAULT_DEVICE: &str = "host:{hostname}:{machine_id}";

/// Where decisions come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// One of the user's own, which is to be started on this host.
    Own,
    /// One that exists.
    At(String),
}

impl Authority {
    /// Reads an answer. An empty one is none: no key is sent anywhere by default.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("name the authority's URL, or none for one of your own".to_owned()),
            "none" => Ok(Self::Own),
            url => match BaseUrl::parse(url, false) {
                Ok(_) => Ok(Self::At(url.to_owned())),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// What the configuration says that the default does not.
#[derive(Debug)]
pub(super) struct Choices<'a> {
    pub(super) url: &'a str,
    pub(super) device: &'a str,
    /// `None` where systemd hands the key to the daemon as a credential.
    pub(super) key_file: Option<&'a Path>,
    /// The directory below which all is kept, if it is not the system's or the user's.
    pub(super) directory: Option<&'a Path>,
}

/// The configuration file: the default with these values.
pub(super) fn configuration(choices: &Choices<'_>) -> Result<String, TomlError> {
    let mut document: DocumentMut = DEFAULT.parse()?;
    let mut set = |section: &str, name: &str, text: &str| document[section][name] = value(text);
    set("authority", "url", choices.url);
    if let Some(file) = choices.key_file {
        set("authority", "org_key_file", &file.to_string_lossy());
    }
    set("device", "id", choices.device);
    if let Some(directory) = choices.directory {
        set("local", "socket", &socket_in(directory).to_string_lossy());
        set("local", "runtime_dir", &directory.join("runtime").to_string_lossy());
    }
    Ok(document.to_string())
}

/// The socket of a daemon that keeps everything below a directory. It has a directory of its own, which can be mounted.
pub(super) fn socket_in(directory: &Path) -> PathBuf {
    directory.join("run/sidecar.sock")
}

/// The pattern for a host key that fits every device which the template can become.
pub(super) fn pattern(template: &str) -> String {
    match template.split_once('{') {
        Some((fixed, _)) => format!("{fixed}*"),
        None => template.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_never_assumed() {
        assert!(Authority::parse(" \n").is_err());
        assert!(Authority::parse("machineid.io").is_err());
        assert!(Authority::parse("http://authority.example").is_err(), "the key would travel unencrypted");
        assert_eq!(Authority::parse(" none\n"), Ok(Authority::Own));
        for url in ["https://machineid.io", "unix:/run/a.sock", "http://127.0.0.1:8424"] {
            assert_eq!(Authority::parse(url), Ok(Authority::At(url.to_owned())));
        }
    }

    #[test]
    fn the_configuration_is_the_default_with_what_was_chosen() {
        let choices = Choices {
            url: "unix:/run/a.sock",
            device: "laptop:\"me\"",
            key_file: Some(Path::new("/d/org-key")),
            directory: Some(Path::new("/d")),
        };
        let text = configuration(&choices).unwrap();
        for line in [
            "url = \"unix:/run/a.sock\"",
            "org_key_file = \"/d/org-key\"",
            "id = 'laptop:\"me\"'",
            "socket = \"/d/run/sidecar.sock\"",
            "runtime_dir = \"/d/runtime\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(comments(&text), comments(DEFAULT), "every setting keeps its comment");
        let parsed: DocumentMut = text.parse().unwrap();
        assert_eq!(
            parsed["enforcement"].to_string(),
            DEFAULT.parse::<DocumentMut>().unwrap()["enforcement"].to_string()
        );
    }

    #[test]
    fn a_host_key_is_for_what_the_template_can_become() {
        for (template, wanted) in [(DEFAULT_DEVICE, "host:*"), ("laptop:me", "laptop:me"), ("{hostname}", "*")] {
            assert_eq!(pattern(template), wanted);
        }
    }
}
