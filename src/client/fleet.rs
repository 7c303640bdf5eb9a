//! The reports of sidecars: sent by them, read by command lines. An extension of our own authority.

use http::StatusCode;

use super::exchange::Repeat;
use super::stream::Extensions;
use super::{AuthorityClient, Failure, LARGE_ANSWER, SMALL_ANSWER, status_word};
use crate::protocol::OrgKey;
use crate::protocol::api::{DeviceStatus, path};
use crate::protocol::report::{FleetPage, Report};

impl AuthorityClient {
    /// Tells what this sidecar holds and runs.
    ///
    /// Fails with a [`Failure`]; then the report is not kept.
    pub async fn report(&self, key: &OrgKey, report: &Report) -> Result<(), Failure> {
        self.post(path::REPORT, key, report, Repeat::Harmless, SMALL_ANSWER).await?.accepted()
    }

    /// A page of the fleet as its sidecars report it, behind `cursor`. `None` when the authority takes no reports.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority says no.
    pub async fn fleet(
        &self,
        key: &OrgKey,
        status: Option<DeviceStatus>,
        cursor: Option<&str>,
    ) -> Result<Option<FleetPage>, Failure> {
        let mut url = self.base_url().endpoint(path::FLEET);
        if let Some(status) = status {
            url.query_pairs_mut().append_pair("status", status_word(status));
        }
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let answer = self.get(url, key, LARGE_ANSWER).await?;
        if Extensions::announced(&answer.headers).report {
            return answer.typed().map(Some);
        }
        // Another authority's page, or its word that there is none. Anything else may be a proxy's, and pass.
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(answer.refusal()),
        }
    }

    /// The whole fleet, page by page. `None` when the authority takes no reports.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority says no.
    pub async fn whole_fleet(
        &self,
        key: &OrgKey,
        status: Option<DeviceStatus>,
    ) -> Result<Option<Vec<crate::protocol::report::FleetDevice>>, Failure> {
        let mut devices = Vec::new();
        let mut cursor = None;
        loop {
            let Some(page) = self.fleet(key, status, cursor.as_deref()).await? else { return Ok(None) };
            // Of an authority that lies in circles, no more than it could have.
            let more = !page.devices.is_empty();
            devices.extend(page.devices);
            match page.next_cursor {
                Some(next) if more && cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => return Ok(Some(devices)),
            }
        }
    }
}
