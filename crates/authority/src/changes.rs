//! News of changes that may affect a decision, for clients that wait for one (`GET /devices/watch`).
//!
//! A piece of news is a hint, never a decision: a client that gets one validates. It is told after the change is
//! committed, so that a validation made because of it sees the change. A listener that is too slow gets the channel's
//! `Lagged` error, which means that anything may have changed.

use std::collections::{BTreeMap, BTreeSet};

use machineid_protocol::DeviceId;
use tokio::sync::broadcast;

use super::org::OrgId;
use super::reports::HeardReport;

/// How many pieces of news are buffered for a slow listener before it is told that it missed some.
const BACKLOG: usize = 1024;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These devices of one organisation.
    Devices(OrgId, Vec<DeviceId>),
    /// Every device of this organisation.
    Org(OrgId),
    /// These devices, or all when none is named, and a validation of them is a deny now. Separate from `Devices`, so
    /// that a sidecar that limits its hints need not delay a deny.
    Denied(OrgId, Option<Vec<DeviceId>>),
    /// The reports of sidecars about these devices, or about any when none is named. Affects no decision.
    Reports(OrgId, Vec<DeviceId>),
    /// Every device of this organisation; its key was changed or is no longer valid.
    Key(OrgId),
    /// Everything: news of other servers were lost.
    Anything,
}

/// The channel for changes.
#[derive(Clone, Debug)]
pub(super) struct Changes(broadcast::Sender<Change>);

impl Change {
    /// The changes made by these reports, one for each organisation.
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
        // Sending fails without a listener, which is fine.
        let _ = self.0.send(change);
    }

    /// A receiver of all changes from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
