//! Which runs there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::run::Run;
use crate::protocol::RunId;

/// Every run whose question is open, or of which tree or wrapper are left.
#[derive(Debug, Default)]
pub(crate) struct Record {
    runs: Mutex<HashMap<RunId, Arc<Run>>>,
}

impl Record {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a run of which nothing is left.
    pub(crate) fn forget(&self, id: RunId) {
        self.lock().remove(&id);
    }
}
