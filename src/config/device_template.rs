//! `device.id`: the host's identity, written as a template.

use hmac::{Hmac, KeyInit, Mac};
use machineid_protocol::DeviceId;
use machineid_protocol::device_id::DeviceIdError;
use sha2::Sha256;
use thiserror::Error;

/// What the template may name, as the shell found it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts {
    pub(crate) hostname: String,
    /// The text of `/etc/machine-id`; `None` when it cannot be read.
    pub(crate) machine_id: Option<String>,
}

/// Why a template gives no device id on this host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum TemplateError {
    #[error("a {{ without its }}")]
    Unclosed,
    #[error("{{{0}}} is unknown; write {{hostname}}, {{machine_id}} or {{env:NAME}}")]
    UnknownName(String),
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error(
        "{{machine_id}} needs /etc/machine-id, which is missing, empty or not initialised here (as in many container \
         images); give this host an id of its own, as in device.id = \"worker:prod:web:01\", or use {{env:NAME}}"
    )]
    NoMachineId,
    #[error("{id:?} cannot be a device id: {source}")]
    NotAnId { id: String, source: DeviceIdError },
}

/// Fills in `{hostname}`, `{machine_id}` and `{env:NAME}`.
///
/// Fails on an unknown or unclosed name, an unavailable fact, or a result that is no device id.
pub(crate) fn expand(
    template: &str,
    facts: &HostFacts,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<DeviceId, TemplateError> {
    let mut id = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        id.push_str(before);
        let (name, behind) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
        match name {
            "hostname" => id.push_str(&facts.hostname),
            "machine_id" => id.push_str(&machine_fingerprint(facts)?),
            _ => {
                let variable = name.strip_prefix("env:").ok_or_else(|| TemplateError::UnknownName(name.to_owned()))?;
                let value = env(variable).filter(|value| !value.is_empty());
                id.push_str(&value.ok_or_else(|| TemplateError::Unset(variable.to_owned()))?);
            }
        }
        rest = behind;
    }
    id.push_str(rest);
    id.parse().map_err(|source| TemplateError::NotAnId { id, source })
}

/// 8 hex digits that name the machine without giving its id away: other software may treat that as a secret.
fn machine_fingerprint(facts: &HostFacts) -> Result<String, TemplateError> {
    let id = facts.machine_id.as_deref().map(str::trim).unwrap_or_default();
    let real = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !real {
        return Err(TemplateError::NoMachineId);
    }
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(id.to_ascii_lowercase().as_bytes()) else {
        return Err(TemplateError::NoMachineId);
    };
    mac.update(b"machineid-sidecar device id");
    Ok(hex::encode(&mac.finalize().into_bytes()[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts { hostname: "web-01".to_owned(), machine_id: Some("0123456789abcdef0123456789abcdef\n".to_owned()) }
    }

    fn env(name: &str) -> Option<String> {
        (name == "POD").then(|| "pod-7".to_owned())
    }

    #[test]
    fn names_the_host_without_giving_its_machine_id_away() {
        let id = expand("host:{hostname}:{machine_id}", &facts(), &env).unwrap();
        let fingerprint = id.as_str().strip_prefix("host:web-01:").unwrap();
        assert_eq!(fingerprint.len(), 8);
        assert!(!"0123456789abcdef0123456789abcdef".contains(fingerprint));
        assert_eq!(expand("k8s/{env:POD}", &facts(), &env).unwrap().as_str(), "k8s/pod-7");
    }

    #[test]
    fn says_what_is_missing_rather_than_inventing_an_id() {
        for (machine_id, template, needle) in [
            (None, "{machine_id}", "/etc/machine-id"),
            (Some(String::new()), "{machine_id}", "device.id"),
            (Some("uninitialized\n".to_owned()), "{machine_id}", "device.id"),
            (None, "{env:NOPE}", "NOPE is not set"),
            (None, "{host}", "{hostname}"),
            (None, "{hostname", "without"),
            (None, "a b", "cannot be a device id"),
        ] {
            let facts = HostFacts { machine_id, ..facts() };
            let error = expand(template, &facts, &env).unwrap_err().to_string();
            assert!(error.contains(needle), "{template}: {error}");
        }
    }
}
