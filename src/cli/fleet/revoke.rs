//! `machineid revoke`: the stop.

use serde_json::json;

use super::connect::Fleet;
use super::outcome::{self, Outcome};
use super::preview::{self, Effect};
use super::{batches, confirm, ids};
use crate::cli::Env;
use crate::cli::args::RevokeArgs;
use crate::cli::printer::Printer;
use crate::cli::problem::Problem;
use crate::cli::words::count;
use crate::client::ListFilter;
use crate::protocol::Exit;
use crate::protocol::api::{BatchRequest, DeviceStatus};

const ACTIVE: ListFilter = ListFilter { status: Some(DeviceStatus::Active), search: None };

const fn effect(status: DeviceStatus) -> Effect {
    match status {
        DeviceStatus::Active => Effect::Revoke,
        DeviceStatus::Revoked => Effect::None,
    }
}

pub(in crate::cli) async fn run(args: &RevokeArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let fleet = Fleet::new(&args.key, env)?;
    if args.all_active {
        return all(&fleet, args, printer).await;
    }
    let ids = ids::texts(&args.ids)?;
    if args.change.dry_run {
        return preview::show(&fleet, Some(&ids), ListFilter::default(), effect, args.json, printer).await;
    }
    if ids.len() > confirm::A_FLEET && !args.change.yes {
        confirm::typed("revoke", ids.len(), fleet.client.base_url().as_str(), printer)?;
    }
    let outcomes = if let ([id], Ok(device)) = (ids.as_slice(), ids[0].parse()) {
        // The plain request is the older one: it works with every authority.
        let answer = batches::patiently(async || fleet.client.revoke(&fleet.key, &device).await, printer).await;
        vec![match answer {
            Ok(()) => Outcome::done(id, "revoked"),
            Err(failure) => Outcome::failed(id, &failure, fleet.explain(&failure)),
        }]
    } else {
        let done = |item: &crate::protocol::api::BatchItem| {
            matches!(item.status.as_str(), "revoked" | "already_revoked" | "ok")
        };
        batches::send(
            &fleet,
            &ids,
            "revoking",
            async |client, key, batch| client.revoke_batch(key, batch).await,
            done,
            printer,
        )
        .await
    };
    Ok(outcome::report(&outcomes, args.json, printer))
}

async fn all(fleet: &Fleet, args: &RevokeArgs, printer: &mut Printer) -> Result<Exit, Problem> {
    if args.change.dry_run {
        return preview::show(fleet, None, ACTIVE, effect, args.json, printer).await;
    }
    // With --yes nothing is asked first: an emergency stop must not depend on a list.
    if !args.change.yes {
        let active =
            fleet.client.list(&fleet.key, &ACTIVE).await.map_err(|failure| fleet.problem(&failure))?.devices.len();
        if active == 0 {
            printer.note("no device is active; nothing to revoke");
            if args.json {
                printer.json(&json!({ "revokedCount": 0 }));
            }
            return Ok(Exit::Success);
        }
        confirm::typed("revoke all", active, fleet.client.base_url().as_str(), printer)?;
    }
    let request = async || fleet.client.revoke_batch(&fleet.key, &BatchRequest::All).await;
    let answer = batches::patiently(request, printer).await.map_err(|failure| fleet.problem(&failure))?;
    let Some(revoked) = answer.revoked_count else {
        return Err(Problem::failure(
            "the authority's answer does not say how many it revoked; look with: machineid list --active",
        ));
    };
    if args.json {
        printer.json(&json!({ "revokedCount": revoked }));
    } else {
        printer.line(format!("revoked {}", count(usize::try_from(revoked).unwrap_or(usize::MAX), "device", "devices")));
    }
    Ok(Exit::Success)
}
