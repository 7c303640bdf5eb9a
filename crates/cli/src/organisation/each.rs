//! `register` and `remove`: one request for each device.

use std::collections::HashSet;

use futures_util::StreamExt;
use machineid_client::{Failure, ListFilter};
use machineid_protocol::api::{DeviceStatus, Registration};
use machineid_protocol::{DeviceId, Exit};

use super::connect::KeyedClient;
use super::outcome::{self, Outcome};
use super::preview::{self, Effect};
use super::{batches, confirm, ids};
use crate::Env;
use crate::args::{RegisterArgs, RemoveArgs};
use crate::printer::Printer;
use crate::problem::Problem;

/// The number of concurrent requests: enough to hide the network's delay, few enough for any authority.
pub(super) const AT_A_TIME: usize = 8;

/// Runs `request` for every id, a few at a time, and returns the answers in order.
pub(super) async fn for_each<T>(
    devices: &[DeviceId],
    verb: &str,
    request: impl AsyncFn(&DeviceId) -> T,
    printer: &mut Printer,
) -> Vec<T> {
    let request = &request;
    let mut answers = futures_util::stream::iter(devices).map(|device| request(device)).buffered(AT_A_TIME);
    let mut all = Vec::with_capacity(devices.len());
    while let Some(answer) = answers.next().await {
        all.push(answer);
        if devices.len() > AT_A_TIME {
            printer.bar(all.len(), devices.len(), verb);
        }
    }
    all
}

pub(crate) async fn register(args: &RegisterArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let keyed = KeyedClient::new(&args.key, env)?;
    let devices = ids::parsed(&args.ids)?;
    let request = async |device: &DeviceId| {
        let answer =
            batches::repeat(async || keyed.client.register_as(&keyed.key, device, args.ephemeral).await, |_, _| ())
                .await;
        (device.as_str().to_owned(), answer)
    };
    let answers = for_each(&devices, "registering", request, printer).await;
    let outcomes: Vec<Outcome> = answers.into_iter().map(|(id, answer)| registered(&keyed, id, answer)).collect();
    Ok(outcome::report(&outcomes, args.json, printer))
}

/// The revoked ones of these devices. Uses the list, which every authority has.
async fn revoked_among(keyed: &KeyedClient, devices: &[DeviceId]) -> Result<HashSet<String>, Problem> {
    let search = match devices {
        [one] => Some(one.to_string()),
        _ => None,
    };
    let filter = ListFilter { status: Some(DeviceStatus::Revoked), search };
    let listed = keyed.client.list(&keyed.key, &filter).await.map_err(|failure| keyed.problem(&failure))?;
    let named: HashSet<&str> = devices.iter().map(DeviceId::as_str).collect();
    let revoked = listed.devices.into_iter().map(|device| device.device_id);
    Ok(revoked.filter(|id| named.contains(id.as_str())).collect())
}

fn registered(keyed: &KeyedClient, id: String, answer: Result<Registration, Failure>) -> Outcome {
    match answer {
        Ok(Registration::New) => Outcome::done(id, "new"),
        Ok(Registration::Exists) => Outcome::done(id, "exists"),
        Ok(Registration::Revoked) => {
            let advice = "registering does not take a revoke back; machineid unrevoke does";
            Outcome::not_done(id, "revoked", Some(advice.to_owned()))
        }
        Ok(Registration::LimitReached) => {
            let advice = "device_limit_reached: the plan is full; remove or revoke a device, or see machineid usage";
            Outcome::not_done(id, "blocked", Some(advice.to_owned()))
        }
        Ok(Registration::Refused { status, error }) => {
            let error = error.unwrap_or_else(|| "no reason given".to_owned());
            Outcome::not_done(id, "refused", Some(format!("{error} (HTTP {status})")))
        }
        Err(failure) => Outcome::not_done(id, "failed", Some(keyed.explain(&failure))),
    }
}

pub(crate) async fn remove(args: &RemoveArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let keyed = KeyedClient::new(&args.key, env)?;
    let devices = ids::parsed(&args.ids)?;
    if args.change.dry_run {
        let ids: Vec<String> = devices.iter().map(ToString::to_string).collect();
        let effect = |_: DeviceStatus| Effect::Remove;
        return preview::show(&keyed, Some(&ids), ListFilter::default(), effect, args.json, printer).await;
    }
    // A removed device is denied from its next validation on, so removing many stops a fleet.
    if devices.len() > confirm::A_FLEET && !args.change.yes {
        confirm::typed("remove", devices.len(), keyed.client.base_url().as_str(), printer)?;
    }
    // Asked about separately: a revoked device that is removed can register again, and nothing then shows that it was
    // stopped.
    let revoked = if args.revoked { HashSet::new() } else { revoked_among(&keyed, &devices).await? };
    let with_revoked = args.revoked || (!revoked.is_empty() && confirm::revoked(revoked.len(), printer));
    let reason = args.change.reason.as_deref();
    // Not repeated: the second answer to a successful removal would be `not_found`.
    let request = async |device: &DeviceId| {
        let removed = if with_revoked {
            keyed.client.remove(&keyed.key, device, reason).await.map(|()| true)
        } else if revoked.contains(device.as_str()) {
            Ok(false)
        } else {
            // Our own authority refuses a device that was revoked in this moment.
            keyed.client.remove_if_active(&keyed.key, device, reason).await.map(|()| true)
        };
        (device.to_string(), removed)
    };
    let answers = for_each(&devices, "removing", request, printer).await;
    let outcomes: Vec<Outcome> = answers
        .into_iter()
        .map(|(id, answer)| match answer {
            Ok(true) => Outcome::done(id, "removed"),
            Ok(false) => {
                let advice = "removed, it could register again and be allowed; --revoked removes it all the same";
                Outcome::not_done(id, "revoked", Some(advice.to_owned()))
            }
            Err(failure) => Outcome::failed(id, &failure, keyed.explain(&failure)),
        })
        .collect();
    Ok(outcome::report(&outcomes, args.json, printer))
}
