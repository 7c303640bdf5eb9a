//! `--check-config`: validates the configuration and prints what it means.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use machineid_protocol::{Containment, DeviceId, Exit, Wish, span};

use super::{Fatal, complain, identity, sidecar};
use crate::config::org_key::{self, KEY_VARIABLE, KeySource};
use crate::config::settings::UndecidedPolicy;
use crate::config::{self, ConfigError, Environment, Settings};
use crate::local;
use crate::telemetry::audit;

pub(super) fn run(named: Option<&Path>, max_stop: Option<Duration>, environment: &Environment) -> Result<Exit, Fatal> {
    let settings = config::load(named, environment)?;
    let device = identity::expand(&settings, environment)?;
    let workload = identity::workload(&settings, &device, environment)?;
    let in_environment = environment.text(KEY_VARIABLE);
    let credentials = environment.path("CREDENTIALS_DIRECTORY");
    let source =
        org_key::choose(in_environment.is_some(), settings.authority.org_key_file.as_ref(), credentials.as_deref())
            .map_err(|error| sidecar::unconfigured(&settings, environment).unwrap_or(error))?;
    match &source {
        KeySource::Environment => {
            let text = in_environment.unwrap_or_default();
            text.parse::<machineid_org_key::OrgKey>().map_err(Fatal::Key)?;
        }
        KeySource::File { path, origin, mode_is_the_platforms } => {
            org_key::read_file(path, origin, *mode_is_the_platforms)?;
        }
    }
    if let Some((path, origin)) = &settings.audit_file {
        audit::file::check(path).map_err(|error| ConfigError::at(origin, "audit.file", error))?;
    }
    sidecar::audit_of(&settings)?;
    sidecar::client_of(&settings, sidecar::ca_pem_of(&settings)?)?;
    local::socket::check(&settings.local)?;
    let text = describe(&settings, &device, workload.as_ref(), &source);
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let worst = settings.stop_bound().worst();
    match max_stop {
        Some(most) if worst > most => {
            complain(&format!(
                "a stop can take {}, longer than --max-stop {}; lower enforcement.stop_grace, enforcement.lease or \
                 enforcement.interval",
                span::format(worst),
                span::format(most)
            ));
            Ok(Exit::Failure)
        }
        _ => Ok(Exit::Success),
    }
}

fn describe(settings: &Settings, device: &DeviceId, workload: Option<&DeviceId>, key: &KeySource) -> String {
    let bound = settings.stop_bound();
    let file = settings.file.as_ref().map_or("none (built-in defaults)".to_owned(), |path| path.display().to_string());
    let mut text = String::from("The configuration is valid.\n\n");
    let mut row = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<20} {value}");
    };
    row("file", &file);
    row("authority", &settings.authority.url.to_string());
    row("org key", &key.to_string());
    row("device", device.as_str());
    if let Some(workload) = workload {
        row("workload", workload.as_str());
    }
    row("socket", &settings.local.socket.display().to_string());
    let interval = settings.enforcement.interval;
    let rate = 1.0 / interval.as_secs_f64();
    row(
        "validates",
        &format!(
            "at least every {} (up to 10 % sooner): about {rate:.2} requests a second for each device",
            span::format(interval)
        ),
    );
    row("stops within", &format!("{} of a revoke, while the authority answers", span::format(bound.connected)));
    row("", &format!("{} of the last ALLOW, while it does not", span::format(bound.cut_off)));
    let enforcement = &settings.enforcement;
    row(
        "containment",
        match enforcement.containment {
            Wish::Auto => "auto: a control group where one is available",
            Wish::Named(Containment::Subreaper) => "subreaper or better",
            Wish::Named(Containment::Cgroup | Containment::Pidns) => {
                "a control group or a PID namespace; an agent that can have neither does not start"
            }
        },
    );
    row(
        "undecided agents",
        match enforcement.undecided {
            UndecidedPolicy::Run => "run on to the end of their lease",
            UndecidedPolicy::Freeze => {
                "are frozen; one without a control group that the daemon may freeze does not start"
            }
        },
    );
    row("audit", &settings.audit_file.as_ref().map_or("none".to_owned(), |(path, _)| path.display().to_string()));
    let metrics = settings.metrics_listen.as_ref().map(|(address, _)| format!(" and http://{address}/metrics"));
    row("metrics", &format!("on the socket{}", metrics.unwrap_or_default()));
    row("key protection", &identity::key_protection());
    text
}
