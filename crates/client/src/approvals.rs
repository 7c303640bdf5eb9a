//! Restores that wait for a second key, and the organisation's switch of execution: extensions of our own authority.

use http::StatusCode;
use machineid_org_key::OrgKey;
use machineid_protocol::api::{ApprovalListed, ExecutionState, path};
use serde::Deserialize;
use serde_json::json;

use super::exchange::{RawAnswer, Repeat};
use super::{AuthorityClient, Failure, LARGE_ANSWER, SMALL_ANSWER, because};

#[derive(Deserialize)]
struct Approvals {
    approvals: Vec<ApprovalListed>,
}

#[derive(Deserialize)]
struct Decided {
    approval: ApprovalListed,
}

impl AuthorityClient {
    /// The restores that wait for a second key, and those of the last 30 days.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority refuses.
    pub async fn approvals(&self, key: &OrgKey) -> Result<Vec<ApprovalListed>, Failure> {
        let answer = self.get(self.base_url().endpoint(path::APPROVALS), key, LARGE_ANSWER).await?;
        Ok(accepted(&answer)?.typed::<Approvals>()?.approvals)
    }

    /// Confirms a restore that another key asked for.
    ///
    /// Fails with a [`Failure`]; after one that is no refusal it may be done.
    pub async fn approve(&self, key: &OrgKey, id: &str, reason: Option<&str>) -> Result<ApprovalListed, Failure> {
        self.decide(path::APPROVE, key, id, reason).await
    }

    /// Ends a request for a restore without doing it.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority refuses.
    pub async fn reject(&self, key: &OrgKey, id: &str, reason: Option<&str>) -> Result<ApprovalListed, Failure> {
        self.decide(path::REJECT, key, id, reason).await
    }

    async fn decide(
        &self,
        path: &str,
        key: &OrgKey,
        id: &str,
        reason: Option<&str>,
    ) -> Result<ApprovalListed, Failure> {
        let body = because(json!({ "approval": id }), reason);
        let answer = self.post(path, key, &body, Repeat::Never, SMALL_ANSWER).await?;
        Ok(accepted(&answer)?.typed::<Decided>()?.approval)
    }

    /// Switches execution of the whole organisation off, by its own switch.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority refuses.
    pub async fn disable(&self, key: &OrgKey, reason: Option<&str>) -> Result<ExecutionState, Failure> {
        let answer = self.post(path::DISABLE, key, &because(json!({}), reason), Repeat::Harmless, SMALL_ANSWER).await?;
        Ok(ExecutionState { notice: answer.notice(), ..answer.typed()? })
    }

    /// Takes that switch back. The one of the server's operator stays.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority refuses, or when it waits for a second key.
    pub async fn enable(&self, key: &OrgKey, reason: Option<&str>) -> Result<ExecutionState, Failure> {
        let answer = self.post(path::ENABLE, key, &because(json!({}), reason), Repeat::Never, SMALL_ANSWER).await?;
        accepted(&answer)?.typed()
    }
}

fn accepted(answer: &RawAnswer) -> Result<&RawAnswer, Failure> {
    if answer.status == StatusCode::OK { Ok(answer) } else { Err(answer.refusal()) }
}
