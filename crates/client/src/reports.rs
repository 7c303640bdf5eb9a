//! Reports of sidecars: sends one, and reads the fleet. An extension of our own authority.

use std::collections::BTreeSet;

use http::StatusCode;
use machineid_org_key::OrgKey;
use machineid_protocol::api::{DeviceStatus, path};
use machineid_protocol::report::{FleetDevice, FleetPage, Report};
use url::Url;

use super::exchange::Repeat;
use super::stream::Extensions;
use super::{AuthorityClient, Failure, LARGE_ANSWER, SMALL_ANSWER, status_word};

/// The maximum size of ids in one URL, in bytes: servers accept a head of at least 8 KiB, and an escaped id may be
/// three times as long.
const LONGEST_QUERY: usize = 2_000;

impl AuthorityClient {
    /// Reports the standing and the agents of this sidecar.
    ///
    /// Fails with a [`Failure`]; the report is then not stored.
    pub async fn report(&self, key: &OrgKey, report: &Report) -> Result<(), Failure> {
        let sidecar = self.sidecar.as_deref();
        self.post_as(sidecar, path::REPORT, key, report, Repeat::Harmless, SMALL_ANSWER).await?.accepted()
    }

    /// A page of the fleet, after `cursor`. `None` when the authority accepts no reports.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn fleet(
        &self,
        key: &OrgKey,
        status: Option<DeviceStatus>,
        cursor: Option<&str>,
    ) -> Result<Option<FleetPage>, Failure> {
        self.page(key, self.fleet_url(status, cursor)).await
    }

    fn fleet_url(&self, status: Option<DeviceStatus>, cursor: Option<&str>) -> Url {
        let mut url = self.base_url().endpoint(path::FLEET);
        if let Some(status) = status {
            url.query_pairs_mut().append_pair("status", status_word(status));
        }
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        url
    }

    async fn page(&self, key: &OrgKey, url: Url) -> Result<Option<FleetPage>, Failure> {
        let answer = self.get(url, key, LARGE_ANSWER).await?;
        if Extensions::announced(&answer.headers).report {
            return answer.typed().map(Some);
        }
        // These are another authority's page, or its error for an unknown path. Other answers may come from a proxy and
        // be temporary.
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(answer.refusal()),
        }
    }

    /// These devices of the fleet, if they exist, and possibly others: an older authority cannot select devices. `None`
    /// when the authority accepts no reports.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn some_of_fleet(
        &self,
        key: &OrgKey,
        ids: &BTreeSet<String>,
    ) -> Result<Option<Vec<FleetDevice>>, Failure> {
        let mut devices = Vec::new();
        let mut ids = ids.iter().peekable();
        while ids.peek().is_some() {
            let mut some = Vec::new();
            let mut length = 0;
            while let Some(id) = ids.next_if(|id| length == 0 || length + id.len() < LONGEST_QUERY) {
                length += id.len() + "&deviceId=".len();
                some.push(id.as_str());
            }
            let mut cursor: Option<String> = None;
            loop {
                let mut url = self.fleet_url(None, cursor.as_deref());
                url.query_pairs_mut().extend_pairs(some.iter().map(|id| ("deviceId", id)));
                let Some(page) = self.page(key, url).await? else { return Ok(None) };
                let more = !page.devices.is_empty();
                devices.extend(page.devices);
                match page.next_cursor {
                    Some(next) if more && cursor.as_ref() != Some(&next) => cursor = Some(next),
                    Some(_) | None => break,
                }
            }
        }
        Ok(Some(devices))
    }

    /// The whole fleet, page by page. `None` when the authority accepts no reports.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn whole_fleet(
        &self,
        key: &OrgKey,
        status: Option<DeviceStatus>,
    ) -> Result<Option<Vec<FleetDevice>>, Failure> {
        let mut devices = Vec::new();
        let mut cursor = None;
        loop {
            let Some(page) = self.fleet(key, status, cursor.as_deref()).await? else { return Ok(None) };
            // A limit in case a faulty authority returns pages in a circle.
            let more = !page.devices.is_empty();
            devices.extend(page.devices);
            match page.next_cursor {
                Some(next) if more && cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => return Ok(Some(devices)),
            }
        }
    }
}
