//! `machineid unrevoke`: undoes a revoke.

use machineid_client::ListFilter;
use machineid_protocol::Exit;
use machineid_protocol::api::{BatchRequest, DeviceStatus};
use serde::Serialize;

use super::connect::OrgClient;
use super::outcome::{self, DeviceOutcome};
use super::preview::{self, Effect};
use super::{batches, confirm, ids, waiting};
use crate::Env;
use crate::args::UnrevokeArgs;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::count;

const REVOKED: ListFilter = ListFilter { status: Some(DeviceStatus::Revoked), search: None };

const fn effect(status: DeviceStatus) -> Effect {
    match status {
        DeviceStatus::Active => Effect::None,
        DeviceStatus::Revoked => Effect::Unrevoke,
    }
}

pub(crate) async fn run(args: &UnrevokeArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    if args.all_revoked {
        return all(&org, args, printer).await;
    }
    let ids = ids::texts(&args.ids)?;
    if args.change.dry_run {
        return preview::show(&org, Some(&ids), ListFilter::default(), effect, args.json, printer).await;
    }
    let reason = args.change.reason.as_deref();
    let outcomes = if let ([id], Ok(device)) = (ids.as_slice(), ids[0].parse()) {
        let answer = batches::patiently(async || org.client.unrevoke(&org.key, &device, reason).await, printer).await;
        vec![match answer {
            Ok(()) => DeviceOutcome::done(id, "ok"),
            Err(failure) => DeviceOutcome::failed(id, &failure, org.explain(&failure)),
        }]
    } else {
        let done = |item: &machineid_protocol::api::BatchItem| {
            matches!(item.status.as_str(), "ok" | "unrevoked" | "already_active")
        };
        batches::send(
            &org,
            &ids,
            "unrevoking",
            async |client, key, batch| client.unrevoke_batch(key, batch, reason).await,
            done,
            printer,
        )
        .await
    };
    Ok(outcome::report(&outcomes, args.json, printer))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnrevokeReport {
    unrevoked_count: u64,
    unrevoked_sample: Vec<String>,
    reason: Option<String>,
    /// The devices for which the plan had no place.
    still_revoked: Vec<String>,
}

async fn all(org: &OrgClient, args: &UnrevokeArgs, printer: &mut Printer) -> Result<Exit, Problem> {
    if args.change.dry_run {
        return preview::show(org, None, REVOKED, effect, args.json, printer).await;
    }
    if !args.change.yes {
        let revoked = revoked(org).await?.len();
        if revoked > 0 {
            confirm::typed("unrevoke all", revoked, org.client.base_url().as_str(), printer)?;
        }
    }
    let reason = args.change.reason.as_deref();
    let request = async || org.client.unrevoke_batch(&org.key, &BatchRequest::All, reason).await;
    let answer = match batches::patiently(request, printer).await {
        Ok(answer) => answer,
        Err(failure) => return waiting::or_problem(org, &failure, args.json, printer),
    };
    let unrevoked_count = answer.unrevoked_count.unwrap_or(0);
    // The authority restores as many devices as the plan has places; only the list shows which ones it left out.
    let still_revoked = revoked(org).await?;
    let partial = !still_revoked.is_empty();
    if args.json {
        let report = UnrevokeReport {
            unrevoked_count,
            unrevoked_sample: answer.unrevoked_sample,
            reason: answer.reason,
            still_revoked: still_revoked.clone(),
        };
        printer.json(&report);
    } else {
        let number = count(usize::try_from(unrevoked_count).unwrap_or(usize::MAX), "device", "devices");
        printer.line(format!("unrevoked {number}"));
        for id in &still_revoked {
            printer.line(format!("{id}  still revoked"));
        }
    }
    if partial {
        let number = count(still_revoked.len(), "device is", "devices are");
        printer.note(&format!("machineid: {number} still revoked: the plan has no place left (see machineid usage)"));
    }
    Ok(if partial { Exit::Failure } else { Exit::Success })
}

async fn revoked(org: &OrgClient) -> Result<Vec<String>, Problem> {
    let list = org.client.list(&org.key, &REVOKED).await.map_err(|failure| org.problem(&failure))?;
    Ok(list.devices.into_iter().map(|device| device.device_id).collect())
}
