//! Creates organisations, and starts changes to a larger plan.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use machineid_clock::BootTime;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;
use tracing::{error, info};

use super::answer::Answer;
use super::ask::{self, SMALL_BODY, org_not_found};
use super::now;
use super::openapi::{BAD_KEY, LATE, LIMITED, MALFORMED, NO, NO_ORG, Route, UNAVAILABLE};
use super::wire::{Checkout, Nothing, OrgCreated, PlanWanted, Word};

use crate::access::Permission;
use crate::admin;
use crate::app::App;
use crate::audit::{Actor, Call};
use crate::keys::{self, SecretHash};
use crate::org::PlanTier;
use crate::store::NewCheckout;

/// How long a checkout can be confirmed.
pub(crate) const CHECKOUT_LIFE: Duration = Duration::from_hours(1);

pub(super) const CREATE_ORG: Route = Route::needing(
    Permission::Public,
    Operation {
        path: path::ORG_CREATE,
        method: "post",
        summary: "Creates a free organisation, where the operator lets every caller do that (`serve --sign-up`)",
        parameters: &[],
        body: Some("Nothing"),
        answers: &[
            AnswerDoc(200, JSON, Some("OrgCreated"), "made"),
            MALFORMED,
            AnswerDoc(403, JSON, NO, "only the operator creates organisations here"),
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn create_org(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    if !app.sign_up {
        let answer = Answer::error(StatusCode::FORBIDDEN, "signup_disabled");
        return Err(
            answer.with("reason", "Only this authority's operator creates organisations: machineid-authority org create. `serve --sign-up` lets every client do it.",
        )
        );
    }
    let (head, body) = request.into_parts();
    app.limits.sign_up(ask::address(&head), BootTime::now()).map_err(Answer::too_many)?;
    let Nothing {} = ask::object(body, SMALL_BODY).await?;
    let actor = Actor::Address(ask::address(&head));
    let call = Call { at: now(), request_id: ask::request_id(&head), actor, reason: None };
    match admin::create_org(&app.store, None, PlanTier::Free, None, &call).await {
        Ok((org, key)) => {
            info!(org = %org.id, "an organisation signed up");
            let body = OrgCreated { status: Word::Ok, handler: "org_create", org_api_key: key.expose() };
            Ok(Answer::of(StatusCode::OK, &body).to(org.id))
        }
        Err(error) => {
            error!(%error, "an organisation could not be created");
            Err(Answer::unavailable())
        }
    }
}

pub(super) const CHECKOUT: Route = Route::needing(
    Permission::GiveBack,
    Operation {
        path: path::CHECKOUT,
        method: "post",
        summary: "Requests a larger plan; returns the address where an operator confirms it",
        parameters: &[],
        body: Some("PlanWanted"),
        answers: &[
            AnswerDoc(200, JSON, Some("Checkout"), "an address, valid for one hour"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn checkout(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(&app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?;
    let wanted: PlanWanted = body?;
    let wanted = match wanted.plan.parse::<PlanTier>() {
        Ok(tier @ (PlanTier::Pro | PlanTier::Scale | PlanTier::Max)) => tier,
        Ok(PlanTier::Free) | Err(_) => return Err(Answer::error(StatusCode::BAD_REQUEST, "invalid_plan")),
    };
    let call = caller.call(&head);
    let secrets = keys::new_token().and_then(|token| Ok((token, keys::new_number()?)));
    let (token, number) = secrets.map_err(|error| {
        error!(%error, "a checkout could not be created");
        Answer::unavailable()
    })?;
    let expires_at = call.at.saturating_add(CHECKOUT_LIFE).unwrap_or(call.at);
    let new = NewCheckout { number, wanted, token: SecretHash::of_token(&token), expires_at };
    let account = app.store.create_checkout(org.id, &new, &call).await?.ok_or_else(org_not_found)?;
    let url = format!("{}/checkout/{token}", app.public_url);
    let plan = account.fields(call.at);
    Ok(Answer::of(StatusCode::OK, &Checkout { status: Word::Ok, handler: "billing/checkout", url, plan }).to(org.id))
}
