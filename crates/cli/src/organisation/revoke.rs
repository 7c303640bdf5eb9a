//! `machineid revoke`: stops devices.

use std::time::Duration;

use machineid_client::ListFilter;
use machineid_protocol::Exit;
use machineid_protocol::api::{BatchRequest, DeviceStatus};
use serde::Serialize;

use super::connect::OrgClient;
use super::follow::{self, Waited};
use super::outcome::{self, DeviceOutcome};
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
    let org = OrgClient::new(&args.key, env)?;
    if args.json {
        printer.only_json();
    }
    if args.all_active {
        return all(&org, args, printer).await;
    }
    let ids = ids::texts(&args.ids)?;
    if args.change.dry_run {
        return preview::show(&org, Some(&ids), ListFilter::default(), effect, args.json, printer).await;
    }
    if ids.len() > confirm::A_FLEET && !args.change.yes {
        confirm::typed("revoke", ids.len(), org.client.base_url().as_str(), printer)?;
    }
    let reason = args.change.reason.as_deref();
    let outcomes = if let ([id], Ok(device)) = (ids.as_slice(), ids[0].parse()) {
        // The request for one device is older than batches and works with every authority.
        let answer = batches::patiently(async || org.client.revoke(&org.key, &device, reason).await, printer).await;
        vec![match answer {
            Ok(notice) => DeviceOutcome::done(id, "revoked").with_notice(notice.as_ref()),
            Err(failure) => DeviceOutcome::failed(id, &failure, org.explain(&failure)),
        }]
    } else {
        let done = |item: &machineid_protocol::api::BatchItem| {
            matches!(item.status.as_str(), "revoked" | "already_revoked" | "ok")
        };
        batches::send(
            &org,
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
    let waited = follow::follow(&org, &targets, longest(wait), printer).await;
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
    notice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<&'a follow::WaitReport>,
}

async fn all(org: &OrgClient, args: &RevokeArgs, printer: &mut Printer) -> Result<Exit, Problem> {
    if args.change.dry_run {
        return preview::show(org, None, ACTIVE, effect, args.json, printer).await;
    }
    // With --yes no list is requested first: an emergency stop must not depend on it.
    let none_active = if args.change.yes {
        false
    } else {
        let active = org.client.list(&org.key, &ACTIVE).await.map_err(|failure| org.problem(&failure))?.devices.len();
        if active > 0 {
            confirm::typed("revoke all", active, org.client.base_url().as_str(), printer)?;
        }
        active == 0
    };
    let (revoked, notice) = if none_active {
        printer.note("no device is active; nothing to revoke");
        (0, None)
    } else {
        let reason = args.change.reason.as_deref();
        let request = async || org.client.revoke_batch(&org.key, &BatchRequest::All, reason).await;
        let answer = batches::patiently(request, printer).await.map_err(|failure| org.problem(&failure))?;
        let revoked = answer.revoked_count.ok_or_else(|| {
            Problem::failure(
                "the authority's answer does not say how many it revoked; look with: machineid list --active",
            )
        })?;
        (revoked, answer.notice)
    };
    if !args.json && !none_active {
        printer.line(format!("revoked {}", count(usize::try_from(revoked).unwrap_or(usize::MAX), "device", "devices")));
        if let Some(notice) = &notice {
            printer.note(&format!("machineid: warning: {notice}"));
        }
        printer.flush();
    }
    let waited = match args.wait {
        Some(wait) => Some(follow::follow(org, &Targets::AllRevoked, longest(wait), printer).await),
        None => None,
    };
    if args.json {
        printer.json(&All {
            revoked_count: revoked,
            notice: notice.as_deref(),
            wait: waited.as_ref().map(|waited| &waited.report),
        });
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
