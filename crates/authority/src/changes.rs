//! News of changes that may change a decision, for those who wait for one (`GET /devices/watch`).
//!
//! A piece of news is a hint to look, never itself a decision: whoever gets one validates. It is told after the change
//! is committed, so a validation made on it sees the change. Whoever was too slow to listen is told that anything may
//! have changed, by the channel's own `Lagged`.

use std::collections::{BTreeMap, BTreeSet};

use machineid_protocol::DeviceId;
use tokio::sync::broadcast;

use super::org::OrgId;
use super::reports::HeardReport;

/// How many pieces of news wait for a slow listener before it is told that it missed some.
const BACKLOG: usize = 1024;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These devices of one organisation.
    Devices(OrgId, Vec<DeviceId>),
    /// Every device of this organisation.
    Org(OrgId),
    /// The same of these devices, or of all when none is named, and a validation of them is a deny now. Told apart, so that
    /// a sidecar that limits how often it is hinted need not make a deny wait.
    Denied(OrgId, Option<Vec<DeviceId>>),
    /// What sidecars report about these devices of one organisation, or about any when none is named. Concerns no decision.
    Reports(OrgId, Vec<DeviceId>),
    /// Every device of this organisation; its key is another one, or no longer valid.
    Key(OrgId),
    /// Everything: news of other servers were lost.
    Anything,
}

/// Where changes are told and listened to.
#[derive(Clone, Debug)]
pub(super) struct Changes(broadcast::Sender<Change>);

impl Change {
    /// What these reports change, organisation by organisation.
    pub(super) fn reports(reports: &[HeardReport]) -> Vec<Self> {
        let mut orgs: BTreeMap<OrgId, BTreeSet<&DeviceId>> = BTreeMap::new();
        for report in reports {
            orgs.entry(report.org).or_default().extend(report.concerned());
        }
        let one = |(org, devices): (_, BTreeSet<_>)| Self::Reports(org, devices.into_iter().cloned().collect());
        orgs.into_iter().map(one).collect()
    }
}

impl Changes {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    pub(super) fn tell(&self, change: Change) {
        match &change {
            Change::Devices(_, devices) | Change::Denied(_, Some(devices)) if devices.is_empty() => return,
            Change::Devices(..)
            | Change::Denied(..)
            | Change::Org(_)
            | Change::Reports(..)
            | Change::Key(_)
            | Change::Anything => {}
        }
        // Fails without a listener, which loses nothing.
        let _ = self.0.send(change);
    }

    /// Everything told from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
