//! Sends many ids, in as many requests as necessary.

use std::collections::HashMap;
use std::time::Duration;

use machineid_client::{AuthorityClient, Failure};
use machineid_org_key::OrgKey;
use machineid_protocol::api::{BatchItem, BatchRequest, BatchResponse, LARGEST_BATCH};

use super::connect::OrgClient;
use super::outcome::DeviceOutcome;
use super::waiting;
use crate::printer::Printer;
use crate::words::duration;

/// How often a repeatable request is sent before it counts as failed.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause requested by an authority that is respected, since the user waits for the command.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Repeats a request after a temporary failure. Only for requests that can be done twice without harm.
pub(super) async fn repeat<T>(
    mut request: impl AsyncFnMut() -> Result<T, Failure>,
    mut tell: impl FnMut(&Failure, Duration),
) -> Result<T, Failure> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match request().await {
            Err(failure) if failure.is_transient() => {
                let wait = failure.retry_after().unwrap_or(Duration::ZERO).max(pause);
                if wait > LONGEST_PAUSE {
                    return Err(failure);
                }
                tell(&failure, wait);
                tokio::time::sleep(wait).await;
                pause *= 4;
            }
            answer => return answer,
        }
    }
    request().await
}

/// Like [`repeat`], and shows on a terminal why it takes longer.
pub(super) async fn patiently<T>(
    request: impl AsyncFnMut() -> Result<T, Failure>,
    printer: &mut Printer,
) -> Result<T, Failure> {
    repeat(request, |failure, wait| printer.progress(&format!("{failure}; retrying in {}", duration(wait)))).await
}

/// Sends all ids in batches and collects the result of each, in order. `success` tells which results are the wanted
/// ones.
pub(super) async fn send(
    org: &OrgClient,
    ids: &[String],
    verb: &str,
    request: impl AsyncFn(&AuthorityClient, &OrgKey, &BatchRequest) -> Result<BatchResponse, Failure>,
    success: fn(&BatchItem) -> bool,
    printer: &mut Printer,
) -> Vec<DeviceOutcome> {
    let mut outcomes = Vec::with_capacity(ids.len());
    let mut hopeless: Option<String> = None;
    for chunk in ids.chunks(LARGEST_BATCH) {
        if let Some(error) = &hopeless {
            let rest = chunk.iter().map(|id| DeviceOutcome::not_done(id, "not_attempted", Some(error.clone())));
            outcomes.extend(rest);
            continue;
        }
        if ids.len() > LARGEST_BATCH {
            printer.bar(outcomes.len(), ids.len(), verb);
        }
        let batch = BatchRequest::Ids(chunk.to_vec());
        match patiently(async || request(&org.client, &org.key, &batch).await, printer).await {
            Ok(BatchResponse { results, notice, .. }) => {
                let told = |outcome: DeviceOutcome| outcome.with_notice(notice.as_ref());
                outcomes.extend(match_up(chunk, results, success).into_iter().map(told));
            }
            Err(failure) => {
                let error = org.explain(&failure);
                if waiting::of(&failure).is_some() {
                    outcomes.extend(chunk.iter().map(|id| DeviceOutcome::failed(id, &failure, error.clone())));
                    continue;
                }
                outcomes.extend(chunk.iter().map(|id| DeviceOutcome::not_done(id, "failed", Some(error.clone()))));
                // A wrong key is wrong for the next batch, too; a temporary failure may have passed by then.
                if !failure.is_transient() {
                    hopeless = Some(error);
                }
            }
        }
    }
    outcomes
}

/// Finds the result of each id. An id that the answer does not mention has failed.
fn match_up(ids: &[String], results: Vec<BatchItem>, success: fn(&BatchItem) -> bool) -> Vec<DeviceOutcome> {
    let mut by_id: HashMap<String, BatchItem> =
        results.into_iter().map(|item| (item.device_id.clone(), item)).collect();
    ids.iter()
        .map(|id| match by_id.remove(id) {
            Some(item) if success(&item) => DeviceOutcome::done(id, item.status),
            Some(item) => DeviceOutcome::not_done(id, item.status, item.error),
            None => {
                DeviceOutcome::not_done(id, "failed", Some("the authority's answer does not mention it".to_owned()))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_an_outcome_even_when_the_authority_skips_it() {
        let item = |id: &str, status: &str| BatchItem { device_id: id.into(), status: status.into(), error: None };
        let results = vec![item("c", "revoked"), item("a", "not_found"), item("x", "revoked")];
        let ids = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let outcomes = match_up(&ids, results, |item| item.status == "revoked");
        let told: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.device_id.as_str(), outcome.result.as_str(), outcome.done))
            .collect();
        assert_eq!(told, [("a", "not_found", false), ("b", "failed", false), ("c", "revoked", true)]);
    }
}
