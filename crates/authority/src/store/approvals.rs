//! What a change comes to that may have to wait for a second key.

use super::super::approvals::{Approval, ApprovalRefusal};
use super::{KeyRefusal, StoreError};

/// What a change came to.
#[derive(Debug)]
pub(super) enum Gated<T> {
    Done(T),
    /// Nothing was done: a request waits for another key.
    Waits(Box<Approval>),
    Refused(ApprovalRefusal),
    /// The key that was asked for cannot be made any more.
    Key(KeyRefusal),
}

impl<T> Gated<T> {
    /// What was done. What was not is an error to the callers of the store: nothing that they go on to say would be true.
    pub(super) fn settled(self) -> Result<T, StoreError> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Waits(approval) => Err(StoreError::Waits(approval)),
            Self::Refused(refusal) => Err(StoreError::NotApproved(refusal)),
            Self::Key(refusal) => Err(StoreError::KeyRefused(refusal)),
        }
    }
}
