//! Determines which settings a reload changes, and which need a restart. Pure.

use std::net::SocketAddr;

use super::error::{ConfigError, Origin};
use super::settings::{AuthoritySettings, DeviceSettings, EnforcementSettings, LocalSettings, LogSettings, Settings};

/// The new settings, as far as they can be put in force.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) settings: Settings,
    /// The keys whose values change, in the order of the file.
    pub(crate) changed: Vec<&'static str>,
    /// The settings that keep their old value until the daemon is restarted.
    pub(crate) needs_restart: Vec<ConfigError>,
}

impl Changes {
    /// Compares the settings in force with new ones.
    #[expect(clippy::too_many_lines, reason = "a line or two for each setting")]
    pub(crate) fn between(running: &Settings, fresh: Settings) -> Self {
        // Every field is named, so that the compiler asks for each new setting whether it can change.
        let Settings {
            file: _,
            authority,
            device,
            enforcement,
            local,
            log,
            compat_listen,
            audit_file,
            audit_key_file,
            metrics_listen,
            state_dir: _,
        } = &fresh;
        let AuthoritySettings { url, org_key_file, timeout, ca_file, user } = authority;
        let DeviceSettings { id_template, id_origin, workload, allow, host_rules_all, ephemeral, new_per_hour } =
            device;
        let EnforcementSettings {
            interval,
            lease,
            resume_grace,
            stop_signal,
            stop_grace,
            containment,
            system_unavailable,
            undecided,
            outside_helpers,
            kill_file,
            leaf_helper,
        } = enforcement;
        let LocalSettings {
            socket,
            socket_origin,
            mode,
            group,
            max_age_cap,
            runtime_dir,
            runtime_dir_origin,
            check_timeout,
            admin_group,
            require_local_killer,
        } = local;
        let LogSettings { format, level } = log;

        let path_of = |named: &Option<(std::path::PathBuf, Origin)>| named.as_ref().map(|(path, _)| path.clone());
        let name_of = |named: &Option<(String, Origin)>| named.as_ref().map(|(name, _)| name.clone());
        let differing = [
            ("authority.url", *url != running.authority.url),
            ("authority.org_key_file", path_of(org_key_file) != path_of(&running.authority.org_key_file)),
            ("authority.timeout", *timeout != running.authority.timeout),
            ("authority.ca_file", path_of(ca_file) != path_of(&running.authority.ca_file)),
            ("authority.user", *user != running.authority.user),
            ("device.allow", *allow != running.device.allow),
            ("device.host_rules_all", *host_rules_all != running.device.host_rules_all),
            ("device.ephemeral", *ephemeral != running.device.ephemeral),
            ("device.new_per_hour", *new_per_hour != running.device.new_per_hour),
            ("enforcement.interval", *interval != running.enforcement.interval),
            ("enforcement.lease", *lease != running.enforcement.lease),
            ("enforcement.resume_grace", *resume_grace != running.enforcement.resume_grace),
            ("enforcement.stop_signal", *stop_signal != running.enforcement.stop_signal),
            ("enforcement.stop_grace", *stop_grace != running.enforcement.stop_grace),
            ("enforcement.containment", *containment != running.enforcement.containment),
            ("enforcement.system_unavailable", *system_unavailable != running.enforcement.system_unavailable),
            ("enforcement.undecided", *undecided != running.enforcement.undecided),
            ("enforcement.outside_helpers", *outside_helpers != running.enforcement.outside_helpers),
            ("enforcement.kill_file", *kill_file != running.enforcement.kill_file),
            ("enforcement.leaf_helper", *leaf_helper != running.enforcement.leaf_helper),
            ("local.mode", *mode != running.local.mode),
            ("local.group", name_of(group) != name_of(&running.local.group)),
            ("local.max_age_cap", *max_age_cap != running.local.max_age_cap),
            ("local.check_timeout", *check_timeout != running.local.check_timeout),
            ("local.admin_group", *admin_group != running.local.admin_group),
            ("local.require_local_killer", *require_local_killer != running.local.require_local_killer),
            ("log.format", *format != running.log.format),
            ("log.level", *level != running.log.level),
        ];
        let origin_of = |named: Option<&Origin>| named.cloned().unwrap_or(Origin::Default);
        let audit_origin = origin_of(audit_file.as_ref().map(|(_, origin)| origin));
        let audit_key_origin = origin_of(audit_key_file.as_ref().map(|(_, origin)| origin));
        let metrics_origin = origin_of(metrics_listen.as_ref().map(|(_, origin)| origin));
        let workload_origin = origin_of(workload.as_ref().map(|(_, origin)| origin));
        let compat_origin = compat_listen.as_ref().map_or(&Origin::Default, |(_, origin)| origin);
        let address_of = |named: &Option<(SocketAddr, Origin)>| named.as_ref().map(|(address, _)| *address);
        let lasting = [
            ("device.id", id_origin, *id_template != running.device.id_template, "agents live on this device's leases"),
            (
                "device.workload",
                &workload_origin,
                name_of(workload) != name_of(&running.device.workload),
                "agents live on this device's leases",
            ),
            ("local.socket", socket_origin, *socket != running.local.socket, "clients hold connections to it"),
            (
                "local.runtime_dir",
                runtime_dir_origin,
                // The default place follows the socket, whose change is reported then.
                *runtime_dir != running.local.runtime_dir
                    && (*runtime_dir_origin != Origin::Default || *socket == running.local.socket),
                "the records of running agents are there",
            ),
            (
                "compat.listen",
                compat_origin,
                address_of(compat_listen) != address_of(&running.compat_listen),
                "running agents were told the old address",
            ),
            (
                "audit.file",
                &audit_origin,
                path_of(audit_file) != path_of(&running.audit_file),
                "the chain of its records continues in the old one",
            ),
            (
                "audit.key_file",
                &audit_key_origin,
                path_of(audit_key_file) != path_of(&running.audit_key_file),
                "the chain of the records has one key",
            ),
            (
                "metrics.listen",
                &metrics_origin,
                address_of(metrics_listen) != address_of(&running.metrics_listen),
                "the port is taken at the start",
            ),
        ];
        let changed = differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        let needs_restart = lasting.into_iter().filter(|(_, _, differs, _)| *differs);
        let needs_restart = needs_restart.map(|(key, origin, _, why)| {
            let problem = format!(
                "a change takes effect at the next start of the daemon ({why}); until then the old value \
                         applies"
            );
            ConfigError::at(origin, key, problem)
        });
        let needs_restart = needs_restart.collect();
        Self { settings: with_what_lasts(running, fresh), changed, needs_restart }
    }
}

