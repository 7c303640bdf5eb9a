//! `machineid revoke`: stops devices.

use std::time::Duration;

use machineid_client::ListFilter;
use machineid_protocol::Exit;
use machineid_protocol::api::{BatchRequest, DeviceStatus};
use serde::Serialize;

use super::connect::KeyedClient;
use super::follow::{self, Waited};
use super::outcome::{self, Outcome};
use super::preview::{self, Effect};
use super::progress::Targets;
use super::{batches, confirm, ids};
use crate::Env;
use crate::args::RevokeArgs;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::count;

const ACTIVE: ListFilter = ListFilter { status: Some(DeviceStatus::Active), search: None };

const fn effect(status: DeviceStatus) -> Effect {
    match status {
        DeviceStatus::Active => Effect::Revoke,
        DeviceStatus::Revoked => Effect::None,
    }
}

pub(crate) async fn run(args: &RevokeArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let keyed = KeyedClient::new(&args.key, env)?;
    if args.json {
        printer.only_json();
    }
    if args.all_active {
        return all(&keyed, args, printer).await;
    }
    let ids = ids::texts(&args.ids)?;
    if args.change.dry_run {
        return preview::show(&keyed, Some(&ids), ListFilter::default(), effect, args.json, printer).await;
    }
    if ids.len() > confirm::A_FLEET && !args.change.yes {
        confirm::typed("revoke", ids.len(), keyed.client.base_url().as_str(), printer)?;
    }
    let reason = args.change.reason.as_deref();
    let outcomes = if let ([id], Ok(device)) = (ids.as_slice(), ids[0].parse()) {
        // The request for one device is older than batches and works with every authority.
        let answer = batches::patiently(async || keyed.client.revoke(&keyed.key, &device, reason).await, printer).await;
        vec![match answer {
            Ok(()) => Outcome::done(id, "revoked"),
            Err(failure) => Outcome::failed(id, &failure, keyed.explain(&failure)),
        }]
    } else {
        let done = |item: &machineid_protocol::api::BatchItem| {
            matches!(item.status.as_str(), "revoked" | "already_revoked" | "ok")
        };
        batches::send(
            &keyed,
            &ids,
            "revoking",
            async |client, key, batch| client.revoke_batch(key, batch, reason).await,
            done,
            printer,
        )
        .await
    };
    let wait = match args.wait {
        Some(wait) if outcomes.iter().any(|outcome| outcome.done) => wait,
        // Devices that were not revoked do not stop, so there is nothing to wait for.
        Some(_) | None => return Ok(outcome::report(&outcomes, args.json, printer)),
    };
    if !args.json {
        // Printed before the wait, so that the user sees that the stop was requested.
        outcome::report(&outcomes, false, printer);
        printer.flush();
    }
    let revoked = outcomes.iter().filter(|outcome| outcome.done).map(|outcome| outcome.device_id.trim().to_owned());
    let targets = Targets::These(revoked.collect());
    let waited = follow::follow(&keyed, &targets, longest(wait), printer).await;
    let partial = outcomes.iter().any(|outcome| !outcome.done);
    if args.json {
        outcome::report_with(&outcomes, &waited.report, printer);
    }
    Ok(exit(partial, &waited))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct All<'a> {
    revoked_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<&'a follow::Report>,
}

async fn all(keyed: &KeyedClient, args: &RevokeArgs, printer: &mut Printer) -> Result<Exit, Problem> {
    if args.change.dry_run {
        return preview::show(keyed, None, ACTIVE, effect, args.json, printer).await;
    }
    // With --yes no list is requested first: an emergency stop must not depend on it.
    let none_active = if args.change.yes {
        false
    } else {
        let active =
            keyed.client.list(&keyed.key, &ACTIVE).await.map_err(|failure| keyed.problem(&failure))?.devices.len();
        if active > 0 {
            confirm::typed("revoke all", active, keyed.client.base_url().as_str(), printer)?;
        }
        active == 0
    };
    let revoked = if none_active {
        printer.note("no device is active; nothing to revoke");
        0
    } else {
        let reason = args.change.reason.as_deref();
        let request = async || keyed.client.revoke_batch(&keyed.key, &BatchRequest::All, reason).await;
        let answer = batches::patiently(request, printer).await.map_err(|failure| keyed.problem(&failure))?;
        answer.revoked_count.ok_or_else(|| {
            Problem::failure(
                "the authority's answer does not say how many it revoked; look with: machineid list --active",
            )
        })?
    };
    if !args.json && !none_active {
        printer.line(format!("revoked {}", count(usize::try_from(revoked).unwrap_or(usize::MAX), "device", "devices")));
        printer.flush();
    }
    let waited = match args.wait {
        Some(wait) => Some(follow::follow(keyed, &Targets::AllRevoked, longest(wait), printer).await),
        None => None,
    };
    if args.json {
        printer.json(&All { revoked_count: revoked, wait: waited.as_ref().map(|waited| &waited.report) });
    }
    Ok(waited.map_or(Exit::Success, |waited| exit(false, &waited)))
}

/// `--wait` without a duration waits as long as makes sense.
fn longest(wait: Duration) -> Option<Duration> {
    (!wait.is_zero()).then_some(wait)
}

fn exit(partial: bool, waited: &Waited) -> Exit {
    if partial { Exit::Failure } else { waited.exit }
}