fn with_what_lasts(running: &Settings, mut fresh: Settings) -> Settings {
    fresh.compat_listen.clone_from(&running.compat_listen);
    fresh.audit_file.clone_from(&running.audit_file);
    fresh.audit_key_file.clone_from(&running.audit_key_file);
    fresh.metrics_listen.clone_from(&running.metrics_listen);
    fresh.state_dir.clone_from(&running.state_dir);
    fresh.device.id_template.clone_from(&running.device.id_template);
    fresh.device.id_origin.clone_from(&running.device.id_origin);
    fresh.device.workload.clone_from(&running.device.workload);
    fresh.local.socket.clone_from(&running.local.socket);
    fresh.local.socket_origin.clone_from(&running.local.socket_origin);
    fresh.local.runtime_dir.clone_from(&running.local.runtime_dir);
    fresh.local.runtime_dir_origin.clone_from(&running.local.runtime_dir_origin);
    fresh
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Surroundings;
    use super::super::settings::resolve;
    use super::*;

    fn read(text: &str) -> Settings {
        let groups = "machineid-admin:x:901:\nother-admin:x:902:\n".to_owned();
        let users = "machineid-authority:x:903:903::/:/bin/false\n".to_owned();
        let around = Surroundings { root: true, groups, users, ..Surroundings::default() };
        resolve(Some((Path::new("/etc/m.toml"), text)), &|_| None, &around).unwrap()
    }

    #[test]
    fn the_same_settings_written_otherwise_change_nothing() {
        let running = read("[enforcement]\ninterval = \"4s\"\n[authority]\norg_key_file = \"/k\"\n");
        let changes = Changes::between(&running, read("\n\n[authority]\norg_key_file = \"/k\"\n"));
        assert!(changes.changed.is_empty() && changes.needs_restart.is_empty(), "{changes:?}");
    }

    #[test]
    fn every_setting_is_either_changed_or_said_to_take_a_restart() {
        let text = include_str!("../../machineid-sidecar.toml");
        let all: String = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        let other = [
            ("https://machineid.io", "https://example.com"),
            ("/etc/machineid/", "/etc/other/"),
            ("timeout = \"3s\"", "timeout = \"2s\""),
            ("user = \"machineid-authority\"", "user = \"4711\""),
            ("host:{hostname}", "other:{hostname}"),
            ("k8s:{env:POD_NAMESPACE}/", "other:"),
            ("allow = []", "allow = [\"*\"]"),
            ("host_rules_all = true", "host_rules_all = false"),
            ("ephemeral = false", "ephemeral = true"),
            ("new_per_hour = 30", "new_per_hour = 0"),
            ("interval = \"4s\"", "interval = \"5s\""),
            ("lease = \"30s\"", "lease = \"20s\""),
            ("resume_grace = \"3s\"", "resume_grace = \"2s\""),
            ("stop_signal = \"TERM\"", "stop_signal = \"INT\""),
            ("stop_grace = \"10s\"", "stop_grace = \"9s\""),
            ("containment = \"auto\"", "containment = \"pidns\""),
            ("system_unavailable = \"deny\"", "system_unavailable = \"retry\""),
            ("undecided = \"run\"", "undecided = \"freeze\""),
            ("outside_helpers = \"report\"", "outside_helpers = \"stop\""),
            ("/run/machineid/", "/run/other/"),
            ("/run/machineid-sidecar-leaf.sock", "/run/other-leaf.sock"),
            ("127.0.0.1:8425", "127.0.0.1:8426"),
            ("127.0.0.1:9464", "127.0.0.1:9465"),
            ("/var/log/machineid/", "/var/log/other/"),
            ("mode = \"0660\"", "mode = \"0666\""),
            ("group = \"machineid\"", "group = \"other\""),
            ("max_age_cap = \"0s\"", "max_age_cap = \"1s\""),
            ("/run/machineid-sidecar/", "/run/other/"),
            ("check_timeout = \"4s\"", "check_timeout = \"5s\""),
            ("machineid-admin", "other-admin"),
            ("require_local_killer = false", "require_local_killer = true"),
            ("format = \"text\"", "format = \"json\""),
            ("level = \"info\"", "level = \"warn\""),
        ];
        let otherwise = other.iter().fold(all.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in the commented file any more");
            text.replace(from, to)
        });
        let changes = Changes::between(&read(&all), read(&otherwise));
        let keys = all.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        // `allow_http` is a part of reading the URL.
        assert_eq!(changes.changed.len() + changes.needs_restart.len() + 1, keys, "{changes:#?}");
    }

    #[test]
    fn what_cannot_change_keeps_its_value_and_names_its_line() {
        let running = read("[local]\nsocket = \"/run/a/a.sock\"\n");
        let changes =
            Changes::between(&running, read("[log]\nlevel = \"warn\"\n[local]\nsocket = \"/run/b/b.sock\"\n"));
        assert_eq!(changes.changed, ["log.level"]);
        assert_eq!(changes.settings.local.socket, Path::new("/run/a/a.sock"));
        let said: Vec<String> = changes.needs_restart.iter().map(ToString::to_string).collect();
        assert!(said[0].starts_with("/etc/m.toml:4: local.socket: ") && said[0].contains("next start"), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
